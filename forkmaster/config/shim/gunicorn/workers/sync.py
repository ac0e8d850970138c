"""Stand-in for gunicorn.workers.sync."""

from __future__ import annotations

from gunicorn.workers.base import Worker


class SyncWorker(Worker):  # type: ignore[misc]
    forkmaster_kind = "sync"

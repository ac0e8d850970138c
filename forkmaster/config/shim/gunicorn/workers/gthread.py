"""Stand-in for gunicorn.workers.gthread."""

from __future__ import annotations

from gunicorn.workers.base import Worker


class ThreadWorker(Worker):  # type: ignore[misc]
    forkmaster_kind = "threaded"

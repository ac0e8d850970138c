"""Stand-in for gunicorn.workers.gasgi."""

from __future__ import annotations

from gunicorn.workers.base import Worker


class ASGIWorker(Worker):  # type: ignore[misc]
    forkmaster_kind = "asgi"

"""Stand-in for gunicorn.workers.gtornado: threads are run in its place."""

from __future__ import annotations

from gunicorn.workers.base import Worker


class TornadoWorker(Worker):  # type: ignore[misc]
    forkmaster_kind = "threaded"
    forkmaster_in_place_of = "tornado"

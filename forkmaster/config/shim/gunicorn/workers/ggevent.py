"""Stand-in for gunicorn.workers.ggevent: threads are run in its place."""

from __future__ import annotations

from gunicorn.workers.base import Worker


class GeventWorker(Worker):  # type: ignore[misc]
    forkmaster_kind = "threaded"
    forkmaster_in_place_of = "gevent"

"""Gunicorn's names for kinds of worker, and what forkmaster runs for each."""

from __future__ import annotations

import inspect
from typing import Literal

from forkmaster.config.values import BadValueError, Kind, Noted, quoted

WorkerKind = Literal["sync", "threaded", "asgi"]

_ASGI = (
    "asgi",
    "uvicorn",
    "uvicorn.workers.UvicornWorker",
    "uvicorn.workers.UvicornH11Worker",
    "uvicorn_worker.UvicornWorker",
    "uvicorn_worker.UvicornH11Worker",
    "gunicorn.workers.gasgi.ASGIWorker",
)
_THREADED = ("threaded", "threads", "thread", "gthread", "gunicorn.workers.gthread.ThreadWorker")
_SYNC = ("sync", "gunicorn.workers.sync.SyncWorker")

ALIASES: dict[str, WorkerKind] = {
    **dict.fromkeys(_SYNC, "sync"),
    **dict.fromkeys(_THREADED, "threaded"),
    **dict.fromkeys(_ASGI, "asgi"),
}
"""Every name of a kind of worker."""

GREEN = (
    "gevent",
    "gevent_wsgi",
    "gevent_pywsgi",
    "ggevent",
    "eventlet",
    "geventlet",
    "tornado",
    "gtornado",
)
"""Kinds of gunicorn's that forkmaster has not.  An application written for them runs in threads
as it is; the libraries patch nothing unless they are asked to."""


def kind_of_class(worker_class: str | type | None, threads: int) -> WorkerKind | None:
    """The kind of worker that a parsed worker_class stands for; None is not known yet."""
    if isinstance(worker_class, type):
        kind: WorkerKind | None = getattr(worker_class, "forkmaster_kind", None)
    else:
        kind = ALIASES.get(worker_class) if worker_class is not None else None
    return "threaded" if kind == "sync" and threads > 1 else kind


def _worker_class(value: object) -> str | type | Noted | None:
    if inspect.isfunction(value) or inspect.ismethod(value):
        value = value()
    if value is None:
        return None
    if isinstance(value, type):
        if getattr(value, "forkmaster_kind", None) is None:
            raise BadValueError(
                f"{value.__name__} is a worker of its own making, which forkmaster cannot run",
                "write sync, threaded or asgi, or derive it from UvicornWorker",
            )
        return value
    if not isinstance(value, str):
        raise BadValueError(
            f"{quoted(value)} is not a kind of worker", "write sync, threaded or asgi"
        )
    name = value.strip()
    if not name:
        return None
    if name in ALIASES:
        return ALIASES[name]
    lowered = name.lower()
    if lowered in ALIASES:
        return ALIASES[lowered]
    green = lowered.removeprefix("gunicorn.workers.").split(".")[0]
    if green in GREEN:
        return Noted("threaded", f"forkmaster has no {name} worker and runs threads in its place")
    if name.startswith("egg:") or "." not in name:
        raise BadValueError(
            f"{quoted(name)} is not a kind of worker", "write sync, threaded or asgi"
        )
    return name


WORKER_CLASS = Kind("a kind of worker", _worker_class, "KIND")

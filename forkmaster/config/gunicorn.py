"""Gunicorn's names for kinds of worker, and what forkmaster runs for each."""

from __future__ import annotations

import inspect
from typing import Literal

from forkmaster.config.code import imported
from forkmaster.config.values import BadValueError, Kind, quoted

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
HYPERCORN = "hypercorn"
"""An asgi worker that speaks HTTP/2 too.  Ours: gunicorn has it by other means."""
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

# Python's own default at most (concurrent.futures).  A green worker holds a thousand requests; so
# many threads would be little use to an application whose pools are made for a few.
THREADS_IN_PLACE = 32
"""How many threads a worker runs in place of a green one, unless `threads` says."""


class Named(str):
    """A kind of worker, which remembers the word that asked for it."""

    word: str

    def __new__(cls, kind: str, word: str) -> Named:
        self = super().__new__(cls, kind)
        self.word = word
        return self


def in_words(worker_class: str | type) -> str:
    """A parsed worker_class as it was asked for, with the kind of worker where that differs."""
    if isinstance(worker_class, type):
        word = f"{worker_class.__module__}.{worker_class.__qualname__}"
    else:
        word = getattr(worker_class, "word", worker_class)
    kind = kind_of_class(worker_class, threads=1)
    return word if word == kind else f"{word} ({kind})"


def kind_of_class(worker_class: str | type | None, threads: int) -> WorkerKind | None:
    """The kind of worker that a parsed worker_class stands for; None is not known yet."""
    if isinstance(worker_class, type):
        kind: WorkerKind | None = getattr(worker_class, "forkmaster_kind", None)
    elif worker_class == HYPERCORN:
        kind = "asgi"
    else:
        kind = ALIASES.get(worker_class) if worker_class is not None else None
    return "threaded" if kind == "sync" and threads > 1 else kind


def green_name(value: object) -> str | None:
    """What a worker_class that forkmaster runs threads for is called; None for every other."""
    if isinstance(value, type):
        return getattr(value, "forkmaster_in_place_of", None)
    if not isinstance(value, str):
        return None
    name = value.strip()
    return name if name.lower().removeprefix("gunicorn.workers.").split(".")[0] in GREEN else None


def worker_class_at(path: str) -> type:
    """The class that a worker_class of the form package.module.Class names.

    Runs the module, which may be the application's, so it is for the worker.  Raises
    BadValueError.
    """
    found = imported(path)
    if not isinstance(found, type):
        raise BadValueError(f"{quoted(path)} is not a class", "write sync, threaded or asgi")
    return _of_ours(found)


def _of_ours(worker_class: type) -> type:
    if getattr(worker_class, "forkmaster_kind", None) is None:
        raise BadValueError(
            f"{worker_class.__name__} is a worker of its own making, which forkmaster cannot run",
            "write sync, threaded or asgi, or derive it from UvicornWorker",
        )
    return worker_class


def _worker_class(value: object) -> str | type | None:
    if inspect.isfunction(value) or inspect.ismethod(value):
        value = value()
    if value is None:
        return None
    if isinstance(value, type):
        return _of_ours(value)
    if not isinstance(value, str):
        raise BadValueError(
            f"{quoted(value)} is not a kind of worker", "write sync, threaded or asgi"
        )
    name = value.strip()
    if not name:
        return None
    lowered = name.lower()
    if lowered == HYPERCORN:
        return HYPERCORN
    kind = ALIASES.get(name) or ALIASES.get(lowered)
    if kind is None and green_name(name) is not None:
        kind = "threaded"
    if kind is not None:
        return Named(kind, name)
    if name.startswith("egg:") or "." not in name:
        raise BadValueError(
            f"{quoted(name)} is not a kind of worker", "write sync, threaded or asgi"
        )
    return name


WORKER_CLASS = Kind("a kind of worker", _worker_class, "sync|threaded|asgi|CLASS")

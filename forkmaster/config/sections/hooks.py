"""Functions of the configuration file that are called at turning points.

`server` and `worker` have gunicorn's attributes; see docs for the moment and process of each.
None is no hook.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from forkmaster.config.code import POST_REQUEST, hook
from forkmaster.config.settings import Effect, setting

Hook = Callable[..., Any]

_DIRTY = "there are no dirty workers; run long jobs in a queue, as Celery"


@dataclass(frozen=True, kw_only=True, init=False, repr=False, eq=False)
class Hooks:
    title: ClassVar[str] = "Hooks"

    on_starting: Hook | None = setting(
        None, hook("server"), "", "In the master, before it binds its sockets."
    )
    on_reload: Hook | None = setting(
        None, hook("server"), "", "In the master, when a reload begins to start workers."
    )
    when_ready: Hook | None = setting(
        None, hook("server"), "", "In the master, when its sockets are bound."
    )
    pre_fork: Hook | None = setting(
        None, hook("server", "worker"), "", "In the master, before a worker is forked."
    )
    post_fork: Hook | None = setting(
        None, hook("server", "worker"), "", "In a worker, before it drops its rights."
    )
    post_worker_init: Hook | None = setting(
        None, hook("worker"), "", "In a worker that has loaded the application."
    )
    worker_int: Hook | None = setting(
        None, hook("worker"), "", "In a worker that is told to stop at once."
    )
    worker_abort: Hook | None = setting(
        None, hook("worker"), "", "In a worker that is aborted, for a timeout as a rule."
    )
    pre_exec: Hook | None = setting(
        None,
        hook("server"),
        "",
        "In the master, before it executes its new version.",
    )
    pre_request: Hook | None = setting(
        None,
        hook("worker", "req"),
        "",
        "In a worker, before each request.",
    )
    post_request: Hook | None = setting(
        None,
        POST_REQUEST,
        "",
        "In a worker, after each request; takes worker, req, environ and resp, or the first "
        "two or three of them.",
    )
    child_exit: Hook | None = setting(
        None, hook("server", "worker"), "", "In the master, when a worker has exited."
    )
    worker_exit: Hook | None = setting(
        None, hook("server", "worker"), "", "In a worker, before it exits."
    )
    nworkers_changed: Hook | None = setting(
        None,
        hook("server", "new_value", "old_value"),
        "",
        "In the master, when the number of workers changes.",
    )
    on_exit: Hook | None = setting(None, hook("server"), "", "In the master, before it exits.")
    on_dirty_starting: Hook | None = setting(
        None,
        hook("arbiter"),
        "",
        "Before gunicorn's dirty workers start.",
        effect=Effect.NONE,
        instead=_DIRTY,
    )
    dirty_post_fork: Hook | None = setting(
        None,
        hook("arbiter", "worker"),
        "",
        "In a dirty worker of gunicorn, after the fork.",
        effect=Effect.NONE,
        instead=_DIRTY,
    )
    dirty_worker_init: Hook | None = setting(
        None,
        hook("worker"),
        "",
        "In a dirty worker of gunicorn that has loaded its applications.",
        effect=Effect.NONE,
        instead=_DIRTY,
    )
    dirty_worker_exit: Hook | None = setting(
        None,
        hook("arbiter", "worker"),
        "",
        "In a dirty worker of gunicorn, before it exits.",
        effect=Effect.NONE,
        instead=_DIRTY,
    )

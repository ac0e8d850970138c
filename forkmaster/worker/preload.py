"""Loads the application so that workers can be forked from it.  In the zygote.

In order: import with an eye on what must not cross a fork, ask the warm-up requests, let go of
connections, report what is left, and freeze the heap.  What is frozen the collector of no worker
ever visits, so the pages stay shared: measured on a site with 4 workers, 322 MiB with all of it
loaded before the fork, 189 when also frozen, 140 when it had answered requests first.
"""

from __future__ import annotations

import gc
import logging
import sys
from typing import TYPE_CHECKING, Any

from forkmaster.worker import application, fork_safety, warmup

if TYPE_CHECKING:
    from collections.abc import Callable

    from forkmaster.worker.child import Child

log = logging.getLogger("forkmaster.error")


def load(child: Child) -> Callable[..., Any]:
    """The application of `child`, ready to be inherited.  Raises AppError or BootError."""
    with fork_safety.Watch() as watch:
        loaded = child.load()
        # Imported now, for all the workers.
        child.worker_class(loaded)
        if application.kind_of(loaded) == "asgi":
            from forkmaster.worker.asgi import import_for_workers

            import_for_workers(child.config, loaded)
            _warm_asgi(loaded, child)
        else:
            warmup.warm_wsgi(loaded, child.config.warmup)
    let_go()
    for problem in watch.problems():
        log.warning("%s: %s", child.view, problem)
    gc.collect()
    gc.freeze()
    return loaded


def _warm_asgi(loaded: Callable[..., Any], child: Child) -> None:
    if not child.config.warmup:
        return
    # A loop of its own, which ends here: no loop survives a fork.  The application's lifespan
    # runs around it, so that it finds what it expects, and gives it back.
    import asyncio

    from forkmaster.worker.lifespan import Lifespan

    async def warm() -> None:
        lifespan = Lifespan(loaded, child.config.asgi_lifespan)
        await lifespan.startup()
        try:
            await warmup.warm_asgi(loaded, child.config.warmup, lifespan.state)
        finally:
            await lifespan.shutdown(child.config.graceful_timeout or None)

    asyncio.run(warm())


def let_go() -> None:
    """Close the connections that a fork must not share, of the libraries that are loaded.

    Only those that open new ones by themselves.
    """
    if "django.db" in sys.modules:
        _close_django()
    for module, kind, end in (
        ("redis", "ConnectionPool", "disconnect"),
        ("sqlalchemy.engine", "Engine", "dispose"),
    ):
        # A module of the project may have that name, and nothing else of the library.
        cls = getattr(sys.modules.get(module), kind, None)
        if cls is not None:
            # Not isinstance, which asks an object for its class: a lazy one would be made by that.
            pools = [found for found in gc.get_objects() if issubclass(type(found), cls)]
            for pool in pools:
                getattr(pool, end)()


def _close_django() -> None:
    from django.conf import settings

    if not settings.configured:
        return  # some library has imported it, and it has nothing
    from django.core.cache import caches
    from django.db import connections

    for connection in connections.all(initialized_only=True):
        connection.close()
        # A pool (psycopg, oracledb) keeps connections of its own, and threads to mind them.
        close_pool = getattr(connection, "close_pool", None)
        if close_pool is not None:
            close_pool()
    for cache in caches.all(initialized_only=True):
        cache.close()

"""What to look at before a Django project is deployed: Django's own list, and what it cannot know.

Django's `check --deploy` sees the settings.  How many processes serve them, where they listen and
whom they believe is in forkmaster's configuration, and most mistakes of a deployment lie between
the two.  Each finding has an id, so that it can be looked up, and silenced in
SILENCED_SYSTEM_CHECKS like Django's.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from forkmaster.addresses import TCPAddress

if TYPE_CHECKING:
    from forkmaster.config.table import Config

LOCAL_MEMORY = "django.core.cache.backends.locmem.LocMemCache"
IN_MEMORY = "channels.layers.InMemoryChannelLayer"
LOOPBACK = ("127.0.0.1", "::1", "localhost")


def is_set_up() -> bool:
    """Whether this process has loaded a Django project."""
    apps = sys.modules.get("django.apps")
    return apps is not None and apps.apps.ready


def findings(config: Config, kind: str) -> list[Any]:
    """Every CheckMessage about the project that is set up, Django's first.

    `kind` is the kind of worker that is to serve it.
    """
    from django.conf import settings
    from django.core import checks

    found = checks.run_checks(include_deployment_checks=True)
    for check in CHECKS:
        found += check(settings, config, kind)
    return [message for message in found if not message.is_silenced()]


def _secure_proxy_header(settings: Any, config: Config, kind: str) -> Iterator[Any]:
    from django.core.checks import Warning

    open_to_all = [each for each in config.bind if _is_open(each)]
    if settings.SECURE_PROXY_SSL_HEADER and open_to_all:
        yield Warning(
            f"SECURE_PROXY_SSL_HEADER lets whoever reaches {open_to_all[0]} say that a request "
            "is secure.",
            hint="Let only the proxy reach it, as with a unix socket.  Or leave the setting out: "
            "forkmaster passes the scheme on that a proxy in forwarded_allow_ips reports.",
            id="forkmaster.W001",
        )


def _redirect_for_ever(settings: Any, config: Config, kind: str) -> Iterator[Any]:
    from django.core.checks import Warning

    believed = set(config.forwarded_allow_ips) - {"127.0.0.1", "::1"}
    if (
        settings.SECURE_SSL_REDIRECT
        and not config.is_encrypted
        and not settings.SECURE_PROXY_SSL_HEADER
        and not believed
        and all(map(_is_open, config.bind))
    ):
        yield Warning(
            "SECURE_SSL_REDIRECT redirects every request of a proxy on another machine, because "
            "its X-Forwarded-Proto is not believed.",
            hint="Add the address of the proxy to forwarded_allow_ips.",
            id="forkmaster.W002",
        )


def _static_files(settings: Any, config: Config, kind: str) -> Iterator[Any]:
    from django.core.checks import Warning

    installed = "django.contrib.staticfiles" in settings.INSTALLED_APPS
    if not installed or "://" in (settings.STATIC_URL or ""):
        return
    root = settings.STATIC_ROOT
    if not root:
        yield Warning(
            "STATIC_ROOT is not set, so there is no folder to serve the static files from.",
            hint="Set it, and run manage.py collectstatic.",
            id="forkmaster.W003",
        )
    elif not Path(root).is_dir() or not any(Path(root).iterdir()):
        yield Warning(
            f"STATIC_ROOT, {root}, has no files.",
            hint="Run manage.py collectstatic.",
            id="forkmaster.W003",
        )


def _memory_of_one_worker(settings: Any, config: Config, kind: str) -> Iterator[Any]:
    from django.core.checks import Error, Warning

    if config.workers == 1:
        return
    caches = [
        alias for alias, each in settings.CACHES.items() if each.get("BACKEND") == LOCAL_MEMORY
    ]
    if (
        settings.SESSION_ENGINE == "django.contrib.sessions.backends.cache"
        and settings.SESSION_CACHE_ALIAS in caches
    ):
        yield Error(
            f"Sessions are kept in the memory of one worker, and {config.workers} workers serve: "
            "visitors are logged out at random.",
            hint="Use a cache that the workers share, or sessions in the database.",
            id="forkmaster.E001",
        )
    elif caches:
        yield Warning(
            f"The cache {caches[0]} is in memory: each of {config.workers} workers has its own, "
            "and what one deletes the others still have.",
            hint="Use Redis, Memcached, the database or files, if that matters.",
            id="forkmaster.W004",
        )
    layers = getattr(settings, "CHANNEL_LAYERS", {})
    if any(each.get("BACKEND") == IN_MEMORY for each in layers.values()):
        yield Warning(
            f"The channel layer is in memory: of {config.workers} workers each reaches its own "
            "websockets only.",
            hint="Use channels_redis, if consumers send to groups.",
            id="forkmaster.W005",
        )


def _connections(settings: Any, config: Config, kind: str) -> Iterator[Any]:
    from django.core.checks import Info, Warning

    kept = [alias for alias, each in settings.DATABASES.items() if each.get("CONN_MAX_AGE", 0) != 0]
    if kept and kind == "asgi":
        yield Warning(
            f"CONN_MAX_AGE of the database {kept[0]} keeps a connection for each thread that "
            "served a view, and under ASGI these are many.",
            hint="Set CONN_MAX_AGE = 0 and use a pool, that of the database driver or PgBouncer.",
            id="forkmaster.W006",
        )
    elif kept:
        most = config.workers * config.threads
        yield Info(
            f"The database {kept[0]} must allow {most} connections: {config.workers} workers of "
            f"{config.threads} threads, and as many more while a reload replaces workers.",
            id="forkmaster.I001",
        )


def _async_views(settings: Any, config: Config, kind: str) -> Iterator[Any]:
    from django.core.checks import Info

    if kind == "asgi" or not settings.ROOT_URLCONF:
        return
    count = sum(map(_is_async, _views()))
    if count:
        yield Info(
            f"{count} async views run under WSGI, each request in an event loop of its own.",
            hint="Serve the ASGI application, as project.asgi, if they wait for something.",
            id="forkmaster.I002",
        )


CHECKS: tuple[Callable[[Any, Config, str], Iterator[Any]], ...] = (
    _secure_proxy_header,
    _redirect_for_ever,
    _static_files,
    _memory_of_one_worker,
    _connections,
    _async_views,
)


def _is_open(address: object) -> bool:
    """Whether other machines may reach the address."""
    return isinstance(address, TCPAddress) and address.host not in LOOPBACK


def _views() -> Iterator[Any]:
    from django.urls import get_resolver

    waiting = list(get_resolver().url_patterns)
    while waiting:
        each = waiting.pop()
        if hasattr(each, "url_patterns"):
            waiting += each.url_patterns
        else:
            yield each.callback


def _is_async(view: Any) -> bool:
    # Class-based views say so on their class: the function around it is a plain one.
    of_class = getattr(getattr(view, "view_class", None), "view_is_async", False)
    return of_class or inspect.iscoroutinefunction(view)

"""How many processes serve, of which kind, and when one is replaced or killed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from forkmaster.config.code import MAPPING
from forkmaster.config.gunicorn import WORKER_CLASS
from forkmaster.config.settings import Effect, setting
from forkmaster.config.values import COUNT, MEMORY, SECONDS, WORKERS, choice, count, optional


@dataclass(frozen=True, kw_only=True, init=False, repr=False, eq=False)
class Workers:
    title: ClassVar[str] = "Workers"

    workers: int = setting(
        1,
        WORKERS,
        "-w --workers",
        'How many worker processes serve; "auto" is one per processor.',
        default_text="$WEB_CONCURRENCY, or 1",
        everyday=True,
    )
    worker_class: str | type | None = setting(
        None,
        WORKER_CLASS,
        "-k --worker-class",
        "The kind of worker: sync, threaded, asgi or hypercorn, under any name that gunicorn has "
        "for it, or a class.",
        default_text="found from the application",
        differs="gunicorn's default is sync; gevent, eventlet and tornado become threaded",
        everyday=True,
    )
    threads: int = setting(
        1,
        count(1),
        "--threads",
        "How many requests a worker runs at once, in threads. More than 1 makes a sync worker "
        "threaded.",
        everyday=True,
    )
    worker_connections: int = setting(
        1000,
        count(1),
        "--worker-connections",
        "How many connections one worker holds at once; further ones wait in the backlog.",
        differs="every kind of worker keeps it",
    )
    ready_workers: int | None = setting(
        None,
        optional(count(1)),
        "--ready-workers",
        "How many workers must be ready before the server tells systemd, or the parent of a "
        "daemon, that it is, and for the monitor to say so ever after.",
        default_text="all of them at the start, then one",
        own=True,
    )
    workers_min: int | None = setting(
        None,
        optional(count(1)),
        "--workers-min",
        "With workers_max: how few workers an idle server keeps.",
        default_text="workers",
        own=True,
    )
    workers_max: int | None = setting(
        None,
        optional(count(1)),
        "--workers-max",
        "How many workers a busy server may start; without it their number is fixed.",
        own=True,
    )
    asgi_loop: str = setting(
        "auto",
        choice("auto", "asyncio", "uvloop"),
        "--asgi-loop",
        "The event loop of an asgi worker.",
    )
    asgi_lifespan: str = setting(
        "auto",
        choice("auto", "on", "off"),
        "--asgi-lifespan",
        "Whether an ASGI application is told of start and stop; auto asks it.",
    )
    asgi_disconnect_grace_period: float = setting(
        3.0,
        SECONDS,
        "--asgi-disconnect-grace-period",
        "How long an ASGI application may go on after its client left.",
        effect=Effect.NONE,
        instead="the application is told of the disconnect and decides itself",
    )
    websocket_max_message_size: int = setting(
        16 * 1024 * 1024,
        COUNT,
        "--websocket-max-message-size",
        "The largest websocket message that is taken, in bytes.",
    )
    uvicorn_options: dict[str, object] = setting(
        {},
        MAPPING,
        "",
        "Settings by uvicorn's names for an asgi worker, as CONFIG_KWARGS of a class has them.",
        own=True,
    )
    http_parser: str = setting(
        "auto",
        choice("auto", "fast", "python"),
        "--http-parser",
        "Which HTTP parser an asgi worker uses.",
        effect=Effect.HARMLESS,
        instead="one parser serves every kind of worker",
    )


@dataclass(frozen=True, kw_only=True, init=False, repr=False, eq=False)
class Replacement:
    title: ClassVar[str] = "Replacing workers"

    max_requests: int = setting(
        0,
        COUNT,
        "--max-requests",
        "Replace a worker after so many requests; 0 is never. The new one is ready before the "
        "old one stops, and no worker is replaced within its first 2 seconds.",
        differs="the replacement is started first, and one worker at a time is replaced",
        everyday=True,
    )
    max_requests_jitter: int = setting(
        0,
        COUNT,
        "--max-requests-jitter",
        "Up to so many requests more, at random for each worker.",
    )
    max_worker_lifetime: float = setting(
        0.0,
        SECONDS,
        "--max-worker-lifetime",
        "Replace a worker of this age; 0 is never.",
        own=True,
    )
    max_worker_lifetime_jitter: float = setting(
        0.0,
        SECONDS,
        "--max-worker-lifetime-jitter",
        "Up to so much longer, at random for each worker.",
        own=True,
    )
    max_worker_memory: int = setting(
        0,
        MEMORY,
        "--max-worker-memory",
        'Replace a worker that has so much private memory, as "512MB"; 0 is never. '
        "A bare number below a million is taken for MiB, with a warning.",
        own=True,
    )
    reload_mode: str = setting(
        "rolling",
        choice("rolling", "all-at-once"),
        "--reload-mode",
        "Whether a reload replaces the workers one by one, or starts all new ones at once.",
        own=True,
    )
    reload_surge: int = setting(
        1,
        count(1),
        "--reload-surge",
        "How many workers more than usual a reload may run.",
        own=True,
    )


@dataclass(frozen=True, kw_only=True, init=False, repr=False, eq=False)
class Timeouts:
    title: ClassVar[str] = "Timeouts"

    timeout: float = setting(
        30.0,
        SECONDS,
        "-t --timeout",
        "Kill a worker that gave no sign of life for so long; 0 is never. For a sync worker "
        "this bounds one request.",
        differs="the stacks and the request of the worker are logged first",
        everyday=True,
    )
    request_timeout: float = setting(
        0.0,
        SECONDS,
        "--request-timeout",
        "Give up a request that runs for so long, in any kind of worker; 0 is never.",
        own=True,
    )
    slow_request: float = setting(
        0.0,
        SECONDS,
        "--slow-request",
        "Log where a request stands that has run for so long; 0 is never.",
        own=True,
    )
    graceful_timeout: float = setting(
        30.0,
        SECONDS,
        "--graceful-timeout",
        "How long a worker that was told to stop may finish its requests.",
        everyday=True,
    )
    boot_timeout: float = setting(
        60.0,
        SECONDS,
        "--boot-timeout",
        "How long a worker may take until it is ready; 0 is for ever.",
        own=True,
    )
    kill_timeout: float = setting(
        5.0,
        SECONDS,
        "--kill-timeout",
        "How long a worker that is aborted, or a request of an asgi worker that is cancelled, "
        "may take before the worker is killed outright, or aborted.",
        own=True,
    )
    shutdown_delay: float = setting(
        0.0,
        SECONDS,
        "--shutdown-delay",
        "Serve on for so long after the order to stop, with /readyz answering 503, while load "
        "balancers learn of it.",
        own=True,
    )
    keepalive: float = setting(
        5.0,
        SECONDS,
        "--keep-alive",
        "How long an idle connection is kept open. Behind a proxy set more than the proxy does.",
        differs="the default is 5 s, and sync workers keep connections too; gunicorn's is 2",
    )
    header_timeout: float = setting(
        10.0,
        SECONDS,
        "--header-timeout",
        "How long a client may take to send the head of a request; 0 is for ever.",
        own=True,
    )
    body_timeout: float = setting(
        30.0,
        SECONDS,
        "--body-timeout",
        "How long a client may pause while it sends a body; 0 is for ever.",
        own=True,
    )
    write_timeout: float = setting(
        60.0,
        SECONDS,
        "--write-timeout",
        "How long a client may pause while it takes a response; 0 is for ever.",
        own=True,
    )

"""What gunicorn has and forkmaster has not: HTTP/2 in the server, and dirty workers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from forkmaster.config.settings import Effect, setting
from forkmaster.config.values import COMMAS, COUNT, SECONDS, TEXTS, choice, count

_NO_HTTP2 = "HTTP/1.1 is spoken; let nginx speak HTTP/2 to the clients"
_NO_DIRTY = "there are no dirty workers; run long jobs in a queue, as Celery"


@dataclass(frozen=True, kw_only=True)
class HTTP2:
    title: ClassVar[str] = "HTTP/2"

    http_protocols: tuple[str, ...] = setting(
        ("h1",),
        COMMAS,
        "--http-protocols",
        "The versions of HTTP that are spoken: h1, or h2,h1.",
        effect=Effect.NONE,
        instead=_NO_HTTP2,
    )
    http2_cleartext: str = setting(
        "off",
        choice("off", "prior-knowledge", "upgrade", "both", true="prior-knowledge", false="off"),
        "--http2-cleartext",
        "Whether HTTP/2 is spoken without TLS.",
        effect=Effect.NONE,
        instead=_NO_HTTP2,
    )
    http2_max_concurrent_streams: int = setting(
        100,
        count(1),
        "--http2-max-concurrent-streams",
        "How many requests one HTTP/2 connection carries at once.",
        effect=Effect.NONE,
        instead=_NO_HTTP2,
    )
    http2_initial_window_size: int = setting(
        65535,
        count(0, 2**31 - 1),
        "--http2-initial-window-size",
        "The flow-control window of HTTP/2.",
        effect=Effect.NONE,
        instead=_NO_HTTP2,
    )
    http2_max_frame_size: int = setting(
        16384,
        count(16384, 2**24 - 1),
        "--http2-max-frame-size",
        "The largest frame of HTTP/2.",
        effect=Effect.NONE,
        instead=_NO_HTTP2,
    )
    http2_max_header_list_size: int = setting(
        65536,
        COUNT,
        "--http2-max-header-list-size",
        "The longest head of an HTTP/2 request.",
        effect=Effect.NONE,
        instead=_NO_HTTP2,
    )


@dataclass(frozen=True, kw_only=True)
class Dirty:
    title: ClassVar[str] = "Dirty workers"

    dirty_apps: tuple[str, ...] = setting(
        (),
        TEXTS,
        "--dirty-app",
        "An application for dirty workers.",
        effect=Effect.NONE,
        instead=_NO_DIRTY,
    )
    dirty_workers: int = setting(
        0,
        COUNT,
        "--dirty-workers",
        "How many dirty workers run.",
        effect=Effect.NONE,
        instead=_NO_DIRTY,
    )
    dirty_timeout: float = setting(
        300.0,
        SECONDS,
        "--dirty-timeout",
        "How long a dirty worker may be silent.",
        effect=Effect.NONE,
        instead=_NO_DIRTY,
    )
    dirty_threads: int = setting(
        1,
        count(1),
        "--dirty-threads",
        "How many threads a dirty worker has.",
        effect=Effect.NONE,
        instead=_NO_DIRTY,
    )
    dirty_graceful_timeout: float = setting(
        30.0,
        SECONDS,
        "--dirty-graceful-timeout",
        "How long a dirty worker may take to stop.",
        effect=Effect.NONE,
        instead=_NO_DIRTY,
    )

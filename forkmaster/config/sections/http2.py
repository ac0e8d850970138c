"""HTTP/2, which a worker of the class hypercorn speaks, and no other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from forkmaster.config.settings import Effect, setting
from forkmaster.config.values import COMMAS, COUNT, choice, count


@dataclass(frozen=True, kw_only=True, init=False, repr=False, eq=False)
class HTTP2:
    title: ClassVar[str] = "HTTP/2"

    http_protocols: tuple[str, ...] = setting(
        ("h1",),
        COMMAS,
        "--http-protocols",
        "The versions of HTTP that are spoken: h1, or h2,h1.",
        effect=Effect.HARMLESS,
        instead="worker_class decides: hypercorn speaks HTTP/2 and HTTP/1.1, the others HTTP/1.1",
    )
    http2_cleartext: str = setting(
        "off",
        choice("off", "prior-knowledge", "upgrade", "both", true="prior-knowledge", false="off"),
        "--http2-cleartext",
        "Whether HTTP/2 is spoken without TLS.",
        effect=Effect.HARMLESS,
        instead="hypercorn always takes it from a client with prior knowledge; an upgrade is "
        "answered in HTTP/1.1 (RFC 9113 3.1)",
    )
    http2_max_concurrent_streams: int = setting(
        100,
        count(1),
        "--http2-max-concurrent-streams",
        "With worker_class hypercorn: how many requests one HTTP/2 connection carries at once.",
    )
    http2_initial_window_size: int = setting(
        65535,
        count(0, 2**31 - 1),
        "--http2-initial-window-size",
        "With worker_class hypercorn: how many bytes of a request's body a client sends ahead of "
        "the application.",
    )
    http2_max_frame_size: int = setting(
        16384,
        count(16384, 2**24 - 1),
        "--http2-max-frame-size",
        "With worker_class hypercorn: the largest frame that a client may send, in bytes.",
    )
    http2_max_header_list_size: int = setting(
        65536,
        COUNT,
        "--http2-max-header-list-size",
        "With worker_class hypercorn: the longest head that a client may send, in bytes; the "
        "limits of HTTP/1.1 hold as well.",
    )

"""What is asked of uvicorn by its own names: `uvicorn_options`, and CONFIG_KWARGS of a class.

A configuration that was written for gunicorn with uvicorn's worker derives a class and sets
CONFIG_KWARGS in it.  Where uvicorn's name has a setting of ours, it is that setting; what is about
websockets goes to uvicorn; and what has no meaning here is named in the log, once, at the start.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from forkmaster.errors import BootError
from forkmaster.http.answer import read_head
from forkmaster.http.response import OWN_DATE, OWN_SERVER

if TYPE_CHECKING:
    from forkmaster.config.table import Config

log = logging.getLogger("forkmaster.error")

# uvicorn's names of our settings that a worker reads.
_OURS = {
    "lifespan": "asgi_lifespan",
    "root_path": "root_path",
    "timeout_keep_alive": "keepalive",
    "ws_max_size": "websocket_max_message_size",
}
_WEBSOCKET = frozenset(("ws", "ws_per_message_deflate", "ws_ping_interval", "ws_ping_timeout"))
_LOOPS = {"asyncio": "asyncio", "uvloop": "uvloop"}
# True here whatever is asked, so nothing is missed.
_GRANTED = frozenset(("http", "interface", "log_config", "access_log", "workers", "ws_max_queue"))


@dataclass(frozen=True)
class UvicornOptions:
    """What uvicorn's options come to."""

    config: Config
    """Ours, with them in place."""
    websocket: dict[str, Any]
    """For uvicorn's websocket protocols."""
    header_lines: list[bytes]
    """Of every answer."""
    own: int
    """Bits of response.OWN_DATE and OWN_SERVER: which of ours are not wanted."""


def with_uvicorn_options(config: Config) -> UvicornOptions:
    """The configuration as an asgi worker reads it.  Raises BootError for headers that cannot be.

    `uvicorn_options` outweighs the class, and a class outweighs settings of the same meaning: who
    derives a worker class means it.
    """
    kwargs = getattr(config.worker_class, "CONFIG_KWARGS", None)
    asked: dict[str, Any] = {**(kwargs if isinstance(kwargs, Mapping) else {})}
    asked.update(config.uvicorn_options)
    changes: dict[str, Any] = {}
    websocket: dict[str, Any] = {}
    lines: list[bytes] = []
    own = 0
    for name, value in asked.items():
        if name in _OURS:
            changes[_OURS[name]] = value
        elif name in _WEBSOCKET:
            websocket[name] = value
        elif name == "loop":
            if value in _LOOPS:
                changes["asgi_loop"] = value
        elif name == "headers":
            lines, own = _headers(value)
        elif name == "date_header" and not value:
            own |= OWN_DATE
        elif name == "server_header" and not value:
            own |= OWN_SERVER
        elif name.startswith("ssl_") and value:
            # To warn would be to serve in the clear what was meant to be secret.
            instead = name.removeprefix("ssl_")
            raise BootError(f"{name} of uvicorn has no effect here; set {instead} or ssl_context")
        elif name not in _GRANTED and not name.endswith("_header"):
            log.warning("uvicorn's option %s has no effect here; docs/asgi.md tells why", name)
    return UvicornOptions(replace(config, **changes), websocket, lines, own)


def _headers(value: Any) -> tuple[list[bytes], int]:
    pairs = [
        tuple(part.encode("latin-1") if isinstance(part, str) else part for part in pair)
        for pair in value
    ]
    try:
        lines, _, own = read_head(200, pairs)
    except (TypeError, ValueError) as exc:
        raise BootError(f"uvicorn's option headers: {exc}") from None
    return lines[1:], own

"""Words for a death: what ended a worker, what it was serving, where it stood.  Pure.

A death the master asked for is one line.  One that it did not ask for is told truthfully, with
the requests that were lost, because somebody lost them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

BOOT_FRAME = "forkmaster/worker/child.py"
SHOWN = 4  # requests named in one line; a threaded worker may have had more


class RequestInFlight(Protocol):
    """What of a request is named: board.reader.RequestView has it."""

    @property
    def client(self) -> str: ...

    def duration(self, now: float) -> float: ...


def serving(requests: Sequence[RequestInFlight], now: float) -> str:
    """What was in flight, as the end of a sentence; empty if nothing was."""
    if not requests:
        return ""
    named = [
        f"{request} for {request.duration(now):.1f} s{_client(request)}" for request in requests
    ]
    more = f" and {len(named) - SHOWN} more" if len(named) > SHOWN else ""
    return ", serving " + ", ".join(named[:SHOWN]) + more


def own_frames(dump: str) -> str:
    """What faulthandler wrote, without the frames that every worker has in common.

    Those of the application stand on top; below come the worker's loop and then what led from
    `main` through the fork to it, which tells nobody anything.
    """
    kept, skipping = [], False
    for line in dump.splitlines():
        if not line.startswith("  File "):
            skipping = False
        elif BOOT_FRAME in line:
            skipping = True
        if line and not skipping and not line.startswith("Extension modules"):
            kept.append(line)
    return "\n".join(kept)


def _client(request: RequestInFlight) -> str:
    return f" (client {request.client})" if request.client else ""

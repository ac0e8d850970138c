"""What the master hands a worker across the fork."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from forkmaster.board.balance import Balance
    from forkmaster.board.slot import Slot
    from forkmaster.config.table import Config


@dataclass(frozen=True)
class Assignment:
    """Everything a worker needs to know.  Made in the master, used in the worker."""

    serial: int
    generation: int
    config: Config
    listeners: tuple[socket.socket, ...]
    """Bound, listening, non-blocking, shared with the siblings.  A worker never closes one
    before it has taken what is queued, and never unlinks a path."""
    slot: Slot
    balance: Balance
    """Open connections of every worker of this server, in one page that all of them map."""
    handoff: tuple[socket.socket, socket.socket] | None
    """(receive, send): the socketpair that passes idle connections between siblings."""
    liveness_fd: int
    """The read end of a pipe that the master holds open; end of file means the master died."""
    announce_fd: int
    """Write one byte here when ready."""
    stacks_fd: int
    """Where the dump signal writes the stacks of all threads."""


class Worker(Protocol):
    """A way of serving requests: sync, threaded or asgi.  Lives in the worker process."""

    def __init__(self, assignment: Assignment, application: Callable[..., Any]) -> None: ...

    def serve(self) -> None:
        """Serve until told to stop and drained.  Returns normally for a clean exit.

        Calls `assignment.slot` beats at least every `config.timeout / 4` seconds while its loop
        runs, draining included, and `ready()` of the child when it can accept.
        """

    def drain(self) -> None:
        """Begin to stop: see docs/design.md, section 7.  Called in a signal handler; returns."""

    def quit(self) -> None:
        """Stop now, finishing nothing.  Called in a signal handler; returns."""

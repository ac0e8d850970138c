"""What the master hands a worker across the fork."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from forkmaster.board import layout

if TYPE_CHECKING:
    from collections.abc import Callable

    from forkmaster.board.balance import Share
    from forkmaster.board.slot import Slot
    from forkmaster.config.table import Config
    from forkmaster.worker.certificates import Encryption
    from forkmaster.worker.views import ServerView, WorkerView


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
    balance: Share
    """This worker's cell of the page on which all workers count their open connections."""
    handoff: tuple[socket.socket, socket.socket] | None
    """(receive, send): the socketpair that passes idle connections between siblings."""
    liveness_fd: int
    """The read end of a pipe that the master holds open; end of file means the master died."""
    announce_fd: int
    """Where `announce` writes."""
    stacks_fd: int
    """Where the dump signal writes the stacks of all threads."""
    output_fd: int
    """Where standard output and error go; -1: where they are."""
    master_pid: int
    folder: str
    """The folder to serve from, by the name its user knows it by: it may be a symbolic link."""
    preloaded: bool
    """Whether the application was loaded, and warmed up, before the fork."""
    server: ServerView
    """For hooks."""
    view: WorkerView
    """This worker, for hooks."""
    encryption: Encryption | None = None
    """What new connections are encrypted with; None if they are not."""

    def has_left(self) -> None:
        """Tell the master that this worker accepts nothing any more.  In the worker."""
        self.slot.words[layout.FLAGS] |= layout.LEFT
        announce(self.announce_fd)


def encryption_of(config: Config) -> Encryption | None:
    """What `config` has connections encrypted with, not yet loaded; None if they are not."""
    if not config.is_encrypted:
        return None
    # Imported here: OpenSSL is 4 MiB, of which few servers need anything.
    from forkmaster.worker.certificates import Encryption

    return Encryption(config)


def check_encryption(config: Config) -> None:
    """Raise ConfigError if no worker could encrypt as `config` says."""
    encryption = encryption_of(config)
    if encryption is not None:
        encryption.load()


def announce(fd: int) -> None:
    """Have the master look at the slots.  In the worker; never blocks."""
    try:
        os.write(fd, b"!")
    except BlockingIOError:
        pass  # the pipe is full of such bytes: the master will look anyway


class Worker(Protocol):
    """A way of serving requests: sync, threaded or asgi.  Lives in the worker process."""

    def __init__(self, assignment: Assignment, application: Callable[..., Any]) -> None: ...

    def serve(self, on_ready: Callable[[], None]) -> None:
        """Serve until told to stop and drained.  Returns normally for a clean exit.

        Calls `on_ready` once, when it can accept.  Beats in `assignment.slot` at least every
        `config.timeout / 4` seconds (every second if that is less) while its loop runs,
        draining included.  Returns also when `assignment.liveness_fd` reads end of file.
        """

    def drain(self) -> None:
        """Begin to stop: see docs/design.md, section 7.  Called in a signal handler; returns."""

    def quit(self) -> None:
        """Stop now, finishing nothing.  Called in a signal handler; may raise SystemExit(0) to
        unwind an application that is running on the main thread."""

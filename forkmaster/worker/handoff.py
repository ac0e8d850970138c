"""Passing kept connections to a sibling while this worker is inside a slow request.

A kept-alive connection belongs to one worker.  If that worker runs a request of 300 ms, the next
request on the connection would wait for it, though siblings are idle.  An idle connection has no
state but its socket, so the socket is passed (SCM_RIGHTS) through a socketpair that all workers of
the server share; whoever is free takes it, reads the request and keeps the connection.

With two workers, eight fast clients and one slow, the 99th percentile of the fast ones falls from
305 ms to 1 ms, and the throughput does not change.

In the sync worker a small thread does it, since the main thread is the busy one.  It looks every
10 ms while requests are served and parks itself after a quiet second, so an idle worker pays
nothing.  Both threads take a connection by popping it from `_idle`, which only one can do.
TLS connections stay: their state is in the library.
"""

from __future__ import annotations

import socket
import threading
from time import monotonic_ns
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

    from forkmaster.worker.connection import Connection

# Shorter requests are not worth the 30 µs that passing a connection costs.
LOOK_EVERY = 0.010
PATIENCE = 10_000_000  # nanoseconds, the same
_PARK_AFTER = 100  # looks without a request to see: a second

_LONGEST = 512


class Passed(NamedTuple):
    """A connection as it travels."""

    fd: int
    where: int  # the index of its listener
    host: str
    port: str
    proxied: dict[str, str] | None


def pass_on(channel: socket.socket, connection: Connection) -> bool:
    """Send the connection to whoever is free; False if the channel takes no more.

    The caller still has to close its own end.  Never blocks.
    """
    proxied = connection.proxied or {}
    fields = [str(connection.where), connection.host, connection.port]
    for key, value in proxied.items():
        fields += [key, value]
    try:
        socket.send_fds(channel, ["\0".join(fields).encode("ascii")], [connection.fd])
    except OSError:
        return False  # full, which means that all siblings are busy too
    return True


def take(channel: socket.socket) -> Passed | None:
    """A connection that a sibling passed on; None if another was faster.  Never blocks."""
    try:
        data, fds, _, _ = socket.recv_fds(channel, _LONGEST, 1)
    except OSError:
        return None
    if not fds:
        return None  # it could not be opened here: too many files
    where, host, port, *rest = data.decode("ascii").split("\0")
    proxied = dict(zip(rest[::2], rest[1::2], strict=True)) if rest else None
    return Passed(fds[0], int(where), host, port, proxied)


class HandOffThread:
    """The thread of a sync worker that looks after those who wait."""

    def __init__(self, busy_since: Callable[[], int], pass_ready: Callable[[], None]) -> None:
        """`busy_since`: when the request being served began, in monotonic ns; 0 if none is."""
        self.is_parked = True
        self._busy_since = busy_since
        self._pass_ready = pass_ready
        self._go = threading.Event()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="forkmaster-handoff", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def unpark(self) -> None:
        """Requests come in again.  Called by the worker when it sees `is_parked`."""
        self.is_parked = False
        self._go.set()

    def stop(self) -> None:
        self._stop.set()
        self._go.set()
        self._thread.join(1)

    def _run(self) -> None:
        quiet, last = 0, 0
        while not self._stop.wait(LOOK_EVERY):
            began = self._busy_since()
            quiet = 0 if began != last else quiet + 1
            last = began
            if began:
                quiet = 0
                if monotonic_ns() - began >= PATIENCE:
                    self._pass_ready()
            elif quiet >= _PARK_AFTER:
                quiet = 0
                self._go.clear()
                self.is_parked = True
                self._go.wait()

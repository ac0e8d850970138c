"""What every part of a reactor stands on: the connections of a worker, their deadlines and end.

All instants are monotonic nanoseconds as in the slot, because a request needs two of them there
anyway.
"""

from __future__ import annotations

import socket
import time
from time import monotonic_ns
from typing import TYPE_CHECKING

from forkmaster.board import layout
from forkmaster.http.response import Tails
from forkmaster.system.poller import READ, open_poller
from forkmaster.worker.connection import CLOSED, LINGERING, Connection
from forkmaster.worker.timers import NEVER, Timers

if TYPE_CHECKING:
    from forkmaster.worker.assignment import Assignment

SECOND = 1_000_000_000
# What one recv takes: more costs an mmap per call.
RECEIVE = 64 << 10
# After our last byte: gunicorn's 2 s, for the client to read it and close.
LINGER = 2 * SECOND
_LINGER_BYTES = 1 << 20  # what is read and thrown away meanwhile


class Connections:
    """See the module.  The lowest layer of a `Reactor`."""

    multithread = False  # whether requests run in several threads at once

    def __init__(self, assignment: Assignment) -> None:
        config = assignment.config
        self.assignment = assignment
        self.config = config
        self.encryption = assignment.encryption
        self.tails = Tails(time.time())
        self.draining = False  # told to stop; from then on every answer closes its connection
        self._slot = assignment.slot
        self._words = assignment.slot.words
        self._balance = assignment.balance
        self._poller = open_poller()
        self._timers = Timers()
        self._due = 0  # when the loop must look at the clock again
        self._connections: dict[int, Connection] = {}
        # Of those, the ones between two requests.  Whoever pops one owns it: the reactor to read
        # it, or the thread that hands it to a sibling.
        self._idle: dict[int, Connection] = {}
        self._header_timeout = nanoseconds(config.header_timeout)
        self._body_timeout = nanoseconds(config.body_timeout)
        self._write_timeout = nanoseconds(config.write_timeout)
        self._keepalive = int(config.keepalive * SECOND)
        self.keeps_alive = self._keepalive > 0

    def _watch(self, connection: Connection, deadline: int) -> None:
        """Set the deadline of a connection."""
        connection.deadline = deadline
        if deadline < connection.listed:
            self._timers.watch(connection)
            if connection.listed < self._due:
                self._due = connection.listed

    def _wait_for(self, connection: Connection, mask: int) -> None:
        """Have the poller tell when the socket can be read, or written."""
        if connection.mask == mask:
            return
        if connection.mask:
            self._poller.modify(connection.fd, mask)
        else:
            self._poller.register(connection.fd, mask)
        connection.mask = mask

    def _wait_for_more(self, connection: Connection) -> None:
        """What has come is not enough, or nothing has."""
        self._wait_for(connection, READ)
        if connection.listed == NEVER:
            self._watch(connection, monotonic_ns() + self._header_timeout)

    def _published(self) -> None:
        """The number of connections has changed."""
        count = len(self._connections)
        self._words[layout.CONNECTIONS] = count
        if not self.draining:
            self._balance.publish(count)

    # --- Ending -----------------------------------------------------------------------------

    def _linger(self, connection: Connection) -> None:
        """Close our end; wait for the client to close its own.

        close() with unread bytes in the socket sends RST, and the client may then lose the
        answer that it has not read yet (RFC 9112 9.6).
        """
        try:
            connection.sock.shutdown(socket.SHUT_WR)
        except OSError:
            self._close(connection)
            return
        self._idle.pop(connection.fd, None)
        connection.state = LINGERING
        connection.buffer = b""
        self._watch(connection, monotonic_ns() + LINGER)
        self._linger_on(connection)

    def _linger_on(self, connection: Connection) -> None:
        for _ in range(_LINGER_BYTES // RECEIVE):
            try:
                data = connection.sock.recv(RECEIVE)
            except BlockingIOError:
                self._wait_for(connection, READ)
                return
            except OSError:
                break
            if not data:
                break
        self._close(connection)

    def _close(self, connection: Connection) -> None:
        """Close for good, whatever it is at."""
        if connection.state == CLOSED:
            return
        connection.state = CLOSED
        connection.deadline = connection.listed = NEVER
        fd = connection.fd
        self._idle.pop(fd, None)
        del self._connections[fd]
        connection.sock.close()  # and the kernel takes it out of the poller
        if connection.body is not None:
            connection.body.discard()
            connection.body = connection.exchange = None
        self._published()
        self._has_room()

    def _has_room(self) -> None:
        """A connection was closed: another one may come."""
        raise NotImplementedError


def nanoseconds(seconds: float) -> int:
    """A timeout; 0 is none."""
    return int(seconds * SECOND) if seconds else NEVER // 4

"""One client's connection, as the reactor holds it."""

from __future__ import annotations

import select
import socket
from typing import TYPE_CHECKING

from forkmaster.http import response
from forkmaster.worker.timers import NEVER

if TYPE_CHECKING:
    from forkmaster.http.body import Body
    from forkmaster.http.environ import Origin
    from forkmaster.worker.exchange import Exchange
    from forkmaster.worker.tls import TLSSocket

# What a connection is at.
IDLE = 0  # between requests, with not one byte of the next
PROXY = 1  # before the PROXY header is complete
HEAD = 2  # a part of a head has come
BODY = 3  # the head is accepted, a part of the body has come
BUSY = 4  # the application is being called, in this thread or another
WRITING = 5  # the socket takes no more of the answer just now
LINGERING = 6  # our end is closed; we read until the client closes its own
CLOSED = 7
HANDSHAKE = 8  # of TLS, before the first request

_HINTS_PATIENCE = 1000  # milliseconds, for a client that does not read the little there is


class Connection:
    """A socket and where the conversation stands.

    There may be ten thousand idle ones, so an idle connection holds nothing but itself: its
    strings are shared, and what a request needs is made when a request comes.
    """

    __slots__ = (
        "body",
        "buffer",
        "client",
        "deadline",
        "exchange",
        "fd",
        "host",
        "listed",
        "mask",
        "origin",
        "port",
        "proxied",
        "served",
        "sock",
        "state",
        "takes_hints",
        "where",
    )

    def __init__(self, sock: socket.SocketType, where: int, origin: Origin) -> None:
        self.sock: socket.SocketType | TLSSocket = sock
        self.fd = sock.fileno()
        self.mask = 0  # what the poller waits for; 0: it does not know us
        self.where = where  # index of the listener
        self.origin = origin
        self.host = ""
        self.port = ""
        self.client = b""
        self.state = IDLE
        self.buffer = b""  # what has come and is not yet understood
        self.deadline = NEVER
        self.listed = NEVER  # when the timers look at it
        self.takes_hints = False  # whether a 103 may go out now
        self.served = False  # whether a request was answered on it
        self.proxied: dict[str, str] | None = None  # environ keys from a PROXY header
        self.exchange: Exchange | None = None
        self.body: Body | None = None

    def early_hints(self, headers: list[tuple[str, str]]) -> None:
        """`wsgi.early_hints`: send a 103 ahead of the final answer, if that is still possible.

        Here, and not with the exchange: environ and exchange would refer to each other, and wait
        for the collector with every request (1.5 µs, and the memory of hundreds of requests).
        """
        if not self.takes_hints:
            return  # the answer has begun, or the client speaks HTTP/1.0
        hints = memoryview(response.early_hints(headers))
        try:
            hints = hints[self.sock.send(hints) :]
            while hints:
                if not self._becomes_writable():
                    # Half a head cannot be taken back; the answer will find nobody.
                    self.sock.shutdown(socket.SHUT_RDWR)
                    return
                hints = hints[self.sock.send(hints) :]
        except OSError:
            pass  # RFC 8297: hints may be left out; and who left will be noticed soon

    def _becomes_writable(self) -> bool:
        poller = select.poll()
        poller.register(self.fd, select.POLLOUT)
        return bool(poller.poll(_HINTS_PATIENCE))

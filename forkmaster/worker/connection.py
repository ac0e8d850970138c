"""One client's connection, as the reactor holds it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from forkmaster.worker.timers import NEVER

if TYPE_CHECKING:
    import socket

    from forkmaster.http.body import Body
    from forkmaster.http.environ import Origin
    from forkmaster.worker.exchange import Exchange

# What a connection is at.
IDLE = 0  # between requests, with not one byte of the next
PROXY = 1  # before the PROXY header is complete
HEAD = 2  # a part of a head has come
BODY = 3  # the head is accepted, a part of the body has come
BUSY = 4  # the application is being called, in this thread or another
WRITING = 5  # the socket takes no more of the answer just now
LINGERING = 6  # our end is closed; we read until the client closes its own
CLOSED = 7


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
        "where",
    )

    def __init__(self, sock: socket.socket, where: int, origin: Origin) -> None:
        self.sock = sock
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
        self.served = False  # whether a request was answered on it
        self.proxied: dict[str, str] | None = None  # environ keys from a PROXY header
        self.exchange: Exchange | None = None
        self.body: Body | None = None

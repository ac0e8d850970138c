"""TLS for an asgi worker: the loop's own, once a client has shown that it speaks it.

The loop knows nothing of a client before its handshake is complete, nor what it said if that
was no TLS.  So the first byte is looked at here, and left in the socket: a handshake goes to the
loop, plain HTTP gets an answer that says why, and whoever says nothing is closed after
`header_timeout`.
"""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING, Protocol

from forkmaster.http.errors import SPEAKS_TLS, Refused
from forkmaster.worker.asgi_http import LAST_WORDS, HTTPConnection
from forkmaster.worker.tls import HANDSHAKE_RECORD

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from forkmaster.config.table import Config
    from forkmaster.worker.certificates import Encryption

# Neither loop takes 0 for "no limit".
_A_DAY = 86400.0


class Owner(Protocol):
    """What a worker is for this."""

    config: Config
    loop: asyncio.AbstractEventLoop

    def connection_closed(self) -> None:
        """Called for each connection that never came to be one."""

    def step(self, opening: Coroutine[asyncio.Future[object], None, object]) -> None:
        """Begin a connection."""


class Doorkeeper:
    """Lets connections in when they begin with a handshake."""

    def __init__(self, owner: Owner, encryption: Encryption) -> None:
        self._owner = owner
        self._encryption = encryption
        self._silent: dict[socket.socket, asyncio.TimerHandle | None] = {}

    def receive(self, connection: socket.socket, protocol: HTTPConnection) -> None:
        """Have `protocol` speak to this client as soon as it is known how."""
        patience = self._owner.config.header_timeout
        loop = self._owner.loop
        timer = loop.call_later(patience, self._turn_away, connection) if patience else None
        self._silent[connection] = timer
        loop.add_reader(connection, self._look, connection, protocol)

    def turn_all_away(self) -> None:
        """Close the connections that nothing was said on."""
        for connection in list(self._silent):
            self._turn_away(connection)

    def _look(self, connection: socket.socket, protocol: HTTPConnection) -> None:
        try:
            first = connection.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return
        except OSError:
            first = b""
        owner, loop = self._owner, self._owner.loop
        if first[:1].isalpha():
            self._forget(connection)
            protocol.refusal = Refused(400, SPEAKS_TLS)
            owner.step(loop.connect_accepted_socket(lambda: protocol, connection))
        elif first and first[0] == HANDSHAKE_RECORD:
            self._forget(connection)
            owner.step(
                loop.connect_accepted_socket(
                    lambda: protocol,
                    connection,
                    ssl=self._encryption.context,
                    ssl_handshake_timeout=owner.config.header_timeout or _A_DAY,
                    ssl_shutdown_timeout=LAST_WORDS,
                )
            )
        else:
            self._turn_away(connection)

    def _forget(self, connection: socket.socket) -> None:
        self._owner.loop.remove_reader(connection)
        timer = self._silent.pop(connection)
        if timer is not None:
            timer.cancel()

    def _turn_away(self, connection: socket.socket) -> None:
        self._forget(connection)
        connection.close()
        self._owner.connection_closed()

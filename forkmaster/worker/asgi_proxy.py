"""The PROXY protocol in an asgi worker: who the client is, before the loop hears of it.

The header is read from the socket itself, and not a byte more, so that what follows it may be
TLS as well as HTTP.  Who may send one, and what is done with it, is as in reactor.py: trust in
headers goes by the proxy, and the address that it told stays with the connection.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from forkmaster.http import proxy
from forkmaster.http.errors import Refused
from forkmaster.http.trust import AllowList

if TYPE_CHECKING:
    from collections.abc import Callable

    from forkmaster.config.table import Config
    from forkmaster.worker.asgi_http import HTTPConnection

log = logging.getLogger("forkmaster.error")

# More than the longest header; see proxy.py.
_LONGEST = 8192


class Owner(Protocol):
    """What a worker is for this."""

    config: Config
    loop: asyncio.AbstractEventLoop

    def connection_closed(self) -> None:
        """Called for each connection that never came to be one."""


@dataclass
class _Waiting:
    protocol: HTTPConnection
    timer: asyncio.TimerHandle | None
    read: bytes = b""


class ProxyGate:
    """Lets connections in that begin with a header of an allowed proxy."""

    def __init__(
        self, owner: Owner, let_in: Callable[[socket.socket, HTTPConnection], None]
    ) -> None:
        self._owner = owner
        self._let_in = let_in
        self._mode = owner.config.proxy_protocol
        self._proxies = AllowList(owner.config.proxy_allow_ips)
        self._waiting: dict[socket.socket, _Waiting] = {}

    def receive(self, connection: socket.socket, protocol: HTTPConnection) -> None:
        """Let `protocol` in as soon as it is known who speaks."""
        client, loop = protocol.client, self._owner.loop
        if client is not None and client[0] not in self._proxies:
            log.warning("%s is not in proxy_allow_ips; closing the connection", client[0])
            connection.close()
            self._owner.connection_closed()
            return
        patience = self._owner.config.header_timeout
        timer = loop.call_later(patience, self._turn_away, connection) if patience else None
        self._waiting[connection] = _Waiting(protocol, timer)
        loop.add_reader(connection, self._look, connection)

    def turn_all_away(self) -> None:
        """Close the connections of which nothing is known."""
        for connection in list(self._waiting):
            self._turn_away(connection)

    def _look(self, connection: socket.socket) -> None:
        waiting = self._waiting[connection]
        try:
            seen = connection.recv(_LONGEST, socket.MSG_PEEK)
        except BlockingIOError:
            return
        except OSError:
            seen = b""
        if not seen:
            self._turn_away(connection)
            return
        protocol = waiting.protocol
        rest = b""
        try:
            parsed = proxy.parse(waiting.read + seen, self._mode)
        except Refused as refused:
            protocol.refusal = refused
        else:
            if parsed is None:
                waiting.read += connection.recv(len(seen))
                return
            said, rest = parsed
            if said.names_a_client:
                protocol.learn_client((said.client, said.client_port))
        # Of a refused one all, or its end would be a reset.
        connection.recv(len(seen) - len(rest))
        self._forget(connection)
        self._let_in(connection, protocol)

    def _forget(self, connection: socket.socket) -> None:
        self._owner.loop.remove_reader(connection)
        timer = self._waiting.pop(connection).timer
        if timer is not None:
            timer.cancel()

    def _turn_away(self, connection: socket.socket) -> None:
        self._forget(connection)
        connection.close()
        self._owner.connection_closed()

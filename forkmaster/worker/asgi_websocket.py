"""Websockets: uvicorn's protocols for them, counted, logged and closed gently.

Of uvicorn only these protocols are used, with its `Config` and `ServerState` that they want.
Supported is uvicorn from 0.30 on; the attributes that are used here, none of them documented:
connections, default_headers and tasks of ServerState; app, scope and transport of the protocols,
and their shutdown().
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import random
from time import monotonic_ns
from typing import TYPE_CHECKING, Any

import uvicorn
from uvicorn.server import ServerState

from forkmaster.board import layout
from forkmaster.http.scope import wire_head

if TYPE_CHECKING:
    from collections.abc import Callable, MutableMapping

    from forkmaster.worker.asgi_http import HTTPConnection, Owner
    from forkmaster.worker.asgi_options import UvicornOptions

    Scope = MutableMapping[str, Any]
    Message = MutableMapping[str, Any]

log = logging.getLogger("forkmaster.error")


class UvicornConfig(uvicorn.Config):
    """uvicorn's configuration from ours, already loaded."""

    owner: Owner
    """The worker whose connections these are."""

    def __init__(self, application: Callable[..., Any], options: UvicornOptions) -> None:
        arguments: dict[str, Any] = {
            "ws_max_size": options.config.websocket_max_message_size,
            "root_path": options.config.root_path,
            **options.websocket,
        }
        super().__init__(
            application,
            http=asyncio.Protocol,  # HTTP is ours, so that none of its own is imported
            interface="asgi2" if is_asgi2(application) else "asgi3",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            date_header=False,
            workers=1,  # else it reads WEB_CONCURRENCY
            **arguments,
        )
        self.load()

    def load_app(self) -> Any:
        """The application itself: `load` would call one without required parameters."""
        application = self.app

        def factory() -> Any:
            return application

        self.factory = True
        return factory


def is_asgi2(application: object) -> bool:
    """Whether it is called with the scope alone, and its instance with receive and send."""
    if getattr(application, "_asgi_double_callable", False):
        return True
    return inspect.isclass(application) and not hasattr(application, "__await__")


def follow_our_log() -> None:
    """Let uvicorn log where we do; at info it would tell of every websocket."""
    theirs = logging.getLogger("uvicorn.error")
    theirs.handlers = log.handlers
    theirs.propagate = log.propagate
    level = log.getEffectiveLevel()
    theirs.setLevel(level if level <= logging.DEBUG else max(level, logging.WARNING))
    theirs.addFilter(_tell_no_errors_of_clients)


def _tell_no_errors_of_clients(record: logging.LogRecord) -> bool:
    """Of a client's mistake uvicorn logs an error with a traceback; it is its close code's."""
    return not record.msg.startswith("Invalid UTF-8")


class WebSockets:
    """All websockets of one worker."""

    def __init__(
        self, owner: Owner, application: Callable[..., Any], options: UvicornOptions
    ) -> None:
        self._owner = owner
        self.config = UvicornConfig(application, options)
        self.config.owner = owner
        self.application: Callable[..., Any] = self.config.loaded_app
        """The application, called with three arguments whatever it is written for."""
        self.state = ServerState()
        protocol = self.config.ws_protocol_class
        self._protocol: type[Any] | None = protocol and type(
            "_WebSocketProtocol", (_Counted, protocol), {}
        )

    def follow_with(self, headers: list[tuple[bytes, bytes]]) -> None:
        """Let answers to handshakes have these headers from now on."""
        self.state.default_headers = headers

    def open(self, connection: HTTPConnection, scope: Scope, rest: bytes) -> bool:
        """Make a websocket of the connection that asked for it; False if there are none."""
        if self._protocol is None:
            return False
        protocol = self._protocol(
            config=self.config, server_state=self.state, app_state=self._owner.app_state
        )
        transport = connection.transport
        protocol.connection_made(transport)
        protocol.app = Session(
            self._owner, self.application, scope, is_trusted=connection.is_trusted
        )
        target = scope["raw_path"][len(self.config.root_path.encode()) :]
        if scope["query_string"]:
            target += b"?" + scope["query_string"]
        protocol.app.head = head = wire_head(scope, target)
        protocol.data_received(head + rest)
        transport.set_protocol(protocol)
        return True

    def close_all(self, apart: float, within: float) -> None:
        """Close them with 1012, "service restart", one every `apart` seconds.

        All at once, thousands of clients would come back in the same moment.  Faster if they
        are too many to be done `within` so many seconds.
        """
        connections = list(self.state.connections)
        random.shuffle(connections)
        if connections:
            apart = min(apart, within / len(connections))
        for number, connection in enumerate(connections):
            self._owner.loop.call_later(apart * number, self._close, connection)

    def _close(self, connection: Any) -> None:
        if connection in self.state.connections and not connection.transport.is_closing():
            connection.shutdown()

    def abort(self) -> None:
        """Cancel and close everything."""
        # It would be logged as an exception of the application.
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL + 1)
        for task in list(self.state.tasks):
            task.cancel()
        for connection in list(self.state.connections):
            connection.transport.abort()


class _Counted:
    """Before one of uvicorn's websocket protocols: counts what comes, and tells of the end."""

    config: UvicornConfig

    def data_received(self, data: bytes) -> None:
        self.config.owner.words[layout.BYTES_IN] += len(data)
        super().data_received(data)  # type: ignore[misc]  # of the protocol it is mixed into

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)  # type: ignore[misc]
        self.config.owner.connection_closed()


class Session:
    """The application for one websocket, with our eyes around it."""

    ending = ""

    def __init__(
        self,
        owner: Owner,
        application: Callable[..., Any],
        request: Scope,
        *,
        is_trusted: bool = False,
    ) -> None:
        self._owner = owner
        self._application = application
        self._request = request
        self.is_trusted = is_trusted
        self.head = b""
        self.scope: Scope = request
        self.start: Message | None = None
        # What a handshake is answered that the application neither accepts nor refuses.
        self.status = 500
        self._sent = 0

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        owner, request = self._owner, self._request
        self._request = scope  # or thousands of idle websockets would keep two scopes each
        ledger = owner.ledger
        began = monotonic_ns()
        if began >= owner.date_expires:
            owner.renew_date()
        # What a proxy said is known already; uvicorn knows the peer alone.
        scope["client"] = request["client"]
        scope["scheme"] = "wss" if request["scheme"] == "https" else "ws"
        if request["root_path"] != scope["root_path"]:
            scope["root_path"] = request["root_path"]
        self.scope = scope
        self._send = send
        ledger.websockets += 1
        try:
            await self._application(scope, receive, self._observed)
        except asyncio.CancelledError:
            if not owner.is_quitting:
                raise
        except BaseException as exc:
            owner.words[layout.ERRORS] += 1
            exc.add_note(f"while serving the websocket {scope['path']}")
            raise
        finally:
            ledger.websockets -= 1
            owner.words[layout.BYTES_OUT] += self._sent
            ledger.log_access(self, self._sent, monotonic_ns() - began)
            if ledger.limits.counts:
                ledger.limits.count()
            owner.look_whether_drained()

    def _observed(self, message: Message) -> Any:
        kind = message["type"]
        if kind == "websocket.send":
            self._sent += len(message.get("bytes") or message.get("text") or b"")
        elif kind == "websocket.accept":
            words = self._owner.words
            words[layout.WEBSOCKETS] += 1
            words[layout.STATUS + 1] += 1
            self.status, self.start = 101, message
        elif kind == "websocket.http.response.start":
            self.status, self.start = message["status"], message
        elif kind == "websocket.close" and self.start is None:
            self.status = 403
        return self._send(message)

"""A connection of the worker hypercorn without a socket, and a client that speaks HTTP/2."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import h2.events
from h2.config import H2Configuration
from h2.connection import H2Connection

from forkmaster.board.slot import Slot
from forkmaster.config.table import Config
from forkmaster.worker.http2 import HTTP2Connection, HypercornConfig, NegotiatedConnection
from tests.unit.worker.asgi_talk import Application, FakeOwner, FakeTransport, settle

Headers = list[tuple[str, str]]


class FakeHTTP2Owner(FakeOwner):
    """What a worker is for connections that may speak HTTP/2."""

    def __init__(self, application: Application, slot: Slot, config: Config) -> None:
        super().__init__(application, slot, config)
        self.options = SimpleNamespace(websocket={"ws_ping_interval": None})
        self.hypercorn = HypercornConfig(self)  # type: ignore[arg-type]


class Switchable(FakeTransport):
    """A transport whose protocol is changed."""

    protocol: Any = None

    def set_protocol(self, protocol: Any) -> None:
        self.protocol = protocol


class HTTP2Talk:
    """A client with prior knowledge, inside a running loop."""

    def __init__(self, application: Application, slot: Slot, **settings: Any) -> None:
        self.owner = FakeHTTP2Owner(application, slot, Config(**settings))
        self.transport = Switchable()
        first = NegotiatedConnection(
            self.owner,  # type: ignore[arg-type]
            ("127.0.0.1", 50000),
            ("127.0.0.1", 8000),
        )
        self.transport.protocol = first
        first.connection_made(self.transport)
        self.h2 = H2Connection(
            H2Configuration(
                client_side=True,
                header_encoding="utf-8",
                # What a client sends that is wrong must reach the server.
                validate_outbound_headers=False,
                normalize_outbound_headers=False,
            )
        )
        self.h2.initiate_connection()
        self.events: list[h2.events.Event] = []
        self._read = 0

    @property
    def connection(self) -> HTTP2Connection:
        """The server's side."""
        assert isinstance(self.transport.protocol, HTTP2Connection)
        return self.transport.protocol

    async def exchange(self) -> None:
        """Pass what both sides have, until neither has any more."""
        while True:
            data = self.h2.data_to_send()
            if data:
                self.transport.protocol.data_received(data)
            await settle()
            answer = self.transport.written[self._read :]
            if not data and not answer:
                return
            self._read = len(self.transport.written)
            if answer:
                self.events += self.h2.receive_data(answer)

    def begin(
        self,
        path: str = "/",
        method: str = "GET",
        headers: Headers | None = None,
        *,
        ends: bool = True,
        authority: str | None = "localhost",
    ) -> int:
        """Send the head of a request; returns its stream."""
        pseudo = [(":method", method), (":scheme", "http"), (":path", path)]
        if authority is not None:
            pseudo.append((":authority", authority))
        stream = self.h2.get_next_available_stream_id()
        self.h2.send_headers(stream, pseudo + (headers or []), end_stream=ends)
        return stream

    async def ask(self, path: str = "/", **options: Any) -> Answer:
        """The answer to one request without a body."""
        stream = self.begin(path, **options)
        await self.exchange()
        return self.answer(stream)

    def answer(self, stream: int) -> Answer:
        """What has come on a stream so far."""
        answer = Answer()
        for event in self.events:
            if getattr(event, "stream_id", None) == stream:
                answer.take(event)
        return answer

    def terminations(self) -> list[tuple[int, int | None]]:
        """The error code and the last stream of each GOAWAY."""
        return [
            (int(event.error_code or 0), event.last_stream_id)
            for event in self.events
            if isinstance(event, h2.events.ConnectionTerminated)
        ]


class Answer:
    """One stream, as the client sees it."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.informational: list[str] = []
        self.trailers: dict[str, str] = {}
        self.body = b""
        self.is_whole = False
        self.reset: int | None = None

    def take(self, event: Any) -> None:
        match event:
            case h2.events.InformationalResponseReceived():
                self.informational.append(dict(event.headers)[":status"])
            case h2.events.ResponseReceived():
                self.headers = dict(event.headers)
                self.status = int(self.headers[":status"])
            case h2.events.DataReceived():
                self.body += event.data
            case h2.events.TrailersReceived():
                self.trailers = dict(event.headers)
            case h2.events.StreamEnded():
                self.is_whole = True
            case h2.events.StreamReset():
                self.reset = int(event.error_code)

"""One stream of HTTP/2: the application, called for it by the rules of HTTP/1.1.

The fields of a request become the lines of a head, which the reader of HTTP/1.1 judges: limits,
Host, underscores and what a proxy may say are the same for both.  The answer of an application
is checked by http/answer.py.  h2 has seen to what is of HTTP/2 alone: names in lower case, no
connection headers, pseudo-headers complete, a Content-Length that is true.

`HTTP2Stream` is to an `Exchange` what a connection of HTTP/1.1 is to it, and `WebSocketStream` to
a `Session`.  Nothing here knows hypercorn, but for the events and messages of ASGI that it passes.
"""

from __future__ import annotations

import asyncio
import logging
from time import monotonic
from typing import TYPE_CHECKING, Any, Protocol

from forkmaster.board import layout
from forkmaster.http.answer import read_head
from forkmaster.http.errors import Refused
from forkmaster.http.response import (
    OWN_DATE,
    OWN_SERVER,
    SERVER,
    WANTS_CLOSE,
    has_no_body,
    refusal_body,
)
from forkmaster.http.streamed import StreamedFrames
from forkmaster.logs.access import CLIENT_LEFT
from forkmaster.worker.asgi_exchange import Exchange, shown_client
from forkmaster.worker.asgi_http import HIGH_WATER
from forkmaster.worker.asgi_websocket import Session
from forkmaster.worker.failures import log_failure
from forkmaster.worker.request_hooks import ending_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Iterable, MutableMapping

    from forkmaster.http.scope import Fields, ScopeReader
    from forkmaster.worker.asgi_http import Owner

    Scope = MutableMapping[str, Any]
    Message = MutableMapping[str, Any]

log = logging.getLogger("forkmaster.error")

# So many messages of a websocket wait for the application before the client has to.
MESSAGES = 16


class StreamConnection(Protocol):
    """What a connection is for its streams."""

    client: tuple[str, int] | None
    server: tuple[str, int | None]
    shown: bytes
    scheme: str
    reader: ScopeReader

    @property
    def owner(self) -> Owner: ...

    def spawn(self, function: Callable[..., Awaitable[None]], *arguments: Any) -> None: ...

    def ended(self, stream: Stream) -> None: ...

    def reset(self, number: int) -> Coroutine[Any, Any, None]: ...

    async def inform(self, number: int) -> None: ...

    def acknowledge(self, size: int, number: int) -> None: ...

    def unsent(self, number: int) -> int: ...

    def heed_close(self, stream: WebSocketStream) -> None: ...


class Stream:
    """What streams of both kinds have in common."""

    def __init__(self, connection: StreamConnection, number: int, asked: Scope, send: Any) -> None:
        """`asked` is hypercorn's scope, `send` what takes the messages of the application."""
        self.connection = connection
        self.owner = connection.owner
        self.client, self.shown = connection.client, connection.shown
        self.number = number
        self.unacknowledged = 0
        """Bytes of the client that count against its window until they are taken."""
        self._asked = asked
        self._send = send
        self._is_broken = False
        self._unsent = 0
        self._heard = monotonic()  # when the client last sent or took something

    @property
    def is_full(self) -> bool:
        """Whether the application has to take something before the client may send more."""
        raise NotImplementedError

    def begin(self) -> None:
        """Start a task for it."""
        raise NotImplementedError

    def lose(self) -> None:
        """The connection is gone, or the client has reset the stream."""
        raise NotImplementedError

    async def put(self, message: Message) -> None:
        """Take an event for the application."""
        raise NotImplementedError

    def check_patience(self, now: float) -> None:
        """End it if the client has taken nothing of the answer for write_timeout."""
        unsent = self.connection.unsent(self.number)
        if unsent != self._unsent:
            self._unsent, self._heard = unsent, now
        elif unsent and 0 < self.owner.config.write_timeout < now - self._heard:
            log.info("a client stopped reading (write_timeout)")
            self.lose()
            self.connection.spawn(self.connection.reset, self.number)

    @property
    def is_trusted(self) -> bool:
        """Whether the peer is a proxy that is trusted."""
        return self.connection.reader.trusted

    def _head(self, version: bytes) -> bytes:
        """What was asked, as the head of a request of HTTP/1.1 would be but for the version."""
        asked = self._asked
        target = asked["raw_path"]
        if asked["query_string"]:
            target += b"?" + asked["query_string"]
        method = asked.get("method", "GET").encode("latin-1")
        lines = [b"%s %s HTTP/%s" % (method, target, version)]
        lines += [b"%s: %s" % field for field in with_one_cookie(asked["headers"])]
        if any(b"\r" in line or b"\n" in line for line in lines):
            # RFC 9113 8.2.1; as lines they would be several.
            raise Refused(400, "a line break in a header (RFC 9113 8.2.1)")
        return b"\r\n".join(lines)

    def _read(self) -> tuple[Scope, Fields]:
        """The scope, and what its fields mean.  Raises Refused."""
        scope, fields = self.connection.reader.read(self._head(b"1.1"))
        scope["http_version"] = "2"
        scope["server"] = self.connection.server
        scope["client"] = fields.client or self.client
        scope["scheme"] = fields.scheme or self.connection.scheme
        scope["state"] = self.owner.app_state.copy()
        return scope, fields

    async def _refuse(self, refused: Refused) -> None:
        """Answer with the status of the refusal.  The other streams are not concerned."""
        owner = self.owner
        owner.words[layout.REFUSED] += 1
        if 400 <= refused.status < 600:
            owner.words[layout.STATUS + refused.status // 100] += 1
        client = self.client[0] if self.client else ""
        log.info(
            "refused a request from %s with %d: %s",
            client or "a unix socket",
            refused.status,
            refused.reason,
        )
        try:
            head = self._head(b"2.0")
        except Refused:
            head = b""
        owner.ledger.log_refused(head, client, refused)
        await self._answer(refused.status, refused.reason)
        await self._send(None)
        self.connection.ended(self)

    async def _answer(self, status: int, reason: str) -> None:
        body = refusal_body(status, reason)
        headers = [
            (b"content-type", b"text/html; charset=utf-8"),
            (b"content-length", b"%d" % len(body)),
            *self.server_headers(0),
        ]
        kind = "websocket.http.response" if self._asked["type"] == "websocket" else "http.response"
        await self._send({"type": f"{kind}.start", "status": status, "headers": headers})
        await self._send({"type": f"{kind}.body", "body": body})

    def server_headers(self, own: int) -> list[tuple[bytes, bytes]]:
        """Server and Date; `own` has the bits of those that the application set itself."""
        headers = []
        if not own & OWN_SERVER:
            headers.append((b"server", SERVER))
        if not own & OWN_DATE:
            headers.append((b"date", self.owner.tails.date[6:-2]))
        return headers


class HTTP2Stream(Stream):
    """A request, and its answer."""

    def __init__(self, connection: StreamConnection, number: int, asked: Scope, send: Any) -> None:
        super().__init__(connection, number, asked, send)
        self._exchange: HTTP2Exchange | None = None
        self._instead: tuple[int, str] | None = None
        self._stopping: asyncio.Task[None] | None = None

    @property
    def is_full(self) -> bool:
        exchange = self._exchange
        return exchange is not None and exchange.body.waiting >= HIGH_WATER

    def begin(self) -> None:
        owner = self.owner
        try:
            scope, fields = self._read()
            limit = owner.config.limit_request_body
            if 0 < limit < (fields.length or 0):
                raise Refused(413, "the body is too large (limit_request_body)")
        except Refused as refused:
            self.connection.spawn(self._refuse, refused)
            return
        scope["extensions"] = {"http.response.trailers": {}}
        self._exchange = exchange = HTTP2Exchange(self, scope, self._head(b"2.0"))
        scope["forkmaster.extend_timeout"] = exchange.extend_timeout
        exchange.body = StreamedFrames(limit)
        exchange.expects_continue = fields.expects_continue
        owner.exchanges.add(exchange)
        exchange.task = owner.loop.create_task(self._serve(exchange))

    async def _serve(self, exchange: HTTP2Exchange) -> None:
        await exchange.run()
        if self._stopping is not None:
            await self._stopping
        elif self._is_broken:
            await self.connection.reset(self.number)
        elif self._instead is not None:
            await self._answer(*self._instead)
        await self._send(None)
        self.connection.ended(self)

    async def put(self, message: Message) -> None:
        exchange = self._exchange
        if exchange is None:
            return
        if message["type"] == "http.disconnect":
            self.lose()
            return
        self._heard = monotonic()
        exchange.expects_continue = False
        try:
            exchange.body.feed(message["body"])
        except Refused as refused:
            self._stop(exchange, refused)
            return
        exchange.more_body = message["more_body"]
        exchange.wake()

    def lose(self) -> None:
        exchange = self._exchange
        if exchange is not None and not exchange.response_complete:
            exchange.is_lost = True
            exchange.ending = exchange.ending or CLIENT_LEFT
            exchange.disconnect()

    def check_patience(self, now: float) -> None:
        super().check_patience(now)
        exchange = self._exchange
        if (
            exchange is not None
            and exchange.more_body
            and not exchange.response_complete
            and not exchange.expects_continue
            and not exchange.is_lost
            and not self.is_full
            and 0 < self.owner.config.body_timeout < now - self._heard
        ):
            self._stop(exchange, Refused(408, "the body took too long (body_timeout)"))

    def _stop(self, exchange: HTTP2Exchange, refused: Refused) -> None:
        """Answer for the application, which is told that its client is gone."""
        self.owner.words[layout.REFUSED] += 1
        exchange.is_lost = True
        exchange.ending = ending_of(refused)
        exchange.disconnect()
        self._exchange = None
        if exchange.has_begun:
            ending = self.connection.reset(self.number)
        else:
            exchange.refused = refused.status
            ending = self._answer(refused.status, refused.reason)
        self._stopping = self.owner.loop.create_task(ending)

    # --- What the exchange asks for -----------------------------------------------------------

    async def write(self, message: Message) -> None:
        """Send one of ASGI's messages."""
        await self._send(message)

    def taken(self, exchange: Exchange) -> None:
        """The application has taken what had come of the body."""
        if self.unacknowledged:
            size, self.unacknowledged = self.unacknowledged, 0
            self.connection.acknowledge(size, self.number)

    def answered(self, exchange: Exchange) -> None:
        """The whole answer is written."""

    def break_off(self, exchange: Exchange) -> None:
        """End without a whole answer."""
        self._is_broken = True

    def answer_for(self, exchange: Exchange, status: int, reason: str) -> None:
        """Answer in place of an application that has not begun to."""
        self._instead = status, reason


class HTTP2Exchange(Exchange):
    """One request and its answer; the framing is hypercorn's."""

    __slots__ = ("_stream", "_trailers")

    body: StreamedFrames

    def __init__(self, stream: HTTP2Stream, scope: Scope, head: bytes) -> None:
        # To an Exchange the stream is its connection.
        super().__init__(stream, scope, head, keep_alive=True, is_http11=False)  # type: ignore[arg-type]
        self._stream = stream
        self._trailers = False  # the application has announced some

    async def receive(self) -> Message:
        if self.expects_continue and not self.has_begun:
            self.expects_continue = False
            await self._stream.connection.inform(self._stream.number)
        return await super().receive()

    async def send(self, message: Message) -> None:
        kind = message["type"]
        if self.start is None:
            if kind != "http.response.start":
                raise RuntimeError(f"expected http.response.start, but got {kind}")
            self._answer = read_head(message["status"], message.get("headers") or ())
            self._trailers = message.get("trailers", False)
            self.start = message
            return
        if self.response_complete and not self.is_lost:
            raise RuntimeError(f"{kind} after the end of the response")
        if kind == "http.response.trailers" and self._trailers:
            await self._send_trailers(message)
            return
        if kind != "http.response.body":
            raise RuntimeError(f"expected http.response.body, but got {kind}")
        body = message.get("body") or b""
        more = message.get("more_body", False)
        if self.is_lost:
            self.response_complete = not more
            return
        size = len(body)
        if not self.has_begun:
            await self._stream.write(self._first_message(size, more))
        excess = False
        if self._omits:
            body, size = b"", 0
        elif self._missing >= 0:
            excess = size > self._missing
            size = min(size, self._missing)
            body = body[:size]
            self._missing -= size
        if not more and self._missing > 0:
            raise RuntimeError("the response is shorter than its Content-Length")
        self._sent += size
        ends = excess or not more
        await self._stream.write(
            {"type": "http.response.body", "body": bytes(body), "more_body": not ends}
        )
        if ends and not self._trailers:
            self._end()
        if excess:
            raise RuntimeError("the response is longer than its Content-Length")

    def _first_message(self, size: int, more: bool) -> Message:
        """http.response.start.  Only now: the first body tells how long it is."""
        assert self._answer is not None
        assert self.start is not None
        lines, length, own = self._answer
        owner = self._stream.owner
        self.has_begun = True
        headers = [
            _field(line) for line in (*lines[1:], *owner.extra_lines)
        ] + self._stream.server_headers((own | owner.own) & ~WANTS_CLOSE)
        if self.scope["method"] == "HEAD" or has_no_body(self.status):
            self._omits = True
        elif length >= 0:
            self._missing = length
        elif not more and not self._trailers:
            self._missing = size
            headers.append((b"content-length", b"%d" % size))
        else:
            self._missing = -1
        return {
            "type": "http.response.start",
            "status": self.status,
            "headers": headers,
            "trailers": self._trailers,
        }

    async def _send_trailers(self, message: Message) -> None:
        lines, _, _ = read_head(200, message.get("headers") or ())
        if message.get("more_trailers", False):
            raise RuntimeError("all trailers must come in one message")
        if self.is_lost:
            self.response_complete = True
            return
        await self._stream.write(
            {"type": "http.response.trailers", "headers": [_field(line) for line in lines[1:]]}
        )
        self._end()


class WebSocketStream(Stream):
    """A websocket over HTTP/2 (RFC 8441)."""

    def __init__(self, connection: StreamConnection, number: int, asked: Scope, send: Any) -> None:
        super().__init__(connection, number, asked, send)
        self._events: asyncio.Queue[Message] = asyncio.Queue()
        self._task: asyncio.Task[None] | None = None
        self._is_accepted = self._is_closed = False
        self.close_code = 1006  # what the client closed with

    @property
    def protocol(self) -> Any:
        """hypercorn's side of it."""
        return self._send.__self__

    @property
    def is_full(self) -> bool:
        return self._events.qsize() >= MESSAGES

    def begin(self) -> None:
        owner = self.owner
        try:
            request, _ = self._read()
        except Refused as refused:
            self.connection.spawn(self._refuse, refused)
            return
        session = Session(owner, owner.application, request, is_trusted=self.is_trusted)
        session.head = self._head(b"2.0")
        asked = self._asked
        scope = {
            **request,
            "type": "websocket",
            "subprotocols": list(asked["subprotocols"]),
            "extensions": asked["extensions"],
        }
        del scope["method"]
        self._task = owner.loop.create_task(self._serve(session, scope))

    async def _serve(self, session: Session, scope: Scope) -> None:
        try:
            await session(scope, self._receive, self._observed)
        except BaseException as exc:  # a SystemExit would end the loop
            log_failure(f"websocket {scope['path']} from {_name(scope['client'])}", exc)
        else:
            if self._is_accepted and not self._is_closed:
                await self._send({"type": "websocket.close", "code": 1000})
        await self._send(None)
        self.connection.ended(self)

    async def put(self, message: Message) -> None:
        self._heard = monotonic()
        if message["type"] == "websocket.disconnect":
            self.lose()
        else:
            self._events.put_nowait(message)

    def lose(self) -> None:
        self._is_closed = True
        self._events.put_nowait({"type": "websocket.disconnect", "code": self.close_code})

    def restart(self) -> None:
        """Close it with 1012, "service restart"."""
        if self._is_accepted and not self._is_closed:
            self._close(1012, "Service Restart")

    def fail(self, code: int) -> None:
        """Close it because the client broke the protocol (RFC 6455 7.4.1)."""
        self.close_code = code
        self._close(code)
        self.lose()

    def _close(self, code: int, reason: str | None = None) -> None:
        self._is_closed = True
        message = {"type": "websocket.close", "code": code, "reason": reason}
        self.connection.spawn(self._send, message)

    async def _receive(self) -> Message:
        message = await self._events.get()
        if self.unacknowledged:
            size, self.unacknowledged = self.unacknowledged, 0
            self.connection.acknowledge(size, self.number)
        return message

    async def _observed(self, message: Message) -> None:
        if self._is_closed:
            return  # the application does not know yet
        if message["type"] == "websocket.accept":
            self._is_accepted = True
        elif message["type"] == "websocket.close":
            self._is_closed = True
        await self._send(message)
        if message["type"] == "websocket.accept":
            self.connection.heed_close(self)


def with_one_cookie(
    headers: Iterable[tuple[bytes, bytes]],
) -> list[tuple[bytes, bytes]]:
    """The headers, with the cookies in one: HTTP/2 lets a client cut it up (RFC 9113 8.2.3)."""
    fields = [(name, value) for name, value in headers if name != b"cookie"]
    cookies = [value for name, value in headers if name == b"cookie"]
    if cookies:
        fields.append((b"cookie", b"; ".join(cookies)))
    return fields


def _field(line: bytes) -> tuple[bytes, bytes]:
    name, _, value = line[:-2].partition(b": ")
    return name.lower(), value


def _name(client: tuple[str, int] | None) -> str:
    return shown_client(client).decode("latin-1") or "a unix socket"

"""HTTP/1.1 for an ASGI application: one connection, and one exchange for each request on it.

What goes in are the bytes a transport of asyncio's or uvloop's received; what comes out are calls
of the application and bytes of answers.  The rules for heads, bodies and answers are those of
forkmaster/http, the same for every kind of worker.

**Not uvicorn's protocol** on httptools, of which this was once a subclass.  llhttp lets through
what has to be looked for again afterwards (HTTP/0.9 and 2.0, any Host, heads, chunk extensions and
trailers without limit; trailers were appended to the headers of the scope), and uvicorn answers
HTTP/1.0 in chunks, sends bodies with 204, and lets a malformed request replace the answer of the
one before it.  A subclass that mended all that was longer than this module, hung on fifteen
undocumented attributes, and was a third slower: records and counters cost a wrapper around the
application there, and are part of the exchange here.

**One at a time.**  What a client sends ahead waits as bytes, unread if it is much, until the
request before is answered.  So an answer is never out of order, and a malformed request is refused
after the answers that are due.

**A client that closes its side** has sent all it will, or is gone; nobody can tell.  `receive`
says http.disconnect, for an application that wants to stop then, as when a proxy gives up.  One
that answers all the same is heard, as long as the connection takes it.
"""

from __future__ import annotations

import asyncio
import logging
from time import monotonic, monotonic_ns
from typing import TYPE_CHECKING, Any, Protocol

from forkmaster.board import layout
from forkmaster.http.answer import read_head
from forkmaster.http.errors import BodyEndedError, Refused
from forkmaster.http.head import HEAD_END, Limits, check_unfinished
from forkmaster.http.response import CONTINUE, LAST_CHUNK, WANTS_CLOSE, has_no_body, refusal
from forkmaster.http.streamed import StreamedBody, StreamedChunks, StreamedLength
from forkmaster.logs.access import CLIENT_LEFT, CUT_OFF, TIMED_OUT
from forkmaster.worker.request_hooks import ending_of

if TYPE_CHECKING:
    from collections.abc import Callable, MutableMapping

    from forkmaster.board.slot import Slot
    from forkmaster.config.table import Config
    from forkmaster.http.response import Tails
    from forkmaster.http.scope import Fields, ScopeReader
    from forkmaster.worker.ledger import Ledger

    Scope = MutableMapping[str, Any]
    Message = MutableMapping[str, Any]

log = logging.getLogger("forkmaster.error")

# 64 KiB: what is held for an application that does not take it, before the client has to wait.
HIGH_WATER = 64 << 10
# 1 MiB: what is read and thrown away of a body that the application answered without reading.
DISCARDED = 1 << 20
# 1 s: the rest of a client's bytes after our FIN.
LAST_WORDS = 1.0

# 16 KiB: below, one copy is cheaper than three pieces.
_COPIED = 16 << 10

_CHUNKED = b"Transfer-Encoding: chunked\r\n"


class Connection(Protocol):
    """What a connection is for its worker, whatever it speaks."""

    transport: asyncio.Transport

    @property
    def is_idle(self) -> bool:
        """Whether no request is on it, nor the beginning of one."""

    def check_patience(self, now: float) -> None:
        """End what has waited for its client for too long.  `now` is monotonic()."""

    def finish(self) -> None:
        """Close it for writing, and read it to its end."""


class Owner(Protocol):
    """What a worker is for its connections."""

    application: Callable[..., Any]
    app_state: dict[str, Any]
    config: Config
    connections: set[Connection]
    date_expires: int
    """When the Date header goes stale, in monotonic nanoseconds."""
    exchanges: set[Exchange]
    """All that are inside the application."""
    extra_lines: list[bytes]
    """Header lines of every answer, beside those of `tails`."""
    closes: bool
    """Whether every answer is the last on its connection."""
    is_draining: bool
    is_quitting: bool
    ledger: Ledger
    limits: Limits
    loop: asyncio.AbstractEventLoop
    own: int
    """Of OWN_DATE and OWN_SERVER those that no answer gets from us."""
    slot: Slot
    tails: Tails
    words: memoryview[int]

    def renew_date(self) -> None:
        """Make a new Date header."""

    def reader_for(self, client: tuple[str, int] | None) -> ScopeReader:
        """What reads the requests of this peer."""

    def connection_closed(self) -> None:
        """Called once for each connection."""

    def look_whether_drained(self) -> None:
        """Called at the end of every request while draining."""

    def open_websocket(self, connection: HTTPConnection, scope: Scope, rest: bytes) -> bool:
        """Hand the connection to a websocket protocol; False if there is none."""


class HTTPConnection(asyncio.Protocol):
    """One client's connection."""

    __slots__ = (
        "_body",
        "_buffer",
        "_ended",
        "_exchange",
        "_finishing",
        "_heard",
        "_paused_reading",
        "_searched",
        "_unsent",
        "_words",
        "_writable",
        "client",
        "is_fresh",
        "owner",
        "reader",
        "refusal",
        "scheme",
        "server",
        "shown",
        "transport",
        "write_paused",
    )

    transport: asyncio.Transport

    def __init__(
        self, owner: Owner, client: tuple[str, int] | None, server: tuple[str, int | None]
    ) -> None:
        """`client` is the peer, None of a unix socket; `server` where it connected to."""
        self.owner = owner
        self.client = client
        self.shown = shown_client(client)
        self.server = server
        self.scheme = "http"
        self.reader = owner.reader_for(client)
        self._words = owner.words
        self._buffer = b""  # the start of a head, or what a client sent ahead
        self._searched = 0  # so much of it has no end of a head
        self._exchange: Exchange | None = None  # from a head to the end of its body and answer
        self._body: StreamedBody | None = None  # of that exchange, while it is not complete
        self._paused_reading = False
        self._ended = False  # the client closed its side
        self._finishing = False  # we closed ours
        self._heard = 0.0  # when something last came, or went, that a timeout waits for
        self.is_fresh = True  # nothing was asked yet
        self.refusal: Refused | None = None  # whatever it asks
        self.write_paused = False
        self._writable: asyncio.Event | None = None
        self._unsent = 0  # what the transport held at the last look

    # --- Called by the transport --------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self.transport = transport
        self.owner.connections.add(self)
        if transport.get_extra_info("sslcontext") is not None:
            self.scheme = "https"
        self._heard = monotonic()
        if self.refusal is not None:
            self._refuse(self.refusal)

    def data_received(self, data: bytes) -> None:
        self._words[layout.BYTES_IN] += len(data)
        if self._exchange is None:
            if not self._finishing:
                self._feed_head(self._buffer + data if self._buffer else data)
        elif self._body is not None:
            self._feed_body(data)
        elif not self._finishing:
            self._buffer += data
            self.pause_reading()

    def eof_received(self) -> bool:
        exchange = self._exchange
        self._ended = True
        if self._finishing or exchange is None or self.scheme == "https":
            return False  # which closes the transport
        if self._body is not None:
            if exchange.response_complete:
                return False
            self._refuse(BodyEndedError())
            return True
        exchange.keep_alive = False
        exchange.disconnect()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        self._finishing = self._ended = True
        self.write_paused = False
        if self._writable is not None:
            self._writable.set()
        if self._exchange is not None:
            self._exchange.is_lost = True
            self._exchange.ending = self._exchange.ending or CLIENT_LEFT
            self._exchange.disconnect()
        self._exchange = self._body = None
        self.owner.connections.discard(self)
        self.owner.connection_closed()

    def pause_writing(self) -> None:
        self.write_paused = True
        self._heard = monotonic()
        self._unsent = self.transport.get_write_buffer_size()

    def resume_writing(self) -> None:
        self.write_paused = False
        if self._writable is not None:
            self._writable.set()

    async def drain(self) -> None:
        """Return when the client has taken enough of what was written."""
        while self.write_paused:
            self._writable = self._writable or asyncio.Event()
            self._writable.clear()
            await self._writable.wait()

    def pause_reading(self) -> None:
        """Let the client wait, which also hides that it goes away."""
        if not self._paused_reading and not self.transport.is_closing():
            self._paused_reading = True
            self.transport.pause_reading()

    def resume_reading(self) -> None:
        """Take what the client sends."""
        if self._paused_reading and not self.transport.is_closing():
            self._paused_reading = False
            self.transport.resume_reading()

    def taken(self, exchange: Exchange) -> None:
        """The application has taken what had come of its body."""
        if self._exchange is exchange and self._body is not None:
            self.resume_reading()

    # --- Reading ------------------------------------------------------------------------------

    def _feed_head(self, data: bytes) -> None:
        if data.startswith(b"\r\n"):
            # RFC 9112 2.2: an empty line before the request is skipped, but only one.
            if len(data) == 2:
                self._wait_for_head(data)
                return
            data = data[2:]
        end = data.find(HEAD_END, self._searched)
        if end < 0:
            self._wait_for_head(data)
            return
        self._searched = 0
        head, self._buffer = data[:end], data[end + 4 :]
        try:
            scope, fields = self.reader.read(head)
            body = None if fields.plain else self._make_body(fields)
        except Refused as refused:
            self._refuse(refused, head)
            return
        self.is_fresh = False
        owner = self.owner
        scope["server"] = self.server
        scope["client"] = fields.client or self.client
        scope["scheme"] = fields.scheme or self.scheme
        scope["state"] = owner.app_state.copy()
        is_http11 = scope["http_version"] == "1.1"
        if (
            fields.upgrade
            and is_http11
            and body is None
            and scope["method"] == "GET"
            and self._upgraded(scope, head)
        ):
            return
        keep_alive = fields.keep_alive if is_http11 else fields.keep_alive_http10
        exchange = Exchange(self, scope, head, keep_alive and not self._ended, is_http11)
        scope["forkmaster.extend_timeout"] = exchange.extend_timeout
        self._exchange = exchange
        if body is not None:
            self._body = exchange.body = body
            exchange.expects_continue = fields.expects_continue and is_http11
            if self._buffer:
                data, self._buffer = self._buffer, b""
                self._feed_body(data)
                if self._finishing:
                    return
        elif self._buffer:
            self.pause_reading()
        if self._ended:
            exchange.disconnect()
        owner.exchanges.add(exchange)
        exchange.task = owner.loop.create_task(exchange.run())

    def _make_body(self, fields: Fields) -> StreamedBody | None:
        limit = self.owner.config.limit_request_body
        if fields.chunked:
            return StreamedChunks(self.owner.limits, limit)
        return StreamedLength(fields.length, limit) if fields.length else None

    def _wait_for_head(self, data: bytes) -> None:
        if not self._buffer and not self.is_fresh:
            self._heard = monotonic()  # when the head began
        self._buffer = data
        self._searched = max(0, len(data) - 3)
        try:
            check_unfinished(data, self.owner.limits)
        except Refused as refused:
            self._refuse(refused)
            return
        if self._ended:
            self.transport.close()  # half a head, and nobody there to be answered

    def _feed_body(self, data: bytes) -> None:
        body, exchange = self._body, self._exchange
        assert body is not None
        assert exchange is not None
        self._heard = monotonic()
        try:
            rest = body.feed(data)
        except Refused as refused:
            self._refuse(refused)
            return
        exchange.expects_continue = False
        if rest is None:
            if exchange.response_complete:
                body.take()
                if body.received > DISCARDED:
                    self.finish()
            elif body.waiting > HIGH_WATER:
                self.pause_reading()
            exchange.wake()
            return
        self._body = None
        self._buffer = rest
        exchange.more_body = False
        if exchange.response_complete:
            self._next()
            return
        if rest:
            self.pause_reading()
        exchange.wake()

    def answered(self, exchange: Exchange) -> None:
        """The whole answer of `exchange` is written."""
        if not exchange.keep_alive:
            self.finish(exchange.client_closes)
        elif self._body is not None:
            # The next request comes after the rest of this one's body.
            self._body.take()
            self.resume_reading()
        else:
            self._next()

    def _next(self) -> None:
        self._exchange = None
        self._heard = monotonic()
        if self._buffer:
            data, self._buffer = self._buffer, b""
            self._feed_head(data)
        if self._exchange is None and not self._finishing:
            if self._ended:
                self.transport.close()
            else:
                self.resume_reading()

    def _upgraded(self, scope: Scope, head: bytes) -> bool:
        owner = self.owner
        if owner.is_draining:  # the next worker is the one to ask
            self._refuse(Refused(503, "this worker is about to stop; try again"), head)
            return True
        rest, self._buffer = self._buffer, b""
        if owner.open_websocket(self, scope, rest):
            owner.connections.discard(self)
            return True
        self._buffer = rest
        return False

    # --- Ending -------------------------------------------------------------------------------

    def _refuse(self, refused: Refused, head: bytes = b"") -> None:
        """Answer with the status of the refusal, and read nothing more from this client."""
        words = self._words
        words[layout.REFUSED] += 1
        log.info(
            "refused a request from %s with %d: %s",
            self.client[0] if self.client else "a unix socket",
            refused.status,
            refused.reason,
        )
        unread = self._buffer
        exchange, self._exchange, self._body, self._buffer = self._exchange, None, None, b""
        if exchange is not None:
            exchange.is_lost = True
            exchange.ending = ending_of(refused)
            exchange.disconnect()
            if exchange.has_begun:  # half an answer must not look like a whole one
                self.transport.abort()
                return
            exchange.refused = refused.status
        else:
            if 400 <= refused.status < 600:
                words[layout.STATUS + refused.status // 100] += 1
            client = self.client[0] if self.client else ""
            self.owner.ledger.log_refused(head or unread, client, refused)
        with_body = not (head or (exchange.head if exchange else b"")).startswith(b"HEAD ")
        date = self.owner.tails.date
        answer = refusal(refused.status, refused.reason, date, with_body=with_body)
        words[layout.BYTES_OUT] += len(answer)
        self.transport.write(answer)
        self.finish()

    def finish(self, client_closes: bool = False) -> None:
        """Close the connection for writing and read it to its end, for a second at most.

        Closed at once, with bytes of the client on their way, it would be reset, and the client
        might lose the answer (RFC 9112 9.6).  One that said that it closes sends nothing more.
        """
        self._finishing = True
        self._buffer = b""
        transport = self.transport
        if transport.is_closing():
            return
        if (client_closes and self._body is None) or self._ended or not transport.can_write_eof():
            transport.close()
            return
        self._body = None
        self._heard = monotonic()
        self._unsent = transport.get_write_buffer_size()
        transport.write_eof()
        self.resume_reading()
        self.owner.loop.call_later(LAST_WORDS, transport.close)

    def break_off(self, exchange: Exchange) -> None:
        """End without a whole answer to `exchange`."""
        self.transport.close()

    def answer_for(self, exchange: Exchange, status: int, reason: str) -> None:
        """Answer in place of an application that has not begun to."""
        with_body = exchange.scope["method"] != "HEAD"
        self.transport.write(refusal(status, reason, self.owner.tails.date, with_body=with_body))
        self.finish()

    def learn_client(self, client: tuple[str, int]) -> None:
        """Take it for the peer of all requests; trust goes by who said so."""
        self.client = client
        self.shown = shown_client(client)

    @property
    def is_trusted(self) -> bool:
        """Whether the peer is a proxy that is trusted."""
        return self.reader.trusted

    @property
    def is_idle(self) -> bool:
        """Whether there is no request on the connection, nor the beginning of one."""
        return self._exchange is None and not self._buffer and not self._finishing

    def check_patience(self, now: float) -> None:
        """End what has waited for its client for too long.  `now` is monotonic()."""
        config = self.owner.config
        exchange = self._exchange
        unsent = self.transport.get_write_buffer_size()
        if unsent and (self.write_paused or self._finishing):
            if unsent != self._unsent:
                self._unsent, self._heard = unsent, now
            elif 0 < config.write_timeout < now - self._heard:
                log.info("a client stopped reading (write_timeout)")
                self.transport.abort()
        elif self._finishing:
            return
        elif exchange is None:
            # A client that connects ahead of its first request has as long as for a head.
            is_between = not self.is_fresh and not self._buffer
            patience = config.keepalive if is_between else config.header_timeout
            if not 0 < patience < now - self._heard:
                return
            if self._buffer:
                self._refuse(Refused(408, "the head took too long (header_timeout)"))
            else:
                self.finish()
        elif (
            self._body is not None
            and not self._paused_reading
            and not exchange.expects_continue
            and 0 < config.body_timeout < now - self._heard
        ):
            self._refuse(Refused(408, "the body took too long (body_timeout)"))


class Exchange:
    """One request and its answer: what an application calls `receive` and `send`."""

    __slots__ = (
        "_answer",
        "_chunked",
        "_event",
        "_is_booked",
        "_is_http11",
        "_missing",
        "_omits",
        "_record",
        "_sent",
        "_told_all",
        "began",
        "body",
        "client_closes",
        "connection",
        "ending",
        "expects_continue",
        "extended",
        "has_begun",
        "head",
        "is_disconnected",
        "is_lost",
        "keep_alive",
        "more_body",
        "refused",
        "response_complete",
        "scope",
        "start",
        "task",
        "timed_out",
    )

    task: asyncio.Task[None]

    def __init__(
        self,
        connection: HTTPConnection,
        scope: Scope,
        head: bytes,
        keep_alive: bool,
        is_http11: bool,
    ) -> None:
        self.connection = connection
        self.scope = scope
        self.head = head
        self.began = 0  # monotonic_ns() when the application was called
        self.keep_alive = keep_alive
        self.client_closes = not keep_alive
        self._is_http11 = is_http11
        self.body: StreamedBody | None = None
        self.more_body = True  # of a request that has a body: more of it is to come
        self._told_all = False  # the application has been given the end of the body
        self.expects_continue = False
        self.is_disconnected = False  # the client has closed its side, or worse
        self.is_lost = False  # nothing can be sent any more
        self.refused = 0  # the status that the server answered in the application's place
        self.timed_out = False
        self.ending = ""  # as an AccessEntry has it
        self.extended = 0  # monotonic_ns() before which it is not timed out
        self.start: Message | None = None
        self._answer: tuple[list[bytes], int, int] | None = None
        self.has_begun = False  # the head of the answer is written
        self.response_complete = False
        self._chunked = False
        self._omits = False  # the answer has no body, whatever the application sends
        self._missing = 0  # bytes of the answer's body still to be sent; -1 is until the end
        self._sent = 0
        self._event: asyncio.Event | None = None
        self._record = -1
        self._is_booked = False

    @property
    def is_trusted(self) -> bool:
        """Whether its peer is a proxy that is trusted."""
        return self.connection.is_trusted

    @property
    def status(self) -> int:
        """The status of the answer; 0 before there is one."""
        return self.refused or (self.start["status"] if self.start is not None else 0)

    # --- Inside the application ---------------------------------------------------------------

    async def run(self) -> None:
        """Call the application and see to it that there is an answer.  Never raises."""
        # One coroutine around the application: each further one costs half a microsecond.
        connection = self.connection
        owner = connection.owner
        self.began = began = monotonic_ns()
        if began >= owner.date_expires:
            owner.renew_date()
        client = self.scope["client"]
        shown = connection.shown if client is connection.client else shown_client(client)
        self._record = owner.ledger.begin(self.head, shown, began)
        try:
            await owner.application(self.scope, self.receive, self.send)
            if not self.response_complete and not self.is_lost:
                self._fell_short()
        except BaseException as exc:  # a SystemExit would end the loop
            self._failed(exc)
        finally:
            owner.exchanges.discard(self)
            if not self._is_booked:
                self._book()
            # It has a method of ours, and the collector would have to part the two.
            self.scope = {}
            if owner.is_draining:
                owner.look_whether_drained()

    def extend_timeout(self, seconds: float) -> None:
        """What the application calls when it knows that it will take long."""
        self.extended = max(self.extended, monotonic_ns() + int(seconds * 1e9))
        # The loop too: whoever asks may be about to block it.
        self.connection.owner.slot.extend(seconds)

    async def receive(self) -> Message:
        """The next event of this request, as ASGI has it."""
        while not self.response_complete:
            if not self._told_all:
                body = self.body
                if body is None:
                    self._told_all = True
                    return {"type": "http.request", "body": b"", "more_body": False}
                if not self.more_body or (body.waiting and not self.is_disconnected):
                    self._told_all = not self.more_body
                    data = body.take()
                    self.connection.taken(self)
                    return {"type": "http.request", "body": data, "more_body": self.more_body}
            if self.is_disconnected:
                break
            if self.expects_continue and not self.has_begun:
                self.expects_continue = False
                self.connection.transport.write(CONTINUE)
            event = self._event
            if event is None:
                event = self._event = asyncio.Event()
            event.clear()
            await event.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        """Take the application's next message.  Raises RuntimeError for one out of order."""
        connection = self.connection
        if connection.write_paused and not self.is_lost:
            await connection.drain()
        kind = message["type"]
        if self.start is None:
            if kind != "http.response.start":
                raise RuntimeError(f"expected http.response.start, but got {kind}")
            self._answer = read_head(message["status"], message.get("headers") or ())
            self.start = message
            return
        if kind != "http.response.body":
            raise RuntimeError(f"expected http.response.body, but got {kind}")
        if self.response_complete:
            if self.is_lost:
                return
            raise RuntimeError("http.response.body after the end of the response")
        body = message.get("body") or b""
        more = message.get("more_body", False)
        if self.is_lost:
            self.response_complete = not more
            return
        size = len(body)
        head = b"" if self.has_begun else self._begin(size, more)
        after = b""
        excess = False
        if self._omits:
            body, size = b"", 0
        elif self._chunked:
            if size:
                head += b"%x\r\n" % size
                after = b"\r\n"
            if not more:
                after += LAST_CHUNK
        elif self._missing >= 0:
            if size > self._missing:
                excess = True
                size = self._missing
                body = body[:size]
            self._missing -= size
        self._sent += size
        if size > _COPIED:
            connection.transport.writelines((head, body, after))
        else:
            connection.transport.write(b"".join((head, body, after)))
        if excess:
            self._end()
            raise RuntimeError("the response is longer than its Content-Length")
        if not more:
            if self._missing > 0:
                raise RuntimeError("the response is shorter than its Content-Length")
            self._end()

    def _begin(self, size: int, more: bool) -> bytes:
        """The head of the answer.  Only now, as ASGI wants it: the first body tells the framing.

        Numbered as in RFC 9112 6.3, from the sender's side.
        """
        assert self._answer is not None
        lines, length, own = self._answer
        owner = self.connection.owner
        self.has_begun = True
        if own & WANTS_CLOSE or owner.closes or self.expects_continue:
            # Of these the last: a client that got no 100 may send the body or not.
            self.keep_alive = False
        method = self.scope["method"]
        if method == "HEAD" or has_no_body(self.status):  # 1
            self._omits = True
        elif length >= 0:  # 6
            self._missing = length
        elif not more:
            self._missing = size
            lines.append(b"Content-Length: %d\r\n" % size)
        elif self._is_http11:  # 4
            self._chunked = True
            lines.append(_CHUNKED)
        else:  # 8
            self._missing = -1
            self.keep_alive = False
        tails = owner.tails
        lines += owner.extra_lines
        own = own | owner.own
        if own & ~WANTS_CLOSE:
            tail = tails.made(own, close=not self.keep_alive, http10=not self._is_http11)
        elif not self.keep_alive:
            tail = tails.close
        else:
            tail = tails.open if self._is_http11 else tails.http10
        lines.append(tail)
        return b"".join(lines)

    def _end(self) -> None:
        self.response_complete = True
        # What the application does now is its own affair, and no request that takes long.
        self._book()
        if self._event is not None:
            self._event.set()
        self.connection.answered(self)

    def _book(self) -> None:
        self._is_booked = True
        self.connection.owner.ledger.end(self._record, self, self._sent, self.began)

    # --- What the connection tells ------------------------------------------------------------

    def wake(self) -> None:
        """Something has changed for `receive`."""
        if self._event is not None:
            self._event.set()

    def disconnect(self) -> None:
        """The client is gone, or says nothing more."""
        self.is_disconnected = True
        self.wake()

    def time_out(self, limit: float) -> None:
        """Cancel it; its client gets 504 if it has got nothing yet."""
        if not self.timed_out:
            self.timed_out = True
            self.ending = TIMED_OUT
            log.warning("%s: took longer than request_timeout, %g s; cancelled", self, limit)
            self.task.cancel()

    # --- When it goes wrong -------------------------------------------------------------------

    def _failed(self, exc: BaseException) -> None:
        connection = self.connection
        owner = connection.owner
        if self.timed_out and isinstance(exc, asyncio.CancelledError):
            self._answer_instead(504, "The application took too long.")
            return
        if isinstance(exc, asyncio.CancelledError) and (owner.is_quitting or self.is_disconnected):
            self.ending = self.ending or (CUT_OFF if owner.is_quitting else CLIENT_LEFT)
            connection.break_off(self)
            return
        owner.words[layout.ERRORS] += 1
        log_failure(str(self), exc)
        self._answer_instead(500, "The application failed; its log tells why.")

    def _fell_short(self) -> None:
        if self.is_disconnected:  # it was told so, and stopped
            self.response_complete = True
            self.ending = self.ending or CLIENT_LEFT
            self.connection.break_off(self)
            return
        log.error("%s: the application returned before the end of its response", self)
        self._answer_instead(500, "The application did not answer.")

    def _answer_instead(self, status: int, reason: str) -> None:
        """Answer for the application if it has not begun to; else break the connection off."""
        if self.is_lost or self.response_complete:
            return
        connection = self.connection
        self.keep_alive = False
        self.response_complete = True
        if self.has_begun:
            # Neither a last chunk nor the rest of the length: the client must see that it is
            # not whole.
            connection.break_off(self)
            return
        self.refused = status
        connection.answer_for(self, status, reason)

    @property
    def request(self) -> str:
        """The method and the target, as sent."""
        return self.head.split(b"\r\n", 1)[0].rpartition(b" ")[0].decode("latin-1")

    def __str__(self) -> str:
        client = self.scope["client"]
        return f"{self.request} from {client[0]}" if client else self.request


def shown_client(client: tuple[str, int] | None) -> bytes:
    """The client's address, as the board shows it."""
    return f"{client[0]}:{client[1]}".encode("latin-1") if client else b""


def log_failure(what: str, exc: BaseException) -> None:
    """One record: the request, and the application's frames."""
    tb = exc.__traceback__
    while tb is not None and tb.tb_frame.f_globals.get("__package__", "") == __package__:
        tb = tb.tb_next
    if tb is None and isinstance(exc, (TypeError, ValueError, RuntimeError)):
        log.error("%s: %s", what, exc)  # raised by us, about what the application did
    else:
        log.error(
            "%s: the application raised %s",
            what,
            type(exc).__name__,
            exc_info=(type(exc), exc, tb),
        )

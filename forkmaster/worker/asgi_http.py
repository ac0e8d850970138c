"""HTTP/1.1 for an ASGI application: one connection, from its bytes to an exchange for each request.

What goes in are the bytes a transport of asyncio's or uvloop's received.  The rules for heads and
bodies are those of forkmaster/http, the same for every kind of worker; asgi_exchange.py calls the
application and answers.

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
"""

from __future__ import annotations

import asyncio
import logging
from time import monotonic
from typing import TYPE_CHECKING, Any, Protocol

from forkmaster.board import layout
from forkmaster.http.errors import BodyEndedError, Refused
from forkmaster.http.head import HEAD_END, check_unfinished
from forkmaster.http.response import refusal
from forkmaster.http.streamed import StreamedBody, StreamedChunks, StreamedLength
from forkmaster.logs.access import CLIENT_LEFT
from forkmaster.worker import asgi_exchange
from forkmaster.worker.asgi_exchange import Exchange, shown_client
from forkmaster.worker.request_hooks import ending_of

if TYPE_CHECKING:
    from collections.abc import MutableMapping

    from forkmaster.http.head import Limits
    from forkmaster.http.scope import Fields, ScopeReader

    Scope = MutableMapping[str, Any]

log = logging.getLogger("forkmaster.error")

# 64 KiB: what is held for an application that does not take it, before the client has to wait.
HIGH_WATER = 64 << 10
# 1 MiB: what is read and thrown away of a body that the application answered without reading.
DISCARDED = 1 << 20
# 1 s: the rest of a client's bytes after our FIN.
LAST_WORDS = 1.0


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


class Owner(asgi_exchange.Owner, Protocol):
    """What a worker is for its connections."""

    connections: set[Connection]
    limits: Limits
    loop: asyncio.AbstractEventLoop
    words: memoryview[int]

    def reader_for(self, client: tuple[str, int] | None) -> ScopeReader:
        """What reads the requests of this peer."""

    def connection_closed(self) -> None:
        """Called once for each connection."""

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

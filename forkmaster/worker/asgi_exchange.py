"""One request to an ASGI application and its answer: `receive`, `send`, and what is between them.

Its connection feeds it and takes the bytes of the answer; of HTTP/1.1 that is asgi_http.py, and
of HTTP/2 a stream.  Framing is by the rules of forkmaster/http, as in every kind of worker.

**A client that closes its side** has sent all it will, or is gone; nobody can tell.  `receive`
says http.disconnect, for an application that wants to stop then, as when a proxy gives up.  One
that answers all the same is heard, as long as the connection takes it.
"""

from __future__ import annotations

import asyncio
import logging
from time import monotonic_ns
from typing import TYPE_CHECKING, Any, Protocol

from forkmaster.board import layout
from forkmaster.http.answer import read_head
from forkmaster.http.response import CONTINUE, LAST_CHUNK, WANTS_CLOSE, has_no_body
from forkmaster.logs.access import CLIENT_LEFT, CUT_OFF, TIMED_OUT
from forkmaster.worker.failures import log_failure

if TYPE_CHECKING:
    from collections.abc import Callable, MutableMapping

    from forkmaster.board.slot import Slot
    from forkmaster.config.table import Config
    from forkmaster.http.response import Tails
    from forkmaster.http.streamed import StreamedBody
    from forkmaster.worker.ledger import Ledger

    Scope = MutableMapping[str, Any]
    Message = MutableMapping[str, Any]

log = logging.getLogger("forkmaster.error")

# 16 KiB: below, one copy is cheaper than three pieces.
_COPIED = 16 << 10

_CHUNKED = b"Transfer-Encoding: chunked\r\n"


class Owner(Protocol):
    """What a worker is for its exchanges."""

    application: Callable[..., Any]
    app_state: dict[str, Any]
    closes: bool
    """Whether every answer is the last on its connection."""
    config: Config
    date_expires: int
    """When the Date header goes stale, in monotonic nanoseconds."""
    exchanges: set[Exchange]
    """All that are inside the application."""
    extra_lines: list[bytes]
    """Header lines of every answer, beside those of `tails`."""
    is_draining: bool
    is_quitting: bool
    ledger: Ledger
    own: int
    """Of OWN_DATE and OWN_SERVER those that no answer gets from us."""
    slot: Slot
    tails: Tails
    words: memoryview[int]

    def renew_date(self) -> None:
        """Make a new Date header."""

    def look_whether_drained(self) -> None:
        """Called at the end of every request while draining."""


class Connection(Protocol):
    """What a connection is for the exchanges on it."""

    client: tuple[str, int] | None
    shown: bytes
    """The client, as the board shows it."""
    transport: asyncio.Transport
    write_paused: bool

    @property
    def owner(self) -> Owner:
        """The worker."""

    @property
    def is_trusted(self) -> bool:
        """Whether the peer is a proxy that is trusted."""

    async def drain(self) -> None:
        """Return when the client has taken enough of what was written."""

    def taken(self, exchange: Exchange) -> None:
        """The application has taken what had come of its body."""

    def answered(self, exchange: Exchange) -> None:
        """The whole answer of `exchange` is written."""

    def answer_for(self, exchange: Exchange, status: int, reason: str) -> None:
        """Answer in place of an application that has not begun to."""

    def break_off(self, exchange: Exchange) -> None:
        """End without a whole answer to `exchange`."""


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
        connection: Connection,
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

"""The ASGI application with our eyes around it: records, counters, access log, the real client.

A wrapper, and no change of uvicorn's request cycle, because it needs nothing but the interface.
`send` is wrapped in a plain function that returns the coroutine of the real one: it costs a call
and no coroutine of its own.
"""

from __future__ import annotations

import asyncio
import logging
import struct
from collections import deque
from functools import lru_cache
from time import monotonic_ns
from typing import TYPE_CHECKING, Any, Protocol

from forkmaster.board import layout
from forkmaster.http.environ import AllowList
from forkmaster.logs.access import AccessEntry, compile_format
from forkmaster.worker.limits import WorkerLimits

if TYPE_CHECKING:
    from collections.abc import Callable, MutableMapping

    from forkmaster.config.table import Config
    from forkmaster.worker.assignment import Assignment

    Scope = MutableMapping[str, Any]
    Message = MutableMapping[str, Any]


access_log = logging.getLogger("forkmaster.access")

# The strings of a record, and what it gets at the end: END, RESPONSE_STATUS, THREAD, SENT.
_STRINGS = struct.Struct(f"{layout.CLIENT_SIZE}s{layout.REQUEST_SIZE}s")
_ENDING = struct.Struct("QQQQ")

_METHODS = {method: f"{method} ".encode() for method in ("GET", "POST", "HEAD", "PUT", "DELETE")}

# What uvicorn answers for an application that does not.
NO_ANSWER = {"status": 500, "headers": ()}


class Owner(Protocol):
    """What the worker does for the requests."""

    is_draining: bool
    date_expires: int
    """When the Date header goes stale, in monotonic nanoseconds."""

    def renew_date(self) -> None:
        """Make a new Date header."""

    def look_whether_drained(self) -> None:
        """Called at the end of every request and websocket, at the least while draining."""


class Ledger:
    """What is counted and logged of all requests of one worker."""

    def __init__(self, assignment: Assignment) -> None:
        config = assignment.config
        self.websockets = 0  # inside the application
        self._assignment = assignment
        self._words = assignment.slot.words
        self._octets = assignment.slot.octets
        self._free = deque(range(self._words[layout.RECORD_COUNT]))
        self.limits = WorkerLimits(assignment)
        self._access_line: Callable[[AccessEntry], str] | None = None
        if access_log.handlers and access_log.isEnabledFor(logging.INFO):
            self._access_line = compile_format(config.access_log_format)

    @property
    def is_busy(self) -> bool:
        """Whether a request or a websocket is inside the application."""
        return bool(self.websockets or self._words[layout.IN_FLIGHT])

    def begin(self, scope: Scope, now: int) -> int:
        """The record that now shows this request in flight; -1 if all are taken."""
        words, free = self._words, self._free
        words[layout.IN_FLIGHT] += 1
        # The rest of the records is the history.
        if len(free) <= layout.HISTORY:
            return -1
        record = free.popleft()
        # As board/layout.py says: the strings between the two stores of START.
        first = layout.RECORDS_FIRST_WORD + record * layout.RECORD_WORDS
        words[first] = 0
        words[first + layout.END] = 0
        client = scope["client"]
        _STRINGS.pack_into(
            self._octets,
            first * 8 + layout.CLIENT_OFFSET,
            client_text(*client) if client else b"",
            request_line(scope),
        )
        words[first] = now
        return record

    def end(self, record: int, scope: Scope, start: Message | None, sent: int, began: int) -> None:
        """Count a request that `begin` showed, and log it.

        `start` has the status; None is a request that was cancelled before it was answered.
        """
        words = self._words
        now = monotonic_ns()
        duration = now - began
        status = start["status"] if start is not None else 0
        words[layout.IN_FLIGHT] -= 1
        if record >= 0:
            at = layout.RECORDS_OFFSET + record * layout.RECORD_SIZE
            _ENDING.pack_into(self._octets, at + 8 * layout.END, now, status, 0, sent)
            self._free.append(record)
        words[layout.STATUS + status // 100] += 1
        words[layout.BYTES_OUT] += sent
        words[layout.BUSY] += duration
        bucket = (duration // 1000).bit_length()
        words[layout.HISTOGRAM + (bucket if bucket < layout.BUCKETS else layout.BUCKETS - 1)] += 1
        if self._access_line is not None:
            self.log_access(scope, start, status, sent, duration)
        if self.limits.counts:
            self.limits.count()

    def log_access(
        self, scope: Scope, start: Message | None, status: int, sent: int, duration: int
    ) -> None:
        """Write the line of one request or websocket, if there is an access log."""
        if self._access_line is None:
            return
        client = scope["client"]
        target = (scope.get("raw_path") or b"").decode("latin-1")
        if query := scope["query_string"]:
            target = f"{target}?{query.decode('latin-1')}"
        entry = AccessEntry(
            client[0] if client else "",
            scope.get("method", "GET"),
            target,
            f"HTTP/{scope['http_version']}",
            status,
            sent,
            duration,
            request_headers=scope["headers"],
            response_headers=start.get("headers", ()) if start is not None else (),
            serial=self._assignment.serial,
            generation=self._assignment.generation,
        )
        access_log.info(self._access_line(entry))


class ObservedApplication:
    """The application for the connections of peers that are trusted, or of peers that are not."""

    def __init__(
        self,
        application: Callable[..., Any],
        assignment: Assignment,
        ledger: Ledger,
        owner: Owner,
        forwarding: Forwarding | None,
    ) -> None:
        self._application = application
        self._ledger = ledger
        self._words = assignment.slot.words
        self._owner = owner
        self._forwarding = forwarding

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        # One coroutine for all of it: each further one in the chain costs half a microsecond.
        if self._forwarding is not None:
            self._forwarding.apply(scope)
        if scope["type"] != "http":
            await self._websocket(scope, receive, send)
            return
        began = monotonic_ns()
        owner = self._owner
        if began >= owner.date_expires:
            owner.renew_date()
        record = self._ledger.begin(scope, began)
        start: Message | None = None
        sent = 0

        def observed(message: Message) -> Any:
            nonlocal start, sent
            if start is None:
                start = message
            else:
                sent += len(message.get("body", b""))
            return send(message)

        try:
            await self._application(scope, receive, observed)
            start = start or NO_ANSWER
        except asyncio.CancelledError:
            raise
        except BaseException as exc:
            start = start or NO_ANSWER
            self._blame(exc, request_line(scope).decode("latin-1"))
            raise
        finally:
            self._ledger.end(record, scope, start, sent, began)
            if owner.is_draining:
                owner.look_whether_drained()

    async def _websocket(self, scope: Scope, receive: Any, send: Any) -> None:
        ledger, owner = self._ledger, self._owner
        began = monotonic_ns()
        if began >= owner.date_expires:
            owner.renew_date()
        words = self._words
        # What a handshake is answered that the application neither accepts nor refuses.
        status, start = 500, None

        def observed(message: Message) -> Any:
            nonlocal status, start
            kind = message["type"]
            if kind == "websocket.accept":
                words[layout.WEBSOCKETS] += 1
                words[layout.STATUS + 1] += 1
                status, start = 101, message
            elif kind == "websocket.http.response.start":
                status, start = message["status"], message
            elif kind == "websocket.close" and start is None:
                status = 403
            return send(message)

        ledger.websockets += 1
        try:
            await self._application(scope, receive, observed)
        except asyncio.CancelledError:
            raise
        except BaseException as exc:
            self._blame(exc, f"the websocket {scope['path']}")
            raise
        finally:
            ledger.websockets -= 1
            ledger.log_access(scope, start, status, 0, monotonic_ns() - began)
            if ledger.limits.counts:
                ledger.limits.count()
            owner.look_whether_drained()

    def _blame(self, exc: BaseException, what: str) -> None:
        """Count an error of the application, and let the traceback say what it was about."""
        self._words[layout.ERRORS] += 1
        exc.add_note(f"while serving {what}")


class Forwarding:
    """What a trusted proxy says about the client behind it."""

    def __init__(self, config: Config) -> None:
        self._trusted = AllowList(config.forwarded_allow_ips)
        self._secure = {
            name.lower().encode("latin-1"): value.encode("latin-1")
            for name, value in config.secure_scheme_headers.items()
        }

    def trusts(self, client: tuple[str, int] | None) -> bool:
        """Whether this peer is a trusted proxy.  None is one that came through a unix socket."""
        return client is None or client[0] in self._trusted

    def apply(self, scope: Scope) -> None:
        """Correct the scheme and the client by the headers, which a trusted proxy sent."""
        forwarded_for: list[bytes] = []
        is_secure: bool | None = None
        for name, value in scope["headers"]:
            if name == b"x-forwarded-for":
                forwarded_for.append(value)
            elif name in self._secure:
                # A header that says no outweighs one that says yes.
                is_secure = is_secure is not False and value == self._secure[name]
        if is_secure is not None:
            scheme = "ws" if scope["type"] == "websocket" else "http"
            scope["scheme"] = f"{scheme}s" if is_secure else scheme
        if forwarded_for:
            client = self._original_client(b",".join(forwarded_for).decode("latin-1"))
            if client is not None:
                scope["client"] = client

    def _original_client(self, forwarded_for: str) -> tuple[str, int] | None:
        """The last address in the list that is not a trusted proxy's; the first if all are.

        Each proxy appends the address it saw; what stands left of that is the client's word.
        """
        client = None
        for entry in reversed(forwarded_for.split(",")):
            client = split_host(entry.strip()) or client
            if client is None or client[0] not in self._trusted:
                break
        return client


def split_host(text: str) -> tuple[str, int] | None:
    """Host and port of an entry of X-Forwarded-For; the port is 0 without one, as uvicorn's is."""
    host, port = text, ""
    if text.startswith("["):
        host, _, rest = text[1:].partition("]")
        port = rest.removeprefix(":")
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
    if not host:
        return None
    return host, int(port) if port.isascii() and port.isdigit() and len(port) < 6 else 0


def request_line(scope: Scope) -> bytes:
    """The method and the target of a request, as the board shows them."""
    method = scope["method"]
    line: bytes = (_METHODS.get(method) or f"{method} ".encode("latin-1")) + (
        scope.get("raw_path") or b""
    )
    query = scope["query_string"]
    return line + b"?" + query if query else line


@lru_cache(maxsize=4096)  # asked for each request, and a connection has many
def client_text(host: str, port: int) -> bytes:
    """The client's address, as the board shows it."""
    return f"{host}:{port}".encode("latin-1")

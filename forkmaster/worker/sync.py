"""The sync worker: the reactor calls the application itself, one request at a time.

**What a request costs.**  Hello-world takes about 11 µs on one core.  The kernel's recv, send and
poll take 7, Python 4, so each call less is half a percent more requests.  That is why `_dispatch`
stores into the slot itself (0.3 µs; with `Slot.begin` and `end` 1.5) and looks as it looks.  A
request must leave no cycle behind: collecting them cost 1.2 µs each.

**Contexts.**  Requests run in one `contextvars.Context`, so what frameworks cache there (Django's
asgiref Locals) stays.  A generator that waits for its client must not share it with the requests
served meanwhile (Flask's stream_with_context would pop another request's context), so a
suspended answer keeps the context, the worker takes a spare one, and it comes back later.
"""

from __future__ import annotations

import threading
from itertools import cycle
from time import monotonic_ns
from typing import TYPE_CHECKING, Any

from forkmaster.board import layout
from forkmaster.board.layout import BEAT, BYTES_IN, BYTES_OUT, HISTOGRAMS
from forkmaster.system.poller import READ, WRITE
from forkmaster.worker.connection import BUSY, IDLE, WRITING
from forkmaster.worker.exchange import ClientGoneError, Exchange
from forkmaster.worker.handoff import HandOffThread
from forkmaster.worker.reactor import Reactor
from forkmaster.worker.timers import NEVER

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextvars import Context

    from forkmaster.worker.assignment import Assignment
    from forkmaster.worker.connection import Connection

BUSY_TIME = layout.BUSY  # BUSY is a state of connections here
begin_record = layout.BEGINNING.pack_into
end_record = layout.ENDING.pack_into


class SyncWorker(Reactor):
    """See the module."""

    def __init__(self, assignment: Assignment, application: Callable[..., Any]) -> None:
        super().__init__(assignment, application)
        self._octets = assignment.slot.octets
        # The offset of each record, in turn: the one used longest ago comes next.  All requests of
        # a run use one, because memory that is warm costs half.
        self._records = cycle(
            layout.RECORDS_OFFSET + record * layout.RECORD_SIZE
            for record in range(self._words[layout.RECORD_COUNT])
        )
        self._record = next(self._records)
        # Not on the board yet, as `_bytes_in`: a wake-up is often for many requests, told as one.
        self._bytes_out = self._busy = 0
        self._context = self._pristine.copy()
        self._spare_contexts: list[Context] = []
        self._calling = 0  # since when the application is being called; 0 while it is not
        self._thread = 0

    def serve(self, on_ready: Callable[[], None]) -> None:
        self._thread = threading.get_ident()
        super().serve(on_ready)

    def _look_for_siblings(self) -> None:
        super()._look_for_siblings()
        if self._at_once == 1 and self._handoff is not None and self._watcher is None:
            self._watcher = HandOffThread(lambda: self._calling, self._pass_ready)
            self._watcher.start()

    def _end(self) -> None:
        if self._watcher is not None:
            self._watcher.stop()  # before the poller that it uses is closed
        super()._end()

    def _pass_ready(self) -> None:
        """Pass on the idle connections that have something to say.  In the hand-off thread."""
        for fd, _ in self._poller.poll(0, 64):
            connection = self._idle.pop(fd, None)
            if connection is not None and not self._pass_on(connection):
                self._idle[fd] = connection
                return

    def quit(self) -> None:
        super().quit()
        if self._calling and threading.get_ident() == self._thread:
            raise SystemExit(0)  # unwinds the application, which runs on this thread

    def _dispatch(self, connection: Connection, exchange: Exchange) -> None:
        connection.state = BUSY
        connection.deadline = NEVER
        connection.takes_hints = exchange.line[4] == "HTTP/1.1"
        head = exchange.head

        octets, record = self._octets, self._record
        exchange.began = began = self._free_since or self._begin_run()
        begin_record(octets, record, connection.client, head, began)
        self._calling = began
        complete = self._run(exchange, self._context)
        self._calling = 0

        self._free_since = ended = monotonic_ns()
        duration = ended - began
        code = exchange.code
        sent = exchange.sent
        self._bytes_in += len(head)
        self._bytes_out += sent
        end_record(octets, record, code, sent, ended)
        self._words[HISTOGRAMS[code] + duration.bit_length()] += 1
        if self._worker_limits.counts:
            self._worker_limits.count()

        hooks = self._hooks
        if complete and hooks.wants_after:
            hooks.after(exchange, duration)
            if hooks.takes_time:
                self._end_run()
        if duration > self._soon:
            self._words[BEAT] = ended
            self._tell()
        if not complete:
            self._suspend(connection, exchange)
            return
        if exchange.keep_alive:
            connection.state = IDLE
            connection.served = True
            connection.deadline = deadline = ended + self._keepalive
            if deadline < connection.listed:
                self._watch(connection, deadline)
            if connection.mask != READ:
                self._wait_for(connection, READ)
            if not connection.buffer:
                self._idle[connection.fd] = connection
        elif exchange.client_stays or connection.buffer:
            self._linger(connection)
        else:
            self._close(connection)

    def _begin_run(self) -> int:
        # Also after each of many connections that are accepted at once, or have sent ahead.
        self._words[BEAT] = self._run_since = now = monotonic_ns()
        return now

    def _end_run(self) -> None:
        if self._free_since > self._run_since:
            self._busy += self._free_since - self._run_since
            self._record = next(self._records)
        self._free_since = 0

    def _tell(self) -> None:
        self._end_run()
        words = self._words
        words[BYTES_IN] += self._bytes_in
        words[BYTES_OUT] += self._bytes_out
        words[BUSY_TIME] += self._busy
        self._bytes_in = self._bytes_out = self._busy = 0
        if self._hooks.held:
            self._hooks.write_held()

    def _heard(self, connection: Connection) -> None:
        # An idle one belongs to the other thread, which passes it on or puts it back; two that
        # read from it would both lose.  It is told of again.
        if connection.state != IDLE:
            self._ready(connection)

    def _suspend(self, connection: Connection, exchange: Exchange) -> None:
        """The socket takes no more; go on when it does."""
        if exchange.needs_application:
            exchange.context = self._context
            self._context = (
                self._spare_contexts.pop() if self._spare_contexts else self._pristine.copy()
            )
        connection.exchange = exchange
        connection.state = WRITING
        self._wait_for(connection, WRITE)
        self._watch(connection, monotonic_ns() + self._write_timeout)

    def _writable(self, connection: Connection) -> None:
        exchange = connection.exchange
        assert exchange is not None
        connection.state = BUSY
        connection.deadline = NEVER
        self._words[BEAT] = self._calling = monotonic_ns()
        complete = self._go_on(exchange, exchange.context or self._context)
        self._calling = 0
        if exchange.context is not None and (complete or not exchange.needs_application):
            self._spare_contexts.append(exchange.context)
            exchange.context = None
        if complete:
            self._resumed(connection, exchange)
        else:
            connection.state = WRITING
            self._watch(connection, monotonic_ns() + self._write_timeout)

    def _resumed(self, connection: Connection, exchange: Exchange) -> None:
        """A suspended answer is complete."""
        if self._hooks.wants_after:
            self._hooks.after(exchange, monotonic_ns() - exchange.began)
        connection.exchange = None
        if not exchange.keep_alive:
            self._linger(connection)
            return
        connection.state = IDLE
        connection.served = True
        self._watch(connection, monotonic_ns() + self._keepalive)
        self._wait_for(connection, READ)
        rest, connection.buffer = connection.buffer, b""
        if rest:
            self._feed(connection, rest)
        else:
            self._idle[connection.fd] = connection

    def _give_up(self, connection: Connection) -> None:
        exchange = connection.exchange
        assert exchange is not None
        self._failed(exchange, exchange.context or self._context, ClientGoneError())
        if exchange.context is not None:
            self._spare_contexts.append(exchange.context)
        if self._hooks.wants_after:
            self._hooks.after(exchange, monotonic_ns() - exchange.began)
        connection.exchange = None
        self._close(connection)

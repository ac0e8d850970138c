"""The threaded worker: the reactor hands complete requests to a pool of threads.

The reactor's thread does what it does for the sync worker and never calls the application.  It
gives a request to a thread that is free; new connections are accepted only while one is.  The
thread calls the application and sends the answer itself, and puts the connection back into the
poller itself, so that the usual request costs the reactor one event and no wake-up.  What it cannot
do alone, close a connection or wait for a slow reader, it gives back: to a list, with one wake-up
for as many as come together.

While no thread is free, kept connections that have something to say are held unread: a thread
that becomes free reads the next one itself, without waking the reactor, and if none does for
10 ms they are passed to a sibling (handoff.py).

**Who touches a connection.**  One of the two at a time.  The poller reports a connection once
(ONE_SHOT) and then not until it is put back, so while its state is BUSY it is the thread's.

**A generator stays with its thread.**  Django's database connections, and much else, belong to
the thread that made them.  So when a suspended answer can go on, it waits for the thread that
began it, before anything new does; and its contextvars.Context stays with it, as in the sync
worker.  The alternative, a thread that sleeps until its client has read, would let slow readers
take all threads.
"""

from __future__ import annotations

import logging
import os
import socket
import sys
import threading
import traceback
from collections import deque
from copy import copy
from itertools import dropwhile
from queue import SimpleQueue
from time import monotonic_ns
from typing import TYPE_CHECKING, Any

from forkmaster.board import layout
from forkmaster.http import response
from forkmaster.http.errors import Refused
from forkmaster.system.poller import ONE_SHOT, READ, WRITE
from forkmaster.system.stack import with_room
from forkmaster.worker.connection import BUSY, IDLE, WRITING
from forkmaster.worker.connections import RECEIVE, SECOND
from forkmaster.worker.exchange import ClientGoneError, Exchange
from forkmaster.worker.handoff import PATIENCE
from forkmaster.worker.reactor import Reactor
from forkmaster.worker.timers import NEVER

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextvars import Context

    from forkmaster.worker.assignment import Assignment
    from forkmaster.worker.connection import Connection
    from forkmaster.worker.tls import TLSSocket

log = logging.getLogger("forkmaster.error")

_OURS = os.path.dirname(__file__)


class _Thread:
    """One thread of the pool."""

    def __init__(self, context: Context) -> None:
        self.inbox: SimpleQueue[Exchange | None] = SimpleQueue()
        self.context = context
        self.spare_contexts: list[Context] = []
        self.ident = 0
        self.native_id = 0
        self.is_free = True  # and in the list of those
        self.serving: Exchange | None = None  # until it is answered, or given up
        self.since = 0  # when that was begun, or resumed
        self.record = 0  # of the slot, that shows it


class ThreadedWorker(Reactor):
    """See the module."""

    multithread = True

    def __init__(self, assignment: Assignment, application: Callable[..., Any]) -> None:
        super().__init__(assignment, application)
        count = max(1, self.config.threads)
        self._threads = [_Thread(self._pristine.copy()) for _ in range(count)]
        # Guards the five below, the slot, and whether we listen.
        self._lock = threading.RLock()
        self._free = list(self._threads)  # the last is the one whose caches are warm
        self._queue: deque[Exchange] = deque()  # complete requests that no thread is free for
        self._records = deque(range(self._words[layout.RECORD_COUNT]))
        self._held: deque[Connection] = deque()  # readable, and no thread is free for them
        self._held_since = 0  # when one was last taken from there, or the first put there
        # What threads leave for the reactor to do, with the connection to do it to.
        self._returned: deque[tuple[Callable[[Connection], None], Connection]] = deque()
        self._wake_is_due = False
        self._request_timeout = int(self.config.request_timeout * SECOND)
        if self._request_timeout:
            self._beat_every = min(self._beat_every, self._request_timeout // 4)
        self._buried: list[socket.SocketType | TLSSocket] = []  # of answers given up half-way

    # --- In the reactor's thread ------------------------------------------------------------

    def serve(self, on_ready: Callable[[], None]) -> None:
        for number, thread in enumerate(self._threads, 1):
            # Daemons: one that hangs must not keep the process from its exit.
            threading.Thread(
                target=with_room,
                args=(self._work, thread),
                name=f"forkmaster-{number}",
                daemon=True,
            ).start()
        try:
            super().serve(on_ready)
        finally:
            for thread in self._threads:
                thread.inbox.put(None)

    def _may_accept(self) -> bool:
        return bool(self._free) and super()._may_accept()

    def _take_connections(self) -> None:
        with self._lock:
            super()._take_connections()

    def _leave_listeners(self) -> None:
        with self._lock:
            super()._leave_listeners()

    def _wait_for(self, connection: Connection, mask: int) -> None:
        if connection.mask:
            self._poller.modify(connection.fd, mask | ONE_SHOT)
        else:
            connection.mask = mask
            self._poller.register(connection.fd, mask | ONE_SHOT)

    def _readable(self, connection: Connection) -> None:
        with self._lock:
            if not self._free:
                now = monotonic_ns()
                if not self._held:
                    self._held_since = now
                self._held.append(connection)
                if self._handoff is not None:
                    self._due = min(self._due, now + PATIENCE)
                return
        super()._readable(connection)

    def _tick(self, now: int) -> None:
        super()._tick(now)
        if self._request_timeout and now >= self._words[layout.EXTENDED]:
            self._look_at_threads(now)
        if self._handoff is None or not self._held:
            return
        if now - self._held_since >= PATIENCE:
            self._pass_held()
        self._due = min(self._due, now + PATIENCE)

    def _look_at_threads(self, now: int) -> None:
        """Give up those that are stuck, and come back when the next one would be."""
        for thread in self._threads:
            exchange = thread.serving
            if exchange is None:
                continue
            deadline = thread.since + self._request_timeout
            if now >= deadline:
                self._give_up_thread(thread, exchange)
            else:
                self._due = min(self._due, deadline)

    def _pass_held(self) -> None:
        """Give the held connections to siblings: all our threads are in slow requests."""
        while self._held:
            try:
                connection = self._held.popleft()
            except IndexError:
                return  # a thread took the last
            if not self._pass_on(connection):
                self._held.appendleft(connection)
                return

    def _dispatch(self, connection: Connection, exchange: Exchange) -> None:
        connection.state = BUSY
        connection.deadline = NEVER
        connection.takes_hints = exchange.line.protocol == "HTTP/1.1"
        if connection.listed == NEVER:
            # So that the thread, which must not touch the timers, finds it listed.
            self._watch(connection, monotonic_ns() + self._keepalive)
            connection.deadline = NEVER
        with self._lock:
            self._words[layout.IN_FLIGHT] += 1
            if not self._free:
                self._queue.append(exchange)
                return
            thread = self._free.pop()
            thread.is_free = False
            if not self._free:
                self._leave_listeners()
        thread.inbox.put(exchange)

    def _writable(self, connection: Connection) -> None:
        exchange = connection.exchange
        assert exchange is not None
        connection.deadline = NEVER
        connection.state = BUSY
        if exchange.needs_application:
            exchange.thread.inbox.put(exchange)
        elif self._go_on(exchange, self._pristine):
            if self._hooks.wants_after:
                self._hooks.after(exchange, monotonic_ns() - exchange.began)
            self._answered(connection)
        else:
            self._suspended(connection)

    def _give_up(self, connection: Connection) -> None:
        exchange = connection.exchange
        assert exchange is not None
        exchange.client_left = True
        connection.deadline = NEVER
        connection.state = BUSY
        exchange.thread.inbox.put(exchange)

    def _woken(self) -> None:
        # Before the list is read: what is added afterwards wakes us again.
        self._wake_is_due = False
        while self._returned:
            act, connection = self._returned.popleft()
            act(connection)
        super()._woken()

    def _relist(self, connection: Connection) -> None:
        """It went back to the poller with a deadline that the timers do not know."""
        if connection.deadline < connection.listed:
            self._watch(connection, connection.deadline)

    def _read_on(self, connection: Connection) -> None:
        """A thread has read what is not the usual request."""
        data, connection.buffer = connection.buffer, b""
        self._feed(connection, data)

    def _suspended(self, connection: Connection) -> None:
        connection.state = WRITING
        self._watch(connection, monotonic_ns() + self._write_timeout)
        self._wait_for(connection, WRITE)

    def _answered(self, connection: Connection) -> None:
        """An answer is complete, and its connection is to be closed or has more to read."""
        exchange = connection.exchange
        assert exchange is not None
        connection.exchange = None
        if not exchange.keep_alive:
            if exchange.client_stays or connection.buffer:
                self._linger(connection)
            else:
                self._close(connection)
            return
        connection.state = IDLE
        connection.served = True
        self._watch(connection, monotonic_ns() + self._keepalive)
        rest, connection.buffer = connection.buffer, b""
        if rest:
            self._feed(connection, rest)
        else:
            self._idle[connection.fd] = connection
            self._wait_for(connection, READ)

    def _give_up_thread(self, thread: _Thread, exchange: Exchange) -> None:
        """The application takes too long: go on without the thread that it holds.

        A thread cannot be ended, so the client gets 504 and the master a wish to replace this
        worker; the other requests finish.  If the application returns after all, the thread
        serves again.
        """
        connection = exchange.connection
        with self._lock:
            if thread.serving is not exchange:
                return  # it was faster
            thread.serving = None
            # What it sends from now on goes nowhere.  It says `streaming` before it asks for the
            # socket, so one that has not said so has not got it.
            exchange.connection = nowhere(connection)
            has_begun = exchange.streaming
            if exchange.began == thread.since:
                status = exchange.code if has_begun else 504
                self._slot.end(thread.record, status, exchange.sent, monotonic_ns())
                self._words[layout.IN_FLIGHT] -= 1
            else:  # resumed: it was counted when it was suspended
                self._words[_word(thread.record, layout.END)] = monotonic_ns()
            self._records.append(thread.record)
        log.warning(
            "%s: took longer than request_timeout, %g s; its thread is given up"
            " and stands here:\n%s",
            exchange,
            self.config.request_timeout,
            stack_of(thread.ident),
        )
        self._worker_limits.ask("stuck thread")
        self._hooks.given_up(exchange, connection, monotonic_ns() - exchange.began)
        connection.exchange = None
        if has_begun:
            # Shut, but not closed while the thread may be inside a send: the number of the
            # descriptor would soon be somebody else's.
            self._bury(connection)
            return
        with_body = exchange.line.method != "HEAD"
        reason = "The application took too long."
        try:
            connection.sock.send(
                response.refusal(504, reason, self.tails.date, with_body=with_body)
            )
        except OSError:
            self._close(connection)
            return
        self._linger(connection)

    def _bury(self, connection: Connection) -> None:
        if connection.mask:
            self._poller.unregister(connection.fd)
        try:
            connection.sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # the client was faster
        self._buried.append(connection.sock)
        connection.sock = socket.socket()
        self._close(connection)

    # --- In a thread of the pool ------------------------------------------------------------

    def _work(self, thread: _Thread) -> None:
        thread.ident = threading.get_ident()
        thread.native_id = threading.get_native_id()
        while (exchange := self._next(thread)) is not None:
            if exchange.client_left:
                self._abandon(exchange, thread)
            else:
                self._answer(exchange, thread)

    def _next(self, thread: _Thread) -> Exchange | None:
        """What to do next: what was begun here, then what has waited, then what comes."""
        while thread.inbox.empty():
            with self._lock:
                if self._queue:
                    return self._queue.popleft()
                if not self._held:
                    if not thread.is_free:
                        thread.is_free = True
                        self._free.append(thread)
                        if len(self._free) == 1 and not self._register_at:
                            self._take_connections()
                    break
                connection = self._held.popleft()
                self._held_since = monotonic_ns()
            exchange = self._read(connection)
            if exchange is not None:
                return exchange
        exchange = thread.inbox.get()
        # It may be work that was begun here and came while this thread counted as free.
        with self._lock:
            if thread.is_free:
                thread.is_free = False
                self._free.remove(thread)
        return exchange

    def _read(self, connection: Connection) -> Exchange | None:
        """The request of a held connection; None if it was not the usual one, for the reactor.

        The usual case of `Reactor._readable`, and only that: the rest needs the timers.
        """
        try:
            data = connection.sock.recv(RECEIVE)
        except BlockingIOError:
            self._idle[connection.fd] = connection
            self._wait_for(connection, READ)
            return None
        except OSError:
            data = b""
        try:
            whole = connection.origin.whole(data)
        except Refused:
            whole = None  # the reactor will find so too, and answer
        if whole is not None:
            environ, line, keep_alive = whole
            connection.state = BUSY
            connection.deadline = NEVER
            connection.takes_hints = line.protocol == "HTTP/1.1"
            with self._lock:
                self._words[layout.IN_FLIGHT] += 1
            return Exchange(connection, environ, line, data, keep_alive, self)
        connection.buffer = data
        self._give_back(self._read_on, connection)
        return None

    def _answer(self, exchange: Exchange, thread: _Thread) -> None:
        """Call the application for a new request, or let a suspended answer go on."""
        connection = exchange.connection
        is_new = connection.exchange is None
        began = monotonic_ns()
        with self._lock:
            record = self._records.popleft()
            self._slot.begin(record, exchange.head, connection.client, began, thread.native_id)
            thread.serving, thread.since, thread.record = exchange, began, record
        if is_new:
            exchange.began = began
            exchange.thread = thread
            complete = self._run(exchange, thread.context)
        else:
            complete = self._go_on(exchange, exchange.context or thread.context)
        self._look_after_context(exchange, thread, complete=complete)
        ended = monotonic_ns()
        with self._lock:
            if thread.serving is not exchange:
                return  # it was given up, and its connection is no more ours
            thread.serving = None
            if is_new:
                self._slot.end(record, exchange.code, exchange.sent, ended)
                self._words[layout.BYTES_IN] += len(exchange.head)
                self._words[layout.IN_FLIGHT] -= 1
                if self._worker_limits.counts:
                    self._worker_limits.count()
            else:
                self._words[_word(record, layout.END)] = ended
            self._records.append(record)
        if complete and self._hooks.wants_after:
            self._hooks.after(exchange, ended - exchange.began)
        self._done(connection, exchange, complete=complete, now=ended)

    def _look_after_context(self, exchange: Exchange, thread: _Thread, *, complete: bool) -> None:
        """A suspended answer keeps its context; one that needs it no more gives it back."""
        if not complete and exchange.needs_application:
            if exchange.context is None:
                exchange.context = thread.context
                spare = thread.spare_contexts
                thread.context = spare.pop() if spare else self._pristine.copy()
        elif exchange.context is not None:
            thread.spare_contexts.append(exchange.context)
            exchange.context = None

    def _done(
        self, connection: Connection, exchange: Exchange, *, complete: bool, now: int
    ) -> None:
        """Give the connection back: to the poller, or else to the reactor."""
        if complete and exchange.keep_alive and not connection.buffer:
            connection.exchange = None
            connection.state = IDLE
            connection.served = True
            # First idle, then its deadline: a reactor that leaves shortens the time of idle ones in
            # the opposite order.  Then in the poller: from there on it is the reactor's again.
            self._idle[connection.fd] = connection
            connection.deadline = now + self._keepalive
            unlisted = connection.deadline < connection.listed
            try:
                self._wait_for(connection, READ)
            except (OSError, ValueError):
                return  # the worker was told to quit, and has closed everything
            if unlisted:
                self._give_back(self._relist, connection)
        else:
            connection.exchange = exchange
            self._give_back(self._answered if complete else self._suspended, connection)

    def _give_back(self, act: Callable[[Connection], None], connection: Connection) -> None:
        self._returned.append((act, connection))
        if not self._wake_is_due:
            self._wake_is_due = True
            self._waker.wake()

    def _abandon(self, exchange: Exchange, thread: _Thread) -> None:
        """The client of a suspended answer reads no more."""
        self._failed(exchange, exchange.context or thread.context, ClientGoneError())
        self._look_after_context(exchange, thread, complete=True)
        if self._hooks.wants_after:
            self._hooks.after(exchange, monotonic_ns() - exchange.began)
        self._done(exchange.connection, exchange, complete=True, now=0)

    def _count_error(self) -> None:
        with self._lock:
            super()._count_error()


def stack_of(ident: int) -> str:
    """Where a thread stands in the application; empty if it has returned meanwhile."""
    frame = sys._current_frames().get(ident)
    stack = traceback.extract_stack(frame) if frame is not None else []
    below = dropwhile(lambda frame: not frame.filename.startswith(_OURS), stack)
    application = dropwhile(lambda frame: frame.filename.startswith(_OURS), below)
    return "".join(traceback.format_list(application)).rstrip()


def nowhere(connection: Connection) -> Connection:
    """A connection like that one, on which nothing can be sent."""
    nobody = copy(connection)
    nobody.sock = socket.socket()
    nobody.sock.close()
    nobody.fd = -1
    return nobody


def _word(record: int, offset: int) -> int:
    return layout.RECORDS_FIRST_WORD + record * layout.RECORD_WORDS + offset

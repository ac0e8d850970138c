"""The event loop of the sync and the threaded worker: sockets in, complete requests out.

One thread, one poller.  It accepts, reads heads and bodies, and only when a request is whole
hands it to `_dispatch`, which is what the two workers differ in.  The layers below it have a
module each: `connections`, `accepting`, `reading`.

The loop sleeps until the next tick, deadline or event and beats each time it runs.

Rejected: asyncio (a third of the speed, measured with hello-world), and a thread per connection.
"""

from __future__ import annotations

import logging
import time
from contextvars import copy_context
from time import monotonic_ns
from typing import TYPE_CHECKING, Any

from forkmaster.board import layout
from forkmaster.http import response
from forkmaster.http.errors import Refused
from forkmaster.system.poller import READ, Waker
from forkmaster.worker.connection import BODY, HEAD, IDLE, WRITING, Connection
from forkmaster.worker.connections import SECOND, nanoseconds
from forkmaster.worker.exchange import ClientGoneError, Exchange
from forkmaster.worker.failures import log_failure
from forkmaster.worker.limits import WorkerLimits
from forkmaster.worker.reading import Reader

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextvars import Context

    from forkmaster.worker.assignment import Assignment
    from forkmaster.worker.handoff import HandOffThread

log = logging.getLogger("forkmaster.error")

_EVENTS = 256


class Reactor(Reader):
    """See the module.  `_dispatch`, `_writable` and the life of a context belong to the kinds."""

    def __init__(self, assignment: Assignment, application: Callable[..., Any]) -> None:
        super().__init__(assignment)
        self.application = application
        self._waker = Waker()
        self._beat_every = min(SECOND, nanoseconds(self.config.timeout) // 4)
        # What a request has for the board and the access log is told when the wake-up is over, but
        # at once of one that took longer than this: so those of a run together delay no beat.
        self._soon = self._beat_every // _EVENTS
        self._tick_at = 0
        self._bytes_in = 0  # of the requests that are not in the slot yet
        self._asked_to_quit = False
        self._pristine = copy_context()
        self._watcher: HandOffThread | None = None
        self._worker_limits = WorkerLimits(assignment)

    # --- The Worker protocol ----------------------------------------------------------------

    def serve(self, on_ready: Callable[[], None]) -> None:
        """See `Worker.serve`."""
        poller = self._poller
        poller.register(self._waker.fileno(), READ)
        poller.register(self.assignment.liveness_fd, READ)
        self._tick_at = monotonic_ns() + self._beat_every
        self._set_due()
        self._published()  # so that the siblings count us from the first connection on
        self._look_for_siblings()
        self._take_connections()
        on_ready()
        try:
            self._loop()
        finally:
            self._end()

    def drain(self) -> None:
        """See `Worker.drain`."""
        self.draining = True
        self._waker.wake()

    def quit(self) -> None:
        """See `Worker.quit`."""
        self._asked_to_quit = True
        self._waker.wake()

    # --- The loop ---------------------------------------------------------------------------

    def _loop(self) -> None:
        poll = self._poller.poll
        words = self._words
        idle, connections = self._idle, self._connections
        listeners = self._listener_of_fd
        queued = self._queued
        held_lines = self._hooks.held
        beat = layout.BEAT
        while True:
            wait = self._due - monotonic_ns()
            events = poll(wait * 1e-9 if wait > 0 else 0, _EVENTS)
            now = monotonic_ns()
            words[beat] = self._run_since = self._free_since = now
            if self._watcher is not None and self._watcher.is_parked and events:
                self._watcher.unpark()
            if now >= self._due:
                self._tick(now)
                self._end_run()
            for fd, _ in events:
                connection = idle.pop(fd, None)
                if connection is not None:
                    self._readable(connection)
                    continue
                self._end_run()
                if (connection := connections.get(fd)) is not None:
                    self._heard(connection)
                elif fd in listeners:
                    self._accept(listeners[fd])
                elif fd == self._handoff_fd:
                    self._take_over()
                elif fd == self._waker.fileno():
                    self._waker.clear()
                    self._woken()
                elif fd == self.assignment.liveness_fd:
                    log.warning("the master is gone; stopping")
                    return
            if queued:
                self._take_turns()
            if self._bytes_in:
                self._tell()
            if held_lines:
                self._hooks.write_held()
            if self._asked_to_quit:
                return
            if self._left and not connections:
                return

    def _tick(self, now: int) -> None:
        """Everything that is due by the clock."""
        if now >= self._tick_at:
            self._tick_at = now + self._beat_every
            self.tails.renew(time.time())
            self._words[layout.CPU] = time.process_time_ns()
            if not self._register_at and not self.draining:
                # See accepting.py: a sibling may have died with a wake-up of ours.
                self._leave_listeners()
                self._take_connections()
            self._worker_limits.look(now)
            if self.encryption is not None:
                self.encryption.renew()
            self._look_for_siblings()
        if self._register_at and now >= self._register_at:
            self._take_connections()
        for connection in self._timers.expired(now):
            self._expire(connection, now)
        self._set_due()

    def _set_due(self) -> None:
        due = min(self._tick_at, self._timers.next())
        if self._register_at:
            due = min(due, self._register_at)
        self._due = due

    def _woken(self) -> None:
        if self.draining and not self._left:
            self._leave()

    def _heard(self, connection: Connection) -> None:
        """The poller names a connection that is not in `_idle`."""
        self._ready(connection)

    def _expire(self, connection: Connection, now: int) -> None:
        """The deadline of a connection has passed."""
        state = connection.state
        if state == IDLE:
            if self._idle.pop(connection.fd, None) is None:
                return  # somebody has just taken it
            if self.draining and connection.served:
                self._linger(connection)
            else:
                self._close(connection)
        elif state == HEAD:
            self._refuse(connection, Refused(408, "the head took too long (header_timeout)"), b"")
        elif state == BODY:
            self._refuse(connection, Refused(408, "the body took too long (body_timeout)"), b"")
        elif state == WRITING:
            log.info("%s: the client stopped reading (write_timeout)", connection.exchange)
            self._give_up(connection)
        else:
            self._close(connection)

    def _give_up(self, connection: Connection) -> None:
        """Drop a suspended answer and its connection."""
        raise NotImplementedError

    def _end(self) -> None:
        if self._bytes_in:
            self._tell()
        self._hooks.write_held()
        for connection in list(self._connections.values()):
            # Not by TLS: a thread may be inside it.
            getattr(connection.sock, "bare", connection.sock).close()
        self._connections.clear()
        self._idle.clear()
        self._poller.close()
        self._waker.close()

    # --- Answering --------------------------------------------------------------------------

    def _run(self, exchange: Exchange, context: Context) -> bool:
        """Call the application and send what it answers; False if the answer is suspended.

        Never raises, but SystemExit when the worker was told to quit.
        """
        try:
            if self._hooks.wants_before:
                context.run(self._hooks.before, exchange)
            result = context.run(self.application, exchange.environ, exchange.start_response)
            # The usual answer needs neither an iterator nor, having no close(), the context.
            if (
                type(result) is list
                and len(result) == 1
                and exchange.code
                and not exchange.streaming
                and type(result[0]) is bytes
                and exchange.spool is None
            ):
                return exchange.send_whole(result[0])
            complete = context.run(exchange.answer, result)
            if complete or not exchange.needs_application:
                context.run(exchange.close_result)
            return complete
        except BaseException as exc:
            return self._failed(exchange, context, exc)

    def _go_on(self, exchange: Exchange, context: Context) -> bool:
        """Resume a suspended answer; False if it is suspended again."""
        try:
            complete = context.run(exchange.resume)
            if complete or not exchange.needs_application:
                context.run(exchange.close_result)
            return complete
        except BaseException as exc:
            return self._failed(exchange, context, exc)

    def _failed(self, exchange: Exchange, context: Context, exc: BaseException) -> bool:
        """End an answer that raised: 500 if nothing was sent, else the connection breaks off."""
        if self._asked_to_quit and isinstance(exc, SystemExit):
            raise exc
        exchange.keep_alive = False
        if not exchange.code:
            exchange.status, exchange.response_headers = "", []
        if isinstance(exc, ClientGoneError):
            exchange.client_left = True
        else:
            self._count_error()
            log_failure(exchange, exc)
            if not exchange.streaming:
                self._send_error(exchange)
        try:
            context.run(exchange.close_result)
        except BaseException as close_exc:  # the application's, as above
            if self._asked_to_quit and isinstance(close_exc, SystemExit):
                raise
            log_failure(exchange, close_exc)
        return True

    def _count_error(self) -> None:
        self._words[layout.ERRORS] += 1

    def _send_error(self, exchange: Exchange) -> None:
        exchange.code = 500
        exchange.status = "500 Internal Server Error"
        exchange.response_headers = []
        exchange.streaming = True
        exchange.body_sent = 0
        answer = response.refusal(
            500,
            "The application failed; its log tells why.",
            self.tails.date,
            with_body=exchange.line.method != "HEAD",
        )
        try:
            exchange.sent = exchange.connection.sock.send(answer)
        except OSError:
            pass  # the client is gone, and nobody needs the answer

    def _tell(self) -> None:
        """Tell the board and the access log of the requests since the last time."""
        raise NotImplementedError

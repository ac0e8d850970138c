"""The asgi worker: uvicorn's protocols on a loop of ours.  In the worker.

uvicorn speaks HTTP and websockets, runs the lifespan and calls the application; its `Config`,
`ServerState` and protocol classes are used as they are, the latter with a few methods extended.
Its `Server` is not used at all, because everything it does a managed worker does differently:

- **Signals.**  It installs its own handlers and raises SIGTERM again when it is done, so that no
  exit hook runs.  Here the child has the handlers; they set a flag and wake the loop.
- **Accepting.**  It lets asyncio take up to 2048 connections at once, so that one worker swallows a
  burst.  Here one wake-up accepts one connection, a worker that has more than its share lets the
  others go first, and at `worker_connections` it stops accepting until one closes; uvicorn's
  limit_concurrency answers 503 instead.
- **Time.**  It wakes up ten times a second to look at flags and the clock.  Here the loop wakes up
  for events and for the beat, and a request that finds the Date header stale renews it.
- **Stopping.**  It cuts idle kept-alive connections, and whoever sends a request at that moment
  loses it.  Here each is answered once more, see `_drain`.

Who may speak for a client behind a proxy is decided per connection, by the settings that the sync
worker uses; uvicorn's middleware knows neither secure_scheme_headers nor a proxy that comes
through a unix socket.

Supported is uvicorn from 0.30 on.  The attributes of its protocols that are used here, none of
them documented: connections, default_headers and tasks of ServerState; app, client, cycle,
flow, pipeline, scope and transport of the HTTP protocol, and the module's STATUS_LINE; shutdown()
of the websocket protocols.
"""

from __future__ import annotations

import asyncio
import errno
import inspect
import logging
import os
import socket
import time
from email.utils import formatdate
from time import monotonic, monotonic_ns
from typing import TYPE_CHECKING, Any

import uvicorn
from uvicorn.protocols.http import httptools_impl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from forkmaster.board import layout
from forkmaster.errors import BootError
from forkmaster.http.response import SERVER
from forkmaster.worker.asgi_hooks import HookedApplication
from forkmaster.worker.lifespan import Lifespan
from forkmaster.worker.observed import Forwarding, Ledger, ObservedApplication
from forkmaster.worker.tasks import show_on_dump_signal
from forkmaster.worker.warmup import warm_asgi

if TYPE_CHECKING:
    from collections.abc import Callable

    from forkmaster.worker.assignment import Assignment

log = logging.getLogger("forkmaster.error")

# 5 ms: how long a worker with more than its share leaves a connection to the others.
YIELD = 0.005
# 2 s: as long as gunicorn's threaded worker waits for a last request on an idle connection.
LINGER = 2.0
# 1 s: the rest of a client's bytes after our FIN, and a lifespan that is told to stop at once.
LAST_WORDS = 1.0
# Out of descriptors or memory: nothing to do but to wait until something is given back.
EXHAUSTED = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM))
RETRY = 1.0

CLOSE = (b"connection", b"close")
# Before any worker puts its own in place.
STATUS_LINES = httptools_impl.STATUS_LINE

SERVICE_UNAVAILABLE = (
    b"HTTP/1.1 503 Service Unavailable\r\n"
    b"connection: close\r\nretry-after: 1\r\ncontent-length: 0\r\n\r\n"
)
REQUEST_TIMEOUT = b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"


class AsgiWorker:
    """Serves an ASGI application on one event loop."""

    def __init__(self, assignment: Assignment, application: Callable[..., Any]) -> None:
        self.assignment = assignment
        self.config = config = assignment.config
        self.slot = assignment.slot
        self.words = assignment.slot.words
        self.balance = assignment.balance
        self.is_draining = False
        self._is_quitting = False
        self._wakeup_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._open = 0  # connections, from accept to close
        self._opening: set[asyncio.Task[Any]] = set()
        self._paused: set[socket.socket] = set()  # listeners left to the others for a moment
        self._is_full = False
        self._uvicorn = _UvicornConfig(self, application)
        self.state = ServerState()
        if not config.keepalive:
            self.state.default_headers = [CLOSE]
        # Answers to websocket handshakes get their Date as a header, and never that one.
        self.websocket_state = ServerState()
        self.websocket_state.connections = self.state.connections
        self.websocket_state.tasks = self.state.tasks
        self.date_expires = 0
        self._status_lines = httptools_impl.STATUS_LINE = StatusLines()
        self._application = self._uvicorn.loaded_app
        self._ledger = Ledger(assignment)
        self._forwarding = Forwarding(config)
        served = self._application
        if config.pre_request or config.post_request:
            served = HookedApplication(served, config, assignment.view)
        self._observed = ObservedApplication(served, assignment, self._ledger, self, None)
        self._trusting = ObservedApplication(
            served, assignment, self._ledger, self, self._forwarding
        )
        self._uvicorn.loaded_app = self._observed

    # --- Called in signal handlers ------------------------------------------------------------

    def drain(self) -> None:
        """Begin to stop: finish what runs, answer idle connections once more, close."""
        self.is_draining = True
        os.eventfd_write(self._wakeup_fd, 1)

    def quit(self) -> None:
        """Stop now.  A loop that is blocked by the application stops when it runs again."""
        self._is_quitting = True
        os.eventfd_write(self._wakeup_fd, 1)

    # --- The life of the loop -----------------------------------------------------------------

    def serve(self, on_ready: Callable[[], None]) -> None:
        """Serve until told to stop and drained.  Raises BootError if the lifespan fails."""
        _follow_our_log()
        with asyncio.Runner(loop_factory=_loop_factory(self.config.asgi_loop)) as runner:
            runner.run(self._serve(on_ready))
        os.close(self._wakeup_fd)

    async def _serve(self, on_ready: Callable[[], None]) -> None:
        self._loop = loop = asyncio.get_running_loop()
        self._told_to_stop = asyncio.Event()
        self._drained = asyncio.Event()
        timeout = self.config.timeout
        self._beat_interval = min(1.0, timeout / 4) if timeout else 1.0
        self._beat()
        show_on_dump_signal(loop, self.assignment.stacks_fd)
        loop.add_reader(self._wakeup_fd, self._woken)
        loop.add_reader(self.assignment.liveness_fd, self._orphaned)
        lifespan = Lifespan(self._application, self.config.asgi_lifespan)
        await lifespan.startup()
        self._app_state = lifespan.state
        if not self.assignment.preloaded:
            await warm_asgi(self._application, self.config.warmup, lifespan.state)
        self.balance.publish(0)
        for listener in self.assignment.listeners:
            loop.add_reader(listener, self._accept, listener)
        on_ready()
        await self._told_to_stop.wait()
        for listener in self.assignment.listeners:
            loop.remove_reader(listener)
        self.balance.leave()
        if not self._is_quitting:
            await self._drain()
        if self._is_quitting:
            await self._abandon()
        await lifespan.shutdown(LAST_WORDS if self._is_quitting else None)
        loop.remove_reader(self._wakeup_fd)
        loop.remove_reader(self.assignment.liveness_fd)

    def _beat(self) -> None:
        self.slot.beat()
        self.words[layout.CPU] = time.process_time_ns()
        self.renew_date()
        self._ledger.limits.look(monotonic_ns())
        self._sweep(monotonic())
        self._loop.call_later(self._beat_interval, self._beat)

    def _sweep(self, now: float) -> None:
        """Close what has waited for its client for too long.

        With the beat, so a second late at the most: a timer for each response, as uvicorn has
        it, costs a microsecond of every request.
        """
        for connection in list(self.state.connections):
            if isinstance(connection, _HTTPProtocol):
                connection.check_patience(now)

    def _woken(self) -> None:
        os.eventfd_read(self._wakeup_fd)
        self._told_to_stop.set()
        if self._is_quitting:
            self._drained.set()

    def _orphaned(self) -> None:
        log.warning("the master is gone; stopping")
        self._loop.remove_reader(self.assignment.liveness_fd)
        self.quit()

    # --- Accepting ----------------------------------------------------------------------------

    def _accept(self, listener: socket.socket) -> None:
        """Take one connection of those that are waiting, unless it is somebody else's turn."""
        if self.balance.has_more_than_its_share(self._open):
            self._loop.remove_reader(listener)
            self._paused.add(listener)
            self._loop.call_later(YIELD, self._resume, listener)
            return
        self._take(listener)

    def _resume(self, listener: socket.socket) -> None:
        self._paused.discard(listener)
        if self._told_to_stop.is_set():
            return
        # If it is still waiting then nobody else could take it.
        self._take(listener)
        if not self._is_full and listener not in self._paused:
            self._loop.add_reader(listener, self._accept, listener)

    def _take(self, listener: socket.socket) -> bool:
        """Accept one connection and start its protocol.  False if none was waiting."""
        try:
            connection, _ = listener.accept()
        except (BlockingIOError, InterruptedError):
            return False  # a sibling was faster
        except OSError as exc:
            if exc.errno in EXHAUSTED:
                self._rest(listener, exc)
                return False
            return True  # the client is gone again; accept(2) lists the errors of dead connections
        connection.setblocking(False)
        self._open += 1
        self.words[layout.ACCEPTED] += 1
        self._count_connections()
        task = self._loop.create_task(
            self._loop.connect_accepted_socket(self._make_protocol, connection)
        )
        self._opening.add(task)
        task.add_done_callback(self._opened)
        if self._open >= self.config.worker_connections and not self._is_full:
            self._is_full = True
            for each in self.assignment.listeners:
                self._loop.remove_reader(each)
        return True

    def _rest(self, listener: socket.socket, exc: OSError) -> None:
        name = self.assignment.view
        log.warning("%s cannot accept: %s; next attempt in %g s", name, exc.strerror, RETRY)
        self._loop.remove_reader(listener)
        self._paused.add(listener)
        self._loop.call_later(RETRY, self._resume, listener)

    def _make_protocol(self) -> asyncio.Protocol:
        return _HTTPProtocol(self._uvicorn, self.state, self._app_state, _loop=self._loop)

    def _opened(self, task: asyncio.Task[Any]) -> None:
        self._opening.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self.connection_closed()  # it never was: the socket broke before it had a protocol

    def connection_closed(self) -> None:
        """Called by the protocols, once for each connection."""
        self._open -= 1
        self._count_connections()
        if self._is_full and self._open < self.config.worker_connections:
            self._is_full = False
            if not self._told_to_stop.is_set():
                for listener in self.assignment.listeners:
                    if listener not in self._paused:
                        self._loop.add_reader(listener, self._accept, listener)
        self.look_whether_drained()

    def _count_connections(self) -> None:
        self.words[layout.CONNECTIONS] = self._open
        if not self._told_to_stop.is_set():
            self.balance.publish(self._open)

    def application_for(self, client: tuple[str, int] | None) -> ObservedApplication:
        """What serves the connections of this peer: trusted proxies speak for others."""
        return self._trusting if self._forwarding.trusts(client) else self._observed

    # --- The Date header ----------------------------------------------------------------------

    def renew_date(self) -> None:
        """Make a new Date header; called with every beat, and by a request that finds it stale."""
        wall = time.time_ns()
        self.date_expires = monotonic_ns() + 1_000_000_000 - wall % 1_000_000_000
        date = formatdate(wall // 1_000_000_000, usegmt=True).encode()
        self._status_lines.follow_with(b"date: %b\r\nserver: %b\r\n" % (date, SERVER))
        self.websocket_state.default_headers = [(b"date", date), (b"server", SERVER)]

    # --- Stopping -----------------------------------------------------------------------------

    async def _drain(self) -> None:
        """Stop as docs/design.md, section 7, says.  Returns when drained, or told to quit.

        1. What is queued at the listeners is taken: the siblings may be gone.
        2. Every response from now on says "Connection: close", also of requests in flight.
        3. Websockets are closed with 1012, "service restart".
        4. Idle connections get until the linger for one more request, then FIN.
        """
        self.words[layout.STATE] = layout.DRAINING
        for listener in self.assignment.listeners:
            while self._take(listener):
                pass
        if self._opening:
            await asyncio.wait(self._opening)
        # In place: responses that have not begun yet refer to the list.
        self.state.default_headers.append(CLOSE)
        for connection in list(self.state.connections):
            if not isinstance(connection, _HTTPProtocol):
                connection.shutdown()
        # With reload none is answered once more: it would be by the old code.
        linger = 0.0 if self.config.reload else min(LINGER, self.config.keepalive)
        self._loop.call_later(linger, self._close_idle, linger)
        while (self._open or self._ledger.is_busy) and not self._is_quitting:
            self._drained.clear()  # it may have been before the queue was taken
            await self._drained.wait()

    def _close_idle(self, linger: float) -> None:
        for connection in list(self.state.connections):
            if isinstance(connection, _HTTPProtocol) and connection.is_idle:
                connection.finish()
        # Again: a response that had begun before the drain did not say that it is the last.
        self._loop.call_later(max(linger, 0.1), self._close_idle, linger)

    def look_whether_drained(self) -> None:
        """Called whenever something ends."""
        if self.is_draining and not self._open and not self._ledger.is_busy:
            self._drained.set()

    async def _abandon(self) -> None:
        """Cancel and close everything."""
        # It would be logged as an exception of the application.
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL + 1)
        for task in list(self.state.tasks):
            task.cancel()
        for connection in list(self.state.connections):
            connection.transport.abort()
        for _ in range(3):  # the cancellation, what the application awaits then, the callbacks
            await asyncio.sleep(0)


class _UvicornConfig(uvicorn.Config):
    """uvicorn's configuration from ours, already loaded."""

    def __init__(self, worker: AsgiWorker, application: Callable[..., Any]) -> None:
        config = worker.config
        super().__init__(
            application,
            http=_HTTPProtocol,
            interface="asgi2" if _is_asgi2(application) else "asgi3",
            lifespan=config.asgi_lifespan,  # type: ignore[arg-type]  # the same three words
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            root_path=config.root_path,
            ws_max_size=config.websocket_max_message_size,
            workers=1,  # else it reads WEB_CONCURRENCY
        )
        self.worker = worker
        self.app_state: dict[str, Any] = {}
        self.load()
        if self.ws_protocol_class is not None:
            self.ws_protocol_class = type(
                "_WebSocketProtocol", (_CountedWebSocket, self.ws_protocol_class), {}
            )

    def load_app(self) -> Any:
        """The application itself: `load` would call one without required parameters."""
        application = self.app

        def factory() -> Any:
            return application

        self.factory = True
        return factory


class StatusLines(dict[int, bytes]):
    """uvicorn's status lines, each followed by our Date and Server.

    As default headers uvicorn would check and join the two again for every response, which costs
    a microsecond of the fifteen that it spends on a small one.
    """

    def __init__(self) -> None:
        super().__init__()
        self._tail = b""

    def follow_with(self, tail: bytes) -> None:
        """Let these header lines come after every status line from now on."""
        self._tail = tail
        self.clear()

    def __missing__(self, status: int) -> bytes:
        line = self[status] = STATUS_LINES[status] + self._tail
        return line


def _is_asgi2(application: object) -> bool:
    """Whether it is called with the scope alone, and its instance with receive and send."""
    if getattr(application, "_asgi_double_callable", False):
        return True
    return inspect.isclass(application) and not hasattr(application, "__await__")


def _loop_factory(name: str) -> Callable[[], asyncio.AbstractEventLoop]:
    if name != "asyncio":
        try:
            import uvloop
        except ImportError:
            if name == "uvloop":
                raise BootError("asgi_loop is uvloop, but uvloop is not installed") from None
        else:
            return uvloop.new_event_loop
    return asyncio.new_event_loop


def _follow_our_log() -> None:
    """Let uvicorn log where we do; at info it would tell of every websocket."""
    theirs = logging.getLogger("uvicorn.error")
    theirs.handlers = log.handlers
    theirs.propagate = log.propagate
    level = log.getEffectiveLevel()
    theirs.setLevel(level if level <= logging.DEBUG else max(level, logging.WARNING))


class _HTTPProtocol(HttpToolsProtocol):
    """One HTTP connection, counted, and able to end without losing a request."""

    config: _UvicornConfig
    _waiting_since = 0.0  # for the first byte of a request, or for the end of a head
    _unfinished: object = None  # the scope of a request whose head was incomplete at the last look

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._waiting_since = monotonic()
        self._words = self.config.worker.words
        self.app = self.config.worker.application_for(self.client)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self.config.worker.connection_closed()

    def data_received(self, data: bytes) -> None:
        self._words[layout.BYTES_IN] += len(data)
        super().data_received(data)

    def handle_websocket_upgrade(self) -> None:
        worker = self.config.worker
        if worker.is_draining:  # the next worker is the one to ask
            worker.words[layout.REFUSED] += 1
            self.transport.write(SERVICE_UNAVAILABLE)
            self.transport.close()
        else:
            super().handle_websocket_upgrade()

    def on_response_complete(self) -> None:
        if self.pipeline:
            super().on_response_complete()
        elif not self.transport.is_closing():
            self.flow.resume_reading()
            self._waiting_since = monotonic()

    def check_patience(self, now: float) -> None:
        """End a connection that is idle for `keepalive`, or reads a head for `header_timeout`."""
        config = self.config.worker.config
        cycle: Any = self.cycle  # None before the first request, whatever its type says
        if cycle is not None and (not cycle.response_complete or self.pipeline):
            return  # the application's turn
        if self.is_idle:
            # A client that connects ahead of its first request has as long as for a head.
            patience = config.header_timeout if cycle is None else config.keepalive
            if 0 < patience < now - self._waiting_since or (patience == 0 and cycle is not None):
                self.finish()
        elif self._unfinished is not self.scope:
            self._unfinished, self._waiting_since = self.scope, now
        elif 0 < config.header_timeout < now - self._waiting_since:
            self.config.worker.words[layout.REFUSED] += 1
            self.transport.write(REQUEST_TIMEOUT)
            self.finish()

    @property
    def is_idle(self) -> bool:
        """Whether there is no request on the connection, nor the beginning of one."""
        cycle: Any = self.cycle  # None before the first request, whatever its type says
        if cycle is None:
            return self.scope is None
        return cycle.response_complete and cycle.scope is self.scope and not self.pipeline

    def finish(self) -> None:
        """Close the connection for writing and read it to its end, for a second at most.

        Closed at once, with a request of the client on its way, it would be reset.
        """
        transport = self.transport
        if transport.is_closing() or not transport.can_write_eof():
            transport.close()
            return
        transport.set_protocol(_Finished(self))
        transport.write_eof()
        self.loop.call_later(LAST_WORDS, transport.close)


class _Finished(asyncio.Protocol):
    """What is left of a connection after our FIN: bytes nobody will answer, and its end."""

    def __init__(self, protocol: _HTTPProtocol) -> None:
        self._protocol = protocol

    def connection_lost(self, exc: Exception | None) -> None:
        self._protocol.connection_lost(exc)


class _CountedWebSocket:
    """Before one of uvicorn's websocket protocols: counts, and knows whom to trust."""

    config: _UvicornConfig

    def __init__(
        self, config: _UvicornConfig, server_state: ServerState, app_state: dict[str, Any]
    ) -> None:
        super().__init__(  # type: ignore[call-arg]  # of the protocol it is mixed into
            config=config, server_state=config.worker.websocket_state, app_state=app_state
        )

    def connection_made(self, transport: asyncio.Transport) -> None:
        super().connection_made(transport)  # type: ignore[misc]
        self.app = self.config.worker.application_for(self.client)  # type: ignore[attr-defined]

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)  # type: ignore[misc]
        self.config.worker.connection_closed()

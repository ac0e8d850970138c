"""The asgi worker: an event loop, its listeners, its beat and its end.  In the worker.

HTTP is spoken by asgi_http.py, websockets by uvicorn's protocols (asgi_websocket.py), and the
lifespan is told by lifespan.py.  uvicorn's `Server` is not used, because everything it does a
managed worker does differently:

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
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
import time
from functools import partial
from time import monotonic_ns
from typing import TYPE_CHECKING, Any

from forkmaster.board import layout
from forkmaster.errors import BootError
from forkmaster.http.head import Limits
from forkmaster.http.response import SERVER, Tails
from forkmaster.http.scope import ScopeReader
from forkmaster.http.trust import AllowList, Trust
from forkmaster.worker.asgi_exchange import Exchange
from forkmaster.worker.asgi_hooks import HookedApplication
from forkmaster.worker.asgi_http import LAST_WORDS, Connection, HTTPConnection
from forkmaster.worker.asgi_options import with_uvicorn_options
from forkmaster.worker.asgi_proxy import ProxyGate
from forkmaster.worker.asgi_websocket import UvicornConfig, WebSockets, follow_our_log
from forkmaster.worker.ledger import Ledger
from forkmaster.worker.lifespan import Lifespan
from forkmaster.worker.tasks import show_on_dump_signal
from forkmaster.worker.warmup import warm_asgi

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, MutableMapping

    from forkmaster.config.table import Config
    from forkmaster.worker.asgi_tls import Doorkeeper
    from forkmaster.worker.assignment import Assignment

log = logging.getLogger("forkmaster.error")

# 5 ms: how long a worker with more than its share leaves a connection to the others.
YIELD = 0.005
# 2 s: as long as gunicorn's threaded worker waits for a last request on an idle connection.
LINGER = 2.0
# Out of descriptors or memory: nothing to do but to wait until something is given back.
EXHAUSTED = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM))
RETRY = 1.0
# 10 ms from one websocket's end to the next: a hundred a second may come back.
APART = 0.01
# The name under which an application finds the event in scope["state"].
DRAINING = "forkmaster.draining"


class AsgiWorker:
    """Serves an ASGI application on one event loop."""

    protocol: type[HTTPConnection] = HTTPConnection

    def __init__(self, assignment: Assignment, application: Callable[..., Any]) -> None:
        self.assignment = assignment
        self.options = with_uvicorn_options(assignment.config)
        self.config = config = self.options.config
        self.slot = assignment.slot
        self.words = assignment.slot.words
        self.balance = assignment.balance
        self.is_draining = False
        self.is_quitting = False
        self._wakeup_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._open = 0  # connections, from accept to close
        self._opening: set[asyncio.Future[Any]] = set()
        self._paused: set[socket.socket] = set()  # listeners left to the others for a moment
        # Where a listener is bound, if that is one address.
        self._names = {
            listener: name
            for listener in assignment.listeners
            if (name := _name_of(listener))[0] not in ("0.0.0.0", "::")
        }
        self._is_full = False
        self.connections: set[Connection] = set()
        self.exchanges: set[Exchange] = set()
        self.app_state: dict[str, Any] = {}
        self.tails = Tails(time.time())
        self.date_expires = 0
        self.extra_lines = self.options.header_lines
        self.own = self.options.own
        # Whether every answer is the last on its connection.
        self.closes = not config.keepalive
        self.ledger = Ledger(assignment)
        self.limits = Limits(
            line=config.limit_request_line,
            fields=config.limit_request_fields,
            field_size=config.limit_request_field_size,
            head=config.limit_request_head,
        )
        self._proxies = AllowList(config.forwarded_allow_ips)
        self._trusted, self._untrusted = self._reader(True), self._reader(False)
        self._gate = None
        if config.proxy_protocol != "off":
            self._gate = ProxyGate(self, self._open_connection)
        self._doorkeeper: Doorkeeper | None = None
        if assignment.encryption is not None:
            # Imported here for those who do without, as in assignment.py.
            from forkmaster.worker.asgi_tls import Doorkeeper

            self._doorkeeper = Doorkeeper(self, assignment.encryption)
        self._websockets = WebSockets(self, application, self.options)
        self.application = self._websockets.application
        if config.pre_request or config.post_request:
            self.application = HookedApplication(self.application, config, assignment.view)

    def _reader(self, trusted: bool) -> ScopeReader:
        config = self.config
        trust = Trust(
            config.header_map, frozenset(config.forwarder_headers), config.secure_scheme_headers
        )
        return ScopeReader(
            root_path=config.root_path,
            trusted=trusted,
            limits=self.limits,
            trust=trust,
            proxies=self._proxies,
        )

    # --- Called in signal handlers ------------------------------------------------------------

    def drain(self) -> None:
        """Begin to stop: finish what runs, answer idle connections once more, close."""
        self.is_draining = True
        os.eventfd_write(self._wakeup_fd, 1)

    def quit(self) -> None:
        """Stop now.  A loop that is blocked by the application stops when it runs again."""
        self.is_quitting = True
        os.eventfd_write(self._wakeup_fd, 1)

    # --- The life of the loop -----------------------------------------------------------------

    def serve(self, on_ready: Callable[[], None]) -> None:
        """Serve until told to stop and drained.  Raises BootError if the lifespan fails."""
        follow_our_log()
        with asyncio.Runner(loop_factory=_loop_factory(self.config.asgi_loop)) as runner:
            runner.run(self._serve(on_ready))
        os.close(self._wakeup_fd)

    async def _serve(self, on_ready: Callable[[], None]) -> None:
        self.loop = loop = asyncio.get_running_loop()
        self._told_to_stop = asyncio.Event()
        self._drained = asyncio.Event()
        limits = (self.config.timeout, self.config.request_timeout)
        self._beat_interval = min(1.0, *(limit / 4 for limit in limits if limit), 1.0)
        self._beat()
        show_on_dump_signal(loop, self.assignment.stacks_fd)
        loop.add_reader(self._wakeup_fd, self._woken)
        loop.add_reader(self.assignment.liveness_fd, self._orphaned)
        lifespan = Lifespan(self.application, self.config.asgi_lifespan)
        lifespan.state[DRAINING] = draining = asyncio.Event()
        await lifespan.startup()
        self.app_state = lifespan.state
        if not self.assignment.preloaded:
            await warm_asgi(self.application, self.config.warmup, lifespan.state)
        self.balance.publish(0)
        for listener in self.assignment.listeners:
            loop.add_reader(listener, self._accept, listener)
        on_ready()
        await self._told_to_stop.wait()
        for listener in self.assignment.listeners:
            loop.remove_reader(listener)
        self.balance.leave()
        draining.set()
        if not self.is_quitting:
            await self._drain()
        if self.is_quitting:
            await self._abandon()
        await lifespan.shutdown(LAST_WORDS if self.is_quitting else None)
        loop.remove_reader(self._wakeup_fd)
        loop.remove_reader(self.assignment.liveness_fd)

    def _beat(self) -> None:
        self.slot.beat()
        self.words[layout.CPU] = time.process_time_ns()
        self.renew_date()
        now = monotonic_ns()
        self.ledger.limits.look(now)
        if self.assignment.encryption is not None:
            self.assignment.encryption.renew()
        self._sweep(now)
        self.loop.call_later(self._beat_interval, self._beat)

    def _sweep(self, now: int) -> None:
        """End what has taken too long: clients that are waited for, and requests.

        With the beat, so a second late at the most: a timer for each response, as uvicorn has
        it, costs a microsecond of every request.
        """
        seconds = now / 1e9
        for connection in list(self.connections):
            connection.check_patience(seconds)
        limit = self.config.request_timeout
        if limit:
            before = now - int(limit * 1e9)
            for exchange in list(self.exchanges):
                if exchange.response_complete or exchange.extended > now:
                    continue
                if 0 < exchange.began < before:
                    exchange.time_out(limit)

    def _woken(self) -> None:
        os.eventfd_read(self._wakeup_fd)
        self._told_to_stop.set()
        if self.is_quitting:
            self._drained.set()

    def _orphaned(self) -> None:
        log.warning("the master is gone; stopping")
        self.loop.remove_reader(self.assignment.liveness_fd)
        self.quit()

    # --- Accepting ----------------------------------------------------------------------------

    def _accept(self, listener: socket.socket) -> None:
        """Take one connection of those that are waiting, unless it is somebody else's turn."""
        if self.balance.has_more_than_its_share(self._open):
            self.loop.remove_reader(listener)
            self._paused.add(listener)
            self.loop.call_later(YIELD, self._resume, listener)
            return
        self._take(listener)

    def _resume(self, listener: socket.socket) -> None:
        self._paused.discard(listener)
        if self._told_to_stop.is_set():
            return
        # If it is still waiting then nobody else could take it.
        self._take(listener)
        if not self._is_full and listener not in self._paused:
            self.loop.add_reader(listener, self._accept, listener)

    def _take(self, listener: socket.socket) -> bool:
        """Accept one connection and start its protocol.  False if none was waiting."""
        try:
            connection, peer = listener.accept()
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
        self._start(connection, peer, listener)
        if self._open >= self.config.worker_connections and not self._is_full:
            self._is_full = True
            for each in self.assignment.listeners:
                self.loop.remove_reader(each)
        return True

    def _rest(self, listener: socket.socket, exc: OSError) -> None:
        name = self.assignment.view
        log.warning("%s cannot accept: %s; next attempt in %g s", name, exc.strerror, RETRY)
        self.loop.remove_reader(listener)
        self._paused.add(listener)
        self.loop.call_later(RETRY, self._resume, listener)

    def _start(self, connection: socket.socket, peer: Any, listener: socket.socket) -> None:
        server = self._names.get(listener)
        if server is None:  # bound to every address of the machine
            server = _name_of(connection)
        client = peer[:2] if isinstance(peer, tuple) else None
        protocol = self.protocol(self, client, server)
        if self._gate is not None:
            self._gate.receive(connection, protocol)
        else:
            self._open_connection(connection, protocol)

    def _open_connection(self, connection: socket.socket, protocol: HTTPConnection) -> None:
        """Let `protocol` speak to whoever is at the other end."""
        if self._doorkeeper is not None and protocol.refusal is None:
            self._doorkeeper.receive(connection, protocol)
            return
        # A coroutine that waits once, for connection_made.  Stepped by hand, because a task for
        # it costs a tenth of the time of a connection with one request (asgi-close of
        # scripts/benchmark.py).
        self.step(self.loop.connect_accepted_socket(lambda: protocol, connection))

    def step(self, opening: Coroutine[asyncio.Future[Any], None, Any]) -> None:
        """Begin a connection: go on with what the loop's method returned."""
        try:
            waiter = opening.send(None)
        except StopIteration:
            return
        except Exception:
            self.connection_closed()  # it never was: the socket broke before it had a protocol
            return
        self._opening.add(waiter)
        waiter.add_done_callback(partial(self._opened, opening))

    def _opened(self, opening: Coroutine[Any, Any, Any], waiter: asyncio.Future[Any]) -> None:
        self._opening.discard(waiter)
        self.step(opening)

    def connection_closed(self) -> None:
        """Called by the protocols, once for each connection."""
        self._open -= 1
        self._count_connections()
        if self._is_full and self._open < self.config.worker_connections:
            self._is_full = False
            if not self._told_to_stop.is_set():
                for listener in self.assignment.listeners:
                    if listener not in self._paused:
                        self.loop.add_reader(listener, self._accept, listener)
        self.look_whether_drained()

    def _count_connections(self) -> None:
        self.words[layout.CONNECTIONS] = self._open
        if not self._told_to_stop.is_set():
            self.balance.publish(self._open)

    def reader_for(self, client: tuple[str, int] | None) -> ScopeReader:
        """What reads the requests of this peer: trusted proxies speak for others.

        None is one that came through a unix socket.
        """
        is_trusted = client is None or client[0] in self._proxies
        return self._trusted if is_trusted else self._untrusted

    def open_websocket(
        self, connection: HTTPConnection, scope: MutableMapping[str, Any], rest: bytes
    ) -> bool:
        """Hand a connection over to a websocket protocol; False if there is none."""
        return self._websockets.open(connection, scope, rest)

    def renew_date(self) -> None:
        """Make a new Date header; called with every beat, and by a request that finds it stale."""
        wall = time.time_ns()
        self.date_expires = monotonic_ns() + 1_000_000_000 - wall % 1_000_000_000
        self.tails.renew(wall // 1_000_000_000)
        date = self.tails.date[6:-2]
        self._websockets.follow_with([(b"date", date), (b"server", SERVER)])

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
        self.assignment.has_left()
        if self._opening:
            await asyncio.wait(self._opening, timeout=LINGER)  # handshakes may take long
        self.closes = True
        self.say_goodbye()
        linger = min(LINGER, self.config.keepalive)
        self.loop.call_later(linger, self._close_idle, linger)
        while (self._open or self._is_busy) and not self.is_quitting:
            self._drained.clear()  # it may have been before the queue was taken
            await self._drained.wait()

    def say_goodbye(self) -> None:
        """Tell clients that are not waited for by themselves that they have to go."""
        self._websockets.close_all(APART, self.config.graceful_timeout / 2)

    @property
    def _is_busy(self) -> bool:
        """Whether the application does something for a request or a websocket."""
        return bool(self.exchanges or self.ledger.websockets)

    def _close_idle(self, linger: float) -> None:
        if self._gate is not None:
            self._gate.turn_all_away()
        if self._doorkeeper is not None:
            self._doorkeeper.turn_all_away()
        for connection in list(self.connections):
            if connection.is_idle:
                connection.finish()
        # Again: a response that had begun before the drain did not say that it is the last.
        self.loop.call_later(max(linger, 0.1), self._close_idle, linger)

    def look_whether_drained(self) -> None:
        """Called whenever something ends."""
        if self.is_draining and not self._open and not self._is_busy:
            self._drained.set()

    async def _abandon(self) -> None:
        """Cancel and close everything."""
        self._websockets.abort()
        for exchange in list(self.exchanges):
            exchange.task.cancel()
        for connection in list(self.connections):
            connection.transport.abort()
        for _ in range(3):  # the cancellation, what the application awaits then, the callbacks
            await asyncio.sleep(0)


def _name_of(sock: socket.socket) -> tuple[str, int | None]:
    """The local address, as a scope has it: of a unix socket its path and None."""
    name = sock.getsockname()
    return name[:2] if isinstance(name, tuple) else (os.fsdecode(name), None)


def import_for_workers(config: Config, application: Callable[..., Any]) -> None:
    """Import what a worker imports when it starts: the event loop, the websocket protocol.

    In the zygote, so that its workers need neither the time (30 ms) nor memory of their own.
    """
    options = with_uvicorn_options(config)
    _loop_factory(options.config.asgi_loop)
    UvicornConfig(application, options)


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

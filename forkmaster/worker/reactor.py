"""The event loop of the sync and the threaded worker: sockets in, complete requests out.

One thread, one poller.  It accepts, reads heads and bodies, and only when a request is whole
hands it to `_dispatch`, which is what the two workers differ in.  What a client may take its
time over never holds an application: neither sending the request nor reading the answer.

**Fair accept.**  The shared listeners are registered with EXCLUSIVE, so one connection wakes one
worker; one connection is accepted per wake-up, and the listener is registered anew, which puts
this worker at the end of the kernel's queue: idle workers take turns exactly.  In a burst whoever
is awake would take all, so a worker with more than its share of connections waits 5 ms before it
registers again.  A worker that dies between wake-up and accept leaves a connection lying, so all
register anew with every tick of a second.

**Time.**  All instants are monotonic nanoseconds as in the slot, because a request needs two of
them there anyway.  The loop sleeps until the next tick, deadline or event and beats each time it
runs.

Rejected: asyncio (a third of the speed, measured with hello-world), a thread per connection, and
SO_REUSEPORT, which resets what is queued on a listener that is closed.
"""

from __future__ import annotations

import errno
import logging
import os
import socket
import sys
import time
from collections import deque
from contextvars import copy_context
from time import monotonic_ns
from typing import TYPE_CHECKING, Any

from forkmaster import __version__
from forkmaster.board import layout
from forkmaster.http import proxy, response
from forkmaster.http.body import ChunkedBody, LengthBody
from forkmaster.http.environ import AllowList, Origin, Trust
from forkmaster.http.errors import SPEAKS_TLS, BodyEndedError, Refused
from forkmaster.http.head import HEAD_END, Limits, check_unfinished
from forkmaster.http.response import Tails
from forkmaster.system.poller import EXCLUSIVE, READ, Waker, open_poller
from forkmaster.worker import handoff
from forkmaster.worker.connection import (
    BODY,
    BUSY,
    CLOSED,
    HANDSHAKE,
    HEAD,
    IDLE,
    LINGERING,
    PROXY,
    WRITING,
    Connection,
)
from forkmaster.worker.exchange import ClientGoneError, Exchange, FileWrapper
from forkmaster.worker.limits import WorkerLimits
from forkmaster.worker.request_hooks import RequestHooks
from forkmaster.worker.timers import NEVER, Timers

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextvars import Context

    from forkmaster.http.body import Body
    from forkmaster.worker.assignment import Assignment

log = logging.getLogger("forkmaster.error")

SECOND = 1_000_000_000
# What one recv takes: more costs an mmap per call.
RECEIVE = 64 << 10
# And what one takes of a body, of which more will come: with 64 KiB an upload of 1 MiB is 16
# polls.  The turns bound what one fast client takes before the others are looked after.
_RECEIVE_BODY = 256 << 10
_BODY_TURNS = 8
_EVENTS = 256
# A worker above its share lets the others go first for so long.
_STEP_BACK = 5_000_000
# Few enough that those who are connected do not notice.
_AT_ONCE = 16
# After EMFILE: a file of the application's may be closed without our noticing.
_OUT_OF_FILES = SECOND
# After our last byte: gunicorn's 2 s, for the client to read it and close.
_LINGER = 2 * SECOND
_LINGER_BYTES = 1 << 20  # what is read and thrown away meanwhile

_EXHAUSTED = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM))


_OURS = ("forkmaster.worker", "forkmaster.http")


class _Listener:
    """A listening socket and the origins of what comes through it."""

    def __init__(self, sock: socket.socket, where: int, trusted: Origin, other: Origin) -> None:
        self.sock = sock
        self.fd = sock.fileno()
        self.where = where
        self.trusted = trusted
        self.other = other
        self.is_unix = sock.family == socket.AF_UNIX
        self._family = int(sock.family)

    def accept(self) -> tuple[socket.SocketType, Any]:
        """A connection and its peer's address.  Raises OSError, BlockingIOError if there is none.

        What `socket.accept` does, with a socket as the C module has them: in Python's subclass
        of it the enumerations for family and type, `__init__` and `close` cost 4 µs of the 50
        that a connection for one request takes.
        """
        fd, address = self.sock._accept()  # type: ignore[attr-defined]
        return socket.SocketType(self._family, socket.SOCK_STREAM, 0, fd), address

    def has_taken(self, sock: socket.socket) -> bool:
        """Whether the connection came through this listener, as far as its own address tells."""
        if sock.family != self.sock.family:
            return False
        ours, its = self.sock.getsockname(), sock.getsockname()
        return bool(ours == its if self.is_unix else ours[1] == its[1])


class Reactor:
    """See the module.  `_dispatch`, `_resume` and the life of a context belong to the kinds."""

    multithread = False

    def __init__(self, assignment: Assignment, application: Callable[..., Any]) -> None:
        config = assignment.config
        self.assignment = assignment
        self.config = config
        self.application = application
        self.encryption = assignment.encryption
        self.tails = Tails(time.time())
        self._slot = assignment.slot
        self._words = assignment.slot.words
        self._balance = assignment.balance
        self._poller = open_poller()
        self._waker = Waker()
        self._timers = Timers()
        self._connections: dict[int, Connection] = {}
        # Of those, the ones between two requests.  Whoever pops one owns it: the reactor to read
        # it, or the thread that hands it to a sibling.
        self._idle: dict[int, Connection] = {}
        # Those on which more requests have come than the one just answered: 64 KiB can be a
        # thousand, which must not hold up everybody else.
        self._queued: deque[Connection] = deque()
        self._limits = Limits(
            line=config.limit_request_line,
            fields=config.limit_request_fields,
            field_size=config.limit_request_field_size,
            head=config.limit_request_head,
        )
        self._forwarders = AllowList(config.forwarded_allow_ips)
        self._proxies = AllowList(config.proxy_allow_ips)
        self._listeners = [
            self._listener(sock, where) for where, sock in enumerate(assignment.listeners)
        ]
        self._listener_of_fd = {listener.fd: listener for listener in self._listeners}
        self._header_timeout = _nanoseconds(config.header_timeout)
        self._body_timeout = _nanoseconds(config.body_timeout)
        self._write_timeout = _nanoseconds(config.write_timeout)
        self._keepalive = int(config.keepalive * SECOND)
        self.keeps_alive = self._keepalive > 0
        self._beat_every = min(SECOND, _nanoseconds(config.timeout) // 4)
        self._tick_at = 0
        self._due = 0
        self._register_at = 0  # when to take connections again; 0: we do, or are full
        self._listening = False
        # How many connections to accept at a wake-up.  More than one only where no sibling would
        # get them: for an only worker it saves a poll and two registrations for each.
        self._at_once = 1
        # An encrypted connection has a state that cannot be passed on.
        self._handoff = assignment.handoff if self.encryption is None else None
        self._handoff_fd = self._handoff[0].fileno() if self._handoff else -1
        self._said_out_of_files = False
        # Since when this wake-up has only served requests of connections that were idle, which is
        # when the next one began; 0: not known.
        self._free_since = 0
        self._busy = 0  # nanoseconds in requests that are not in the slot yet
        self.draining = False  # told to stop; from then on every answer closes its connection
        self._left = False  # the listeners, for good
        self._asked_to_quit = False
        self._pristine = copy_context()
        self._watcher: handoff.HandOffThread | None = None
        self._worker_limits = WorkerLimits(assignment)
        self._hooks = RequestHooks(assignment, multithread=self.multithread)

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
            words[beat] = self._free_since = now
            if self._watcher is not None and self._watcher.is_parked and events:
                self._watcher.unpark()
            if now >= self._due:
                self._tick(now)
                self._free_since = 0
            for fd, _ in events:
                connection = idle.pop(fd, None)
                if connection is not None:
                    self._readable(connection)
                    continue
                self._free_since = 0
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
            if self._busy:
                self._add_up()
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
                # See the module: a sibling may have died with a wake-up of ours.
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

    def _look_for_siblings(self) -> None:
        alone = self.config.workers == 1 and self._balance.is_alone()
        self._at_once = _AT_ONCE if alone else 1

    def _set_due(self) -> None:
        due = min(self._tick_at, self._timers.next())
        if self._register_at:
            due = min(due, self._register_at)
        self._due = due

    def _watch(self, connection: Connection, deadline: int) -> None:
        """Set the deadline of a connection."""
        connection.deadline = deadline
        if deadline < connection.listed:
            self._timers.watch(connection)
            if connection.listed < self._due:
                self._due = connection.listed

    def _woken(self) -> None:
        if self.draining and not self._left:
            self._leave()

    # --- Accepting --------------------------------------------------------------------------

    def _listener(self, sock: socket.socket, where: int) -> _Listener:
        config = self.config
        is_unix = sock.family == socket.AF_UNIX
        if not is_unix:
            # Inherited by what is accepted: a streamed answer must not wait for the client's
            # delayed acknowledgement, 40 ms.
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        name = sock.getsockname()
        template = {
            "wsgi.version": (1, 0),
            "wsgi.url_scheme": "http" if self.encryption is None else "https",
            "wsgi.errors": ErrorStream(),
            "wsgi.multithread": self.multithread,
            "wsgi.multiprocess": max(config.workers, config.workers_max or 0) > 1,
            "wsgi.run_once": False,
            "wsgi.file_wrapper": FileWrapper,
            "wsgi.input_terminated": True,
            "forkmaster.extend_timeout": self._slot.extend,
            "SERVER_SOFTWARE": f"forkmaster/{__version__}",
            "SERVER_NAME": "localhost" if is_unix else name[0],
            "SERVER_PORT": "80" if is_unix else str(name[1]),
            "REMOTE_ADDR": "",
            # Set for each request; here because a dict that need not grow is copied faster.
            "wsgi.input": None,
            "wsgi.early_hints": None,
        }
        if not is_unix:
            template["REMOTE_PORT"] = ""
        trust = Trust(
            config.header_map,
            frozenset(config.forwarder_headers),
            config.secure_scheme_headers,
        )
        trusted, other = (
            Origin(
                template,
                trusted=is_trusted,
                limits=self._limits,
                trust=trust,
                script_name=os.environ.get("SCRIPT_NAME", ""),
                server_from_host=is_unix,
            )
            for is_trusted in (True, False)
        )
        return _Listener(sock, where, trusted, other)

    def _may_accept(self) -> bool:
        """Whether this worker has room for one more connection."""
        return len(self._connections) < self.config.worker_connections

    def _take_connections(self) -> None:
        """Wait for new connections (again)."""
        self._register_at = 0
        if self._listening or self._left or not self._may_accept():
            return
        for listener in self._listeners:
            self._poller.register(listener.fd, READ | EXCLUSIVE)
        if self._handoff is not None:
            self._poller.register(self._handoff_fd, READ | EXCLUSIVE)
        self._listening = True

    def _leave_listeners(self) -> None:
        if self._listening:
            self._listening = False
            for listener in self._listeners:
                self._poller.unregister(listener.fd)
            if self._handoff is not None:
                self._poller.unregister(self._handoff_fd)

    def _accept(self, listener: _Listener) -> None:
        """Take a connection; several at once if there is no sibling to leave them to."""
        for _ in range(self._at_once):
            try:
                sock, address = listener.accept()
            except BlockingIOError:
                return  # a sibling was faster, or that was all
            except OSError as exc:
                if exc.errno in _EXHAUSTED:
                    self._pause_accepting(exc)
                return  # otherwise the client's: it left while it was queued
            self._words[layout.ACCEPTED] += 1
            if self._listening and self._at_once == 1:
                # To the end of the queue of those who wait for it, before we are busy.
                if self._balance.has_more_than_its_share(len(self._connections) + 1):
                    self._leave_listeners()
                    self._register_at = monotonic_ns() + _STEP_BACK
                    self._due = min(self._due, self._register_at)
                else:
                    self._poller.unregister(listener.fd)
                    self._poller.register(listener.fd, READ | EXCLUSIVE)
            self._adopt(sock, address, listener)
            if not self._may_accept():
                self._leave_listeners()  # until one of them closes
                return

    def _pause_accepting(self, exc: OSError) -> None:
        self._leave_listeners()
        self._register_at = monotonic_ns() + _OUT_OF_FILES
        self._due = min(self._due, self._register_at)
        if not self._said_out_of_files:
            self._said_out_of_files = True
            log.error(
                "cannot accept a connection: %s; %d are open, trying again every second",
                exc.strerror,
                len(self._connections),
            )

    def _adopt(self, sock: socket.SocketType, address: Any, listener: _Listener) -> None:
        """Begin with a new connection, and read at once: the request is mostly there already."""
        sock.setblocking(False)
        if listener.is_unix:
            connection = Connection(sock, listener.where, listener.trusted)
        else:
            host = address[0]
            trusted = host in self._forwarders
            connection = Connection(
                sock, listener.where, listener.trusted if trusted else listener.other
            )
            connection.host = host
            connection.port = port = str(address[1])
            connection.client = f"{host}:{port}".encode("ascii")
        self._connections[connection.fd] = connection
        self._published()
        if self.config.proxy_protocol != "off":
            if not listener.is_unix and connection.host not in self._proxies:
                log.warning("%s is not in proxy_allow_ips; closing the connection", connection.host)
                self._linger(connection)
                return
            connection.state = PROXY
        elif self.encryption is not None:
            self._encrypt(connection)
            return
        # Before it is registered: of a connection for one request the poller never hears.
        self._ready(connection)

    def _take_over(self) -> bool:
        """Go on with a connection that a busy sibling passed on; False if there was none."""
        assert self._handoff is not None
        passed = handoff.take(self._handoff[0])
        if passed is None:
            return False
        sock = socket.socket(fileno=passed.fd)
        sock.setblocking(False)  # it is: but Python's object must know
        try:
            listener = self._listener_of(sock, passed.where)
            # By the address of the peer, which a PROXY header does not change.
            peer = passed.host if passed.proxied is None else sock.getpeername()[0]
        except OSError:
            sock.close()  # the client is gone, and the kernel knows no more who it was
            return True
        trusted = listener.is_unix or peer in self._forwarders
        connection = Connection(
            sock, listener.where, listener.trusted if trusted else listener.other
        )
        connection.host, connection.port = passed.host, passed.port
        connection.proxied = passed.proxied
        if passed.port:
            connection.client = f"{passed.host}:{passed.port}".encode("ascii")
        connection.served = True
        self._connections[connection.fd] = connection
        self._words[layout.ADOPTED] += 1
        self._published()
        self._watch(connection, monotonic_ns() + self._keepalive)
        self._ready(connection)
        if not self._may_accept():
            self._leave_listeners()
        return True

    def _listener_of(self, sock: socket.socket, where: int) -> _Listener:
        """The listener through which a sibling took a connection; it had the index `where` there.

        During a reload a sibling may have others than we have, in another order.
        """
        for listener in (*self._listeners[where : where + 1], *self._listeners):
            if listener.has_taken(sock):
                return listener
        return self._listener(sock, where)

    def _pass_on(self, connection: Connection) -> bool:
        """Give a connection, popped from `_idle`, to a sibling; False if none can take it.

        May be called by another thread than the reactor's.
        """
        assert self._handoff is not None
        if not handoff.pass_on(self._handoff[1], connection):
            return False
        connection.state = CLOSED
        connection.deadline = connection.listed = NEVER
        if connection.mask:
            # Not by close() alone: the sibling holds the same socket open.
            self._poller.unregister(connection.fd)
        del self._connections[connection.fd]
        connection.sock.close()
        self._words[layout.HANDED_OFF] += 1
        self._published()
        return True

    def _wait_for(self, connection: Connection, mask: int) -> None:
        """Have the poller tell when the socket can be read, or written."""
        if connection.mask == mask:
            return
        if connection.mask:
            self._poller.modify(connection.fd, mask)
        else:
            self._poller.register(connection.fd, mask)
        connection.mask = mask

    def _wait_for_more(self, connection: Connection) -> None:
        """What has come is not enough, or nothing has."""
        self._wait_for(connection, READ)
        if connection.listed == NEVER:
            self._watch(connection, monotonic_ns() + self._header_timeout)

    def _published(self) -> None:
        """The number of connections has changed."""
        count = len(self._connections)
        self._words[layout.CONNECTIONS] = count
        if not self.draining:
            self._balance.publish(count)

    # --- Reading ----------------------------------------------------------------------------

    def _readable(self, connection: Connection) -> None:
        """An idle connection has something to say.  It is in nobody's `_idle` now."""
        try:
            data = connection.sock.recv(RECEIVE)
        except BlockingIOError:
            self._wait_for_more(connection)
            self._idle[connection.fd] = connection
            return
        except OSError:
            data = b""
        # The usual case, in as few steps as can be: one recv is exactly one request without body.
        try:
            whole = connection.origin.whole(data)
        except Refused as refused:
            self._refuse(connection, refused, data)
            return
        if whole is not None:
            environ, line, keep_alive = whole
            self._dispatch(connection, Exchange(connection, environ, line, data, keep_alive, self))
        else:
            self._feed(connection, data)

    def _heard(self, connection: Connection) -> None:
        """The poller names a connection that is not in `_idle`."""
        self._ready(connection)

    def _ready(self, connection: Connection) -> None:
        """A connection that is not idle can be read or written."""
        state = connection.state
        if state == IDLE:
            self._readable(connection)  # a new one
        elif state == WRITING:
            self._writable(connection)
        elif state == LINGERING:
            self._linger_on(connection)
        elif state == BODY:
            self._read_body(connection)
        elif state == HANDSHAKE:
            self._shake_hands(connection)
        elif state != BUSY:
            try:
                data = connection.sock.recv(RECEIVE)
            except BlockingIOError:
                self._wait_for_more(connection)
                return
            except OSError:
                data = b""
            self._feed(connection, data)

    def _read_body(self, connection: Connection) -> None:
        """Read on while the body comes faster than it is read, but not for ever."""
        for _ in range(_BODY_TURNS):
            try:
                data = connection.sock.recv(_RECEIVE_BODY)
            except BlockingIOError:
                self._wait_for(connection, READ)
                return
            except OSError:
                data = b""
            self._feed(connection, data)
            if connection.state != BODY or len(data) < RECEIVE:
                return

    def _feed(self, connection: Connection, data: bytes) -> None:
        """Go on with what has come: `data` follows `connection.buffer`.  Empty: nothing will."""
        ended = not data
        try:
            while True:
                state = connection.state
                if state == BODY:
                    rest = self._feed_body(connection, data, ended)
                elif state == PROXY:
                    rest = self._feed_proxy(connection, data, ended)
                else:
                    rest = self._feed_head(connection, data, ended)
                if rest is None:
                    return
                data, ended = rest, False
        except Refused as refused:
            self._refuse(connection, refused, connection.buffer or data)

    def _feed_proxy(self, connection: Connection, data: bytes, ended: bool) -> bytes | None:
        data = connection.buffer + data
        parsed = proxy.parse(data, self.config.proxy_protocol)
        if parsed is None:
            if ended:
                self._close(connection)
                return None
            connection.buffer = data
            self._wait_for_more(connection)
            return None
        said, rest = parsed
        connection.buffer = b""
        connection.state = IDLE
        self._learn(connection, said)
        if self.encryption is not None:
            self._encrypt(connection, rest)
            return None
        return self._or_wait(connection, rest)

    def _learn(self, connection: Connection, said: proxy.Proxied) -> None:
        """Take over the client's address from a PROXY header, for the life of the connection."""
        if not said.names_a_client:
            return
        connection.host, connection.port = said.client, str(said.client_port)
        connection.client = f"{said.client}:{said.client_port}".encode("ascii")
        connection.proxied = {
            "PROXY_PROTOCOL": said.protocol,
            "PROXY_ADDR": said.server,
            "PROXY_PORT": str(said.server_port),
        }

    def _encrypt(self, connection: Connection, received: bytes = b"") -> None:
        """From the next byte on, `received` included, the client speaks TLS."""
        # Imported here for those who do without, as in assignment.py.
        from forkmaster.worker.tls import TLSSocket

        assert self.encryption is not None
        assert isinstance(connection.sock, socket.SocketType)
        connection.sock = TLSSocket(connection.sock, self.encryption.context, received)
        connection.state = HANDSHAKE
        self._shake_hands(connection)

    def _shake_hands(self, connection: Connection) -> None:
        from forkmaster.worker.tls import NotTLSError, TLSSocket

        sock = connection.sock
        assert isinstance(sock, TLSSocket)
        try:
            is_complete = sock.shake_hands()
        except BlockingIOError:
            is_complete = False
        except NotTLSError as exc:
            connection.sock = sock.bare
            said = exc.args[0]
            if said[:1].isalpha():
                self._refuse(connection, Refused(400, SPEAKS_TLS), said)
            else:
                self._close(connection)
            return
        except OSError as exc:
            log.debug("no TLS with %s: %s", connection.client.decode("ascii", "replace"), exc)
            self._linger(connection)  # until the client has read why
            return
        if is_complete:
            connection.state = IDLE
            self._readable(connection)
        else:
            self._wait_for_more(connection)

    def _or_wait(self, connection: Connection, rest: bytes) -> bytes | None:
        """`rest` if there is any; otherwise the connection is idle."""
        if rest:
            return rest
        self._idle[connection.fd] = connection
        self._wait_for_more(connection)
        return None

    def _feed_head(self, connection: Connection, data: bytes, ended: bool) -> bytes | None:
        before = connection.buffer
        if ended:
            # Half a head and then the end: nobody is there to answer.
            self._close(connection)
            return None
        if before:
            # From the last three bytes on, so that a head in many pieces is searched once.
            start = max(0, len(before) - 3)
            data = before + data
        else:
            start = 0
        if data.startswith(b"\r\n"):
            # RFC 9112 2.2: an empty line before the request is skipped, but only one.
            if len(data) == 2:
                self._wait_for_head(connection, data)
                return None
            data = data[2:]
            start = 0
        end = data.find(HEAD_END, start)
        if end < 0:
            self._wait_for_head(connection, data)
            return None
        head, rest = data[:end], data[end + 4 :]
        connection.buffer = b""
        environ, line, fields = connection.origin.read(head)
        http11 = line.protocol == "HTTP/1.1"
        keep_alive = fields.keep_alive if http11 else fields.keep_alive_http10
        exchange = Exchange(connection, environ, line, head, keep_alive, self)
        body: Body
        if fields.chunked:
            body = ChunkedBody(self._limits, self.config.limit_request_body)
        elif fields.length:
            body = LengthBody(fields.length, self.config.limit_request_body)
        else:
            connection.buffer = rest
            self._dispatched(connection, exchange)
            return None
        connection.body = body
        connection.exchange = exchange
        connection.state = BODY
        if fields.expects_continue and not rest and http11:
            self._send_continue(connection)
        return self._feed_body(connection, rest, False)

    def _send_continue(self, connection: Connection) -> None:
        try:
            connection.sock.send(response.CONTINUE)
        except OSError:
            pass  # gone, which the next recv tells; or full, and then it does not wait for this

    def _wait_for_head(self, connection: Connection, data: bytes) -> None:
        connection.buffer = data
        check_unfinished(data, self._limits)
        if connection.state == IDLE:
            connection.state = HEAD
            if connection.served:
                self._watch(connection, monotonic_ns() + self._header_timeout)
        self._wait_for_more(connection)

    def _feed_body(self, connection: Connection, data: bytes, ended: bool) -> bytes | None:
        if ended:
            raise BodyEndedError
        body, exchange = connection.body, connection.exchange
        assert body is not None
        assert exchange is not None
        try:
            rest = body.feed(data)
        except OSError as exc:
            log.error("cannot keep the body of %s: %s", exchange, exc.strerror)
            raise Refused(503, "the body cannot be stored") from None
        if rest is None:
            self._wait_for(connection, READ)
            self._watch(connection, monotonic_ns() + self._body_timeout)
            return None
        connection.body = connection.exchange = None
        exchange.take_body(body)
        connection.buffer = rest
        self._dispatched(connection, exchange)
        return None

    def _dispatched(self, connection: Connection, exchange: Exchange) -> None:
        """Dispatch; what was pipelined behind the request gets its turn after the others."""
        self._free_since = 0
        self._dispatch(connection, exchange)
        if connection.state == IDLE and connection.buffer:
            self._queued.append(connection)
            self._due = 0

    def _take_turns(self) -> None:
        """Answer one more request of each connection on which several came at once."""
        for _ in range(len(self._queued)):
            connection = self._queued.popleft()
            if connection.state == IDLE:  # else it was closed meanwhile
                rest, connection.buffer = connection.buffer, b""
                self._feed(connection, rest)

    def _dispatch(self, connection: Connection, exchange: Exchange) -> None:
        """A request is complete: have it answered."""
        raise NotImplementedError

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
            _log_failure(exchange, exc)
            if not exchange.streaming:
                self._send_error(exchange)
        try:
            context.run(exchange.close_result)
        except BaseException as close_exc:  # the application's, as above
            if self._asked_to_quit and isinstance(close_exc, SystemExit):
                raise
            _log_failure(exchange, close_exc)
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

    def _add_up(self) -> None:
        """Add the bytes and the time of the last requests to the slot."""
        raise NotImplementedError

    def _writable(self, connection: Connection) -> None:
        """A suspended answer can go on."""
        raise NotImplementedError

    def _refuse(self, connection: Connection, refused: Refused, request: bytes) -> None:
        """Answer with the status of the refusal, and read nothing more from this client."""
        self._words[layout.REFUSED] += 1
        if 400 <= refused.status < 600:
            self._words[layout.STATUS + refused.status // 100] += 1
        log.info(
            "refused a request from %s with %d: %s",
            connection.client.decode("ascii", "replace") or "a unix socket",
            refused.status,
            refused.reason,
        )
        request = request or connection.buffer
        if connection.body is not None:
            assert connection.exchange is not None
            request = connection.exchange.head
            connection.body.discard()
            connection.body = connection.exchange = None
        connection.buffer = b""
        if self._hooks.wants_refused:
            self._hooks.refused(connection, request, refused)
        with_body = not request.startswith(b"HEAD ")
        answer = response.refusal(
            refused.status, refused.reason, self.tails.date, with_body=with_body
        )
        try:
            # Less than 1 KB on a socket with nothing queued: it fits, or the client is hostile.
            connection.sock.send(answer)
        except OSError:
            self._close(connection)
            return
        self._words[layout.BYTES_OUT] += len(answer)
        self._linger(connection)

    # --- Ending -----------------------------------------------------------------------------

    def _linger(self, connection: Connection) -> None:
        """Close our end; wait for the client to close its own.

        close() with unread bytes in the socket sends RST, and the client may then lose the
        answer that it has not read yet (RFC 9112 9.6).
        """
        try:
            connection.sock.shutdown(socket.SHUT_WR)
        except OSError:
            self._close(connection)
            return
        self._idle.pop(connection.fd, None)
        connection.state = LINGERING
        connection.buffer = b""
        self._watch(connection, monotonic_ns() + _LINGER)
        self._linger_on(connection)

    def _linger_on(self, connection: Connection) -> None:
        for _ in range(_LINGER_BYTES // RECEIVE):
            try:
                data = connection.sock.recv(RECEIVE)
            except BlockingIOError:
                self._wait_for(connection, READ)
                return
            except OSError:
                break
            if not data:
                break
        self._close(connection)

    def _close(self, connection: Connection) -> None:
        """Close for good, whatever it is at."""
        if connection.state == CLOSED:
            return
        connection.state = CLOSED
        connection.deadline = connection.listed = NEVER
        fd = connection.fd
        self._idle.pop(fd, None)
        del self._connections[fd]
        connection.sock.close()  # and the kernel takes it out of the poller
        if connection.body is not None:
            connection.body.discard()
            connection.body = connection.exchange = None
        self._published()
        if self._said_out_of_files:
            self._said_out_of_files = False
            self._register_at = 0
        if not self._listening and not self._register_at:
            self._take_connections()

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

    # --- Stopping ---------------------------------------------------------------------------

    def _leave(self) -> None:
        """docs/design.md, section 7: what is queued is still ours, what is idle gets its time."""
        self._left = True
        self._words[layout.STATE] = layout.DRAINING
        self._register_at = 0
        self._leave_listeners()
        self._balance.leave()
        for listener in self._listeners:
            self._accept_queued(listener)
        while self._handoff is not None and self._take_over():
            pass
        self.assignment.has_left()
        # With reload none is answered once more: it would be by the old code.
        linger = 0 if self.config.reload else min(_LINGER, self._keepalive)
        now = monotonic_ns()
        for connection in list(self._connections.values()):
            # An idle one may be popped meanwhile by the thread that passes it on.
            if connection.fd in self._idle or connection.state in (PROXY, HANDSHAKE):
                self._watch(connection, now + linger)

    def _accept_queued(self, listener: _Listener) -> None:
        # Bounded by the queue's length: under load a sibling's clients never end.
        for _ in range(self.config.backlog):
            try:
                sock, address = listener.accept()
            except OSError:
                return
            self._words[layout.ACCEPTED] += 1
            self._adopt(sock, address, listener)

    def _end(self) -> None:
        self._hooks.write_held()
        for connection in list(self._connections.values()):
            # Not by TLS: a thread may be inside it.
            getattr(connection.sock, "bare", connection.sock).close()
        self._connections.clear()
        self._idle.clear()
        self._poller.close()
        self._waker.close()


class ErrorStream:
    """`wsgi.errors`: text goes where the error log goes, as it is."""

    def write(self, text: str) -> int:
        for stream in self._streams():
            stream.write(text)
        return len(text)

    def writelines(self, lines: list[str]) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        for stream in self._streams():
            stream.flush()

    def _streams(self) -> list[Any]:
        # Looked up each time: USR1 opens the log files anew.
        streams = [getattr(handler, "stream", None) for handler in log.handlers]
        return [stream for stream in streams if stream is not None] or [sys.stderr]


def _log_failure(exchange: Exchange, exc: BaseException) -> None:
    """One record: the request, and the application's frames."""
    tb = exc.__traceback__
    while tb is not None and tb.tb_frame.f_globals.get("__package__", "") in _OURS:
        tb = tb.tb_next
    if tb is None and isinstance(exc, (TypeError, ValueError, AssertionError)):
        log.error("%s: %s", exchange, exc)  # raised by us, about what the application did
    else:
        log.error(
            "%s: the application raised %s",
            exchange,
            type(exc).__name__,
            exc_info=(type(exc), exc, tb),
        )


def _nanoseconds(seconds: float) -> int:
    """A timeout; 0 is none."""
    return int(seconds * SECOND) if seconds else NEVER // 4

"""Where connections come from: the listeners, shared with the siblings, and the hand-off.

**Fair accept.**  The shared listeners are registered with EXCLUSIVE, so one connection wakes one
worker; one connection is accepted per wake-up, and the listener is registered anew, which puts
this worker at the end of the kernel's queue: idle workers take turns exactly.  In a burst whoever
is awake would take all, so a worker with more than its share of connections waits 5 ms before it
registers again.  A worker that dies between wake-up and accept leaves a connection lying, so all
register anew with every tick of a second.

Rejected: SO_REUSEPORT, which resets what is queued on a listener that is closed.
"""

from __future__ import annotations

import errno
import logging
import os
import socket
from time import monotonic_ns
from typing import TYPE_CHECKING, Any

from forkmaster import __version__
from forkmaster.board import layout
from forkmaster.http.environ import Origin
from forkmaster.http.head import Limits
from forkmaster.http.trust import AllowList, Trust
from forkmaster.system.poller import EXCLUSIVE, READ
from forkmaster.worker import handoff
from forkmaster.worker.connection import CLOSED, HANDSHAKE, PROXY, Connection
from forkmaster.worker.connections import LINGER, SECOND, Connections
from forkmaster.worker.error_stream import ErrorStream
from forkmaster.worker.exchange import FileWrapper
from forkmaster.worker.timers import NEVER

if TYPE_CHECKING:
    from forkmaster.worker.assignment import Assignment

log = logging.getLogger("forkmaster.error")

# A worker above its share lets the others go first for so long.
_STEP_BACK = 5_000_000
# Few enough that those who are connected do not notice.
_AT_ONCE = 16
# After EMFILE: a file of the application's may be closed without our noticing.
_OUT_OF_FILES = SECOND

_EXHAUSTED = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM))


class Listener:
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


class Acceptor(Connections):
    """See the module.  The layer of a `Reactor` that fills its `Connections`."""

    def __init__(self, assignment: Assignment) -> None:
        super().__init__(assignment)
        config = self.config
        self._limits = Limits(
            line=config.limit_request_line,
            fields=config.limit_request_fields,
            field_size=config.limit_request_field_size,
            head=config.limit_request_head,
        )
        self._forwarders = AllowList(config.forwarded_allow_ips)
        self._listeners = [
            self._listener(sock, where) for where, sock in enumerate(assignment.listeners)
        ]
        self._listener_of_fd = {listener.fd: listener for listener in self._listeners}
        self._register_at = 0  # when to take connections again; 0: we do, or are full
        self._listening = False
        self._left = False  # the listeners, for good
        # How many connections to accept at a wake-up.  More than one only where no sibling would
        # get them: for an only worker it saves a poll and two registrations for each.
        self._at_once = 1
        # An encrypted connection has a state that cannot be passed on.
        self._handoff = assignment.handoff if self.encryption is None else None
        self._handoff_fd = self._handoff[0].fileno() if self._handoff else -1
        self._said_out_of_files = False

    def _look_for_siblings(self) -> None:
        alone = self.config.workers == 1 and self._balance.is_alone()
        self._at_once = _AT_ONCE if alone else 1

    def _listener(self, sock: socket.socket, where: int) -> Listener:
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
        return Listener(sock, where, trusted, other)

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

    def _accept(self, listener: Listener) -> None:
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

    def _has_room(self) -> None:
        if self._said_out_of_files:
            self._said_out_of_files = False
            self._register_at = 0
        if not self._listening and not self._register_at:
            self._take_connections()

    def _adopt(self, sock: socket.SocketType, address: Any, listener: Listener) -> None:
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
        self._greet(connection)

    def _greet(self, connection: Connection) -> None:
        """Begin with a new connection."""
        raise NotImplementedError

    def _ready(self, connection: Connection) -> None:
        """A connection that is not idle can be read or written."""
        raise NotImplementedError

    # --- The hand-off -----------------------------------------------------------------------

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

    def _listener_of(self, sock: socket.socket, where: int) -> Listener:
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

    # --- Leaving ----------------------------------------------------------------------------

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
        # Also for what becomes idle from now on.  With reload none is answered once more: it would
        # be by the old code.
        self._keepalive = 0 if self.config.reload else min(LINGER, self._keepalive)
        now = monotonic_ns()
        for connection in list(self._connections.values()):
            # An idle one may be popped meanwhile by the thread that passes it on.
            if connection.fd in self._idle or connection.state in (PROXY, HANDSHAKE):
                self._watch(connection, now + self._keepalive)

    def _accept_queued(self, listener: Listener) -> None:
        # Bounded by the queue's length: under load a sibling's clients never end.
        for _ in range(self.config.backlog):
            try:
                sock, address = listener.accept()
            except OSError:
                return
            self._words[layout.ACCEPTED] += 1
            self._adopt(sock, address, listener)

"""The control socket: commands to a running master, served by the loop that it has anyway.

protocol.py says what the bytes mean and orders.py what a command does; here are the connections.
Nothing in here blocks and nothing grows without bound: there are at most MOST_CLIENTS, a request
is short, a client has STALL seconds to send it and as many to take each answer, and one that is
late is dropped.  A command whose client has gone is carried out all the same.

The folder is the master's alone, and the kernel says who is at the other end: it must be the
master's user or root.
"""

from __future__ import annotations

import errno
import logging
import math
import os
import selectors
import socket
import struct
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING

from forkmaster.master import protocol
from forkmaster.master.events import Event, Tick
from forkmaster.master.orders import Conversation, Heard, OrderError
from forkmaster.master.protocol import Done, Incoming, MalformedError

if TYPE_CHECKING:
    from forkmaster.master.actions import Action
    from forkmaster.master.orders import Orders

log = logging.getLogger("forkmaster.error")

MOST_CLIENTS = 16
STALL = 5.0  # seconds
MOST_UNREAD = 1 << 20  # bytes of progress that a client has not taken
RECEIVED = 65536  # bytes at once; what is left unread when we close costs the client our answer
LONGEST_NAME = 107  # bytes in sockaddr_un, but for the NUL
PAUSE = 1.0  # seconds until the next attempt to accept without a free descriptor

QUIET = (protocol.Status, protocol.Stacks)
"""Requests that change nothing, and are not logged."""


class Control:
    """The socket and its clients.  In the master."""

    def __init__(
        self, listener: socket.socket, selector: selectors.BaseSelector, orders: Orders
    ) -> None:
        self._listener = listener
        self._selector = selector
        self._orders = orders
        self._clients: list[Client] = []
        self._accepts_at = 0.0  # when to accept again, if that failed
        selector.register(listener, selectors.EVENT_READ, self._accept)

    @classmethod
    def open(cls, folder: Path, selector: selectors.BaseSelector, orders: Orders) -> Control:
        """A new socket in `folder`, in place of one left by our former self.  Raises OSError."""
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            (folder / protocol.SOCKET_NAME).unlink(missing_ok=True)
            with reachable(folder) as path:
                listener.bind(path)
            listener.listen(MOST_CLIENTS)
        except OSError:
            listener.close()
            raise
        return cls(listener, selector, orders)

    def next_deadline(self) -> float:
        """The monotonic time at which `turn` is due; `inf` without a client."""
        due = [client.due for client in self._clients]
        if self._accepts_at > 0:
            due.append(self._accepts_at)
        return min(due, default=math.inf)

    def observe(self, event: Event, done: Sequence[Action]) -> None:
        """Something happened; whoever waits for an outcome is told at the next `turn`."""
        if not done and isinstance(event, Tick):
            return  # nothing happened
        for client in self._clients:
            client.heard.append((event, done))

    def turn(self, now: float) -> None:
        """Go on with every conversation.  Called once in each turn of the master's loop."""
        # A command may make things happen that another one waits for.
        while any(client.go_on(now) for client in self._clients):
            pass
        for client in self._clients:
            client.look(now)
        self._clients = [client for client in self._clients if not client.closed]
        if 0 < self._accepts_at <= now:
            self._accepts_at = 0.0
            self._selector.register(self._listener, selectors.EVENT_READ, self._accept)

    def close(self) -> None:
        """The server has ended: whoever still waits reads the end of the connection."""
        for client in self._clients:
            client.close()
        if not self._accepts_at:
            self._selector.unregister(self._listener)
        self._listener.close()

    def close_in_child(self) -> None:
        """Let go of everything.  Called after the fork."""
        self._listener.close()
        for client in self._clients:
            client.socket.close()

    def _accept(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except OSError as exc:
            if exc.errno in (errno.EMFILE, errno.ENFILE):
                # It stays in the queue, and the loop would turn for nothing else.
                self._selector.unregister(self._listener)
                self._accepts_at = monotonic() + PAUSE
            return
        connection.setblocking(False)
        client = Client(connection, self._selector, self._orders)
        refusal = refusal_of(client.uid, os.geteuid())
        if refusal:
            log.warning("refused a command of %s: %s", client, refusal)
        elif len(self._clients) >= MOST_CLIENTS:
            refusal = f"{MOST_CLIENTS} commands are under way; try again"
        if refusal:
            client.finish(protocol.error_line(refusal))
        if not client.closed:
            self._clients.append(client)


class Client:
    """One connection, with one command."""

    def __init__(
        self, connection: socket.socket, selector: selectors.BaseSelector, orders: Orders
    ) -> None:
        self.socket = connection
        self.heard: deque[Heard] = deque()
        """What has happened since the command last looked."""
        self.closed = False
        self.pid, self.uid = _peer_of(connection)
        self._selector = selector
        self._orders = orders
        self._incoming: Incoming | None = Incoming()
        self._outgoing = b""
        self._conversation: Conversation | None = None
        self._finished = False  # the last answer was given
        self._wake = math.inf  # when the command wants to be resumed
        self._deadline = monotonic() + STALL  # by when the client must have done its part
        self._watch()

    def __str__(self) -> str:
        return f"pid {self.pid} (uid {self.uid})"

    @property
    def due(self) -> float:
        """The monotonic time at which something has to be done about it."""
        return min(self._wake, self._deadline)

    def go_on(self, now: float) -> bool:
        """Resume the command with what was heard, or because it is time; whether it was."""
        if self._conversation is None or self.closed:
            self.heard.clear()
            return False
        if self.heard:
            self._resume(self.heard.popleft())
        elif self._wake <= now:
            self._wake = math.inf
            self._resume(None)
        else:
            return False
        return True

    def look(self, now: float) -> None:
        """Drop the client if it is late."""
        if not self.closed and self._deadline <= now:
            log.debug("dropped the control connection of %s: it stalled", self)
            self.close()

    def finish(self, last: bytes) -> None:
        """Answer for the last time, and close when that is sent."""
        self._incoming = self._conversation = None
        self._finished = True
        self._wake = math.inf
        self._send(last)

    def close(self) -> None:
        if self.closed:
            return
        self.closed = True
        if self.socket in self._selector.get_map():
            self._selector.unregister(self.socket)
        self.socket.close()

    def _watch(self) -> None:
        """Have the loop call when the client has sent or taken something, as far as it matters."""
        wanted = selectors.EVENT_READ if self._incoming is not None else 0
        if self._outgoing:
            wanted |= selectors.EVENT_WRITE
        known = self.socket in self._selector.get_map()
        # One that has said its part may half-close, and is then readable for ever.
        if not wanted:
            if known:
                self._selector.unregister(self.socket)
        elif known:
            self._selector.modify(self.socket, wanted, self._on_event)
        else:
            self._selector.register(self.socket, wanted, self._on_event)

    def _on_event(self) -> None:
        if self._outgoing:
            self._send(b"")
        if self._incoming is not None and not self.closed:
            self._receive(self._incoming)

    def _receive(self, incoming: Incoming) -> None:
        try:
            data = self.socket.recv(RECEIVED)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.close()
            return
        try:
            line = incoming.feed(data)
            if line is None:
                return
            request = protocol.request_of(line)
        except MalformedError as exc:
            self.finish(protocol.error_line(str(exc)))
            return
        if not isinstance(request, QUIET):
            log.info("%s asks: %s", self, line.decode(errors="replace"))
        self._incoming = None
        self._deadline = math.inf
        self._send(protocol.accepted_line(request))
        try:
            self._conversation = self._orders.carry_out(request, self._say)
        except OrderError as exc:
            self.finish(protocol.error_line(str(exc)))
            return
        self._resume(None)

    def _resume(self, heard: Heard | None) -> None:
        assert self._conversation is not None
        try:
            self._wake = self._conversation.send(heard)
        except StopIteration as stop:
            done: Done = stop.value
            self.finish(protocol.done_line(done))
        except OrderError as exc:
            self.finish(protocol.error_line(str(exc)))

    def _say(self, text: str) -> None:
        if len(self._outgoing) > MOST_UNREAD:
            self.close()
        if not self.closed:
            self._send(protocol.progress_line(text))

    def _send(self, data: bytes) -> None:
        """Send what is left and `data`, as far as the client takes it now."""
        waiting = bool(self._outgoing)
        self._outgoing += data
        try:
            sent = self.socket.send(self._outgoing)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._outgoing = b""
            self.close()  # the client is gone; its command goes on
            return
        self._outgoing = self._outgoing[sent:]
        if self._outgoing and (sent or not waiting):
            self._deadline = monotonic() + STALL
        elif not self._outgoing:
            if self._finished:
                self.close()
                return
            if self._incoming is None:
                self._deadline = math.inf
        self._watch()


@contextmanager
def reachable(folder: Path) -> Iterator[str]:
    """A path to the socket of a board that a system call takes, however deep the board lies.

    The name of a unix socket has at most 107 bytes; a longer one goes by a descriptor.
    """
    path = folder / protocol.SOCKET_NAME
    if len(os.fsencode(path)) <= LONGEST_NAME:
        yield str(path)
        return
    fd = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{fd}/{protocol.SOCKET_NAME}"
    finally:
        os.close(fd)


def refusal_of(uid: int, own: int) -> str:
    """Why somebody may not command a master that runs as `own`; empty if they may."""
    if uid in (0, own):
        return ""
    return f"only root and user {own} may command this master"


def _peer_of(connection: socket.socket) -> tuple[int, int]:
    """The pid and the uid at the other end, as of when it connected."""
    if not hasattr(socket, "SO_PEERCRED"):
        return 0, os.geteuid()  # the folder, which only its owner may enter, has to do
    size = struct.calcsize("3i")
    pid, uid, _ = struct.unpack(
        "3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
    )
    return pid, uid

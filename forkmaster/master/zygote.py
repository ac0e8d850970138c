"""With preload: the process of one generation that loads the application and forks its workers.

The master never imports the application.  It asks the zygote over a socket, one datagram for each
worker, with the descriptors of the slot and of the stacks file.  The zygote forks twice: the
process between ends at once, so that the worker, orphaned, becomes the child of the nearest
subreaper, which is the master.  So the master reaps every worker itself and sees its real exit
status, and a zygote that dies takes no worker with it.

Why not fork from the master, as gunicorn's preload does: the code could then never be reloaded,
whatever the application does at import it would do to the master, and all of it would be paid for
in memory by a process that serves nobody.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NoReturn

from forkmaster.board import layout
from forkmaster.board.slot import Slot
from forkmaster.system.signals import reset_signals, signals_blocked
from forkmaster.worker import preload
from forkmaster.worker.child import FAILED, Child, ToldToStop, end
from forkmaster.worker.views import WorkerView

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from forkmaster.board.balance import Balance
    from forkmaster.worker.assignment import Assignment

# An order or an answer: a few numbers in JSON.
LONGEST_MESSAGE = 512


@dataclass(frozen=True)
class Order:
    """Fork this worker."""

    serial: int
    cell: int
    slot: str
    """The name of its file in the board."""


@dataclass(frozen=True)
class Answer:
    """It is forked, or why not."""

    serial: int
    pid: int
    error: str = ""


class Link:
    """The master's end of the socket to one zygote.  Never blocks."""

    def __init__(self, own_end: socket.socket, far_end: socket.socket | None = None) -> None:
        self._socket, self._far_end = own_end, far_end
        self._socket.setblocking(False)
        self.pending: set[int] = set()
        """Serials that were ordered and not answered."""

    @classmethod
    def create(cls) -> Link:
        """A link to a zygote that is about to be forked."""
        return cls(*socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET))

    @classmethod
    def adopt(cls, fd: int) -> Link:
        """The link to a zygote that lives, after an upgrade."""
        return cls(socket.socket(fileno=fd))

    def fileno(self) -> int:
        return self._socket.fileno()

    def far_end(self) -> socket.socket:
        """The zygote's end.  In the zygote, after the fork: lets go of the master's."""
        assert self._far_end is not None
        self._socket.close()
        return self._far_end

    def forked(self) -> None:
        """Let go of the zygote's end.  In the master, after the fork."""
        assert self._far_end is not None
        self._far_end.close()

    def order(
        self, serial: int, cell: int, slot: Path, stacks_fd: int, output_fd: int = -1
    ) -> None:
        """Ask for a worker.  Raises OSError: the zygote is dead, or has a hundred to fork yet."""
        order = Order(serial, cell, slot.name)
        slot_fd = os.open(slot, os.O_RDWR | os.O_CLOEXEC)
        try:
            message = json.dumps(vars(order)).encode()
            descriptors = [slot_fd, stacks_fd] + ([output_fd] if output_fd >= 0 else [])
            socket.send_fds(self._socket, [message], descriptors)
        finally:
            os.close(slot_fd)
        self.pending.add(order.serial)

    def answers(self) -> list[Answer]:
        """What the zygote has done since the last call."""
        answers: list[Answer] = []
        while True:
            try:
                message = self._socket.recv(LONGEST_MESSAGE)
            except (BlockingIOError, ConnectionResetError):
                return answers
            if not message:
                return answers  # dead; its exit is an event of its own
            answer = Answer(**json.loads(message))
            self.pending.discard(answer.serial)
            answers.append(answer)

    def close(self) -> None:
        self._socket.close()


class Zygote:
    """This process, in the zygote: loads the application, then forks workers until told to stop."""

    def __init__(self, assignment: Assignment, channel: socket.socket, balance: Balance) -> None:
        self.child = Child(assignment)
        self.assignment = assignment
        self.channel = channel
        self.balance = balance

    def run(self) -> int:
        """Returns the exit status of the zygote.  A worker that it forks never returns here."""
        return self.child.guard(self._run)

    def _run(self) -> None:
        self.child.enter("zygote")
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
            signal.signal(number, _leave)
        loaded = preload.load(self.child)
        self.assignment.slot.words[layout.KIND] = layout.KINDS.index("zygote")
        self.child.on_ready()
        while True:
            message, descriptors, _, _ = socket.recv_fds(self.channel, LONGEST_MESSAGE, 3)
            if not message:
                return  # the master has closed its end, or died
            order = Order(**json.loads(message))
            slot_fd, stacks_fd, *output = descriptors
            output_fd = output[0] if output else -1
            # Told to stop between the fork and the answer, it would leave a worker behind that
            # the master knows nothing of.
            with signals_blocked():
                answer = self._obey(order, slot_fd, stacks_fd, output_fd, loaded)
                self.channel.send(json.dumps(vars(answer)).encode())

    def _obey(
        self,
        order: Order,
        slot_fd: int,
        stacks_fd: int,
        output_fd: int,
        loaded: Callable[..., Any],
    ) -> Answer:
        """Fork one worker.  With signals blocked."""
        zygote = self.assignment
        slot = Slot.attach(zygote.slot.path.with_name(order.slot), slot_fd)
        os.close(slot_fd)
        view = WorkerView(order.serial, zygote.config, zygote.listeners, slot)
        assignment = replace(
            zygote,
            serial=order.serial,
            slot=slot,
            stacks_fd=stacks_fd,
            output_fd=output_fd,
            balance=self.balance.share(order.cell),
            preloaded=True,
            view=view,
        )
        self.child.hook("pre_fork", zygote.server, view)
        read_end, write_end = os.pipe()
        try:
            between = os.fork()
            if between == 0:
                self._go_between(assignment, loaded, write_end)
        except OSError as exc:
            return Answer(order.serial, 0, exc.strerror or "the fork failed")
        finally:
            os.close(write_end)
            slot.close()
            os.close(stacks_fd)
            if output_fd >= 0:
                os.close(output_fd)
        with os.fdopen(read_end) as told:
            pid, _, error = told.read().partition(" ")
        os.waitpid(between, 0)
        return Answer(order.serial, int(pid), error)

    def _go_between(
        self, assignment: Assignment, loaded: Callable[..., Any], write_end: int
    ) -> NoReturn:
        """Fork once more and end; or, in the worker, be that and end."""
        between = os.getpid()
        try:
            pid = os.fork()
        except OSError as exc:
            os.write(write_end, f"0 {exc.strerror}".encode())
            os._exit(FAILED)
        if pid:
            os.write(write_end, b"%d" % pid)
            os._exit(0)
        status = FAILED
        try:
            os.close(write_end)
            self.channel.close()
            self.assignment.slot.close()
            reset_signals()
            # Until the one between has ended it is the parent, and PR_SET_PDEATHSIG would mean it.
            while os.getppid() == between:
                time.sleep(0.0002)
            status = Child(assignment, loaded).run()
        finally:
            end(status)


def _leave(*_: object) -> NoReturn:
    raise ToldToStop

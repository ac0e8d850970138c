"""Brings children into being: forks them here, or has the zygote of their generation do so.

In the master, up to the fork; `_in_child` is the one function that runs on the other side.

A fork copies everything, so what a child must not have is closed there before anything else runs:
the master's signal pipe (a signal to the child would wake the master), its side of the liveness
pipe (it would never read end of file), the slots of its siblings.
"""

from __future__ import annotations

import logging
import os
import socket
from dataclasses import dataclass, field
from time import monotonic
from typing import TYPE_CHECKING

from forkmaster.board import app_metrics, layout
from forkmaster.board.balance import Balance
from forkmaster.board.board import Board
from forkmaster.errors import ForkmasterError
from forkmaster.master import hooks, upgrade
from forkmaster.master.monitor import MonitorChild
from forkmaster.master.output import Outputs
from forkmaster.master.policy import Role
from forkmaster.master.watcher import Watcher
from forkmaster.master.zygote import Link, Zygote
from forkmaster.system import processes
from forkmaster.system.signals import reset_signals, signals_blocked, unblock_signals
from forkmaster.worker.assignment import Assignment, check_encryption, encryption_of
from forkmaster.worker.child import FAILED, Child, end
from forkmaster.worker.views import ServerView, WorkerView

if TYPE_CHECKING:
    from collections.abc import Callable

    from forkmaster.board.slot import Slot
    from forkmaster.config.sources import Loaded
    from forkmaster.config.table import Config
    from forkmaster.master.upgrade import ProcessState, State

log = logging.getLogger("forkmaster.error")

SPEAKERS = frozenset({Role.WORKER, Role.ZYGOTE})  # those that run code of the application


@dataclass
class Process:
    """What the master keeps of a child, besides what the supervisor knows."""

    serial: int
    generation: int
    role: Role
    slot: Slot
    cell: int
    view: WorkerView
    born: float  # when it was forked or ordered, monotonic seconds
    of_the_start: bool = False  # ordered before all workers were ready for the first time
    pid: int = 0  # 0 while a zygote has been asked and has not answered
    pidfd: int | None = None
    link: Link | None = None  # of a zygote
    held: list[int] = field(default_factory=list)  # sent before the pid was known

    def is_born(self, pid: int) -> None:
        """The process exists and is `pid`."""
        self.pid = self.view.pid = pid
        try:
            self.pidfd = processes.open_pidfd(pid)
        except ProcessLookupError:
            self.held.clear()  # reaped before its zygote told of it; its burial follows
        for number in self.held:
            self.send(number)
        self.held.clear()

    def send(self, number: int) -> None:
        """Send a signal.  If the process has ended meanwhile, its reaping tells."""
        if self.pid:
            processes.send(self.pid, number, self.pidfd)
        else:
            self.held.append(number)

    def close(self) -> None:
        """Let go of what the master holds of it.  In the master, and in a sibling."""
        if self.pidfd is not None:
            os.close(self.pidfd)
        if self.link is not None:
            self.link.close()

    def __str__(self) -> str:
        return f"{self.role.value} {self.serial}"


class Spawner:
    """All that a child inherits, and the forks themselves.  In the master."""

    def __init__(
        self, board: Board, server: ServerView, outputs: Outputs, left: State | None = None
    ) -> None:
        """`left` is what the program before this one left, after an upgrade."""
        self.board = board
        self.outputs = outputs
        self.server = server
        page = board.path / "balance"
        if left is None:
            self.balance = Balance.create(page)
            self.announcements, self._announce = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
            # The master alone holds the write end, so a worker reads its end when the master dies.
            self._liveness, self._alive = os.pipe2(os.O_CLOEXEC)
            self._handoff = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        else:
            self.balance = Balance.reopen(page, taken=[each.cell for each in left.processes])
            self.announcements, self._announce = left.announce
            self._liveness, self._alive = left.liveness
            one, other = left.handoff
            self._handoff = socket.socket(fileno=one), socket.socket(fileno=other)
        for end_of_it in self._handoff:
            end_of_it.setblocking(False)
        self.masters_own: list[Callable[[], None]] = []
        """Called in every child: lets go of what else is the master's."""
        self.masters_own.append(outputs.close_in_child)

    def spawn(
        self,
        serial: int,
        generation: int,
        role: Role,
        loaded: Loaded,
        listeners: tuple[socket.socket, ...],
        unserved: tuple[socket.socket, ...],
        siblings: list[Process],
    ) -> Process:
        """A new child.  Raises OSError (EAGAIN, ENOMEM, ENOSPC, EMFILE): there is none then.

        `listeners` are those of its generation, `unserved` all others: a child that kept one
        open would keep the port open, after the master has given it up.
        """
        process, stacks_fd = self._prepare(serial, generation, role, loaded.config, listeners)
        output_fd = -1
        try:
            if loaded.config.capture_output and role in SPEAKERS:
                output_fd = self.outputs.pipe_for(process)
            assignment = self._assignment(process, loaded, listeners, stacks_fd, output_fd)
            self._start(process, assignment, loaded, siblings, unserved)
        except OSError:
            self.outputs.drop(process)
            self.forget(process)
            raise
        finally:
            if output_fd >= 0:
                os.close(output_fd)
        return process

    def _prepare(
        self,
        serial: int,
        generation: int,
        role: Role,
        config: Config,
        listeners: tuple[socket.socket, ...],
    ) -> tuple[Process, int]:
        """What a child has on the board, and the descriptor of its file for stacks."""
        slot = self.board.new_slot(serial, generation)
        if role is not Role.WORKER:  # which finds its kind when it has loaded the application
            slot.words[layout.KIND] = layout.KINDS.index(role.value)
        try:
            stacks_fd = self.board.stacks_file(serial)
            cell = self._take_cell()
        except OSError:
            self.board.drop(serial)
            raise
        view = WorkerView(serial, config, listeners, slot, role.value)
        return Process(serial, generation, role, slot, cell, view, monotonic()), stacks_fd

    def _assignment(
        self,
        process: Process,
        loaded: Loaded,
        listeners: tuple[socket.socket, ...],
        stacks_fd: int,
        output_fd: int,
    ) -> Assignment:
        config = loaded.config
        return Assignment(
            serial=process.serial,
            generation=process.generation,
            config=config,
            listeners=listeners,
            slot=process.slot,
            balance=self.balance.share(process.cell),
            handoff=self._handoff,
            liveness_fd=self._liveness,
            announce_fd=self._announce,
            stacks_fd=stacks_fd,
            output_fd=output_fd,
            master_pid=os.getpid(),
            folder=str(config.chdir or loaded.folder),
            preloaded=False,
            server=self.server,
            view=process.view,
            encryption=encryption_of(config),
        )

    def forget(self, process: Process) -> None:
        """Give back what a child had that is gone, or never came."""
        process.close()
        app_metrics.mark_dead(self.board.path, process.cell)
        self.balance.give_back(process.cell)
        self.board.drop(process.serial)

    def adopt(
        self, left: ProcessState, loaded: Loaded, sockets: tuple[socket.socket, ...]
    ) -> Process:
        """A child that the program before this one has left."""
        role = Role(left.role)
        slot = self.board.slot(left.serial)
        view = WorkerView(left.serial, loaded.config, sockets, slot, role.value)
        process = Process(left.serial, left.generation, role, slot, left.cell, view, left.born)
        if left.link_fd is not None:
            process.link = Link.adopt(left.link_fd)
        if left.output_fd is not None:
            self.outputs.adopt(process, left.output_fd)
        process.is_born(left.pid)
        return process

    def state(self) -> dict[str, tuple[int, int]]:
        """The descriptors that the next program needs, after an upgrade."""
        one, other = self._handoff
        return {
            "announce": (self.announcements, self._announce),
            "liveness": (self._liveness, self._alive),
            "handoff": (one.fileno(), other.fileno()),
        }

    def close(self) -> None:
        """Close the pipes: no child is left."""
        for fd in (self.announcements, self._announce, self._liveness, self._alive):
            os.close(fd)
        for one in self._handoff:
            one.close()
        self.balance.close()

    def _take_cell(self) -> int:
        try:
            return self.balance.take()
        except OverflowError as exc:
            raise OSError(0, str(exc)) from exc

    def _start(
        self,
        process: Process,
        assignment: Assignment,
        loaded: Loaded,
        siblings: list[Process],
        unserved: tuple[socket.socket, ...],
    ) -> None:
        match process.role:
            case Role.VALIDATOR:
                run: Callable[[], int] = Validation(assignment, loaded).run
            case Role.PREFLIGHT:
                run = Preflight(assignment, loaded).run
            case Role.WATCHER:
                run = Watcher(assignment, loaded.file).run
            case Role.ZYGOTE:
                link = process.link = Link.create()
                run = lambda: Zygote(assignment, link.far_end(), self.balance).run()  # noqa: E731
            case Role.MONITOR:
                run = MonitorChild(assignment).run
            case Role.WORKER:
                if loaded.config.preload_app:
                    zygote = _zygote_of(process.generation, siblings)
                    descriptors = (assignment.stacks_fd, assignment.output_fd)
                    zygote.order(process.serial, process.cell, process.slot.path, *descriptors)
                    return
                hooks.call(loaded.config, "pre_fork", self.server, process.view)
                run = Child(assignment).run
        let_go = [*(each.close for each in siblings), *(each.close for each in unserved)]
        process.is_born(self._fork(run, process.serial, let_go))
        if process.link is not None:
            process.link.forked()

    def _fork(self, run: Callable[[], int], serial: int, let_go: list[Callable[[], None]]) -> int:
        """Fork a child that ends with the status of `run`; returns its pid.

        Raises OSError.  On the main thread only: PR_SET_PDEATHSIG fires when the thread that
        forked ends, not the process.
        """
        # Blocked, because a signal between the fork and the child's own handlers would run the
        # master's in it.
        with signals_blocked():
            pid = os.fork()
            if pid == 0:
                self._in_child(run, serial, let_go)
        return pid

    def _in_child(
        self, run: Callable[[], int], serial: int, let_go: list[Callable[[], None]]
    ) -> None:
        status = FAILED
        try:
            for close in (*self.masters_own, *let_go):
                close()
            os.close(self.announcements)
            os.close(self._alive)
            self.board.close_in_child(serial)
            reset_signals()
            status = run()
        finally:
            end(status)


class Validation:
    """Reads the configuration anew in a process of its own, and says what is wrong with it."""

    def __init__(self, assignment: Assignment, loaded: Loaded) -> None:
        self.assignment = assignment
        self.loaded = loaded

    def run(self) -> int:
        """Returns the exit status.  In the validator; what it says is in its stacks file."""
        unblock_signals()
        # A file that prints has printed once; the master reads it again if it is sound.
        sink = os.open(os.devnull, os.O_WRONLY)
        os.dup2(sink, 1)
        try:
            check_encryption(self.loaded.again().config)
        except ForkmasterError as exc:
            os.write(self.assignment.stacks_fd, str(exc).encode())
            return exc.exit_code
        except BaseException as exc:
            os.write(self.assignment.stacks_fd, f"{type(exc).__name__}: {exc}".encode())
            return FAILED
        return 0


class Preflight:
    """Becomes the program that an upgrade would execute, and has it say whether it could."""

    def __init__(self, assignment: Assignment, loaded: Loaded) -> None:
        self.assignment = assignment
        self.loaded = loaded

    def run(self) -> int:
        """Does not return, or the exit status.  What the program says is in the stacks file."""
        stacks_fd = self.assignment.stacks_fd
        os.dup2(stacks_fd, 1)
        os.dup2(stacks_fd, 2)
        program = upgrade.this_program(str(self.loaded.folder))
        environ = {**os.environ, upgrade.PREFLIGHT_VARIABLE: str(upgrade.STATE_VERSION)}
        try:
            upgrade.execute(program, environ)
        except OSError as exc:
            os.write(stacks_fd, f"cannot execute {program.path}: {exc.strerror}".encode())
        return FAILED


def records_for(config: Config) -> int:
    """How many request records a slot needs: all that can be in flight, and the last ones."""
    return max(config.threads, layout.ASYNC_RECORDS) + layout.HISTORY


def _zygote_of(generation: int, siblings: list[Process]) -> Link:
    for sibling in siblings:
        if sibling.role is Role.ZYGOTE and sibling.generation == generation and sibling.link:
            return sibling.link
    raise OSError(0, f"generation {generation} has no zygote")

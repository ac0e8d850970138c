"""The processes of this server: born, heard, buried.  In the master.

What the supervisor knows by serial has a pid, a slot, pipes and a line in the log; they are here
and in spawn.py.  The master tells what to bring into being and what to end; what the children do
of their own comes back as events.
"""

from __future__ import annotations

import logging
import os
import selectors
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from forkmaster.board import layout
from forkmaster.board.reader import read_slot
from forkmaster.master import actions, events, incidents, upgrade
from forkmaster.master.fleet import PROBES, Child
from forkmaster.master.policy import Role, State
from forkmaster.master.readings import is_serving
from forkmaster.master.supervisor import Supervisor
from forkmaster.master.unanswered import log_unanswered
from forkmaster.system.processes import Exit, reap
from forkmaster.system.signals import signal_name

if TYPE_CHECKING:
    from forkmaster.board.board import Board
    from forkmaster.config.sources import Loaded
    from forkmaster.master.banner import ReadyLine
    from forkmaster.master.bindings import Bindings
    from forkmaster.master.chronicle import Chronicle
    from forkmaster.master.evidence import KernelKills
    from forkmaster.master.inquests import Inquests
    from forkmaster.master.spawn import Process, Spawner
    from forkmaster.worker.views import ServerView

log = logging.getLogger("forkmaster.error")


@dataclass
class Family:
    """Every child of this master."""

    supervisor: Supervisor
    spawner: Spawner
    bindings: Bindings
    board: Board
    selector: selectors.BaseSelector
    inquests: Inquests
    chronicle: Chronicle
    kernel_kills: KernelKills
    ready_line: ReadyLine
    server: ServerView
    processes: dict[int, Process]
    """By serial."""
    generations: Callable[[], Mapping[int, Loaded]]
    decide: Callable[[events.Event], None]
    child_exited: Callable[[Process], None]
    """Called for a worker that was reaped: the hook child_exit."""
    _strangers: dict[int, Exit] = field(default_factory=dict)
    """Reaped before a zygote named them."""

    # --- What is done with them ---------------------------------------------------------------

    def spawn(self, action: actions.Spawn) -> None:
        """Bring a child into being, or tell that it could not be."""
        loaded = self.generations()[action.generation]
        config = loaded.config
        is_monitor = action.role is Role.MONITOR
        listeners = self.bindings.of_monitor(config) if is_monitor else self.bindings.of(config)
        try:
            process = self.spawner.spawn(
                action.serial,
                action.generation,
                action.role,
                loaded,
                listeners=listeners,
                unserved=self.bindings.others(listeners),
                siblings=list(self.processes.values()),
            )
        except OSError as exc:
            reason = f"cannot fork {action.role.value} {action.serial}: {exc.strerror}"
            self.decide(events.SpawnFailed(action.serial, reason))
            return
        self.processes[action.serial] = process
        process.of_the_start = not self.ready_line.told
        if process.link is not None:
            self._watch_zygote(process)
        if process.pid:
            self._log_start(process, action.reason)

    def strike(self, serial: int, reason: str, level: int, number: int) -> None:
        """End a process that missed a deadline; the first time it shows where it stands."""
        process = self.processes[serial]
        if process.role in PROBES or self.inquests.has_told(serial):
            name = signal_name(number)
            log.log(level, "%s (pid %d) %s; sending %s", process, process.pid, reason, name)
            process.send(number)
        else:
            self.inquests.open(process, reason, level=level, then=number)

    def _watch_zygote(self, zygote: Process) -> None:
        assert zygote.link is not None
        self.selector.register(
            zygote.link.fileno(), selectors.EVENT_READ, lambda: self._answered(zygote)
        )

    def _log_start(self, process: Process, reason: str = "from the zygote") -> None:
        log.log(
            routine(process),
            "%s started (pid %d, generation %d): %s",
            process,
            process.pid,
            process.generation,
            reason,
        )
        if process.role is Role.WORKER:
            self.server.WORKERS[process.pid] = process.view

    def _spawn_failed(self, process: Process, reason: str) -> None:
        del self.processes[process.serial]
        self.spawner.outputs.drop(process)
        self.spawner.forget(process)
        self.decide(events.SpawnFailed(process.serial, f"cannot fork {process}: {reason}"))

    # --- What they do -------------------------------------------------------------------------

    def heed(self) -> None:
        """A child wrote a byte: its slot says what it wants to tell."""
        try:
            os.read(self.spawner.announcements, 4096)
        except BlockingIOError:
            pass  # the byte was read together with another one
        for zygote in [p for p in self.processes.values() if p.link is not None]:
            self._answered(zygote)
        for process in list(self.processes.values()):
            self._look_at(process)

    def _look_at(self, process: Process) -> None:
        child = self.supervisor.children.get(process.serial)
        # A worker may be ready before its zygote has told that it exists.
        if child is None or process.pid == 0:
            return
        words = process.slot.words
        if child.state is State.STARTING and words[layout.READY]:
            took = words[layout.READY] / 1e9 - process.born
            log.log(routine(process), "%s ready after %.2f s (pid %d)", process, took, process.pid)
            process.view.booted = True
            self.decide(events.Ready(process.serial))
        # The same byte may announce all of these.
        if words[layout.FLAGS] & layout.WANT_RECYCLE and not child.recycle:
            reason = words[layout.FLAGS] >> layout.WANT_RECYCLE_REASON_SHIFT
            self.decide(events.Recycle(process.serial, layout.RECYCLE_REASONS[reason]))
        if words[layout.FLAGS] & layout.LEFT and not child.has_left:
            self.decide(events.Left(process.serial))

    def _answered(self, zygote: Process) -> None:
        """A zygote has forked, or could not."""
        assert zygote.link is not None
        for answer in zygote.link.answers():
            process = self.processes[answer.serial]
            if answer.error:
                self._spawn_failed(process, answer.error)
                continue
            process.is_born(answer.pid)
            self._log_start(process)
            self._look_at(process)
            ended = self._strangers.pop(answer.pid, None)
            if ended is not None:
                self._bury(process, ended)

    def reap(self) -> None:
        """Bury every child that has ended, and strangers too."""
        for pid, ended in reap():
            process = next((p for p in self.processes.values() if p.pid == pid), None)
            if process is not None:
                self._bury(process, ended)
            elif any(p.pid == 0 for p in self.processes.values()):
                self._strangers[pid] = ended
            else:
                log.debug("reaped process %d, not a child of ours", pid)

    def _bury(self, process: Process, ended: Exit) -> None:
        # It may have become ready and died between two looks at the announcements.
        self.heed()
        child = self.supervisor.children[process.serial]
        self.spawner.outputs.take_last_words(process)
        self._report(process, child, ended)
        said = self.board.take_stacks(process.serial) if process.role in PROBES else ""
        del self.processes[process.serial]
        if process.link is not None:
            self._bury_zygote(process)
        self.spawner.forget(process)
        self.inquests.forget(process.serial)
        self.chronicle.forget(process.serial)
        if process.role is Role.WORKER:
            self.server.WORKERS.pop(process.pid, None)
            self.child_exited(process)
        self.decide(events.Exited(process.serial, ended.status, said))

    def _bury_zygote(self, zygote: Process) -> None:
        assert zygote.link is not None
        self.selector.unregister(zygote.link)
        self._answered(zygote)
        for serial in list(zygote.link.pending):
            self._spawn_failed(self.processes[serial], f"{zygote} died")

    def _report(self, process: Process, child: Child, ended: Exit) -> None:
        """Say what ended a process, and count it."""
        if process.role in PROBES:
            return  # what it found is told as the outcome of the reload or the upgrade
        asked = child.expected or self.supervisor.stopping
        # Nobody here sends a SIGKILL without a missed deadline.
        unexplained = ended.signal == signal.SIGKILL and not child.missed
        death = incidents.Death(
            status=ended.status,
            was_ready=child.ready_at is not None,
            asked=asked,
            limit=bool(child.recycle),
            missed=child.missed,
            orderly=process.slot.words[layout.STATE] == layout.EXITING,
            by_kernel=unexplained and self.kernel_kills.explain_one(),
        )
        cause = incidents.cause_of(death)
        self.board.count_death(cause.value)
        if process.role is Role.WORKER:
            last = read_slot(process.slot)
            how = f"{ended}{incidents.serving(last.in_flight)}"
            config = self.generations()[process.generation].config
            timed_out = cause is incidents.Cause.TIMEOUT
            log_unanswered(last, config, time.monotonic(), timed_out=timed_out)
            self.chronicle.buried(process.serial, process.pid, cause.value, how, time.time())
        if cause in (incidents.Cause.REQUESTED, incidents.Cause.LIMIT):
            unasked = "" if asked else "; nobody here asked it to"
            log.log(routine(process), "%s %s%s", process, ended, unasked)
            return
        reason = str(ended)
        if cause is incidents.Cause.OUT_OF_MEMORY:
            reason = "was killed by the kernel: the control group is out of memory"
        if not death.was_ready:
            reason += " before it was ready"
        level = logging.WARNING if asked and not is_serving(process) else logging.ERROR
        self.inquests.died(process, cause, reason, ended, level)

    # --- An upgrade ---------------------------------------------------------------------------

    def states(self) -> tuple[upgrade.ProcessState, ...]:
        """What `adopt` takes, for the next program."""
        return tuple(
            upgrade.ProcessState(
                serial=process.serial,
                generation=process.generation,
                role=process.role.value,
                pid=process.pid,
                cell=process.cell,
                born=process.born,
                link_fd=None if process.link is None else process.link.fileno(),
                output_fd=self.spawner.outputs.fd_of(process),
            )
            for process in self.processes.values()
        )

    def adopt(self, left: tuple[upgrade.ProcessState, ...], loaded: Loaded) -> None:
        """Take over the children of the program before this one."""
        listeners = self.bindings.of(loaded.config)
        for each in left:
            process = self.spawner.adopt(each, loaded, listeners)
            self.processes[process.serial] = process
            if process.link is not None:
                self._watch_zygote(process)
            elif process.role is Role.WORKER:
                self.server.WORKERS[process.pid] = process.view

    @property
    def is_forking(self) -> bool:
        """Whether a zygote was asked for a worker and has not answered."""
        return any(process.pid == 0 for process in self.processes.values())


def routine(process: Process) -> int:
    """The level at which what is routine in the life of a child is logged."""
    # At the start one line tells of all: each of many workers would push the first lines, or why
    # there is no start, off the screen.
    boots_with_all = process.of_the_start and not process.view.booted
    quiet = process.role is Role.WATCHER or boots_with_all
    return logging.DEBUG if quiet else logging.INFO

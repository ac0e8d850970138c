"""Looks at what nobody announces: memory, load, accept queues.  In the master.

Each look has its own deadline; the pure judges in memory.py and scaling.py say what follows.
Nothing is looked at that nobody asked for, but for the accept queues: an idle master looks there
every 10 seconds, which costs it 10 microseconds for a listener.
"""

from __future__ import annotations

import logging
import math
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from forkmaster.board import layout
from forkmaster.board.counters import starts_in_flight
from forkmaster.logs import setup as logs
from forkmaster.master import events
from forkmaster.master.memory import FIRST_LOOK, RELIEF, Group, Holding, MemoryJudge, Notice
from forkmaster.master.policy import Role, State
from forkmaster.master.scaling import LOOK, Bounds, Load, Scaler
from forkmaster.system.memory import private_memory, unshared_memory, working_set
from forkmaster.system.queues import accept_queue

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator, Mapping

    from forkmaster.board.slot import Slot
    from forkmaster.config.table import Config
    from forkmaster.master.spawn import Process
    from forkmaster.master.supervisor import Supervisor
    from forkmaster.system.cgroup import ControlGroup

log = logging.getLogger("forkmaster.error")

QUEUE_LOOK = 10.0  # seconds
BACKLOG_LOOK = 1.0  # as often as gunicorn's master tells it to statsd
EXACTLY = 0.7  # of max_worker_memory: below, the cheap figure is good enough
SILENT = 2.0  # seconds without a beat: then the processor time in the slot is old
ASGI = layout.KINDS.index("asgi")


@dataclass(frozen=True)
class Work:
    """What one worker had done at a look."""

    busy: int
    """Nanoseconds in requests, the unfinished ones included."""
    cpu: int
    at: int
    """monotonic_ns()."""

    @classmethod
    def of(cls, slot: Slot, now: int) -> Work:
        words = slot.words
        running = sum(now - start for start in starts_in_flight(words))
        return cls(words[layout.BUSY] + running, words[layout.CPU], now)

    def share(self, before: Work, threads: int) -> float:
        """Of the time since `before`, how much the worker was busy, 0 to 1.

        `threads` is how many requests it can run at once, 0 for an asgi worker: its requests
        mostly wait, so that only its processor time says how busy it is.
        """
        time = max(1, self.at - before.at)
        busy = (self.busy - before.busy) / (time * threads) if threads else 0.0
        return min(1.0, max(0.0, busy, (self.cpu - before.cpu) / time))


class Sampler:
    """The looks of one master.  `next_look` says until when it may sleep; then `look`."""

    def __init__(
        self,
        supervisor: Supervisor,
        processes: Mapping[int, Process],
        group: ControlGroup | None,
        now: float,
    ) -> None:
        self.supervisor = supervisor
        self.processes = processes
        self.group = group
        self.memory = MemoryJudge()
        self.scaler = Scaler(now)
        # Else nothing would ever come of looking.
        self._limited = working_set(group) is not None
        self._memory_at = now + LOOK
        self._load_at = now + LOOK
        self._queues_at = now
        self._worked: dict[int, Work] = {}
        self._full: set[int] = set()  # descriptors of listeners whose queue is full, as was said
        self._said_short = False

    def next_look(self, config: Config) -> float:
        """When `look` is due, monotonic seconds."""
        memory = self._next_memory_look() if self._watches_memory(config) else math.inf
        load = self._load_at if self.supervisor.scales else math.inf
        return min(memory, load, self._queues_at)

    def look(
        self, config: Config, listeners: tuple[socket.socket, ...], now: float
    ) -> Iterator[events.Event]:
        """What is due; yields what the supervisor is to be told."""
        waiting = 0
        scales = self.supervisor.scales
        if now >= self._queues_at or (scales and now >= self._load_at):
            statsd = logs.statsd() if config.enable_backlog_metric else None
            self._queues_at = now + (QUEUE_LOOK if statsd is None else BACKLOG_LOOK)
            waiting = self._look_at_queues(listeners)
            if statsd is not None:
                statsd.histogram("gunicorn.backlog", waiting)
        if self._watches_memory(config) and now >= self._next_memory_look():
            yield from self._look_at_memory(config, now)
            self._memory_at = self.memory.next_look(now)
        if scales and now >= self._load_at:
            self._load_at = now + LOOK
            yield from self._look_at_load(config, waiting, now)

    def _watches_memory(self, config: Config) -> bool:
        return config.max_worker_memory > 0 or self._limited

    def _ready(self) -> list[tuple[Process, float]]:
        """The workers that serve and are to stay, with the time at which they became ready."""
        return [
            (self.processes[child.serial], child.ready_at)
            for child in self.supervisor.children.values()
            if child.role is Role.WORKER and child.state is State.READY and not child.recycle
            if child.ready_at is not None and child.serial in self.processes
        ]

    # --- Memory -------------------------------------------------------------------------------

    def _next_memory_look(self) -> float:
        unknown = (at for process, at in self._ready() if not self.memory.knows(process.serial))
        return min((at + FIRST_LOOK for at in unknown), default=self._memory_at)

    def _look_at_memory(self, config: Config, now: float) -> Iterator[events.Event]:
        group, limit = group_of(self.group), config.max_worker_memory
        pressed = group is not None and group.used > RELIEF * group.limit
        holdings: dict[int, Holding] = {}
        for process, ready_at in self._ready():
            age = now - ready_at
            exactly = pressed or not self.memory.knows(process.serial)
            private = _held(process.pid, 0 if exactly else int(limit * EXACTLY) or sys.maxsize)
            if private is not None:
                holdings[process.serial] = Holding(private, age)
        for found in self.memory.judge(holdings, limit, group, now):
            if isinstance(found, Notice):
                log.warning("%s", found.text)
            else:
                yield events.Recycle(found.serial, found.reason, found.makes_room)

    # --- Load ---------------------------------------------------------------------------------

    def _look_at_load(self, config: Config, waiting: int, now: float) -> Iterator[events.Event]:
        policy = self.supervisor.policy
        at = int(now * 1e9)
        worked = {process.serial: process.slot for process, _ in self._ready()}
        works = {serial: Work.of(slot, at) for serial, slot in worked.items()}
        shares = []
        for serial, work in works.items():
            slot, before = worked[serial], self._worked.get(serial)
            if _is_silent(slot, at):
                shares.append(1.0)
            elif before is not None:
                shares.append(work.share(before, _threads(slot, config)))
        self._worked = works
        starting = sum(c.state is State.STARTING for c in self.supervisor.workers())
        load = Load(sum(shares) / len(shares) if shares else 0.0, waiting, starting)
        room = self.memory.room_for(group_of(self.group))
        bounds = Bounds(policy.workers_min, policy.workers_max, room)
        step = self.scaler.decide(load, self.supervisor.aimed, bounds, now)
        if self.scaler.short_of_memory != self._said_short:
            self._said_short = self.scaler.short_of_memory
            if self._said_short:
                log.warning("more workers are needed, but there is no memory for them")
        if step is not None:
            yield events.Aim(step.workers, step.reason)

    # --- Queues -------------------------------------------------------------------------------

    def _look_at_queues(self, listeners: tuple[socket.socket, ...]) -> int:
        """How many connections wait; says so once when a queue is full."""
        waiting = 0
        for listener in listeners:
            queue = accept_queue(listener)
            if queue is None:
                continue
            waiting += queue.waiting
            fd = listener.fileno()
            if queue.waiting < queue.limit:
                if queue.waiting <= queue.limit // 2:
                    self._full.discard(fd)
            elif fd not in self._full:
                self._full.add(fd)
                log.warning(
                    "the accept queue of fd %d is full: %d connections wait (backlog), and new"
                    " ones are turned away; the workers do not keep up",
                    fd,
                    queue.waiting,
                )
        return waiting


def group_of(group: ControlGroup | None) -> Group | None:
    """The tightest limit of the control group and those above it, and what is used of it."""
    tightest = working_set(group)
    return Group(*tightest) if tightest is not None else None


def _held(pid: int, enough: int) -> int | None:
    """The private bytes; not to the byte if they are less than `enough`."""
    try:
        roughly = unshared_memory(pid)
        return roughly if roughly < enough else private_memory(pid)
    except OSError:
        return None  # it has ended


def _threads(slot: Slot, config: Config) -> int:
    return 0 if slot.words[layout.KIND] == ASGI else config.threads


def _is_silent(slot: Slot, now: int) -> bool:
    return now - slot.words[layout.BEAT] > SILENT * 1e9

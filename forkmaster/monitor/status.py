"""The server and its workers at one moment: what `status`, `top`, the page and the metrics show.

Put together from the board (the slots, and the master's notice) and from what the kernel knows of
each process and listener.  Whoever asks needs neither the master's help nor a worker's.

A rate needs two looks, so a Watcher is asked again and again; at the first look there is none.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from forkmaster.board.notice import Listening, Notice, read_notice
from forkmaster.board.reader import RequestView, SlotView, quantile, read_board
from forkmaster.system.memory import private_memory
from forkmaster.system.processes import cpu_seconds, resident_memory
from forkmaster.system.queues import AcceptQueue, accept_queues

WINDOW = 10.0  # seconds over which rates are taken when somebody looks often
SHORTEST = 0.2  # seconds: over less, a rate says nothing
MEMORY_EVERY = 5.0  # seconds: the kernel walks over all pages of a process to sum its private ones

# Past its promise to look again.  The longest pause of a sound master is the fork of a big process.
OVERDUE = 10.0

T = TypeVar("T")

WORKER_KINDS = frozenset({"sync", "threaded", "asgi", "unknown"})


@dataclass(frozen=True)
class RequestStatus:
    """A request in flight."""

    method: str
    target: str
    client: str
    seconds: float


@dataclass(frozen=True)
class WorkerStatus:
    """One worker."""

    serial: int
    pid: int
    generation: int
    kind: str
    state: str
    age: float
    beat_age: float
    requests: int
    errors: int
    """Requests whose application raised."""
    rate: float | None
    """Requests per second lately; None at the first look."""
    p50: float | None
    p95: float | None
    """Seconds, over all its life; None before the first request."""
    in_flight: int
    connections: int
    current: tuple[RequestStatus, ...]
    """The requests in flight, the oldest first, as many as there are records for."""
    memory: int | None
    """Private bytes: what its end would free."""
    cpu: float | None
    """Processors in use lately, 1.0 for a whole one."""
    recycle: str | None
    """Why it asks to be replaced."""


@dataclass(frozen=True)
class ListenerStatus:
    """One listener of the application's."""

    address: str
    waiting: int | None
    limit: int | None
    """None where the kernel does not tell."""


@dataclass(frozen=True)
class Status:
    """The server."""

    notice: Notice
    pid: int
    uptime: float
    overdue: float
    """Seconds that the master is late for its own promise to look again; 0.0 if it is not."""
    master_memory: int | None
    """Resident bytes."""
    workers: tuple[WorkerStatus, ...]
    listeners: tuple[ListenerStatus, ...]
    counters: Mapping[str, int]
    """Over all workers, living and dead; by the names of layout.COUNTERS."""
    died: Mapping[str, int]
    """How many processes ended, by the causes of layout.DEATHS."""
    histogram: tuple[int, ...]
    """Of the same: bucket i counts the requests of less than 2**i * 1.024 microseconds."""
    rate: float | None
    """Requests per second lately."""

    @property
    def requests(self) -> int:
        """How many requests have finished."""
        return sum(self.histogram)

    @property
    def ready(self) -> int:
        """How many workers serve."""
        return sum(worker.state == "serving" for worker in self.workers)

    @property
    def busy(self) -> int:
        """How many of them are in a request."""
        return sum(worker.state == "serving" and worker.in_flight > 0 for worker in self.workers)

    def quantile(self, fraction: float) -> float | None:
        """The duration that so many of all requests stayed under, in seconds."""
        return quantile(self.histogram, fraction)

    def as_json(self) -> dict[str, Any]:
        """All of it, for other programs."""
        mine = asdict(self)
        notice = mine.pop("notice")
        del notice["incidents"]  # a path that is nobody's business
        return {
            **notice,
            **mine,
            "ready": self.ready,
            "busy": self.busy,
            "requests": self.requests,
            **{name: self.quantile(fraction) for name, fraction in QUANTILES.items()},
        }


QUANTILES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}


@dataclass(frozen=True)
class Sample:
    """What rates are taken from."""

    at: float
    requests: int
    by_worker: Mapping[int, int]
    cpu: Mapping[int, float]


class Watcher:
    """Looks at one board again and again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._samples: deque[Sample] = deque()
        self._memory: dict[int, tuple[float, int | None]] = {}

    def look(self, now: float) -> Status:
        """The status now; `now` is monotonic seconds.

        Raises FileNotFoundError if the board is gone.
        """
        board = read_board(self.folder)
        notice = read_notice(self.folder)
        if notice is None:
            raise FileNotFoundError(f"the master has not said anything on {self.folder} yet")
        workers = [each for each in board.children if each.kind in WORKER_KINDS]
        cpu = {each.serial: _asked(cpu_seconds, each.pid) for each in workers}
        sample = Sample(
            now,
            board.totals.requests,
            {each.serial: each.requests for each in workers},
            {serial: seconds for serial, seconds in cpu.items() if seconds is not None},
        )
        before = self._baseline(sample)
        queues = accept_queues()
        return Status(
            notice=notice,
            pid=board.master.pid,
            uptime=board.master.age(now),
            overdue=overdue(board.master, now),
            master_memory=_asked(resident_memory, board.master.pid),
            workers=tuple(self._worker(each, sample, before) for each in workers),
            listeners=tuple(_listener(each, queues) for each in notice.listeners),
            counters=board.totals.counters,
            died=board.deaths,
            histogram=board.totals.histogram,
            rate=_rate(sample.requests, before.requests, now - before.at) if before else None,
        )

    def _baseline(self, sample: Sample) -> Sample | None:
        """The sample to compare with, if there is one old enough."""
        samples = self._samples
        while len(samples) > 1 and sample.at - samples[1].at >= WINDOW:
            samples.popleft()
        before = samples[0] if samples and sample.at - samples[0].at >= SHORTEST else None
        if not samples or sample.at - samples[-1].at >= SHORTEST:
            samples.append(sample)
        return before

    def _worker(self, slot: SlotView, sample: Sample, before: Sample | None) -> WorkerStatus:
        now, serial = sample.at, slot.serial
        rate = cpu = None
        if before is not None:
            since = max(before.at, slot.started)
            rate = _rate(slot.requests, before.by_worker.get(serial, 0), now - since)
            if serial in sample.cpu:
                cpu = _rate(sample.cpu[serial], before.cpu.get(serial, 0.0), now - since)
        return WorkerStatus(
            serial=serial,
            pid=slot.pid,
            generation=slot.generation,
            kind=slot.kind,
            state=slot.state,
            age=slot.age(now),
            beat_age=slot.silence(now),
            requests=slot.requests,
            errors=slot.counters["errors"],
            rate=rate,
            p50=quantile(slot.histogram, 0.5),
            p95=quantile(slot.histogram, 0.95),
            in_flight=slot.counters["in_flight"],
            connections=slot.counters["connections"],
            current=tuple(_request(each, now) for each in slot.in_flight),
            memory=self._memory_of(slot, now),
            cpu=cpu,
            recycle=slot.wants_recycle,
        )

    def _memory_of(self, slot: SlotView, now: float) -> int | None:
        at, memory = self._memory.get(slot.serial, (-math.inf, None))
        if now - at >= MEMORY_EVERY:
            memory = _asked(private_memory, slot.pid)
            self._memory[slot.serial] = now, memory
        return memory


def overdue(master: SlotView, now: float) -> float:
    """How late the master is, in seconds.  It says in its slot when it will look again."""
    if not master.beat or not master.extended:
        return 0.0  # nothing makes it look: no worker has a deadline
    late = now - max(master.beat, master.extended)
    return late if late > OVERDUE else 0.0


def unready(status: Status) -> str:
    """Why the server should get no new requests; empty if it should."""
    notice = status.notice
    if notice.state == "stopping":
        return "the server stops"
    if status.overdue:
        return f"the master has been silent for {status.overdue:.0f} s longer than it said"
    if not notice.started_up:
        return f"the server starts: {status.ready} of {notice.wanted} workers are ready"
    if status.ready < notice.needed:
        return f"{status.ready} workers are ready, and {notice.needed} must be"
    return ""


def _listener(listening: Listening, queues: Mapping[int, AcceptQueue]) -> ListenerStatus:
    queue = queues.get(listening.inode)
    if queue is None:
        return ListenerStatus(listening.address, None, None)
    return ListenerStatus(listening.address, queue.waiting, queue.limit)


def _request(request: RequestView, now: float) -> RequestStatus:
    return RequestStatus(request.method, request.target, request.client, request.duration(now))


def _rate(after: float, before: float, seconds: float) -> float:
    return max(0.0, after - before) / seconds if seconds > 0 else 0.0


def _asked(ask: Callable[[int], T], pid: int) -> T | None:
    """The answer, or None: the process has just ended, or is not ours to look at."""
    try:
        return ask(pid)
    except OSError:
        return None

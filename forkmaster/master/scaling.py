"""How many workers there should be, with workers_min and workers_max.  Pure.

Driven by two numbers, looked at every second: how busy the workers are (the share of the time
that they spent in requests, or on a processor), and how many connections wait in the accept queue.

    up     at once when the workers are busy for more than 80 % of the time, or connections wait in
           two looks in a row: as many as would bring them to 60 %, at most twice as many, and none
           while others still start
    down   one at a time, every 30 s, and only if the ones left would be busy for less than 50 % by
           the average of a minute

Up is cheap and late is expensive; the way down is slow because it costs warm caches and because
load comes back.  A step down that is soon followed by one up was wrong, so the next one waits twice
as long (uWSGI's penalty for its cheaper algorithms).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

LOOK = 1.0  # seconds between two looks
BUSY = 0.8
GOAL = 0.6
IDLE = 0.5
FAST, SLOW = 0.4, 1 / 60  # the weight of one look in the two averages
IN_A_ROW = 2  # looks with connections waiting
CALM = 60.0  # seconds after a step up before there may be one down
PAUSE = 30.0  # seconds between two steps down
FLAP = 120.0  # seconds: a step up so soon after one down takes it back
LONGEST_PAUSE = 32 * PAUSE


@dataclass(frozen=True)
class Load:
    """One look."""

    busy: float
    """The share of the time since the last look that the ready workers were busy, 0 to 1."""
    waiting: int
    """Connections in the accept queues."""
    starting: int
    """Workers that are not ready yet."""


@dataclass(frozen=True)
class Bounds:
    """What is configured, and what the memory allows."""

    least: int
    most: int
    room: int | None = None
    """How many more workers fit into memory; None: no limit is known."""


@dataclass(frozen=True)
class Step:
    """So many workers from now on."""

    workers: int
    reason: str


@dataclass
class Scaler:
    """Remembers the averages and the last steps.  Times are monotonic seconds."""

    _up_at: float
    """The last step up, or the start: there is calm after both."""
    _fast: float = 0.0
    _slow: float = 0.0
    _queued: int = 0  # looks in a row with connections waiting
    _down_at: float = -math.inf
    _pause: float = PAUSE
    _short_of_memory: bool = False

    def decide(self, load: Load, workers: int, bounds: Bounds, now: float) -> Step | None:
        """What to change; to be asked at every look.  `workers` are wanted now."""
        self._fast += FAST * (load.busy - self._fast)
        self._slow += SLOW * (load.busy - self._slow)
        self._queued = self._queued + 1 if load.waiting else 0
        if workers < bounds.least or workers > bounds.most:
            return Step(min(max(workers, bounds.least), bounds.most), "workers_min, workers_max")
        return self._up(load, workers, bounds, now) or self._down(load, workers, bounds, now)

    def _up(self, load: Load, workers: int, bounds: Bounds, now: float) -> Step | None:
        queued = self._queued >= IN_A_ROW
        if load.starting or not (queued or self._fast > BUSY):
            return None
        wanted = max(workers + 1, math.ceil(workers * self._fast / GOAL))
        if queued and load.waiting > workers:
            wanted = 2 * workers
        wanted = min(wanted, 2 * workers, bounds.most)
        if bounds.room is not None:
            self._short_of_memory = workers + bounds.room < wanted
            wanted = min(wanted, workers + bounds.room)
        if wanted <= workers:
            return None
        if now - self._down_at < FLAP:
            self._pause = min(2 * self._pause, LONGEST_PAUSE)
        self._up_at = now
        reason = f"busy for {self._fast:.0%} of the time"
        if queued:
            reason += f", {load.waiting} connections wait"
        # What it was in the mean says little about the larger number; nor may it go down soon.
        self._slow = max(self._slow, GOAL)
        self._queued = 0
        return Step(wanted, reason)

    def _down(self, load: Load, workers: int, bounds: Bounds, now: float) -> Step | None:
        if workers <= bounds.least or load.starting or load.waiting:
            return None
        if now - self._up_at < CALM or now - self._down_at < self._pause:
            return None
        busiest = max(self._fast, self._slow)
        if busiest * workers / (workers - 1) > IDLE:
            return None
        if now - max(self._up_at, self._down_at) > 10 * self._pause:
            self._pause = PAUSE  # it has been quiet for long
        self._down_at = now
        return Step(workers - 1, f"busy for {self._slow:.0%} of the time")

    @property
    def short_of_memory(self) -> bool:
        """Whether more were wanted at the last look than fit into memory."""
        return self._short_of_memory

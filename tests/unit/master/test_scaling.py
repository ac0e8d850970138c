"""How many workers there are by the load.  Loads are imaginary, and time is an argument."""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import pairwise

import pytest

from forkmaster.master.scaling import CALM, LOOK, PAUSE, Bounds, Load, Scaler

BOUNDS = Bounds(least=1, most=8)


class Site:
    """Workers under a load of so many workers' worth of work.  A new one starts for 2 s."""

    def __init__(self, workers: int, bounds: Bounds = BOUNDS) -> None:
        self.now = 0.0
        self.scaler = Scaler(self.now)
        self.workers = workers
        self.bounds = bounds
        self.ready_at = 0.0
        self.ready = workers
        self.waiting = 0.0
        self.changes: list[tuple[float, int]] = []

    def run(self, seconds: float, work: Callable[[float], float] | float) -> None:
        until = self.now + seconds
        while self.now < until:
            self.now += LOOK
            if self.now >= self.ready_at:
                self.ready = self.workers
            wanted = work(self.now) if callable(work) else work
            wanted += self.waiting
            busy = min(1.0, wanted / self.ready)
            self.waiting = max(0.0, wanted - self.ready)
            starting = max(0, self.workers - self.ready)
            load = Load(busy, int(self.waiting), starting)
            step = self.scaler.decide(load, self.workers, self.bounds, self.now)
            if step is None:
                continue
            assert self.bounds.least <= step.workers <= self.bounds.most
            self.changes.append((self.now, step.workers))
            if step.workers > self.workers:
                self.ready_at = self.now + 2
            else:
                self.ready = min(self.ready, step.workers)
            self.workers = step.workers


def test_a_quiet_site_goes_down_to_its_least_one_by_one_and_slowly() -> None:
    site = Site(workers=4)

    site.run(CALM - 2, 0.05)
    calm = site.workers
    site.run(600, 0.05)

    assert calm == 4
    assert [workers for _, workers in site.changes] == [3, 2, 1]
    times = [now for now, _ in site.changes]
    assert all(later - earlier >= PAUSE for earlier, later in pairwise(times))


def test_a_burst_is_answered_within_seconds() -> None:
    site = Site(workers=1)
    site.run(60, 0.1)
    began = site.now

    site.run(20, 3.0)

    first, _ = site.changes[0]
    assert first - began <= 4
    assert site.workers >= 4


def test_a_steady_load_settles_and_stays() -> None:
    site = Site(workers=1)
    site.run(120, 3.0)
    changes = len(site.changes)

    site.run(1800, 3.0)

    # Those that worked off the queue at the beginning may stay.
    assert 4 <= site.workers <= 7
    assert len(site.changes) <= changes + 1


def test_it_never_leaves_its_bounds() -> None:
    site = Site(workers=2, bounds=Bounds(least=2, most=5))

    site.run(60, 50.0)
    most = site.workers
    site.waiting = 0
    site.run(900, 0.0)

    assert most == 5
    assert site.workers == 2


def test_a_number_outside_of_the_bounds_is_brought_inside() -> None:
    step = Scaler(0.0).decide(Load(0.0, 0, 0), 9, BOUNDS, 1.0)

    assert step is not None
    assert step.workers == 8


def test_it_waits_for_those_that_start() -> None:
    scaler = Scaler(0.0)

    steps = [scaler.decide(Load(1.0, 9, starting=1), 2, BOUNDS, float(n)) for n in range(10)]

    assert steps == [None] * 10


def test_a_queue_counts_even_if_nobody_seems_busy() -> None:
    scaler = Scaler(0.0)

    steps = [scaler.decide(Load(0.1, 3, 0), 2, BOUNDS, float(n)) for n in range(2)]

    assert steps[0] is None
    assert steps[1] is not None
    assert steps[1].workers == 4
    assert "3 connections wait" in steps[1].reason


def test_memory_bounds_it() -> None:
    scaler = Scaler(0.0)
    bounds = Bounds(least=1, most=8, room=1)

    steps = [scaler.decide(Load(1.0, 9, 0), 2, bounds, float(n)) for n in range(2)]

    assert steps[1] is not None
    assert steps[1].workers == 3
    assert scaler.short_of_memory


def test_without_room_nothing_is_started() -> None:
    scaler = Scaler(0.0)
    bounds = Bounds(least=1, most=8, room=0)

    steps = [scaler.decide(Load(1.0, 9, 0), 2, bounds, float(n)) for n in range(5)]

    assert steps == [None] * 5
    assert scaler.short_of_memory


def test_a_load_that_comes_and_goes_is_not_followed_down_every_time() -> None:
    site = Site(workers=1)

    site.run(3600, lambda now: 3.0 if now % 200 < 30 else 0.2)

    downs = [b for (_, a), (_, b) in pairwise(site.changes) if b < a]
    assert len(downs) < 3600 / 200


@pytest.mark.parametrize("seed", range(20))
def test_random_loads_keep_the_bounds_and_are_served(seed: int) -> None:
    chance = random.Random(seed)
    bounds = Bounds(chance.randint(1, 3), chance.randint(3, 9))
    site = Site(chance.randint(bounds.least, bounds.most), bounds)
    for _ in range(30):
        site.run(chance.randint(5, 200), chance.uniform(0, bounds.most * 0.9))
    site.run(120, 0.5)

    assert site.waiting == 0
    assert bounds.least <= site.workers <= bounds.most

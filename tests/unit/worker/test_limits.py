"""What a worker may do before it asks to be replaced."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic_ns
from types import SimpleNamespace
from typing import Any

import pytest

from forkmaster.board import layout
from forkmaster.board.reader import read_slot
from forkmaster.board.slot import Slot
from forkmaster.config.table import Config
from forkmaster.worker.limits import YOUNG, WorkerLimits

SECOND = 1_000_000_000


class Worker:
    """A slot and an announcement pipe, and the limits over them."""

    def __init__(self, folder: Path) -> None:
        self.slot = Slot.create(folder / "slot", serial=1, generation=0, records=0)
        self.started = self.slot.words[layout.STARTED]
        self.read_end, self.write_end = os.pipe2(os.O_NONBLOCK)

    def limits(self, **settings: Any) -> WorkerLimits:
        assignment: Any = SimpleNamespace(
            slot=self.slot, config=Config(**settings), announce_fd=self.write_end
        )
        return WorkerLimits(assignment)

    @property
    def asks(self) -> str | None:
        return read_slot(self.slot).wants_recycle

    def announced(self) -> bytes:
        try:
            return os.read(self.read_end, 10)
        except BlockingIOError:
            return b""

    def close(self) -> None:
        self.slot.close()
        os.close(self.read_end)
        os.close(self.write_end)


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[Worker]:
    worker = Worker(tmp_path)
    yield worker
    worker.close()


def times(number: int, call: Callable[[], None]) -> None:
    for _ in range(number):
        call()


def test_without_limits_nothing_is_counted_and_nothing_asked(worker: Worker) -> None:
    limits = worker.limits()

    limits.look(worker.started + 10**9 * SECOND)

    assert not limits.counts
    assert worker.asks is None


def test_the_last_request_of_max_requests_asks(worker: Worker) -> None:
    limits = worker.limits(max_requests=3)

    times(2, limits.count)
    before = worker.asks
    limits.count()

    assert before is None
    assert worker.asks == "max_requests"
    assert worker.announced() == b"!"
    assert not limits.counts


def test_a_young_worker_serves_on_for_a_moment(worker: Worker) -> None:
    limits = worker.limits(max_requests=1)
    worker.slot.words[layout.READY] = ready = monotonic_ns()

    limits.count()
    before = worker.asks
    limits.look(ready + YOUNG)

    assert before is None
    assert worker.asks == "max_requests"
    assert worker.announced() == b"!"


def test_the_jitter_spreads_the_last_request(worker: Worker) -> None:
    lasted = set()
    for _ in range(200):
        worker.slot.words[layout.FLAGS] = 0
        limits = worker.limits(max_requests=2, max_requests_jitter=3)
        count = 0
        while limits.counts:
            limits.count()
            count += 1
        lasted.add(count)

    assert lasted == {2, 3, 4, 5}


def test_the_age_is_counted_from_the_fork(worker: Worker) -> None:
    limits = worker.limits(max_worker_lifetime=60.0)

    limits.look(worker.started + 59 * SECOND)
    before = worker.asks
    limits.look(worker.started + 60 * SECOND)

    assert before is None
    assert worker.asks == "max_worker_lifetime"


def test_the_jitter_only_adds_to_the_age(worker: Worker) -> None:
    limits = worker.limits(max_worker_lifetime=60.0, max_worker_lifetime_jitter=30.0)

    limits.look(worker.started + 60 * SECOND - 1)
    before = worker.asks
    limits.look(worker.started + 90 * SECOND)

    assert before is None
    assert worker.asks == "max_worker_lifetime"


def test_the_first_reason_stays_and_is_announced_once(worker: Worker) -> None:
    limits = worker.limits(max_requests=1, max_worker_lifetime=60.0)

    limits.count()
    limits.look(worker.started + 60 * SECOND)
    limits.ask("stuck thread")

    assert worker.asks == "max_requests"
    assert worker.announced() == b"!"


def test_a_full_announcement_pipe_is_announcement_enough(worker: Worker) -> None:
    with pytest.raises(BlockingIOError):
        times(10**6, lambda: os.write(worker.write_end, b"!" * 4096) and None)

    worker.limits().ask("stuck thread")

    assert worker.asks == "stuck thread"

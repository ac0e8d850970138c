"""What a look at the board makes of the work of a worker, and of a control group."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from forkmaster.board import layout
from forkmaster.board.slot import Slot
from forkmaster.config.table import Config
from forkmaster.config.values import OnePerProcessor
from forkmaster.master.memory import Group
from forkmaster.master.sampling import Work, group_of
from forkmaster.master.sizing import bounds_of
from forkmaster.system.cgroup import ControlGroup

SECOND = 1_000_000_000


@pytest.fixture
def slot(tmp_path: Path) -> Iterator[Slot]:
    slot = Slot.create(tmp_path / "slot", serial=1, generation=0, records=10)
    yield slot
    slot.close()


def test_a_request_that_runs_is_work_and_counts_once_when_it_ends(slot: Slot) -> None:
    start = 100 * SECOND
    looks = [Work.of(slot, start)]
    slot.begin(0, b"GET /", b"", start)
    looks.append(Work.of(slot, start + SECOND))
    slot.end(0, 200, 10, start + SECOND + SECOND // 2)
    looks.append(Work.of(slot, start + 2 * SECOND))
    looks.append(Work.of(slot, start + 3 * SECOND))

    shares = [b.share(a, threads=1) for a, b in pairwise(looks)]

    assert shares == [1.0, 0.5, 0.0]


def test_a_thread_is_a_part_of_a_worker(slot: Slot) -> None:
    before = Work.of(slot, SECOND)
    slot.begin(0, b"GET /", b"", SECOND)

    assert Work.of(slot, 2 * SECOND).share(before, threads=4) == 0.25


def test_threads_that_compute_share_one_processor(slot: Slot) -> None:
    before = Work.of(slot, SECOND)
    slot.begin(0, b"GET /", b"", SECOND)
    slot.words[layout.CPU] += 9 * SECOND // 10

    assert Work.of(slot, 2 * SECOND).share(before, threads=4) == 0.9


def test_a_request_that_waits_does_not_keep_an_asgi_worker_busy(slot: Slot) -> None:
    before = Work.of(slot, SECOND)
    slot.begin(0, b"GET /", b"", SECOND)
    slot.words[layout.CPU] += SECOND // 10

    assert Work.of(slot, 2 * SECOND).share(before, threads=0) == 0.1


def test_the_group_is_read(tmp_path: Path) -> None:
    (tmp_path / "memory.max").write_text("1000\n")
    (tmp_path / "memory.current").write_text("900\n")

    assert group_of(ControlGroup(2, (tmp_path,))) == Group(1000, 900)
    assert group_of(None) is None


@pytest.mark.parametrize(
    ("settings", "bounds"),
    [
        ({"workers": 3}, (3, 0, 0)),
        ({"workers": 3, "workers_min": 2}, (3, 0, 0)),
        ({"workers": 3, "workers_max": 8}, (3, 3, 8)),
        ({"workers": 3, "workers_min": 1, "workers_max": 8}, (3, 1, 8)),
        ({"workers": 3, "workers_min": 4, "workers_max": 8}, (4, 4, 8)),
        ({"workers": 9, "workers_min": 1, "workers_max": 8}, (8, 1, 8)),
        ({"workers": 3, "workers_max": 2}, (3, 3, 3)),
    ],
)
def test_the_bounds_of_a_configuration(
    settings: dict[str, int], bounds: tuple[int, int, int]
) -> None:
    assert bounds_of(Config(**settings)) == bounds  # type: ignore[arg-type]


def test_auto_stays_known_as_such() -> None:
    assert isinstance(Config(workers=OnePerProcessor(4)).workers, OnePerProcessor)

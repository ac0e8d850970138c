"""One page on which all workers count their connections."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from forkmaster.board.balance import Balance, fair_share


@pytest.fixture
def balance(tmp_path: Path) -> Iterator[Balance]:
    page = Balance.create(tmp_path / "balance", capacity=4)
    yield page
    page.close()


def test_cells_are_taken_from_the_smallest_and_come_back(balance: Balance) -> None:
    assert [balance.take() for _ in range(3)] == [0, 1, 2]

    balance.give_back(1)

    assert [balance.take(), balance.take()] == [1, 3]
    with pytest.raises(OverflowError, match="all 4 are taken"):
        balance.take()


def test_the_one_worker_there_is_never_holds_too_much(balance: Balance) -> None:
    share = balance.share(balance.take())
    share.publish(1000)

    assert not share.has_more_than_its_share(1000)


def test_a_worker_knows_whether_others_take_connections(balance: Balance) -> None:
    mine, other = (balance.share(balance.take()) for _ in range(2))
    mine.publish(0)
    assert mine.is_alone()

    other.publish(0)
    assert not mine.is_alone()
    other.leave()
    assert mine.is_alone()


def test_a_worker_that_holds_more_than_an_equal_part_waits(balance: Balance) -> None:
    mine, other = (balance.share(balance.take()) for _ in range(2))
    other.publish(0)

    mine.publish(2)
    assert not mine.has_more_than_its_share(2)
    mine.publish(6)
    assert mine.has_more_than_its_share(6)


def test_workers_that_boot_drain_or_died_do_not_count(balance: Balance) -> None:
    mine, draining = (balance.share(balance.take()) for _ in range(2))
    died = balance.take()
    balance.take()  # boots: has published nothing
    mine.publish(50)
    draining.publish(1)
    balance.share(died).publish(1)
    assert mine.has_more_than_its_share(50)

    draining.leave()
    balance.give_back(died)

    assert not mine.has_more_than_its_share(50)


def test_a_cell_taken_anew_does_not_count_what_was_there(balance: Balance) -> None:
    mine = balance.share(balance.take())
    mine.publish(9)
    gone = balance.take()
    balance.share(gone).publish(1)

    balance.give_back(gone)
    assert balance.take() == gone

    assert not mine.has_more_than_its_share(9)


def test_the_page_is_shared_across_a_fork(balance: Balance) -> None:
    mine, child = (balance.share(balance.take()) for _ in range(2))
    mine.publish(10)

    pid = os.fork()
    if pid == 0:
        child.publish(0)
        os._exit(0)
    os.waitpid(pid, 0)

    assert mine.has_more_than_its_share(10)


def test_a_reopened_page_knows_the_cells_in_use(tmp_path: Path) -> None:
    before = Balance.create(tmp_path / "balance", capacity=4)
    share = before.share(before.take())
    share.publish(7)

    after = Balance.reopen(tmp_path / "balance", taken=[0])
    fresh = after.share(after.take())
    fresh.publish(0)

    assert share.has_more_than_its_share(7)
    before.close()
    after.close()


@pytest.mark.parametrize(
    ("total", "active", "share"), [(0, 4, 1), (1, 4, 2), (40, 4, 12), (41, 4, 13), (4000, 4, 1126)]
)
def test_a_fair_share_is_an_equal_part_and_an_eighth(total: int, active: int, share: int) -> None:
    assert fair_share(total, active) == share

"""Which worker is replaced for its memory."""

from __future__ import annotations

from forkmaster.master.memory import (
    LOOK,
    LOOK_UNDER_PRESSURE,
    REST,
    TOO_LARGE,
    Group,
    Holding,
    MemoryJudge,
    Notice,
    Replace,
)

MIB = 1 << 20


def holdings(*mebibytes: int, ready_for: float = 60.0) -> dict[int, Holding]:
    """Workers 1, 2, …"""
    return {n: Holding(m * MIB, ready_for) for n, m in enumerate(mebibytes, 1)}


def fresh_at(mebibytes: int) -> MemoryJudge:
    """A judge that has seen what workers 1, 2 and 3 held when they were fresh."""
    judge = MemoryJudge()
    judge.judge(holdings(*[mebibytes] * 3, ready_for=1.0), 0, None, 0.0)
    return judge


def test_a_worker_over_its_limit_twice_in_a_row_is_replaced() -> None:
    judge = fresh_at(50)

    first = judge.judge(holdings(210, 90), 200 * MIB, None, 0.0)
    second = judge.judge(holdings(210, 90), 200 * MIB, None, LOOK)

    assert first == []
    assert second == [Replace(1, "max_worker_memory: it holds 210 MiB for itself")]


def test_a_passing_peak_is_forgiven() -> None:
    judge = fresh_at(50)

    said = [judge.judge(holdings(size), 200 * MIB, None, 0.0) for size in (210, 190, 210, 190, 210)]

    assert said == [[]] * 5


def test_a_limit_that_fresh_workers_exceed_replaces_nobody_and_is_said_once() -> None:
    judge = fresh_at(300)

    said = [judge.judge(holdings(310), 200 * MIB, None, 0.0) for _ in range(5)]

    (notice,) = [each for look in said for each in look]
    assert isinstance(notice, Notice)
    assert "max_worker_memory is 200 MiB" in notice.text
    assert "holds 300 MiB" in notice.text


def test_a_worker_that_was_over_the_limit_from_the_start_is_replaced_in_the_end() -> None:
    judge = fresh_at(300)
    old = holdings(310, ready_for=TOO_LARGE)

    said = [judge.judge(old, 200 * MIB, None, 0.0) for _ in range(2)]

    assert said[1] == [Replace(1, "max_worker_memory: it holds 310 MiB for itself")]


def pressed(judge: MemoryJudge, used: int, *sizes: int, now: float = 0.0) -> list[object]:
    """Two looks at a group of 1000 MiB."""
    group = Group(1000 * MIB, used * MIB)
    first = judge.judge(holdings(*sizes), 0, group, now)
    return [*first, *judge.judge(holdings(*sizes), 0, group, now + 1)]


def test_under_pressure_the_largest_worker_is_replaced() -> None:
    said = pressed(fresh_at(50), 910, 200, 400, 150)

    assert said == [
        Replace(
            2,
            "91% of the memory of the control group (1000 MiB) is used;"
            " it holds 400 MiB for itself",
        )
    ]


def test_without_room_for_its_replacement_it_goes_first() -> None:
    (said,) = pressed(fresh_at(50), 960, 200, 400)

    assert isinstance(said, Replace)
    assert said.makes_room


def test_below_the_mark_nothing_happens() -> None:
    assert pressed(fresh_at(50), 890, 200, 400) == []


def test_after_a_replacement_it_rests() -> None:
    judge = fresh_at(50)

    first = pressed(judge, 950, 400, 300, now=0.0)
    soon = pressed(judge, 950, 400, 300, now=REST / 2)
    late = pressed(judge, 950, 400, 300, now=REST + 5)

    assert len(first) == 1
    assert soon == []
    assert late != []


def test_workers_that_have_not_grown_are_not_replaced_and_it_is_said_once() -> None:
    judge = fresh_at(300)

    first = pressed(judge, 950, 305, 310, 300)
    again = pressed(judge, 950, 305, 310, 300)

    (notice,) = first
    assert isinstance(notice, Notice)
    assert "no worker has grown" in notice.text
    assert again == []


def test_it_looks_more_often_under_pressure() -> None:
    judge = fresh_at(50)
    before = judge.next_look(0.0)

    pressed(judge, 950, 400)

    assert before == LOOK
    assert judge.next_look(0.0) == LOOK_UNDER_PRESSURE


def test_the_room_is_counted_in_fresh_workers() -> None:
    assert fresh_at(100).room_for(Group(1000 * MIB, 500 * MIB)) == 4
    assert fresh_at(100).room_for(Group(1000 * MIB, 950 * MIB)) == 0
    assert fresh_at(100).room_for(None) is None
    assert MemoryJudge().room_for(Group(1000 * MIB, 1)) is None

"""The view of `forkmaster top`: keys and statuses in, lines and orders out."""

from __future__ import annotations

import pytest

from forkmaster.board.notice import Notice
from forkmaster.cli.top import Screen, keys_in
from forkmaster.master import protocol
from forkmaster.master.protocol import Done
from forkmaster.monitor.status import RequestStatus, Status, WorkerStatus


def worker(serial: int, **changes: object) -> WorkerStatus:
    values: dict[str, object] = {
        "serial": serial,
        "pid": 4000 + serial,
        "generation": 0,
        "kind": "sync",
        "state": "serving",
        "age": 60.0,
        "beat_age": 0.1,
        "requests": 10,
        "errors": 0,
        "rate": 1.0,
        "p50": 0.001,
        "p95": 0.01,
        "in_flight": 0,
        "connections": 0,
        "current": (),
        "memory": 10 << 20,
        "cpu": 0.1,
        "recycle": None,
        **changes,
    }
    return WorkerStatus(**values)  # type: ignore[arg-type]


def status(*workers: WorkerStatus, wanted: int = 3) -> Status:
    notice = Notice(
        version="1",
        python="3.13",
        app="shop.wsgi",
        file=None,
        started=0.0,
        state="serving",
        started_up=True,
        generation=0,
        wanted=wanted,
        needed=1,
    )
    return Status(
        notice=notice,
        pid=4000,
        uptime=60.0,
        overdue=0.0,
        master_memory=None,
        workers=workers,
        listeners=(),
        counters={"status_5xx": 0, "lines_lost": 0},
        died={},
        histogram=(0,) * 32,
        rate=3.0,
    )


@pytest.fixture
def view() -> Screen:
    view = Screen("worker")
    slow = RequestStatus("GET", "/slow", "", 9.0)
    view.see(
        status(
            worker(1, rate=5.0, memory=30 << 20),
            worker(2, rate=9.0, cpu=0.9),
            worker(3, rate=None, memory=None, current=(slow,)),
        )
    )
    return view


def order(view: Screen) -> list[int]:
    return [each.serial for each in view.workers()]


def test_the_order_goes_round(view: Screen) -> None:
    orders = {}
    for _ in range(6):
        orders[view.sort] = order(view)
        view.press("s")

    assert view.sort == "worker"
    assert orders["worker"] == [1, 2, 3]
    assert orders["req/s"] == [2, 1, 3]
    assert orders["CPU"] == [2, 1, 3]
    assert orders["memory"] == [1, 2, 3]
    assert orders["serving"] == [3, 1, 2]


def test_a_worker_is_chosen_and_recycled(view: Screen) -> None:
    assert view.press("\x1b[B") is None
    assert view.press("j") is None
    assert view.press("j") is None  # there is none below
    assert view.press("\x1b[A") is None

    assert view.press("r") == protocol.Recycle(2)
    assert view.message == "recycling worker 2"
    view.hear(Done("worker 2 was replaced"))
    assert view.message == "worker 2 was replaced"


def test_the_choice_moves_on_when_the_worker_goes(view: Screen) -> None:
    view.press("j")

    view.see(status(worker(1), worker(4)))
    assert view.chosen == 1
    view.see(status())

    assert view.chosen is None
    assert view.press("r") is None
    assert view.press("t") is None


def test_stacks_are_shown_until_the_next_key(view: Screen) -> None:
    assert view.press("t") == protocol.Stacks(1)
    view.hear(
        Done("", {"stacks": [{"serial": 1, "pid": 4001, "waits": "running", "stacks": "File x"}]})
    )

    shown = view.lines(100.0, 80, 24)
    assert shown[:2] == ["worker 1 (pid 4001) is running", "  File x"]
    assert view.press("r") is None, "the key only goes back"
    assert view.lines(100.0, 80, 24)[0].startswith("shop.wsgi: ")


def test_stacks_that_do_not_fit_leave_the_way_back_to_be_seen(view: Screen) -> None:
    stacks = "\n".join(f"File {number}" for number in range(50))
    view.hear(Done("", {"stacks": [{"serial": 1, "pid": 1, "waits": "", "stacks": stacks}]}))

    lines = view.lines(now=110, width=80, height=10)

    assert len(lines) == 10
    assert lines[-1] == "any key goes back"
    assert "File 0" in lines[1]


def test_scaling(view: Screen) -> None:
    assert view.press("+") == protocol.Scale(4)
    assert view.press("-") == protocol.Scale(2)
    view.see(status(wanted=0))
    assert view.press("-") == protocol.Scale(0)


def test_a_failure_is_shown(view: Screen) -> None:
    view.press("+")

    view.hear("worker 4 exited with status 3")

    assert "worker 4 exited with status 3" in view.lines(100.0, 80, 24)


def test_a_pause_keeps_what_is_shown(view: Screen) -> None:
    view.press("p")
    view.see(status(worker(9)))
    kept = order(view)
    view.press("p")
    view.see(status(worker(9)))

    assert kept == [1, 2, 3]
    assert order(view) == [9]


@pytest.mark.parametrize(("width", "height"), [(80, 24), (40, 8), (20, 5)])
def test_it_fits_the_terminal(view: Screen, width: int, height: int) -> None:
    lines = view.lines(100.0, width, height)

    assert len(lines) == height
    assert max(map(len, lines)) <= width
    assert lines[-1].startswith("q quit")


def test_once_shows_no_keys(view: Screen) -> None:
    lines = view.lines(100.0, 200, None)

    assert not any("q quit" in line for line in lines)
    assert not any(line.startswith(">") for line in lines)
    assert any("GET /slow for 9.0 s" in line for line in lines)


def test_keys_that_come_together_are_taken_apart() -> None:
    assert keys_in("ss\x1b[Bq\x1b[A") == ["s", "s", "\x1b[B", "q", "\x1b[A"]
    assert keys_in("") == []

"""What is shown of a board, put together from boards that a test has made."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from forkmaster.board import layout
from forkmaster.board.board import Board
from forkmaster.board.notice import Death, Notice, Outcome
from forkmaster.board.slot import Slot
from forkmaster.cli import status as words
from forkmaster.monitor.application import Application
from forkmaster.monitor.incidents import Incidents
from forkmaster.monitor.metrics import exposition
from forkmaster.monitor.status import OVERDUE, Status, Watcher, unready

NOTICE = Notice(
    version="1.2",
    python="3.13.1",
    app="shop.wsgi",
    file="/etc/shop.toml",
    started=1000.0,
    state="serving",
    started_up=True,
    generation=0,
    wanted=2,
    needed=1,
)


@pytest.fixture
def board(tmp_path: Path) -> Iterator[Board]:
    board = Board.create(tmp_path, records=4)
    NOTICE.write(board.path)
    yield board
    board.remove()


def worker(board: Board, serial: int, state: int = layout.SERVING) -> Slot:
    """The slot of a worker, which is this process."""
    slot = board.new_slot(serial, 0)
    slot.words[layout.PID] = os.getpid()
    slot.words[layout.KIND] = layout.KINDS.index("sync")
    slot.words[layout.STATE] = state
    return slot


def serve(slot: Slot, count: int, status: int = 200, microseconds: int = 1000) -> None:
    for _ in range(count):
        slot.count(status, 100, microseconds * 1000)


def look(board: Board, at: float | None = None) -> Status:
    return Watcher(board.path).look(time.monotonic() if at is None else at)


def test_workers_are_shown_and_others_are_not(board: Board) -> None:
    serve(worker(board, 1), 10)
    worker(board, 2, layout.STARTING)
    monitor = worker(board, 3)
    monitor.words[layout.KIND] = layout.KINDS.index("monitor")
    serve(monitor, 50)

    status = look(board)

    assert [(w.serial, w.state, w.requests) for w in status.workers] == [
        (1, "serving", 10),
        (2, "starting", 0),
    ]
    assert (status.ready, status.busy, status.requests) == (1, 0, 10)
    assert status.workers[0].memory


def test_a_rate_needs_two_looks(board: Board) -> None:
    slot = worker(board, 1)
    serve(slot, 10)
    watcher = Watcher(board.path)
    now = time.monotonic()

    first = watcher.look(now)
    serve(slot, 20)
    second = watcher.look(now + 4)

    assert first.rate is None
    assert second.rate == pytest.approx(5.0)
    assert second.workers[0].rate == pytest.approx(5.0)
    assert second.workers[0].cpu is not None


def test_a_rate_is_of_the_last_seconds(board: Board) -> None:
    slot = worker(board, 1)
    watcher = Watcher(board.path)
    now = time.monotonic()
    for second in range(60):
        serve(slot, 100 if second < 30 else 1)
        watcher.look(now + second)

    status = watcher.look(now + 60)

    assert status.rate == pytest.approx(1.0, abs=0.2)


def test_counters_and_rates_survive_a_death(board: Board) -> None:
    serve(worker(board, 1), 10)
    serve(worker(board, 2), 5)
    watcher = Watcher(board.path)
    now = time.monotonic()
    watcher.look(now)

    board.drop(1)
    status = watcher.look(now + 1)

    assert status.requests == 15
    assert status.rate == 0.0


def test_a_request_in_flight(board: Board) -> None:
    slot = worker(board, 1)
    began = time.monotonic_ns()
    slot.begin(0, b"GET /report?year=1 HTTP/1.1\r\n", b"10.0.0.7:5000", began)
    slot.words[layout.IN_FLIGHT] = 1

    status = look(board, began / 1e9 + 3)

    (request,) = status.workers[0].current
    assert (request.method, request.target, request.client) == (
        "GET",
        "/report?year=1",
        "10.0.0.7:5000",
    )
    assert request.seconds == pytest.approx(3, abs=0.01)
    assert status.busy == 1


def test_a_worker_whose_process_has_gone_is_shown_without_memory(board: Board) -> None:
    worker(board, 1).words[layout.PID] = 2**22 + 7  # beyond the largest there is

    assert look(board).workers[0].memory is None


@pytest.mark.parametrize(
    ("change", "ready", "reason"),
    [
        ({}, 1, ""),
        ({"state": "reloading"}, 1, ""),
        ({"state": "stopping"}, 1, "the server stops"),
        ({"started_up": False}, 1, "the server starts: 1 of 2 workers are ready"),
        ({"needed": 2}, 1, "1 workers are ready, and 2 must be"),
        ({}, 0, "0 workers are ready, and 1 must be"),
    ],
)
def test_who_is_ready(board: Board, change: dict[str, object], ready: int, reason: str) -> None:
    for serial in range(1, ready + 1):
        worker(board, serial)
    replace(NOTICE, **change).write(board.path)  # type: ignore[arg-type]

    assert unready(look(board)) == reason


def test_a_master_that_is_late(board: Board) -> None:
    worker(board, 1)
    words_ = board.master.words
    words_[layout.BEAT] = int(100e9)
    words_[layout.EXTENDED] = int(130e9)

    late, fine = look(board, 130 + OVERDUE + 1), look(board, 130 + OVERDUE - 1)
    words_[layout.EXTENDED] = 0
    idle = look(board, 9999)

    assert late.overdue == OVERDUE + 1
    assert unready(late) == "the master has been silent for 11 s longer than it said"
    assert (fine.overdue, idle.overdue) == (0.0, 0.0)


def test_a_board_without_a_notice_or_none_at_all(tmp_path: Path, board: Board) -> None:
    (board.path / "notice").unlink()
    with pytest.raises(FileNotFoundError):
        look(board)
    with pytest.raises(FileNotFoundError):
        Watcher(tmp_path / "gone").look(0.0)


# --- The screen ---------------------------------------------------------------------------------


def test_the_screen(board: Board) -> None:
    slot = worker(board, 1)
    serve(slot, 10)
    slot.words[layout.LINES_LOST] = 3
    serve(worker(board, 2), 2, status=500, microseconds=3_000_000)
    outcome = Outcome("rolled_back", 0, "worker 4 exited with status 3\nmore", 4900.0)
    death = Death(9, 77, "signal", "was killed by SIGSEGV", 4000.0)
    replace(NOTICE, outcome=outcome, deaths=(death,)).write(board.path)

    text = "\n".join(words.screen(look(board), now=5000.0))

    assert "shop.wsgi: serving, 2 of 2 workers ready, 0 busy" in text
    assert "settings: /etc/shop.toml" in text
    assert "the last reload was rolled back 1 min 40 s ago: worker 4 exited with status 3\n" in text
    assert "12 requests, - per second, 2 failed (5xx)" in text
    assert "\n3 lines of the logs could not be written\n" in text
    assert "16 min 40 s ago  worker 9 (pid 77): was killed by SIGSEGV" in text


def test_columns_line_up() -> None:
    lines = words.table(
        ("worker", "state", "serving"), [("1", "serving", ""), ("10", "x", "GET /")]
    )

    assert lines == ["worker  state    serving", "     1  serving", "    10  x        GET /"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (59.9, "59 s"),
        (60, "1 min"),
        (3700, "1 h 1 min"),
        (90000, "1 d 1 h"),
        (-1, "0 s"),
    ],
)
def test_spans(seconds: float, text: str) -> None:
    assert words.span(seconds) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "-"), (0.0000124, "12 us"), (0.0012, "1.2 ms"), (0.25, "250 ms"), (12.34, "12.3 s")],
)
def test_durations(seconds: float | None, text: str) -> None:
    assert words.duration(seconds) == text


# --- Metrics ------------------------------------------------------------------------------------


def metrics(board: Board) -> dict[str, float]:
    _, text = exposition(look(board), "", board.path)
    lines = [line for line in text.decode().splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}


def test_metrics_count_what_the_board_counts(board: Board) -> None:
    serve(worker(board, 1), 10, microseconds=1000)
    serve(worker(board, 2), 3, status=503, microseconds=90_000_000)
    board.count_death("out of memory")

    found = metrics(board)

    assert found['forkmaster_responses_total{code="2xx"}'] == 10
    assert found['forkmaster_responses_total{code="5xx"}'] == 3
    assert found["http_server_request_duration_seconds_count"] == 13
    assert found["http_server_request_duration_seconds_sum"] == pytest.approx(270.01)
    assert found['http_server_request_duration_seconds_bucket{le="0.000524288"}'] == 0
    assert found['http_server_request_duration_seconds_bucket{le="0.001048576"}'] == 10
    assert found['http_server_request_duration_seconds_bucket{le="68.719476736"}'] == 10
    assert found['http_server_request_duration_seconds_bucket{le="+Inf"}'] == 13
    assert found['forkmaster_exits_total{cause="out_of_memory"}'] == 1
    assert found['forkmaster_workers{state="serving"}'] == 2
    assert found['forkmaster_info{app="shop.wsgi",python="3.13.1",version="1.2"}'] == 1


def test_buckets_never_decrease(board: Board) -> None:
    slot = worker(board, 1)
    for microseconds in (1, 300, 5000, 70_000, 2_000_000, 500_000_000):
        serve(slot, 3, microseconds=microseconds)

    found = metrics(board)

    counts = [value for name, value in found.items() if "_bucket" in name]
    assert counts == sorted(counts)
    assert counts[-1] == 18


def test_the_number_of_series_does_not_grow(board: Board) -> None:
    worker(board, 1)
    before = set(metrics(board))

    for serial in range(2, 12):
        serve(worker(board, serial), 5)
    replace(NOTICE, generation=9, outcomes={"committed": 9}).write(board.path)

    assert set(metrics(board)) == before


def test_openmetrics_for_those_who_ask(board: Board) -> None:
    accept = "application/openmetrics-text; version=1.0.0"
    content_type, text = exposition(look(board), accept, board.path)

    assert content_type.startswith("application/openmetrics-text")
    assert text.endswith(b"# EOF\n")


# --- The application ----------------------------------------------------------------------------


def answer(board: Board, path: str) -> tuple[str, str]:
    found = Application(board.path).answer(path, "")
    return found.status.partition(" ")[0], found.body.decode()


def test_incidents_are_in_the_status_with_their_stacks(board: Board, tmp_path: Path) -> None:
    folder = tmp_path / "incidents"
    folder.mkdir()
    for second in range(12):
        record = {"summary": f"incident {second}", "stacks": ["File x"]}
        path = folder / f"incident-20260101T0000{second:02}.000-worker-1.json"
        path.write_text(json.dumps(record))
    (folder / "incident-9.json").write_text("half a reco")
    replace(NOTICE, incidents=str(folder)).write(board.path)

    found = json.loads(answer(board, "/status.json")[1])

    assert [each["summary"] for each in found["incidents"]][:2] == ["incident 11", "incident 10"]
    assert found["incidents"][0]["stacks"] == ["File x"]


def test_incidents_that_are_not_ours_to_read(tmp_path: Path) -> None:
    assert Incidents().newest(tmp_path / "gone", 5) == []


def test_a_board_that_is_gone_is_no_error(board: Board) -> None:
    (board.path / "notice").unlink()

    assert answer(board, "/readyz")[0] == "503"
    assert answer(board, "/metrics")[0] == "503"
    assert answer(board, "/")[0] == "200"
    assert answer(board, "/elsewhere")[0] == "404"

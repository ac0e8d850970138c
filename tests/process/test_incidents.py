"""A worker that hangs or dies leaves one record: in the log, and as JSON."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from forkmaster.board.reader import read_board
from tests.conftest import Serve
from tests.process.harness import Kind, Server, request_bytes, wait_for


def incidents_in(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted(folder.glob("incident-*.json"))]


def the_incident(folder: Path) -> dict[str, Any]:
    """The only one, as soon as it is there."""
    wait_for(lambda: incidents_in(folder), what="an incident")
    (incident,) = incidents_in(folder)
    return incident


def deaths(server: Server) -> dict[str, int]:
    (board,) = server.board_folder.iterdir()
    return {cause: count for cause, count in read_board(board).deaths.items() if count}


def test_a_hang_is_one_record_written_before_the_worker_is_ended(
    serve: Serve, kind: Kind, tmp_path: Path
) -> None:
    if kind.name == "threaded":
        pytest.skip("its loop runs on while a thread hangs")
    server = serve(*kind.arguments, "-t", "1", "--incident-dir", str(tmp_path / "i"), kind.app)
    server.get("/pid")
    server.expect(r"worker 1 \(pid \d+\) sent no heartbeat for .*, serving .*GET /block")

    if kind.name == "asgi":
        server.send(request_bytes("/slow?40"))
        server.wait_until_running(target="/slow")
    server.send(request_bytes("/block?60"))
    server.wait_until_ready(2)
    incident = the_incident(tmp_path / "i")

    assert incident["cause"] == "timeout"
    assert "(timeout 1 s)" in incident["reason"]
    assert incident["in_flight"][-1]["request"] == "GET /block?60"
    assert incident["in_flight"][-1]["client"].startswith("127.0.0.1:")
    assert incident["recent"][0]["request"] == "GET /pid"
    assert incident["condition"]["doing"].startswith("asleep in")
    assert incident["condition"]["private"] > 1 << 20
    assert any("_echo.py" in line for line in incident["stacks"])
    if kind.name == "asgi":  # the other requests, which wait for the loop
        assert any("(GET /slow?40)" in line for line in incident["stacks"])
    server.wait_for_line(r"worker 1 \(pid \d+\) exited")
    record = server.log.partition("worker 1 stood here:")[2].partition("[INFO]")[0]
    assert "_echo.py" in record
    server.wait_for_line(r"worker 1 \(pid \d+\) (exited with status 1|was killed)")
    assert deaths(server) == {"timeout": 1}


def test_c_code_that_holds_the_gil_is_named_too(serve: Serve, kind: Kind, tmp_path: Path) -> None:
    app = tmp_path / "endless.py"
    app.write_text(
        """
import itertools

def endless():
    sum(itertools.repeat(0))

def wsgi(environ, start_response):
    endless()

async def asgi(scope, receive, send):
    if scope["type"] != "http":
        raise NotImplementedError
    endless()
"""
    )
    called = "endless:asgi" if kind.name == "asgi" else "endless:wsgi"
    server = serve(*kind.arguments, "-t", "1", "--kill-timeout", "1", called, cwd=tmp_path)
    server.wait_until_ready()
    # No handler of Python's runs in it, so SIGABRT is not enough.
    server.expect(
        r"worker 1 \(pid \d+\) sent no heartbeat for .*, serving GET /gil",
        "is still there .* sending SIGKILL",
        "worker 1 .*was killed by SIGKILL",
    )

    server.send(request_bytes("/gil"))
    server.wait_for_line("worker 1 .*was killed by SIGKILL")

    server.wait_for_line(r"endless\.py.*line 5 in endless")
    assert server.wait_until_ready(2)


def test_a_worker_that_was_stopped_is_recorded_without_stacks(serve: Serve, tmp_path: Path) -> None:
    server = serve("-t", "1", "--kill-timeout", "1", "--incident-dir", str(tmp_path), "wsgi_echo")
    server.wait_until_ready()
    server.expect(r"worker 1 .*sent no heartbeat", r"worker 1 .*sending SIGKILL")

    os.kill(server.workers()[0], signal.SIGSTOP)
    server.wait_until_ready(2)
    server.wait_for_line(r"worker 1 \(pid \d+\) was killed by SIGKILL")
    incident = the_incident(tmp_path)

    assert incident["condition"]["doing"] == "stopped by a signal"
    assert incident["stacks"] == ["its stacks could not be read: it does not run"]


def test_a_sudden_death_names_the_last_requests(serve: Serve, kind: Kind, tmp_path: Path) -> None:
    server = serve(*kind.arguments, "--incident-dir", str(tmp_path), kind.app).wait_until_ready()
    server.get("/pid")
    server.send(request_bytes("/slow?30"))
    server.wait_until_running(target="/slow")
    server.expect(r"worker 1 \(pid \d+\) was killed by SIGSEGV, serving GET /slow\?30")

    os.kill(server.workers()[0], signal.SIGSEGV)
    server.wait_until_ready(2)
    incident = the_incident(tmp_path)

    assert incident["cause"] == "signal"
    assert incident["signal"] == "SIGSEGV"
    assert incident["in_flight"][0]["request"] == "GET /slow?30"
    assert incident["recent"][0]["request"] == "GET /pid"
    assert incident["condition"]["peak"] > 1 << 20
    assert any("_echo.py" in line for line in incident["stacks"]) == (kind.name != "asgi")
    assert deaths(server) == {"signal": 1}


def test_an_exit_inside_a_request_is_told_by_its_code(serve: Serve, tmp_path: Path) -> None:
    module = tmp_path / "leaves.py"
    module.write_text("import os\ndef application(environ, start_response):\n    os._exit(4)\n")
    server = serve("--pythonpath", str(tmp_path), "--incident-dir", str(tmp_path), "leaves")
    server.wait_until_ready()
    server.expect(r"worker 1 \(pid \d+\) exited with status 4, serving GET /now")

    server.send(request_bytes("/now"))
    server.wait_until_ready(2)

    assert the_incident(tmp_path)["cause"] == "exit code"
    assert deaths(server) == {"exit code": 1}


def test_what_outlives_the_grace_shows_where_it_stands(
    serve: Serve, kind: Kind, tmp_path: Path
) -> None:
    folder = ("--incident-dir", str(tmp_path))
    server = serve(*kind.arguments, *folder, "--graceful-timeout", "1", kind.app)
    server.wait_until_ready()
    server.send(request_bytes("/slow?30"))
    server.wait_until_running()
    server.expect(r"worker 1 .*did not stop within 1 s .*GET /slow\?30 .*sending SIGKILL")

    code = server.stop()

    assert code == 0
    assert the_incident(tmp_path)["cause"] == "timeout"


def test_a_slow_request_shows_its_stacks_once_and_goes_on(
    serve: Serve, kind: Kind, tmp_path: Path
) -> None:
    folder = ("--incident-dir", str(tmp_path))
    server = serve(*kind.arguments, *folder, "--slow-request", "0.3", kind.app)
    server.expect(r"\[WARNING\] worker 1 .*slow request .*GET /slow\?1\.5 .*its stacks follow")

    answer = server.get("/slow?1.5")

    assert answer.status == 200
    assert len(server.lines("slow request")) == 1
    assert "_echo.py" in server.log
    if kind.name == "asgi":
        assert server.lines(r"Task .*\(GET /slow\?1\.5\) \(most recent call first\)")
    assert incidents_in(tmp_path) == []


def test_an_ordinary_stop_is_no_incident(serve: Serve, kind: Kind, tmp_path: Path) -> None:
    folder = ("--incident-dir", str(tmp_path / "i"))
    server = serve(*kind.arguments, *folder, "-w", "2", kind.app).wait_until_ready(2)

    os.kill(server.workers()[0], signal.SIGTERM)
    server.wait_until_ready(3)

    assert deaths(server) == {"requested": 1}
    server.stop()
    assert incidents_in(tmp_path / "i") == []
    assert server.lines("nobody here asked it to")

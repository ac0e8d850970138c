"""The logs of a real server: a line for everything, whatever happens to whoever writes it."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Serve
from tests.process.harness import ROOT, Kind, Load, Server, request_bytes, wait_for


class Journal:
    """A log of JSON lines, being written."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def records(self) -> list[dict[str, Any]]:
        """Every line so far; the last may be half there."""
        text = self.path.read_text() if self.path.exists() else ""
        return [json.loads(line) for line in text.splitlines(keepends=True) if line[-1] == "\n"]

    def wait_for(self, target: str, **fields: Any) -> dict[str, Any]:
        """The line of the request for `target`, which must have these fields."""

        def found() -> list[dict[str, Any]]:
            return [each for each in self.records() if each["target"] == target]

        wait_for(found, what=f"a line of {target}")
        (line,) = found()
        assert {name: line[name] for name in fields} == fields
        return line


@pytest.fixture
def access_log(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "access.json")


def logs_json(log: Journal) -> tuple[str, ...]:
    """The settings for such an access log."""
    return ("--access-logfile", str(log.path), "--access-logformat", "json")


@pytest.fixture
def statsd() -> Iterator[socket.socket]:
    """Where metrics can be sent to."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(10)
        yield server


def messages(server: Server) -> list[str]:
    """What it logged so far, without time, pid and level, and without warnings."""
    return [found[1] for found in server.lines(r"\[INFO\] (.*)$")]


@pytest.mark.parametrize("preload", [(), ("--preload",)], ids=["each-loads", "preload"])
def test_the_first_lines_are_as_few_with_many_workers(
    serve: Serve, preload: tuple[str, ...]
) -> None:
    server = serve("-w", "7", *preload, "hello").wait_until_ready(7)
    first = messages(server)
    server.expect("was killed by SIGKILL")

    os.kill(server.workers()[0], signal.SIGKILL)
    server.wait_until_ready(8)
    later = messages(server)[len(first) :]

    assert len(first) <= 6
    assert re.fullmatch(r"ready in \d+ ms: 7 workers", first[-1])
    started, ready = later
    assert re.fullmatch(r"worker \d+ started \(pid \d+, generation 0\): .*", started)
    assert re.fullmatch(r"worker \d+ ready after .* s \(pid \d+\)", ready)


def test_a_start_that_fails_ends_with_its_reason_whatever_the_number_of_workers(
    serve: Serve,
) -> None:
    server = serve("-w", "7", "crash_on_boot")
    server.expect("worker . cannot boot", "worker . .* exited with status 3 before it was ready")
    server.tolerate("^  Traceback")

    code = server.wait()

    assert code == 3
    assert re.fullmatch(r"stopped: worker . exited with status 3 .*", messages(server)[-1])
    # The application, the workers, the address, and why it has stopped.
    assert len(messages(server)) == 4


def test_every_request_has_a_line_however_it_ends(
    serve: Serve, kind: Kind, access_log: Journal
) -> None:
    server = serve(
        *kind.arguments, *logs_json(access_log), "--access-log-skip", "/healthz", kind.app
    )
    server.wait_until_ready()
    server.expect("raised ValueError", "was killed by SIGKILL")

    server.get("/healthz")
    server.get("/answered", **{"X-Request-Start": f"t={time.time() - 5:.3f}", "X-Request-Id": "r1"})
    server.get("/raise")
    server.send(b"GET /refused HTTP/1.1\r\n\r\n")
    half = server.send(b"POST /half HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nabc")
    half.shutdown(socket.SHUT_WR)
    for target in ("/answered", "/raise", "/refused", "/half"):
        access_log.wait_for(target)
    server.send(request_bytes("/slow?600"))
    server.wait_until_running(target="/slow")
    os.kill(server.workers()[0], signal.SIGKILL)

    access_log.wait_for("/slow?600", status=502, ending="cut_off", client="127.0.0.1", worker=1)
    answered = access_log.wait_for("/answered", status=200, ending=None, request_id="r1")
    assert 4 < answered["queued"] < 60
    assert (answered["worker"], answered["generation"]) == (1, 0)
    access_log.wait_for("/raise", status=500, ending=None)
    access_log.wait_for("/refused", status=400, ending="refused", protocol="HTTP/1.1")
    access_log.wait_for("/half", status=400, ending="client_left", method="POST")
    assert len(access_log.records()) == 5


def metrics_in(datagram: bytes) -> list[str]:
    return [line.partition(":")[0] for line in datagram.decode().split("\n")]


def test_statsd_is_told_of_requests_messages_and_workers(
    serve: Serve, kind: Kind, statsd: socket.socket
) -> None:
    port = statsd.getsockname()[1]
    server = serve(
        *kind.arguments,
        *("--statsd-host", f"127.0.0.1:{port}", "--statsd-prefix", "shop"),
        *("--dogstatsd-tags", "env:test", "--enable-backlog-metric", kind.app),
    )
    server.wait_until_ready()
    server.expect("raised ValueError")

    server.get("/pid")
    server.get("/raise")

    wanted = {
        "shop.gunicorn.workers:1|g|#env:test",
        "shop.gunicorn.backlog:0|h|#env:test",
        "shop.gunicorn.requests:1|c|@1.0|#env:test",
        "shop.gunicorn.request.status.200:1|c|@1.0|#env:test",
        "shop.gunicorn.request.status.500:1|c|@1.0|#env:test",
        "shop.gunicorn.log.exception:1|c|@1.0|#env:test",
    }
    seen: set[str] = set()
    while not wanted <= seen:
        seen |= set(statsd.recv(9999).decode().split("\n"))
    assert any(line.startswith("shop.gunicorn.request.duration:") for line in seen)


@pytest.mark.lab
def test_both_logs_can_be_json(serve: Serve, kind: Kind, access_log: Journal) -> None:
    server = serve(*kind.arguments, *logs_json(access_log), "--log-format", "json", kind.app)
    wait_for(lambda: '"message": "ready in' in server.log)

    server.get('/raise?"\n'.replace("\n", "%0A").replace('"', "%22"))
    wait_for(lambda: "the application raised ValueError" in server.log)

    records = [json.loads(line) for line in server.log.splitlines()]
    (failure,) = [each for each in records if each["level"] == "error"]
    assert failure["exception"].endswith("ValueError: raised before start_response") or (
        failure["exception"].endswith("ValueError: raised before http.response.start")
    )
    assert (failure["worker"], failure["generation"]) == (1, 0)
    assert failure["pid"] in server.workers()
    ready = next(each for each in records if each["message"].startswith("ready in"))
    assert (ready["worker"], ready["pid"]) == (None, server.pid)


@pytest.mark.lab
def test_an_access_log_without_a_reader_stops_no_request_and_is_counted(
    serve: Serve, kind: Kind, tmp_path: Path
) -> None:
    pipe = tmp_path / "access.pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDWR)
    server = serve(*kind.arguments, "--access-logfile", str(pipe), kind.app).wait_until_ready()
    server.get("/pid")
    assert b"GET /pid" in os.read(reader, 9999)

    os.close(reader)
    statuses = [server.get("/pid").status for _ in range(3)]

    assert statuses == [200, 200, 200]
    wait_for(lambda: server.board().totals.counters["lines_lost"] == 3, what="3 lines are lost")


@pytest.mark.lab
def test_a_disk_that_is_full_stops_no_request_and_is_counted(
    serve: Serve, kind: Kind, tmp_path: Path
) -> None:
    full = ("--access-logfile", "/dev/full", "--error-logfile", "/dev/full")
    server = serve(*kind.arguments, *full, kind.app)

    statuses = [server.get("/pid").status for _ in range(4)]

    assert statuses == [200] * 4
    # Four of the start: the application, the workers, the address, ready.
    wait_for(lambda: server.board().totals.counters["lines_lost"] >= 4 + 4)


@pytest.mark.lab
def test_a_request_that_takes_too_long_has_a_line(
    serve: Serve, kind: Kind, access_log: Journal
) -> None:
    server = serve(
        *kind.arguments, *logs_json(access_log), "--request-timeout", "1", kind.app
    ).wait_until_ready()
    server.expect(r"took longer than request_timeout|served one request for")

    server.send(request_bytes("/slow?600"))

    line = access_log.wait_for("/slow?600", status=504, ending="timed_out")
    assert line["duration"] >= 1


@pytest.mark.lab
def test_a_worker_that_hangs_has_a_line(serve: Serve, access_log: Journal) -> None:
    server = serve(*logs_json(access_log), "--timeout", "1", "wsgi_echo").wait_until_ready()
    server.expect("sent no heartbeat")

    server.send(request_bytes("/slow?600"))

    access_log.wait_for("/slow?600", status=504, ending="timed_out", protocol="HTTP/1.1")


@pytest.mark.lab
def test_a_client_that_leaves_has_a_line(serve: Serve, kind: Kind, access_log: Journal) -> None:
    server = serve(*kind.arguments, *logs_json(access_log), kind.app).wait_until_ready()

    raw = server.send(request_bytes("/stream?300"))
    assert raw.recv(9999).startswith(b"HTTP/1.1 200 OK")
    raw.close()

    access_log.wait_for("/stream?300", status=200, ending="client_left")


@pytest.mark.lab
def test_a_head_that_takes_too_long_has_a_line(
    serve: Serve, kind: Kind, access_log: Journal
) -> None:
    server = serve(
        *kind.arguments, *logs_json(access_log), "--header-timeout", "1", kind.app
    ).wait_until_ready()

    server.send(b"GET /late HTTP/1.1\r\nHost: x\r\n")

    access_log.wait_for("/late", status=408, ending="timed_out")


@pytest.mark.lab
def test_a_quick_stop_leaves_a_line_of_what_it_cuts_off(
    serve: Serve, kind: Kind, access_log: Journal
) -> None:
    server = serve(*kind.arguments, *logs_json(access_log), kind.app).wait_until_ready()
    server.send(request_bytes("/slow?600"))
    server.wait_until_running()

    server.stop(signal.SIGINT)

    access_log.wait_for("/slow?600", status=502, ending="cut_off")


@pytest.mark.lab
@pytest.mark.skipif(not shutil.which("logrotate", path="/usr/sbin:/usr/bin"), reason="logrotate")
def test_a_real_logrotate_loses_no_line(serve: Serve, kind: Kind, tmp_path: Path) -> None:
    folder = tmp_path / "logs"
    folder.mkdir(mode=0o755)
    pidfile = tmp_path / "pid"
    log = folder / "access.log"
    server = serve(
        *kind.arguments,
        *("-w", "2", "--pid", str(pidfile), "--access-logfile", str(log)),
        *("--error-logfile", str(folder / "error.log"), "--access-logformat", "%(U)s", kind.app),
    )
    wait_for(pidfile.exists)
    server.get("/")
    rule = (ROOT / "conf" / "logrotate").read_text().replace("/var/log/forkmaster", str(folder))
    # Neither the user nor the unit is there: its signal goes to the same process another way.
    rule = re.sub(r"systemctl kill .*", f"kill -USR1 $(cat {pidfile})", rule)
    lines = [line for line in rule.splitlines() if not line.strip().startswith("su ")]
    config = tmp_path / "rotate"
    config.write_text("\n".join(lines) + "\n")
    config.chmod(0o644)

    with Load(server, "/a-line", clients=2) as load:
        for _ in range(3):
            load.wait_for_answers(100)
            subprocess.run(
                ["logrotate", "--force", "--state", str(tmp_path / "state"), str(config)],
                check=True,
                env={**os.environ, "PATH": f"{os.environ['PATH']}:/usr/sbin"},
            )
        load.wait_for_answers(100)

    assert load.lost == []
    written = load.answered
    wait_for(lambda: lines_in(folder, "access.log*") == written, what=f"{written} lines")
    wait_for(lambda: log.exists() and "/a-line" in log.read_text())
    server.stop()


def lines_in(folder: Path, pattern: str) -> int:
    """How often the load has been written down, in the log and all that were rotated away."""
    return sum(read(path).count("/a-line\n") for path in folder.glob(pattern))


def read(path: Path) -> str:
    if path.suffix == ".gz":
        return subprocess.run(
            ["gzip", "-dc", str(path)], check=True, capture_output=True, text=True
        ).stdout
    return path.read_text()


@pytest.mark.lab
def test_no_line_is_broken_by_another_process(serve: Serve, tmp_path: Path) -> None:
    log = tmp_path / "access.log"
    long = "x" * 3000  # with its line, less than a page of a pipe
    server: Server = serve(
        *("-w", "4", "--access-logfile", str(log), "--access-logformat", "<%(q)s>"),
        *("--limit-request-line", "4094", "wsgi_echo"),
    ).wait_until_ready(4)

    with Load(server, f"/pid?{long}", clients=4) as load:
        load.wait_for_answers(400)

    wait_for(lambda: log.read_text().count("\n") >= load.answered)
    assert set(log.read_text().splitlines()) == {f"<{long}>"}


@pytest.fixture(params=["udp", "tcp", "unix", "unix#stream"])
def syslogd(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, socket.socket]]:
    """What to call a syslog daemon, and its socket."""
    scheme, _, stream = request.param.partition("#")
    is_stream = scheme == "tcp" or bool(stream)
    family = socket.AF_UNIX if scheme == "unix" else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM if is_stream else socket.SOCK_DGRAM) as daemon:
        daemon.bind(str(tmp_path / "log") if scheme == "unix" else ("127.0.0.1", 0))
        daemon.settimeout(10)
        if is_stream:
            daemon.listen()
        where = daemon.getsockname()
        address = where if scheme == "unix" else f"127.0.0.1:{where[1]}"
        yield f"{scheme}://{address}{'#stream' if stream else ''}", daemon


@pytest.mark.lab
def test_syslog_gets_both_logs(serve: Serve, syslogd: tuple[str, socket.socket]) -> None:
    address, daemon = syslogd
    server = serve(
        *("--log-syslog", "--log-syslog-to", address, "--log-syslog-facility", "local3"),
        *("--log-syslog-prefix", "shop", "--access-logformat", "%(r)s", "wsgi_echo"),
    )
    server.get("/a-line")

    ready = rb"<158>forkmaster\.shop\.error: \[\d+\] ready in \d+ ms: 1 worker"
    line = rb"<158>forkmaster\.shop\.access: \[\d+\] GET /a-line HTTP/1\.1"
    if daemon.type == socket.SOCK_DGRAM:
        heard(daemon, ready, line)  # in any order
        return
    for wanted in (ready, line):  # a connection for each log
        with daemon.accept()[0] as source:
            heard(source, wanted)


def heard(sock: socket.socket, *wanted: bytes) -> None:
    """Returns when all that is wanted has come."""
    sock.settimeout(60)
    seen = b""
    while not all(re.search(each, seen) for each in wanted):
        seen += sock.recv(1 << 16) + b"\0"

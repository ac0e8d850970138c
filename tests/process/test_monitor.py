"""The monitor of a real master."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tests.process.everybody import NOBODY, PYTHON
from tests.process.harness import PATIENCE, Kind, Load, Server, request_bytes, wait_for
from tests.process.watching import Monitored

Watch = Callable[..., Monitored]


def test_probes_of_a_server_that_is_ready(monitored: Watch, kind: Kind) -> None:
    site = monitored(*kind.arguments, "-w", "2", kind.app)
    site.server.wait_until_ready(2)

    for path in ("/livez", "/readyz", "/startupz"):
        assert site.get(path) == (200, "ok\n")


def test_what_it_shows_is_what_happened(monitored: Watch, kind: Kind) -> None:
    site = monitored(*kind.arguments, "-w", "2", kind.app)
    site.server.wait_until_ready(2)
    for _ in range(7):
        site.server.get("/pid")
    site.server.expect("raised ValueError|Exception in ASGI application")
    assert site.server.get("/raise").status == 500
    wait_for(lambda: site.status()["requests"] == 8)

    status = site.status()

    assert status["counters"]["status_2xx"] == 7
    assert status["counters"]["status_5xx"] == 1
    assert sum(each["requests"] for each in status["workers"]) == 8
    assert {each["kind"] for each in status["workers"]} == {kind.name}
    assert {each["pid"] for each in status["workers"]} == set(site.server.workers())
    assert all(each["memory"] > 1 << 20 for each in status["workers"])
    assert status["app"] == kind.app
    assert status["state"] == "serving"
    assert [each["limit"] for each in status["listeners"]] == [128]
    assert site.metric("http_server_request_duration_seconds_count") == 8


def test_counters_never_go_back_whatever_dies(monitored: Watch) -> None:
    site = monitored("-w", "2", "wsgi_echo")
    site.server.wait_until_ready(2)
    site.server.expect("was killed by SIGKILL")
    for _ in range(20):
        site.server.get("/pid")
    wait_for(lambda: site.status()["requests"] == 20)

    os.kill(site.server.workers()[0], signal.SIGKILL)
    site.server.wait_for_line("was killed by SIGKILL")
    site.server.wait_until_ready(3)
    status = site.status()

    assert status["requests"] == 20
    assert status["died"]["signal"] == 1
    assert status["deaths"][0]["text"].startswith("was killed by SIGKILL")
    assert 'forkmaster_exits_total{cause="signal"} 1.0' in site.get("/metrics")[1]


def test_it_answers_while_every_worker_is_busy(monitored: Watch) -> None:
    site = monitored("-w", "2", "wsgi_echo")
    site.server.wait_until_ready(2)
    site.status()  # its first answer imports what it needs
    busy = [site.server.send(request_bytes("/slow?30")) for _ in range(3)]
    wait_for(lambda: site.status()["busy"] == 2)

    taken = []
    for _ in range(20):
        start = time.monotonic()
        assert site.get("/readyz")[0] == 200
        taken.append(time.monotonic() - start)
    status = site.status()

    assert sorted(taken)[10] < 0.05
    assert [each["current"][0]["target"] for each in status["workers"]] == ["/slow?30"] * 2
    assert status["listeners"][0]["waiting"] == 1
    for raw in busy:
        raw.close()
    site.server.stop(signal.SIGQUIT)


def test_bad_clients_do_not_stall_it(monitored: Watch) -> None:
    site = monitored("wsgi_echo")
    site.server.wait_until_ready()
    held = [socket.create_connection(("127.0.0.1", site.port)) for _ in range(30)]
    for number, raw in enumerate(held):
        raw.sendall(
            [b"", b"GET /metr", b"GET /status.json HTTP/1.1\r\nHost: x\r\n\r\n"][number % 3]
        )

    assert site.get("/livez") == (200, "ok\n")
    assert site.get("/readyz", "POST") == (405, "read-only\n")
    assert site.get("/nothing")[0] == 404
    for raw in held:
        raw.close()


def test_a_server_that_starts_is_not_ready(monitored: Watch, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    site = monitored("slow_boot:application", env={"SLOW_BOOT_UNTIL": str(gate)})

    wait_for(lambda: site.get("/readyz")[0] == 503)
    code, reason = site.get("/startupz")

    assert (code, reason) == (503, "the server starts: 0 of 1 workers are ready\n")
    assert site.get("/livez")[0] == 200
    gate.touch()
    wait_for(lambda: site.get("/readyz")[0] == 200)


def test_a_server_that_is_to_stop_serves_on_while_it_is_not_ready(
    monitored: Watch, kind: Kind
) -> None:
    site = monitored(*kind.arguments, "--shutdown-delay", "600", kind.app)
    site.server.wait_until_ready()

    site.server.send_signal(signal.SIGTERM)

    site.server.wait_for_line("serving on for 600 s")
    wait_for(lambda: site.get("/readyz")[0] == 503)
    assert site.get("/livez")[0] == 200
    assert site.server.get("/pid").status == 200  # on a new connection
    assert site.server.stop(signal.SIGINT) == 0


def test_the_shutdown_delay_ends_by_itself(monitored: Watch) -> None:
    site = monitored("--shutdown-delay", "0.2", "wsgi_echo")
    site.server.wait_until_ready()

    assert site.server.stop() == 0


def test_a_server_with_too_few_workers_is_not_ready(monitored: Watch) -> None:
    site = monitored("-w", "2", "--ready-workers", "2", "wsgi_echo")
    site.server.wait_until_ready(2)
    wait_for(lambda: site.get("/readyz")[0] == 200)

    site.server.send_signal(signal.SIGWINCH)

    wait_for(lambda: site.get("/readyz") == (503, "0 workers are ready, and 1 must be\n"))
    assert site.get("/startupz")[0] == 200


def test_a_server_that_drains_is_not_ready(monitored: Watch) -> None:
    site = monitored("wsgi_echo")
    site.server.wait_until_ready()
    slow = site.server.send(request_bytes("/slow?2", "Connection: close"))
    wait_for(lambda: site.status()["busy"] == 1)

    site.server.send_signal(signal.SIGTERM)

    wait_for(lambda: site.get("/readyz") == (503, "the server stops\n"))
    assert site.get("/livez")[0] == 200
    assert site.server.wait() == 0
    slow.close()


def test_a_master_that_stands_still_is_seen(monitored: Watch) -> None:
    site = monitored("--timeout", "2", "wsgi_echo")
    site.server.wait_until_ready()
    site.server.send_signal(signal.SIGSTOP)

    wait_for(lambda: site.get("/livez")[0] == 503)
    code, reason = site.get("/readyz")
    site.server.send_signal(signal.SIGCONT)

    assert code == 503
    assert reason.startswith("the master has been silent for ")
    wait_for(lambda: site.get("/readyz")[0] == 200)


def test_a_monitor_that_is_killed_comes_back(monitored: Watch) -> None:
    site = monitored("wsgi_echo")
    site.server.wait_until_ready()
    site.server.expect(r"monitor \d+ .* was killed by SIGKILL")
    assert site.get("/livez") == (200, "ok\n")
    (monitor,) = monitors(site.server)

    os.kill(monitor, signal.SIGKILL)

    site.server.wait_for_line(r"monitor \d+ ready")
    assert site.get("/livez") == (200, "ok\n")
    assert site.server.get("/pid").status == 200


def test_a_reload_is_seen_without_a_gap(monitored: Watch) -> None:
    site = monitored("-w", "2", "wsgi_echo")
    site.server.wait_until_ready(2)

    with Load(site.server) as load:
        site.server.send_signal(signal.SIGHUP)
        codes = set()
        while not site.server.lines("reload done"):
            codes.add(site.get("/readyz")[0])
        site.server.wait_for_line(r"monitor \d+ ready")
        load.wait_for_answers(10)

    assert codes == {200}
    assert load.lost == []
    status = site.status()
    assert status["outcomes"] == {"committed": 1}
    assert status["generation"] == 1


def test_the_page_is_whole_and_allows_nothing_else(monitored: Watch) -> None:
    site = monitored("wsgi_echo")
    connection = http.client.HTTPConnection("127.0.0.1", site.port, timeout=PATIENCE)

    connection.request("GET", "/")
    answer = connection.getresponse()
    page = answer.read().decode()

    policy = answer.headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe" not in policy
    assert "/* page." not in page
    assert "http" not in page.replace("http://www.w3.org/2000/svg", "")
    connection.close()


@pytest.mark.skipif(PYTHON is None, reason="needs root, and a Python that nobody may run")
def test_it_sees_the_board_as_the_user_of_the_workers(monitored: Watch) -> None:
    assert PYTHON is not None
    python, environ = PYTHON
    site = monitored("--user", "nobody", "wsgi_echo", python=python, env=environ)
    site.server.wait_until_ready()
    wait_for(lambda: site.get("/readyz")[0] == 200)

    (monitor,) = monitors(site.server)
    (board,) = site.server.board_folder.iterdir()

    assert psutil.Process(monitor).uids().effective == NOBODY.pw_uid
    assert board.stat().st_mode & 0o777 == 0o750
    assert site.status()["workers"][0]["memory"] > 1 << 20


def test_an_idle_master_uses_no_processor(monitored: Watch) -> None:
    site = monitored("wsgi_echo")
    site.server.wait_until_ready()
    assert site.get("/livez") == (200, "ok\n")
    master = psutil.Process(site.server.pid)

    before = master.cpu_times().user + master.cpu_times().system
    time.sleep(1.0)  # of idleness: there is nothing to wait for
    after = master.cpu_times().user + master.cpu_times().system

    assert after - before < 0.2


def monitors(server: Server) -> list[int]:
    """The pids of the monitors."""
    children = psutil.Process(server.pid).children()
    return [child.pid for child in children if ": monitor" in " ".join(child.cmdline())]

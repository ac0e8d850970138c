"""Commands to a real master, as a person or a deploy script gives them."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from forkmaster.cli import masters
from tests.conftest import Serve
from tests.process.harness import Load, Server, request_bytes, wait_for

HELLO = "def application(environ, start):\n    start('200 OK', [])\n    return [b'%s\\n']\n"


def command(server: Server | Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """What `forkmaster ARGUMENTS` answers about this server."""
    folder = server.board_folder if isinstance(server, Server) else server
    return subprocess.run(
        [sys.executable, "-m", "forkmaster", *arguments, "--worker-tmp-dir", str(folder)],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        cwd="/",
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )


def outcome(done: subprocess.CompletedProcess[str]) -> tuple[int, str, str]:
    """Exit code, standard output, standard error."""
    return done.returncode, done.stdout, done.stderr


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder with an application that a test can break."""
    (tmp_path / "site.py").write_text(HELLO % "one")
    (tmp_path / "shop.py").write_text(HELLO % "one")
    return tmp_path


def test_reload_waits_until_the_new_code_serves_alone(serve: Serve, site: Path) -> None:
    server = serve("-w", "2", "shop", cwd=site).wait_until_ready(2)
    (site / "shop.py").write_text(HELLO % "two")

    done = command(server, "reload")

    assert outcome(done) == (0, "generation 1 serves alone\n", "")
    assert {server.get("/").body for _ in range(8)} == {b"two\n"}


def test_reload_of_broken_code_fails_and_the_old_serves_on(serve: Serve, site: Path) -> None:
    server = serve("-w", "2", "shop", cwd=site).wait_until_ready(2)
    (site / "shop.py").write_text("import nothing_of_that_name\n")
    server.expect(r"cannot boot: ", "exited with status 3 before it was ready", "rolled back")

    done = command(server, "reload")

    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("forkmaster: reload rolled back: worker 4 exited with status 3")
    assert server.get("/").body == b"one\n"


def test_reload_of_a_broken_configuration_fails(serve: Serve, site: Path) -> None:
    (site / "conf.py").write_text("workers = 2\n")
    server = serve("-c", "conf.py", "shop", cwd=site).wait_until_ready(2)
    (site / "conf.py").write_text("workers = -2\n")
    server.expect("reload refused: ")

    done = command(server, "reload")

    assert done.returncode == 1
    assert done.stderr.startswith("forkmaster: reload refused: workers: ")
    assert len(server.workers()) == 2


def test_rollback_goes_back_to_the_workers_before(serve: Serve) -> None:
    server = serve("wsgi_echo").wait_until_ready()

    nothing = command(server, "rollback")
    command(server, "reload")
    done = command(server, "rollback")

    assert nothing.returncode == 1
    assert nothing.stderr == (
        "forkmaster: rollback refused: there is no generation to go back to\n"
    )
    assert outcome(done) == (0, "generation 0 serves alone\n", "")
    server.expect("refused: there is no generation to go back to")


def test_scale_waits_until_the_workers_are_ready(serve: Serve) -> None:
    server = serve("wsgi_echo").wait_until_ready()

    more = command(server, "scale", "3")
    at_three = server.times_ready()
    fewer = command(server, "scale", "1")

    assert outcome(more) == (0, "3 workers are ready\n", "")
    assert at_three == 3
    assert outcome(fewer) == (0, "1 worker is ready\n", "")
    server.wait_for_workers(1)


def test_recycle_loses_no_request(serve: Serve) -> None:
    server = serve("-w", "2", "wsgi_echo").wait_until_ready(2)
    before = set(server.workers())

    with Load(server) as load:
        done = command(server, "recycle", "all")
        load.wait_for_answers(50)

    assert outcome(done) == (0, "every worker was replaced\n", "")
    assert load.lost == []
    wait_for(lambda: not before & set(server.workers()))
    assert len(server.workers()) == 2


def test_stacks_show_where_a_worker_stands(serve: Serve) -> None:
    server = serve("wsgi_echo").wait_until_ready()
    slow = server.connect()
    slow.request("GET", "/slow?20")
    wait_for(lambda: "wsgi_echo.py" in command(server, "stacks").stdout)

    text = command(server, "stacks", "1").stdout
    as_json = json.loads(command(server, "stacks", "--json").stdout)

    assert text.startswith(f"worker 1 (pid {server.workers()[0]}) is asleep in ")
    assert "wsgi_echo.py" in text
    assert "forkmaster/worker/child.py" not in text
    assert [each["serial"] for each in as_json] == [1]
    slow.close()
    command(server, "stop", "--quick")


def test_reopen_goes_on_in_new_files(serve: Serve, tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    server = serve("--access-logfile", str(path), "asgi_echo").wait_until_ready()
    server.get("/pid")
    wait_for(lambda: "GET /pid" in path.read_text())
    path.rename(tmp_path / "access.log.1")

    done = command(server, "reopen")

    assert outcome(done) == (0, "the logs were reopened\n", "")
    wait_for(lambda: server.get("/pid") and path.exists() and "GET /pid" in path.read_text())


def test_loglevel_changes_what_master_and_workers_write(serve: Serve) -> None:
    server = serve("wsgi_echo").wait_until_ready()

    quiet = command(server, "loglevel", "error")
    command(server, "scale", "2")
    lines = len(server.lines("worker 2 started"))
    command(server, "loglevel", "INFO")
    command(server, "scale", "1")

    assert outcome(quiet) == (0, "messages of level error and above are written\n", "")
    assert lines == 0
    assert server.lines("surplus; sending SIGTERM")


def test_stop_returns_when_the_master_is_gone(serve: Serve) -> None:
    server = serve("-w", "2", "wsgi_echo").wait_until_ready(2)

    done = command(server, "stop")

    assert outcome(done) == (0, "stopped\n", "")
    assert server.process.wait(0.5) == 0
    assert list(server.board_folder.iterdir()) == []


def test_several_masters_are_listed(serve: Serve, tmp_path: Path) -> None:
    place = ("--worker-tmp-dir", str(tmp_path))
    first = serve("wsgi_echo", *place).wait_until_ready()
    second = serve("asgi_echo", *place).wait_until_ready()

    unclear = command(tmp_path, "scale", "2")
    clear = command(tmp_path, "scale", "2", "--master", str(second.pid))

    assert unclear.returncode == 1
    assert "2 masters are running; choose one of them:" in unclear.stderr
    assert f"--master {first.pid}" in unclear.stderr
    assert "serves asgi_echo on 127.0.0.1:" in unclear.stderr
    assert clear.returncode == 0
    second.wait_until_ready(2)


def test_no_master(tmp_path: Path) -> None:
    assert outcome(command(tmp_path, "reload")) == (
        1,
        "",
        f"forkmaster: no master is running with its board in {tmp_path}\n",
    )
    assert "there is no master with pid 7" in command(tmp_path, "stop", "--master", "7").stderr


def test_a_master_that_was_killed(serve: Serve) -> None:
    server = serve("wsgi_echo").wait_until_ready()
    server.tolerate("the master is gone; stopping")
    server.stop(signal.SIGKILL)

    done = command(server, "reload")

    assert done.returncode == 1
    assert f"master {server.pid} is not running: it was killed, and left " in done.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become another user")
def test_a_master_of_another_user(serve: Serve) -> None:
    server = serve("wsgi_echo").wait_until_ready()
    server.board_folder.chmod(0o755)

    os.seteuid(65534)
    try:
        with pytest.raises(masters.MasterError) as refused:
            masters.choose(None, server.board_folder)
    finally:
        os.seteuid(0)

    assert str(refused.value) == f"master {server.pid} is root's; run this command as root"


def test_a_master_that_stands_still(serve: Serve) -> None:
    server = serve("wsgi_echo").wait_until_ready()
    server.send_signal(signal.SIGSTOP)

    done = command(server, "scale", "2")
    server.send_signal(signal.SIGCONT)

    assert done.returncode == 1
    assert done.stderr == f"forkmaster: master {server.pid} does not answer\n"


def test_progress_is_shown_on_a_terminal(serve: Serve) -> None:
    server = serve("wsgi_echo").wait_until_ready()
    reader, writer = os.openpty()

    subprocess.run(
        [sys.executable, "-m", "forkmaster", "scale", "2"],
        stderr=writer,
        stdout=subprocess.DEVNULL,
        check=True,
        timeout=30,
        env={**os.environ, "FORKMASTER_WORKER_TMP_DIR": str(server.board_folder)},
    )

    shown = os.read(reader, 4096).decode()
    assert shown.splitlines() == [
        "worker 2 started (generation 0): missing",
        "worker 2 ready",
    ]
    os.close(reader)
    os.close(writer)


def test_status_shows_the_server_and_its_workers(serve: Serve) -> None:
    server = serve("-w", "2", "wsgi_echo").wait_until_ready(2)
    for _ in range(5):
        server.get("/pid")

    text = command(server, "status").stdout
    as_json = json.loads(command(server, "status", "--json").stdout)

    assert text.startswith("wsgi_echo: serving, 2 of 2 workers ready, 0 busy\n")
    assert "\n5 requests, " in text
    assert re.search(rf"listening on 127.0.0.1:{server.port}: 0 of 128 wait", text)
    assert all(f" {pid}  sync  serving " in text for pid in server.workers())
    assert as_json["requests"] == 5


def test_status_of_a_master_that_stands_still(serve: Serve) -> None:
    server = serve("wsgi_echo").wait_until_ready()
    wait_for(lambda: "wsgi_echo: serving" in command(server, "status").stdout, what="serving")
    server.send_signal(signal.SIGSTOP)

    done = command(server, "status")
    server.send_signal(signal.SIGCONT)

    assert done.stdout.startswith("wsgi_echo: serving, 1 of 1 workers ready")


def test_health_is_an_exit_code(serve: Serve) -> None:
    server = serve("wsgi_echo").wait_until_ready()

    healthy = command(server, "health")
    command(server, "scale", "0")
    ill = command(server, "health")

    assert outcome(healthy) == (0, "", "")
    assert outcome(ill) == (1, "", "forkmaster: 0 workers are ready, and 1 must be\n")


def test_incidents_tell_what_was_served_and_where_it_stood(serve: Serve) -> None:
    server = serve("--timeout", "1", "wsgi_echo").wait_until_ready()
    server.expect("sent no heartbeat")
    nothing = command(server, "incidents")
    slow = server.send(request_bytes("/slow?60"))
    server.wait_until_ready(2)

    text = command(server, "incidents").stdout
    (record,) = json.loads(command(server, "incidents", "--json").stdout)

    assert nothing.stdout == "nothing has happened\n"
    assert "sent no heartbeat for" in text
    assert "serving GET /slow?60 for" in text
    assert "wsgi_echo.py" in text
    assert record["cause"] == "timeout"
    slow.close()


def test_upgrade_waits_until_the_new_program_serves(serve: Serve) -> None:
    server = serve("-w", "2", "wsgi_echo").wait_until_ready(2)
    before = set(server.workers())

    with Load(server) as load:
        done = command(server, "upgrade")
        load.wait_for_answers(10)

    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"forkmaster \S+ serves, generation 1\n", done.stdout)
    assert load.lost == []
    assert server.process.poll() is None
    wait_for(lambda: not before & set(server.workers()))


def test_upgrade_to_what_cannot_serve_is_refused(serve: Serve, site: Path) -> None:
    (site / "conf.py").write_text("workers = 1\n")
    server = serve("-c", "conf.py", "shop", cwd=site).wait_until_ready()
    (site / "conf.py").write_text("workers = -1\n")
    server.expect("upgrade refused")

    done = command(server, "upgrade")

    assert done.returncode == 1
    assert done.stderr.startswith("forkmaster: upgrade refused: ")
    assert server.get("/").body == b"one\n"

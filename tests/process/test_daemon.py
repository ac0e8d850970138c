"""A server in the background: what the terminal sees, and what becomes of its pid file."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from tests.conftest import Serve
from tests.process.harness import APPS, OTHERS, PATIENCE, ROOT, is_gone, wait_for

Launch = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def pidfile(tmp_path: Path) -> Path:
    return tmp_path / "server.pid"


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as made:
        yield made


@pytest.fixture
def launch(tmp_path: Path, pidfile: Path, listener: socket.socket) -> Iterator[Launch]:
    """Runs `forkmaster -D`, and stops what it left in the background."""
    environ = {key: value for key, value in os.environ.items() if not OTHERS.fullmatch(key)}

    def run(*arguments: str, through: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "forkmaster", "-D", "-p", str(pidfile)]
        command += ["-b", f"fd://{listener.fileno()}", "--worker-tmp-dir", str(tmp_path)]
        return subprocess.run(
            [*through, *command, *arguments],
            pass_fds=[listener.fileno()],
            cwd=APPS,
            env={**environ, "PYTHONPATH": str(ROOT), "container": "tests"},
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )

    yield run
    if pidfile.exists():
        pid = int(pidfile.read_text())
        os.kill(pid, signal.SIGTERM)
        wait_for(lambda: is_gone(pid), what="the daemon is gone")


def get(listener: socket.socket) -> bytes:
    with socket.create_connection(listener.getsockname(), timeout=PATIENCE) as client:
        client.sendall(b"GET / HTTP/1.0\r\n\r\n")
        return b"".join(iter(lambda: client.recv(4096), b""))


def test_the_command_returns_when_the_server_is_ready(
    launch: Launch, tmp_path: Path, pidfile: Path, listener: socket.socket
) -> None:
    log = tmp_path / "error.log"

    done = launch("-w", "2", "--error-logfile", str(log), "hello")

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert re.search(r"ready in \d+ ms: 2 workers\n", log.read_text())
    assert get(listener).endswith(b"hello, world\n")


def test_the_daemon_has_no_terminal_and_no_session_of_its_own(
    launch: Launch, tmp_path: Path, pidfile: Path
) -> None:
    launch("--error-logfile", str(tmp_path / "error.log"), "hello")
    daemon = psutil.Process(int(pidfile.read_text()))

    everybody = [daemon, *daemon.children()]

    assert daemon.terminal() is None
    assert os.getsid(daemon.pid) not in (daemon.pid, os.getsid(0))
    for process in everybody:
        standard = [os.readlink(f"/proc/{process.pid}/fd/{fd}") for fd in range(3)]
        assert standard == ["/dev/null"] * 3


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (("-b", "unix:/nowhere/web.sock", "hello"), 1, "cannot bind unix:/nowhere/web.sock"),
        (("crash_on_boot",), 3, "worker 1 exited with status 3 before it was ready; see "),
        (("hello:nothing",), 4, "worker 1 exited with status 4 before it was ready; see "),
        (("--pid", "/nowhere/pid", "hello"), 1, "cannot write /nowhere/pid"),
    ],
)
def test_a_start_that_fails_is_told_at_the_terminal(
    launch: Launch,
    tmp_path: Path,
    pidfile: Path,
    arguments: tuple[str, ...],
    status: int,
    message: str,
) -> None:
    done = launch("--error-logfile", str(tmp_path / "error.log"), *arguments)

    assert done.returncode == status
    assert done.stderr.startswith(f"forkmaster: {message}")
    assert not pidfile.exists()


def test_a_daemon_without_a_log_is_warned(launch: Launch) -> None:
    done = launch("hello")

    assert done.returncode == 0
    assert "[WARNING] a daemon has no terminal to log to; set errorlog to a file" in done.stderr


def test_a_daemon_may_keep_its_output(launch: Launch, tmp_path: Path, pidfile: Path) -> None:
    output = tmp_path / "output"

    # A pipe that the daemon keeps would keep this test waiting for its end.
    shell = ("/bin/sh", "-c", f'exec "$@" > {output} 2>&1', "sh")
    done = launch("--enable-stdio-inheritance", "hello", through=shell)
    wait_for(lambda: "ready in" in output.read_text(), 5)

    assert done.returncode == 0
    assert "WARNING" not in output.read_text()


# --- The pid file, in the background or not ---------------------------------------------------


def test_a_pid_file_names_the_master_while_it_runs(serve: Serve, pidfile: Path) -> None:
    server = serve("-p", str(pidfile), "hello").wait_until_ready()

    before = pidfile.read_text()
    server.stop()

    assert before == f"{server.pid}\n"
    assert not pidfile.exists()


def test_a_stale_pid_file_is_replaced(serve: Serve, pidfile: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    pidfile.write_text(f"{dead.pid}\n")

    server = serve("-p", str(pidfile), "hello").wait_until_ready()

    assert pidfile.read_text() == f"{server.pid}\n"


def test_a_pid_file_of_a_living_process_stops_the_start(serve: Serve, pidfile: Path) -> None:
    pidfile.write_text(f"{os.getpid()}\n")

    server = serve("-p", str(pidfile), "hello")

    assert server.wait() == 1
    assert f"forkmaster: cannot write {pidfile}: it names pid {os.getpid()} (" in server.log
    assert not list(server.board_folder.iterdir())
    assert pidfile.read_text() == f"{os.getpid()}\n"


def test_a_pid_file_that_is_not_ours_stays(serve: Serve, pidfile: Path) -> None:
    server = serve("-p", str(pidfile), "hello").wait_until_ready()
    pidfile.write_text("1\n")

    server.stop()

    assert pidfile.read_text() == "1\n"


def test_a_reload_moves_the_pid_file(serve: Serve, tmp_path: Path) -> None:
    config, old, new = (tmp_path / name for name in ("gunicorn.py", "old.pid", "new.pid"))
    config.write_text(f"pidfile = {str(old)!r}\n")
    server = serve("-c", str(config), "hello").wait_until_ready()
    assert old.exists()

    config.write_text(f"pidfile = {str(new)!r}\n")
    server.send_signal(signal.SIGHUP)
    wait_for(new.exists, what="the new pid file")
    wait_for(lambda: not old.exists(), what="no old pid file")

    assert new.read_text() == f"{server.pid}\n"


def test_a_reload_writes_a_pid_file_that_somebody_removed(serve: Serve, pidfile: Path) -> None:
    server = serve("-p", str(pidfile), "hello").wait_until_ready()
    pidfile.unlink()

    server.send_signal(signal.SIGHUP)

    wait_for(pidfile.exists, what="the pid file")


def test_a_pid_file_that_cannot_move_stays(serve: Serve, tmp_path: Path) -> None:
    config, old, new = (tmp_path / name for name in ("gunicorn.py", "old.pid", "new.pid"))
    config.write_text(f"pidfile = {str(old)!r}\n")
    server = serve("-c", str(config), "hello").wait_until_ready()
    server.expect(f"cannot write {new}: it names pid {os.getpid()}")
    new.write_text(f"{os.getpid()}\n")

    config.write_text(f"pidfile = {str(new)!r}\n")
    server.send_signal(signal.SIGHUP)
    server.wait_for_line("the one from before stays")

    assert old.read_text() == f"{server.pid}\n"
    assert server.get("/").status == 200

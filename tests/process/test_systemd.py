"""A service of systemd: sockets that it opens, and what it is told."""

from __future__ import annotations

import os
import re
import signal
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Serve
from tests.process.harness import ROOT, Kind, Server, read_all, request_bytes, wait_for

ACTIVATE = (sys.executable, str(Path(__file__).with_name("socket_unit.py")))


class ServiceManager:
    """The socket that NOTIFY_SOCKET names, and what came through it."""

    def __init__(self, name: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(name)
        self._socket.setblocking(False)
        self._messages: list[str] = []

    @property
    def messages(self) -> list[str]:
        """Every datagram so far, in order."""
        while True:
            try:
                self._messages.append(self._socket.recv(4096).decode())
            except BlockingIOError:
                return list(self._messages)

    def wait_for(self, assignment: str, count: int = 1) -> str:
        """The `count`th message with that assignment, as soon as it is there."""

        def found() -> list[str]:
            matches = [m for m in self.messages if assignment in m.split("\n")]
            return matches if len(matches) >= count else []

        return wait_for(found, what=f"{assignment} {count} times in {self.messages}")[count - 1]

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ServiceManager]:
    """An abstract name, as systemd's own is a path: both must work, the path is tested below."""
    made = ServiceManager(f"\0forkmaster-test-{os.getpid()}-{tmp_path.name}")
    yield made
    made.close()


@pytest.fixture
def notify(manager: ServiceManager) -> dict[str, str]:
    """The environment of a service with Type=notify."""
    name = manager._socket.getsockname()
    return {"NOTIFY_SOCKET": "@" + os.fsdecode(name[1:])}


# --- What it is told --------------------------------------------------------------------------


def test_ready_is_told_when_all_workers_are(
    serve: Serve, kind: Kind, manager: ServiceManager, notify: dict[str, str]
) -> None:
    server = serve(*kind.arguments, "-w", "3", kind.app, env=notify)

    message = manager.wait_for("READY=1")

    assert server.times_ready() == 3
    assert "STATUS=3 of 3 workers ready, generation 0" in message.split("\n")
    assert any(m.startswith("EXTEND_TIMEOUT_USEC=") for m in manager.messages)


def test_a_server_whose_application_is_broken_is_never_ready(
    serve: Serve, manager: ServiceManager, notify: dict[str, str]
) -> None:
    server = serve("crash_on_boot", env=notify)
    server.expect("worker 1 cannot boot", r"worker 1 .*status 3 before it was ready")

    code = server.wait()

    assert code == 3
    assert not any("READY=1" in message for message in manager.messages)
    assert any("STOPPING=1" in m and "status 3" in m for m in manager.messages)


def test_a_reload_is_told_from_its_begin_to_its_end(
    serve: Serve, kind: Kind, manager: ServiceManager, notify: dict[str, str]
) -> None:
    server = serve(*kind.arguments, "-w", "2", kind.app, env=notify)
    manager.wait_for("READY=1")
    before = time.monotonic()

    server.send_signal(signal.SIGHUP)
    message = manager.wait_for("RELOADING=1")
    manager.wait_for("READY=1", count=2)

    (stamp,) = [line for line in message.split("\n") if line.startswith("MONOTONIC_USEC=")]
    assert before * 1e6 <= int(stamp.partition("=")[2]) <= time.monotonic() * 1e6
    assert server.lines("reload done")


def test_a_reload_that_fails_ends_too_and_says_why(
    serve: Serve, manager: ServiceManager, notify: dict[str, str], tmp_path: Path
) -> None:
    config = tmp_path / "gunicorn.py"
    config.write_text("workers = 1\n")
    server = serve("-c", str(config), "hello", env=notify)
    server.expect("reload refused")
    manager.wait_for("READY=1")

    config.write_text("workers = 'many'\n")
    server.send_signal(signal.SIGHUP)
    message = manager.wait_for("READY=1", count=2)

    assert "reload refused: workers: " in message


def test_a_stop_is_told_and_prolonged_while_requests_finish(
    serve: Serve, kind: Kind, manager: ServiceManager, notify: dict[str, str]
) -> None:
    server = serve(*kind.arguments, kind.app, env=notify)
    manager.wait_for("READY=1")
    extended = len([m for m in manager.messages if m.startswith("EXTEND")])
    server.send(request_bytes("/slow?1"))
    server.wait_until_running()

    server.send_signal(signal.SIGTERM)
    message = manager.wait_for("STOPPING=1")

    assert "STATUS=stopping: asked to stop" in message
    assert server.wait() == 0
    assert len([m for m in manager.messages if m.startswith("EXTEND")]) > extended


def test_the_watchdog_is_fed_by_a_master_whose_workers_live(
    serve: Serve, manager: ServiceManager, notify: dict[str, str]
) -> None:
    server = serve("hello", env={**notify, "WATCHDOG_USEC": "400000"})
    manager.wait_for("WATCHDOG=1", count=5)

    os.kill(server.pid, signal.SIGSTOP)
    # In the buffer of the socket may be what was sent before it stopped.
    wait_for(lambda: is_stopped(server.pid), 5)
    before = manager.messages.count("WATCHDOG=1")
    time.sleep(1)
    while_stopped = manager.messages.count("WATCHDOG=1")
    os.kill(server.pid, signal.SIGCONT)

    assert while_stopped == before
    manager.wait_for("WATCHDOG=1", count=before + 2)


def test_a_watchdog_for_somebody_else_is_not_fed(
    serve: Serve, manager: ServiceManager, notify: dict[str, str]
) -> None:
    server = serve("hello", env={**notify, "WATCHDOG_USEC": "100000", "WATCHDOG_PID": "1"})
    manager.wait_for("READY=1")

    server.get("/")

    assert "WATCHDOG=1" not in manager.messages


def test_workers_cannot_speak_for_the_server(
    serve: Serve, kind: Kind, manager: ServiceManager, notify: dict[str, str]
) -> None:
    server = serve(
        *kind.arguments,
        kind.app,
        env={**notify, "WATCHDOG_USEC": "30000000", "LISTEN_FDS": "1", "LISTEN_PID": "1"},
    )
    manager.wait_for("READY=1")

    # /proc/<pid>/environ shows how a process was started, so the application is asked.
    names = set(server.get("/environ").body.decode().split())

    assert "PATH" in names
    assert not [name for name in names if name.startswith(("NOTIFY_", "WATCHDOG_", "LISTEN_"))]


def test_a_service_manager_that_is_gone_disturbs_nobody(serve: Serve) -> None:
    server = serve("hello", env={"NOTIFY_SOCKET": "/nowhere/notify", "WATCHDOG_USEC": "100000"})

    assert server.wait_until_ready().get("/").status == 200
    assert server.stop() == 0


# --- Sockets that it opens --------------------------------------------------------------------


def activated(
    serve: Serve, *units: str, arguments: tuple[str, ...], listener: socket.socket | None = None
) -> Server:
    return serve(*arguments, listener=listener, binds=False, through=(*ACTIVATE, *units, "--"))


def get_unix(path: Path) -> bytes:
    """The answer of the server behind a unix socket, read to its end."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(10)
        client.connect(str(path))
        client.sendall(request_bytes("/", "Connection: close"))
        return read_all(client)


@pytest.fixture
def short_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A path for a unix socket, which may have 107 bytes."""
    return Path(f"/tmp/forkmaster-test-{os.getpid()}-{abs(hash(tmp_path)) % 10**8}.sock")


def test_sockets_of_systemd_are_served_in_place_of_bind(
    serve: Serve, kind: Kind, short_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("container", "podman")  # where a `bind` on the loopback is warned of
    listener = socket.create_server(("127.0.0.1", 0))
    server = activated(
        serve,
        f"http={listener.fileno()}",
        f"local={short_path}",
        arguments=(*kind.arguments, "-b", "127.0.0.1:1", kind.hello),
        listener=listener,
    )
    server.wait_until_ready()

    answers = [server.get("/").body, get_unix(short_path)]
    code = server.stop()

    assert answers[0] == b"hello, world\n"
    assert answers[1].endswith(b"hello, world\n")
    assert len(server.lines(r"listening on .*opened by systemd for http\)")) == 1
    assert len(server.lines(r"\[INFO\] bind 127.0.0.1:1 is ignored")) == 1
    assert "published ports" not in server.log  # `bind` is not where it listens
    assert code == 0
    assert short_path.is_socket()  # systemd's, so it stays
    short_path.unlink()


def test_a_bind_that_names_the_same_is_no_surprise(serve: Serve, short_path: Path) -> None:
    server = activated(
        serve, f"web={short_path}", arguments=("-b", f"unix:{short_path}", "hello")
    ).wait_until_ready()

    assert get_unix(short_path).endswith(b"hello, world\n")
    assert not server.lines("ignored")
    server.stop()
    short_path.unlink()


def test_a_reload_keeps_the_sockets_of_systemd(
    serve: Serve, short_path: Path, tmp_path: Path
) -> None:
    config = tmp_path / "gunicorn.py"
    config.write_text("workers = 1\n")
    server = activated(serve, f"web={short_path}", arguments=("-c", str(config), "hello"))
    server.wait_until_ready()

    config.write_text("workers = 2\nbind = '127.0.0.1:1'\n")
    server.send_signal(signal.SIGHUP)
    server.wait_for_line("reload done")

    assert get_unix(short_path).endswith(b"hello, world\n")
    short_path.unlink()


def is_stopped(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


def test_the_reload_signal_of_the_drop_in_is_caught_and_changes_nothing(serve: Serve) -> None:
    drop_in = (ROOT / "conf/systemd/forkmaster.service.d/notify-reload.conf").read_text()
    (name,) = re.findall(r"^ReloadSignal=(\w+)$", drop_in, re.MULTILINE)
    number = signal.Signals[name]
    server = serve("hello").wait_until_ready()
    before = server.workers()

    server.send_signal(number)
    server.send_signal(signal.SIGUSR1)
    server.wait_for_line("received SIGUSR1")

    # systemd reads the same line before it starts or reloads a service of Type=notify-reload.
    status = Path(f"/proc/{server.pid}/status").read_text()
    (caught,) = re.findall(r"^SigCgt:\t(\w+)$", status, re.MULTILINE)
    assert int(caught, 16) & 1 << (number - 1)
    assert name not in server.log
    assert server.workers() == before

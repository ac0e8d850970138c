"""Real children: how they end, what they cost, who they belong to."""

from __future__ import annotations

import ctypes
import os
import resource
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from forkmaster.system import processes
from forkmaster.system.processes import Exit

from .children import in_child

NOBODY = 2**22 + 1  # above the largest pid that Linux gives


@pytest.fixture
def sleeper() -> Iterator[int]:
    """The pid of a child that sleeps until it is killed."""
    pid = os.fork()
    if pid == 0:
        while True:
            signal.pause()
    yield pid
    try:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    except (ProcessLookupError, ChildProcessError):
        pass  # the test has reaped it


def reaped(pid: int) -> Exit:
    """The exit of that child, as `reap` tells it once it happened."""
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    return dict(processes.reap())[pid]


def exits(status: int) -> int:
    pid = os.fork()
    if pid == 0:
        os._exit(status)
    return pid


def test_reaping_without_children_is_quiet() -> None:
    assert processes.reap() == []


def test_reaping_does_not_wait_for_the_living(sleeper: int) -> None:
    assert processes.reap() == []


def test_an_exit_status_is_told() -> None:
    ended = reaped(exits(3))

    assert ended == Exit(status=3, signal=None)
    assert str(ended) == "exited with status 3"


def test_a_signal_is_told_by_name(sleeper: int) -> None:
    assert processes.send(sleeper, signal.SIGKILL)

    ended = reaped(sleeper)

    assert ended == Exit(status=None, signal=signal.SIGKILL)
    assert str(ended) == "was killed by SIGKILL"


def test_a_core_dump_is_told() -> None:
    ended = Exit.from_wait(signal.SIGSEGV | 0x80)

    assert str(ended) == "was killed by SIGSEGV (core dumped)"


def test_every_child_that_ended_is_reaped_at_once() -> None:
    pids = [exits(status) for status in (0, 1, 2)]
    for pid in pids:
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)

    ended = dict(processes.reap())

    assert [ended[pid].status for pid in pids] == [0, 1, 2]


def test_a_pidfd_tells_the_end_and_never_hits_a_stranger(sleeper: int) -> None:
    pidfd = processes.open_pidfd(sleeper)
    assert pidfd is not None

    assert processes.send(sleeper, signal.SIGTERM, pidfd)
    assert select.select([pidfd], [], [], 5)[0] == [pidfd]
    assert reaped(sleeper).signal == signal.SIGTERM

    # The pid could be somebody else's by now; the descriptor cannot.
    assert not processes.send(os.getpid(), signal.SIGTERM, pidfd)
    os.close(pidfd)


def test_a_signal_to_nobody_is_no_error() -> None:
    assert not processes.send(NOBODY, signal.SIGTERM)
    with pytest.raises(ProcessLookupError):
        processes.open_pidfd(NOBODY)


def test_where_no_pidfd_can_be_had_the_pid_must_do() -> None:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, limits[1]))
    try:
        assert processes.open_pidfd(os.getpid()) is None
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_a_child_dies_with_its_parent() -> None:
    read_fd, write_fd = os.pipe()

    def parent() -> None:
        me = os.getpid()
        told, tell = os.pipe()
        if os.fork() == 0:
            assert processes.die_with_parent(signal.SIGKILL, me)
            os.write(tell, b"x")
            while True:
                signal.pause()
        os.read(told, 1)

    assert in_child(parent) == 0

    os.close(write_fd)
    # End of file: the grandchild, the last to hold the other end, is gone.
    assert select.select([read_fd], [], [], 10)[0] == [read_fd]
    assert os.read(read_fd, 1) == b""
    os.close(read_fd)


def test_a_child_whose_parent_is_dead_already_is_told() -> None:
    def child() -> None:
        assert not processes.die_with_parent(signal.SIGKILL, NOBODY)

    assert in_child(child) == 0


def test_a_wish_the_kernel_refuses_is_an_error() -> None:
    with pytest.raises(OSError, match="Invalid argument"):
        processes.die_with_parent(1000, os.getppid())


def test_a_subreaper_inherits_orphans() -> None:
    def subreaper() -> None:
        assert processes.become_subreaper()
        me = os.getpid()
        tell_parent, told = os.pipe()

        def middle() -> None:
            if os.fork() == 0:
                os.read(tell_parent, 1)  # until the one in the middle is gone
                os._exit(7 if os.getppid() == me else 8)

        assert in_child(middle) == 0
        os.write(told, b"x")
        _, status = os.wait()
        assert os.waitstatus_to_exitcode(status) == 7

    assert in_child(subreaper) == 0


def test_what_a_process_costs() -> None:
    pid = os.getpid()
    start = processes.cpu_seconds(pid)
    deadline = time.monotonic() + 10
    while processes.cpu_seconds(pid) == start:
        assert time.monotonic() < deadline

    assert processes.resident_memory(pid) > 1 << 20
    assert processes.is_alive(pid)
    assert processes.is_alive(1)
    assert not processes.is_alive(NOBODY)


@pytest.mark.parametrize(
    "ask",
    [
        processes.resident_memory,
        processes.cpu_seconds,
        processes.children_of,
        processes.command_of,
    ],
)
def test_what_nobody_costs(ask: object) -> None:
    assert callable(ask)
    with pytest.raises(ProcessLookupError, match="no process"):
        ask(NOBODY)


def test_what_is_not_ours_to_know(monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(pid: int) -> psutil.Process:
        raise psutil.AccessDenied(pid)

    monkeypatch.setattr(psutil, "Process", denied)

    with pytest.raises(PermissionError):
        processes.resident_memory(1)
    assert processes.peer_of(1, 3) is None
    assert str(processes._holder(1)) == "pid 1 (unknown command)"


def test_the_children_of_a_process(sleeper: int) -> None:
    assert sleeper in processes.children_of(os.getpid())


def test_a_title_is_what_others_see() -> None:
    def child() -> None:
        processes.set_title("forkmaster: test")
        assert processes.command_of(os.getpid()) == "forkmaster: test"

    assert in_child(child) == 0


def test_who_listens_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as tcp, socket.socket(socket.AF_UNIX) as unix:
        path = str(tmp_path / "x.sock")
        unix.bind(path)
        unix.listen()

        on_port = processes.listener_on(tcp.getsockname()[1])
        at_path = processes.listener_at(path)

    assert on_port is not None
    assert on_port.pid == os.getpid()
    assert str(on_port).startswith(f"pid {os.getpid()} (")
    assert at_path is not None
    assert at_path.pid == os.getpid()
    assert processes.listener_at(path) is None


def test_who_listens_may_be_a_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(kind: str) -> list[object]:
        raise psutil.AccessDenied()

    monkeypatch.setattr(psutil, "net_connections", denied)

    assert processes.listener_on(80) is None


def test_the_peer_of_a_connection() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        with socket.create_connection(server.getsockname()) as client:
            peer = processes.peer_of(os.getpid(), client.fileno())
        no_peer = processes.peer_of(os.getpid(), server.fileno())

        assert peer == "127.0.0.1:" + str(server.getsockname()[1])
    assert no_peer is None


def test_other_systems_have_no_such_wishes(monkeypatch: pytest.MonkeyPatch) -> None:
    def unexpected(*arguments: object) -> None:
        raise AssertionError

    monkeypatch.setattr("sys.platform", "darwin")
    monkeypatch.setattr(ctypes, "CDLL", unexpected)

    assert processes.die_with_parent(signal.SIGKILL, os.getppid())
    assert not processes.become_subreaper()
    assert processes.open_pidfd(os.getpid()) is None


def test_the_age_of_a_process_is_right_to_a_tick() -> None:
    tick = 1 / os.sysconf("SC_CLK_TCK")
    code = (
        "import time\nfrom forkmaster.system import processes\n"
        "print(time.monotonic(), processes.age(), time.monotonic())"
    )
    before = time.monotonic()
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as child:
        started = time.monotonic()
        assert child.stdout is not None
        earlier, age, later = map(float, child.stdout.read().split())

    assert earlier - started - 2 * tick <= age <= later - before + 2 * tick

"""What a process waits for, in words."""

from __future__ import annotations

import os
import platform
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from forkmaster.system import waiting
from forkmaster.system.waiting import waits_for

pytestmark = pytest.mark.skipif(
    platform.machine() not in waiting.SYSTEM_CALLS, reason="system calls have other numbers here"
)


@contextmanager
def child(act: Callable[[], object]) -> Iterator[int]:
    pid = os.fork()
    if pid == 0:
        act()
        os._exit(0)
    try:
        yield pid
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def comes_to_wait(pid: int, words: str, thread: int = 0) -> str:
    """What `pid` does, once `words` are in it."""
    deadline = time.monotonic() + 10
    while words not in (said := waits_for(pid, thread)):
        assert time.monotonic() < deadline, said
    return said


def test_a_database_that_does_not_answer_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        client = socket.create_connection(server.getsockname())
        with child(lambda: client.recv(1)) as pid:
            said = comes_to_wait(pid, "recvfrom")
        peer = f"127.0.0.1:{server.getsockname()[1]}"

        assert said == f"asleep in recvfrom on fd {client.fileno()} ({peer})"
        client.close()


def test_a_file_is_named() -> None:
    read_fd, write_fd = os.pipe()

    with child(lambda: os.read(read_fd, 1)) as pid:
        assert "(pipe:[" in comes_to_wait(pid, f"asleep in read on fd {read_fd}")
    os.close(read_fd)
    os.close(write_fd)


def test_a_timer_and_a_lock_are_told_apart() -> None:
    with child(lambda: time.sleep(60)) as pid:
        assert comes_to_wait(pid, "asleep in clock_nanosleep") == (
            "asleep in clock_nanosleep (a timer)"
        )
    lock = threading.Lock()
    lock.acquire()
    with child(lock.acquire) as pid:
        assert comes_to_wait(pid, "asleep in futex") == "asleep in futex (a lock)"


def test_a_process_that_computes_is_running() -> None:
    def compute() -> None:
        while True:
            pass

    with child(compute) as pid:
        comes_to_wait(pid, "running")


def test_a_stopped_and_a_dead_process() -> None:
    with child(signal.pause) as pid:
        os.kill(pid, signal.SIGSTOP)
        assert comes_to_wait(pid, "stopped") == "stopped by a signal"
    with child(lambda: None) as pid:
        assert comes_to_wait(pid, "dead") == "dead"


def test_one_thread_of_many() -> None:
    release = threading.Event()
    thread = threading.Thread(target=release.wait)
    thread.start()
    assert thread.native_id is not None

    said = comes_to_wait(os.getpid(), "asleep", thread.native_id)

    release.set()
    thread.join()
    assert said == "asleep in futex (a lock)"


def test_nobody_waits_for_nothing() -> None:
    with pytest.raises(ProcessLookupError):
        waits_for(2**22 + 1)


@pytest.mark.parametrize(
    ("syscall", "wchan", "said"),
    [
        ("", "do_epoll_wait", " in do_epoll_wait"),  # no right to see the system call
        ("", "0", ""),
        ("running", "", ""),
        ("99999 0x0", "hrtimer_nanosleep", " in hrtimer_nanosleep"),
    ],
)
def test_what_may_not_be_read_is_left_out(syscall: str, wchan: str, said: str) -> None:
    assert waiting._where(os.getpid(), syscall, wchan) == said


def test_a_call_without_a_descriptor_or_a_meaning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")

    assert waiting._where(os.getpid(), "232 0x3", "") == " in epoll_wait"
    assert waiting._where(os.getpid(), "0 0x7fffff", "") == " in read on fd 8388607"


def test_a_file_that_may_not_be_read_says_nothing(tmp_path: Path) -> None:
    assert waiting._read(tmp_path / "missing") == ""

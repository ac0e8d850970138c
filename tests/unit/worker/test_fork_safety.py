"""What an application made while it was loaded, found with the line that made it."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable

import pytest

from forkmaster.worker.fork_safety import Watch


def problems_of(load: Callable[[], object]) -> list[str]:
    """What a watch says about `load`, in a process of its own: a hook is never removed."""
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            with Watch() as watch:
                kept = load()
            os.write(write_end, "\n".join(watch.problems()).encode() or b"none")
            del kept
        finally:
            os._exit(0)
    os.close(write_end)
    with os.fdopen(read_end) as told:
        text = told.read()
    os.waitpid(pid, 0)
    return [] if text == "none" else text.splitlines()


def test_nothing_made_is_nothing_to_tell() -> None:
    assert problems_of(lambda: None) == []


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_thread_is_told_with_its_name_and_line() -> None:
    def load() -> None:
        threading.Thread(target=threading.Event().wait, name="reporter", daemon=True).start()

    (problem,) = problems_of(load)

    assert "1 thread(s) run after the application was loaded (reporter)" in problem
    assert "test_fork_safety.py:" in problem
    assert "post_worker_init" in problem


def test_a_thread_that_has_ended_is_not_told() -> None:
    def load() -> None:
        thread = threading.Thread(target=lambda: None)
        thread.start()
        thread.join()

    assert problems_of(load) == []


def test_a_connection_is_told_with_its_peer_and_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = server.getsockname()

        (problem,) = problems_of(lambda: socket.create_connection(address))

    assert f"a connection to 127.0.0.1:{address[1]} is open" in problem
    assert "connected at" in problem
    assert "test_fork_safety.py:" in problem


def test_a_connection_that_was_closed_is_not_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = server.getsockname()

        assert problems_of(lambda: socket.create_connection(address).close()) == []

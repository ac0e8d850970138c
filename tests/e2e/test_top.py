"""`forkmaster top` in a real terminal."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Serve
from tests.process.harness import ROOT, Server, request_bytes, wait_for

pytestmark = pytest.mark.skipif(not shutil.which("tmux"), reason="needs tmux")


class Terminal:
    """One window of a tmux server of its own."""

    def __init__(self, folder: Path, command: str) -> None:
        self.socket = str(folder / "tmux")
        environ = {**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm"}
        environ.pop("COLUMNS", None)  # which xdist sets; the terminal has a width of its own
        self.tmux(
            "-f", "/dev/null", "new-session", "-d", "-x", "110", "-y", "24", command, env=environ
        )

    def tmux(self, *arguments: str, env: dict[str, str] | None = None) -> str:
        done = subprocess.run(
            ["tmux", "-S", self.socket, *arguments],
            capture_output=True,
            text=True,
            check=False,
            env=env,
        )
        return done.stdout

    def press(self, *keys: str) -> None:
        self.tmux("send-keys", *keys)

    def shows(self, text: str) -> bool:
        return text in self.tmux("capture-pane", "-p")

    def wait(self, text: str) -> None:
        try:
            wait_for(lambda: self.shows(text))
        except AssertionError as exc:
            raise AssertionError(f"no {text!r} on\n{self.tmux('capture-pane', '-p')}") from exc

    def close(self) -> None:
        self.tmux("kill-server")


@pytest.fixture
def server(serve: Serve) -> Server:
    return serve("-w", "2", "wsgi_echo").wait_until_ready(2)


@pytest.fixture
def terminal(server: Server, tmp_path: Path) -> Iterator[Terminal]:
    top = f"{sys.executable} -m forkmaster top --worker-tmp-dir {server.board_folder}"
    terminal = Terminal(tmp_path, f"{top}; echo ended with $?; cat")
    yield terminal
    terminal.close()


def test_it_is_live_and_obeys_keys(server: Server, terminal: Terminal) -> None:
    terminal.wait("2 of 2 workers ready")
    # Longer than everything that is waited for below: it must be there to be seen.
    server.send(request_bytes("/slow?300"))
    terminal.wait("GET /slow?300 for")
    terminal.press("s", "s", "s", "s", "s")
    terminal.wait("(by serving)")
    terminal.press("k", "k", "t")  # of the first row
    terminal.wait("any key goes back")
    terminal.wait("wsgi_echo.py")
    terminal.press("x")
    terminal.press("+")
    terminal.wait("3 of 3 workers ready")
    terminal.press("Down", "r")
    terminal.wait("was replaced")

    terminal.press("q")

    terminal.wait("ended with 0")
    assert not terminal.shows("workers ready"), "the other screen is left"
    server.stop(signal.SIGQUIT)


def test_it_ends_with_the_server(server: Server, terminal: Terminal) -> None:
    terminal.wait("2 of 2 workers ready")

    server.stop()

    terminal.wait("the server has stopped")
    terminal.wait("ended with 1")


def test_once(server: Server) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "forkmaster", "top", "--once", "--sort", "memory"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "FORKMASTER_WORKER_TMP_DIR": str(server.board_folder)},
        cwd=ROOT,
    )

    assert done.stdout.startswith("wsgi_echo: serving, 2 of 2 workers ready")
    assert done.stdout.count(" sync  serving ") == 2

"""`forkmaster top` in a real terminal."""

from __future__ import annotations

import io
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from rich.console import Console
from rich.style import Style
from rich.terminal_theme import MONOKAI
from rich.text import Span, Text

from tests.conftest import Serve
from tests.e2e.pictures import keep
from tests.process.harness import ROOT, Load, Server, request_bytes, wait_for

pytestmark = pytest.mark.skipif(not shutil.which("tmux"), reason="needs tmux")


class Terminal:
    """One window of a tmux server of its own."""

    def __init__(self, folder: Path, command: str) -> None:
        self.socket = str(folder / "tmux")
        environ = {**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm"}
        for name in ("COLUMNS", "LINES"):  # which xdist sets; the terminal has a size of its own
            environ.pop(name, None)
        self.tmux(
            "-f", "/dev/null", "new-session", "-d", "-x", "130", "-y", "15", command, env=environ
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

    def text(self, *options: str) -> str:
        """What is on it; with "-e" in its colours."""
        return self.tmux("capture-pane", "-p", *options)

    def shows(self, text: str) -> bool:
        return text in self.text()

    def wait(self, text: str) -> None:
        try:
            wait_for(lambda: self.shows(text))
        except AssertionError as exc:
            raise AssertionError(f"no {text!r} on\n{self.text()}") from exc

    def close(self) -> None:
        self.tmux("kill-server")


@pytest.fixture
def server(serve: Serve) -> Server:
    return serve("-w", "2", "wsgi_echo").wait_until_ready(2)


@contextmanager
def top(server: Server, folder: Path) -> Iterator[Terminal]:
    command = f"{sys.executable} -m forkmaster top --worker-tmp-dir {server.board_folder}"
    terminal = Terminal(folder, f"{command}; echo ended with $?; cat")
    try:
        yield terminal
    finally:
        terminal.close()


@pytest.fixture
def terminal(server: Server, tmp_path: Path) -> Iterator[Terminal]:
    with top(server, tmp_path) as terminal:
        yield terminal


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


def test_the_state_of_a_worker_is_in_colour(serve: Serve, tmp_path: Path) -> None:
    server = serve("-w", "4", "--threads", "4", "wsgi_echo").wait_until_ready(4)
    server.send(request_bytes("/slow?300"))

    with Load(server, "/slow?0.02", clients=3) as load, top(server, tmp_path) as terminal:
        terminal.wait("GET /slow?300 for")
        load.wait_for_answers(300)
        wait_for(lambda: re.search(r", [1-9]\d* per second", terminal.text()))
        screen = Text.from_ansi(terminal.text("-e").rstrip("\n"))

    green = [screen.plain[span.start : span.end] for span in screen.spans if is_green(span)]
    assert green == ["serving"] * 5, "that of the server, and of each worker; not the heading"
    keep(picture_of(screen), "top.svg")
    server.stop(signal.SIGQUIT)


def is_green(span: Span) -> bool:
    assert isinstance(span.style, Style)
    return span.style.color is not None and span.style.color.number == 2


def picture_of(screen: Text) -> bytes:
    lines = screen.plain.split("\n")
    console = Console(
        record=True, file=io.StringIO(), width=max(map(len, lines)), height=len(lines)
    )
    console.print(screen)
    return console.export_svg(title="forkmaster top", theme=MONOKAI).encode()


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

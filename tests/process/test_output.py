"""What an application prints, with capture_output."""

from __future__ import annotations

import http.client
import os
import re
import signal
from pathlib import Path

import pytest

from tests.conftest import Serve
from tests.process.harness import Kind, Server, wait_for

PRELOAD = pytest.mark.parametrize(
    "preload",
    [pytest.param(False, id="forked"), pytest.param(True, id="preloaded", marks=pytest.mark.lab)],
)


def app_for(kind: Kind) -> str:
    return "talkative:asgi" if kind.name == "asgi" else "talkative"


def start(serve: Serve, kind: Kind, *arguments: str) -> Server:
    server = serve("--capture-output", *kind.arguments, *arguments, app_for(kind))
    return server.wait_until_ready()


def said(text: str, pid: int, who: str = r"worker \d+") -> str:
    """The line in which a worker has said that."""
    return rf"^\[[-\d]{{10}} [:\d]{{8}} [-+\d]{{5}}\] \[{pid}\] \[INFO\] {who}: {text}$"


@PRELOAD
def test_every_line_bears_its_worker_whoever_prints_it(
    serve: Serve, kind: Kind, preload: bool
) -> None:
    server = start(serve, kind, *(("--preload",) if preload else ()))
    pid = int(server.get("/all").body)
    server.wait_for_line(said(r"a\\x1bb.*", pid))

    for text in ("printed", "to stderr", "written", "echoed", "cried", "from C: .*"):
        assert len(server.lines(said(text, pid))) == 1, text
    importer = r"zygote \d+" if preload else r"worker \d+"
    assert len(server.lines(rf"\] {importer}: imported$")) == 1


@pytest.mark.lab
def test_last_words_are_heard(serve: Serve, kind: Kind) -> None:
    server = start(serve, kind)
    server.expect("was killed by SIGABRT")
    (pid,) = server.workers()

    with pytest.raises((OSError, http.client.HTTPException)):
        server.get("/last")

    words = server.wait_for_line(said("last words", pid))
    death = server.wait_for_line("was killed by SIGABRT")
    assert words.start() < death.start()


@pytest.mark.lab
def test_a_flood_is_whole_and_the_master_goes_on(serve: Serve, kind: Kind) -> None:
    server = start(serve, kind)

    pid = int(server.get("/flood", timeout=30).body)

    server.wait_for_line("flood 19999 x+$", timeout=30)
    numbers = [int(found[1]) for found in server.lines(said(r"flood (\d+) x{200}", pid))]
    assert numbers == list(range(20000))


@pytest.mark.lab
def test_a_rotation_does_not_end_the_capture(serve: Serve, kind: Kind, tmp_path: Path) -> None:
    log = tmp_path / "error.log"
    settings = ("--capture-output", "--error-logfile", str(log))
    server = serve(*settings, *kind.arguments, app_for(kind))
    wait_for(lambda: log.exists() and "ready in" in log.read_text())
    log.rename(tmp_path / "error.1")
    server.send_signal(signal.SIGUSR1)
    wait_for(log.exists)

    pid = int(server.get("/all").body)

    wait_for(lambda: re.search(said("cried", pid), log.read_text(), re.M))


@pytest.mark.lab
def test_what_a_worker_has_started_may_outlive_it(serve: Serve, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    keeper = os.open(pipe, os.O_RDWR)
    # Standard input of the server is what the orphan waits for.
    script = tmp_path / "with_input.sh"
    script.write_text(f'#!/bin/sh\nexec "$@" <{pipe}\n')
    script.chmod(0o755)
    server = serve("--capture-output", "talkative", through=[str(script)]).wait_until_ready()
    server.expect("was killed by SIGKILL")
    pid = int(server.get("/orphan").body)

    os.kill(pid, signal.SIGKILL)
    server.wait_until_ready(2)
    os.write(keeper, b"lives\n")

    server.wait_for_line(said("orphan lives", pid))
    os.close(keeper)


@pytest.mark.lab
@PRELOAD
def test_an_upgrade_goes_on_listening(serve: Serve, kind: Kind, preload: bool) -> None:
    server = start(serve, kind, *(("--preload",) if preload else ()))

    server.send_signal(signal.SIGUSR2)
    server.wait_for_line("reload done")
    pid = int(server.get("/all").body)

    server.wait_for_line(said("cried", pid))
    assert server.process.poll() is None


@pytest.mark.lab
def test_without_the_setting_nothing_is_stamped(serve: Serve) -> None:
    server = serve("talkative").wait_until_ready()

    server.get("/all")

    server.wait_for_line("^cried$")

"""Going into the background, seen from the terminal."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from forkmaster.system.daemon import Launch

PRELUDE = """
import os, signal, sys, time
from forkmaster.errors import ForkmasterError
from forkmaster.system.daemon import detach, leave_terminal
terminal = os.getpid()
"""
MAIN = """
def main():
    try:
        launch = detach()
    except ForkmasterError as exc:
        print(exc, file=sys.stderr)
        sys.exit(exc.exit_code)
    daemon(launch)
main()
"""


def run(daemon: str) -> subprocess.CompletedProcess[str]:
    """A program that detaches, with this as what the daemon does."""
    source = PRELUDE + "def daemon(launch):\n" + textwrap.indent(textwrap.dedent(daemon), "    ")
    return subprocess.run(
        [sys.executable, "-c", source + MAIN],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )


def test_a_success_ends_the_parent_with_0() -> None:
    done = run("launch.succeeded()")

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_what_was_buffered_is_written_once() -> None:
    done = run("print('in the daemon'); launch.succeeded()")

    assert done.stdout == "in the daemon\n"


def test_a_failure_has_its_own_code_and_reason() -> None:
    done = run("launch.ended(4, 'there is no app')")

    assert (done.returncode, done.stderr) == (4, "there is no app\n")


def test_a_stop_before_the_server_was_ready_is_no_failure() -> None:
    done = run("launch.ended(0, 'asked to stop')")

    assert (done.returncode, done.stderr) == (0, "")


def test_a_daemon_that_dies_without_a_word_is_a_failure() -> None:
    done = run("os._exit(9)")

    assert (done.returncode, done.stderr) == (1, "the server ended while it started\n")


def test_it_is_in_a_session_that_it_does_not_lead() -> None:
    done = run(
        """
        alone = os.getsid(0) not in (os.getpid(), os.getsid(terminal))
        launch.ended(7 if alone else 8, "")
        """
    )

    assert done.returncode == 7


def test_after_leaving_the_terminal_nothing_is_written_to_it(tmp_path: Path) -> None:
    done = run(
        f"""
        leave_terminal(output=True)
        os.write(1, b"lost"); os.write(2, b"lost")
        targets = {{os.readlink(f"/proc/self/fd/{{fd}}") for fd in range(3)}}
        open({str(tmp_path / "seen")!r}, "w").write(" ".join(targets))
        launch.succeeded()
        """
    )

    assert (done.stdout, done.stderr) == ("", "")
    assert (tmp_path / "seen").read_text() == os.devnull


def test_output_may_be_kept() -> None:
    done = run("leave_terminal(output=False); os.write(1, b'kept'); launch.succeeded()")

    assert done.stdout == "kept"


def test_ctrl_c_at_the_terminal_ends_the_daemon_too(tmp_path: Path) -> None:
    ended = tmp_path / "ended"
    done = run(
        f"""
        def on_term(*_):
            open({str(ended)!r}, "w").close()
            launch.close()
            os._exit(0)
        signal.signal(signal.SIGTERM, on_term)
        os.kill(terminal, signal.SIGINT)
        time.sleep(20)
        """
    )
    # The output of the program ends when the daemon does, so it has by now.

    assert done.returncode == 130
    assert ended.exists()


@pytest.mark.parametrize("reader_is_gone", [False, True])
def test_the_outcome_is_told_once(reader_is_gone: bool) -> None:
    read_end, write_end = os.pipe()
    launch = Launch(write_end)
    if reader_is_gone:
        os.close(read_end)

    assert launch.is_awaited
    launch.succeeded()
    launch.ended(3, "too late")

    assert not launch.is_awaited
    if not reader_is_gone:
        assert os.read(read_end, 100) == b"0 "
        assert os.read(read_end, 100) == b""
        os.close(read_end)


def test_nobody_waits_for_a_server_in_the_foreground() -> None:
    launch = Launch()

    launch.succeeded()
    launch.close()

    assert not launch.is_awaited

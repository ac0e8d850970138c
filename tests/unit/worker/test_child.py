"""How a child ends, whatever comes in between."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

PRELUDE = """
import logging, os, signal
from types import SimpleNamespace
from forkmaster.worker.child import Child

child = Child(SimpleNamespace(config=None, view="worker 1"))
for number in (signal.SIGTERM, signal.SIGQUIT):
    signal.signal(number, child._on_term)


class Stopping(logging.Handler):
    '''Whoever logs is told to stop.'''

    def emit(self, record):
        os.kill(os.getpid(), signal.SIGTERM)


def fails():
    raise RuntimeError("no database")


logging.getLogger("forkmaster.error").addHandler(Stopping())
"""


def status_of(script: str) -> int:
    """The exit status of a process that does this with a child."""
    source = PRELUDE + textwrap.dedent(script)
    done = subprocess.run(
        [sys.executable, "-c", source], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stderr == ""
    return done.returncode


def test_a_stop_while_a_failure_is_told_is_a_stop() -> None:
    assert status_of("os._exit(child.guard(fails))") == 0


@pytest.mark.parametrize("number", ["SIGTERM", "SIGQUIT"])
def test_a_stop_after_the_end_changes_nothing(number: str) -> None:
    script = f"""
        status = child.guard(lambda: None)
        os.kill(os.getpid(), signal.{number})
        os._exit(status)
    """

    assert status_of(script) == 0

"""What the labs share: checks on a real machine, which a machine may be unfit for.

A lab is a list of checks, run in order: each takes what was set up, and returns what it saw in a
few words or raises Failed.  A lab that cannot run says why and exits with 0.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol, TypeVar

# Enough for a slow machine; nothing waits for it unless something is wrong.
PATIENCE = 60.0


class Unfit(Exception):  # noqa: N818 - not an error: this machine cannot do it
    """Why this machine cannot run the lab."""


class Failed(Exception):  # noqa: N818 - it is what the line says
    """What a check found wrong."""


class Lab(Protocol):
    """What was set up."""

    def last_words(self) -> Sequence[str]:
        """What the service logged last, for whoever reads that a check has failed."""

    def mend(self) -> None:
        """Make it fit for the next check, after one that failed."""


L = TypeVar("L", bound=Lab)

Done = subprocess.CompletedProcess[str]


def require_root(*programs: str, hint: str = "") -> None:
    """Raise Unfit if this is not root, or one of the programs is missing."""
    if os.geteuid() != 0:
        raise Unfit("it needs root")
    for program in programs:
        # Where Debian has what only root runs, which a PATH may leave out.
        if shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin") is None:
            raise Unfit(f"{program} is not installed{hint}")


def run(
    *command: str | Path,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    timeout: float = 300,
) -> Done:
    """Run a command; what it printed and its exit code are the caller's to look at."""
    return subprocess.run(
        command, cwd=cwd, env=env, timeout=timeout, capture_output=True, check=False, text=True
    )


def output(done: Done, what: str) -> str:
    """What the command `what` printed.  Raises Failed if it failed."""
    must(done.returncode == 0, f"{what}: {done.stderr.strip()}")
    return done.stdout.strip()


def must(condition: object, what: str) -> None:
    if not condition:
        raise Failed(what)


def wait_for(predicate: Callable[[], object], what: str, patience: float = PATIENCE) -> None:
    deadline = time.monotonic() + patience
    while not predicate():
        must(time.monotonic() < deadline, f"not within {patience:.0f} s: {what}")
        time.sleep(0.05)


def main(
    set_up: Callable[[], AbstractContextManager[L]], checks: Sequence[Callable[[L], str]]
) -> int:
    """The exit code: 0 if every check passed, or the machine is unfit; 1 if one failed."""
    try:
        with set_up() as lab:
            return _run(lab, checks)
    except Unfit as exc:
        print(f"skipped: {exc}")
        return 0


def _run(lab: L, checks: Sequence[Callable[[L], str]]) -> int:
    failures = 0
    for check in checks:
        name = check.__name__.replace("_", " ")
        try:
            print(f"ok       {name}: {check(lab)}", flush=True)
        except Failed as exc:
            failures += 1
            print(f"FAILED   {name}: {exc}", flush=True)
            print("\n".join(f"         {line}" for line in lab.last_words()))
            lab.mend()
    print(f"{len(checks) - failures} of {len(checks)} checks passed")
    return 1 if failures else 0

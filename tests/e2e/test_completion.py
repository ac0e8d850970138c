"""What `forkmaster completion` prints, in the shells that it is for."""

from __future__ import annotations

import os
import pty
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.process.harness import OTHERS, PATIENCE

PROGRAMS = Path(sys.executable).parent
PROMPT = "ready> "

# What is typed, and what the shell makes of it.
CASES = {
    "forkmaster compl": "forkmaster completion",
    "forkmaster --backl": "forkmaster --backlog",
    "forkmaster check --worker-cl": "forkmaster check --worker-class",
    "forkmaster -w 2 --log-level deb": "forkmaster -w 2 --log-level debug",
    "forkmaster shopf": "forkmaster shopfront",
    "forkmaster -c sett": "forkmaster -c settings.toml",
    "forkmaster --chdir rel": "forkmaster --chdir releases",
}

pytestmark = pytest.mark.skipif(
    not (PROGRAMS / "forkmaster").exists(), reason="the program is not installed"
)


def needs(shell: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(not shutil.which(shell), reason=f"needs {shell}")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with what there is to complete."""
    folder = tmp_path / "project"
    (folder / "releases").mkdir(parents=True)
    for name in ("shopfront.py", "settings.toml"):
        (folder / name).touch()
    return folder


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """Of somebody who has no settings of their own, and a terminal that can do nothing."""
    kept = {key: value for key, value in os.environ.items() if not OTHERS.fullmatch(key)}
    path = f"{PROGRAMS}{os.pathsep}{os.environ['PATH']}"
    return {**kept, "PATH": path, "HOME": str(tmp_path), "TERM": "dumb", "PS1": PROMPT}


def script(shell: str, environ: dict[str, str]) -> str:
    """What the program prints."""
    command = ["forkmaster", "completion", shell]
    return subprocess.run(
        command, env=environ, stdout=subprocess.PIPE, text=True, check=True
    ).stdout


class Typist:
    """Somebody at an interactive shell."""

    def __init__(self, *command: str, environ: dict[str, str], folder: Path) -> None:
        self.pid, self.terminal = pty.fork()
        if self.pid == 0:
            os.chdir(folder)
            os.execvpe(command[0], command, environ)
        self.seen = ""

    def type(self, keys: str) -> None:
        os.write(self.terminal, keys.encode())

    def wait(self, text: str) -> None:
        """Returns when the shell has shown this, after what was last waited for."""
        deadline = time.monotonic() + PATIENCE
        while text not in self.seen:
            left = max(0.0, deadline - time.monotonic())
            assert select.select([self.terminal], [], [], left)[0], f"no {text!r} in {self.seen!r}"
            self.seen += os.read(self.terminal, 4096).decode(errors="replace")
        self.seen = self.seen.partition(text)[2]

    def close(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        os.close(self.terminal)


# What each is started with, and how it is made to read the script.
SHELLS = {
    "bash": (["bash", "--norc", "-i"], "source {folder}/_forkmaster"),
    "zsh": (
        ["zsh", "-f", "-i"],
        "fpath=({folder} $fpath); autoload -Uz compinit; compinit -u -d {folder}/dump",
    ),
    "zsh-sourced": (
        ["zsh", "-f", "-i"],
        "autoload -Uz compinit; compinit -u -d {folder}/dump; source {folder}/_forkmaster",
    ),
}


@pytest.fixture(params=[pytest.param(name, marks=needs(SHELLS[name][0][0])) for name in SHELLS])
def typist(
    request: pytest.FixtureRequest, project: Path, environ: dict[str, str], tmp_path: Path
) -> Iterator[Typist]:
    """At a shell that has read the script."""
    command, start = SHELLS[request.param]
    folder = tmp_path / "scripts"
    folder.mkdir()
    (folder / "_forkmaster").write_text(script(command[0], environ))
    made = Typist(*command, environ=environ, folder=project)
    made.wait(PROMPT)
    made.type(f"{start.format(folder=folder)}; echo loaded: $?\n")
    made.wait("loaded: 0")
    yield made
    made.close()


def test_a_tab_completes_what_was_begun(typist: Typist) -> None:
    for begun, whole in CASES.items():
        typist.wait(PROMPT)
        typist.type(f"{begun}\t")
        typist.wait(whole)
        typist.type("\x15\n")  # takes the line back


@needs("fish")
@pytest.mark.parametrize("begun", CASES)
def test_fish_offers_what_was_begun(begun: str, project: Path, environ: dict[str, str]) -> None:
    # In fish itself `complete -C` asks for what a tab would show.
    (project.parent / "forkmaster.fish").write_text(script("fish", environ))
    asked = f"source ../forkmaster.fish; complete -C '{begun}'"

    done = subprocess.run(
        ["fish", "--no-config", "-c", asked],
        cwd=project,
        env=environ,
        capture_output=True,
        text=True,
        check=True,
    )

    offered = [line.partition("\t")[0] for line in done.stdout.splitlines()]
    assert [each.rstrip("/") for each in offered] == [CASES[begun].split()[-1]], done.stderr

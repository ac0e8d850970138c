"""The shell blocks of the documentation that are marked to run, run."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.process.harness import OTHERS, ROOT

BLOCK = re.compile(r"^```sh \{ \.run \}\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PAGES = [
    path
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    if BLOCK.search(path.read_text())
]

# Stops what a block has left running, whatever happened.
PRELUDE = """\
set -e -u -o pipefail -m
trap 'jobs -p | xargs -r kill || :; wait || :' EXIT
"""


@pytest.mark.timeout(300)
@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)
def test_the_commands_of_a_page(page: Path, tmp_path: Path) -> None:
    programs, folder, boards = tmp_path / "bin", tmp_path / "folder", tmp_path / "boards"
    for each in (programs, folder, boards):
        each.mkdir()
    for name in ("forkmaster", "django-admin"):
        module = "forkmaster" if name == "forkmaster" else "django"
        program = programs / name
        program.write_text(f'#!/bin/sh\nexec {sys.executable} -m {module} "$@"\n')
        program.chmod(0o755)
    # The default address is this one instead: a page says 8000, and every test would.
    listener = socket.create_server(("127.0.0.1", 0), backlog=64)
    script = PRELUDE + "\n".join(BLOCK.findall(page.read_text()))
    script = script.replace(":8000", f":{listener.getsockname()[1]}")
    inherited = {key: value for key, value in os.environ.items() if not OTHERS.fullmatch(key)}

    done = subprocess.run(
        ["bash", "-c", script],
        cwd=folder,
        env={
            **inherited,
            "PATH": f"{programs}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            # Two files of the same size, written in the same second, are the same to a cache.
            "PYTHONDONTWRITEBYTECODE": "1",
            "FORKMASTER_BIND": f"fd://{listener.fileno()}",
            "FORKMASTER_WORKER_TMP_DIR": str(boards),
        },
        pass_fds=[listener.fileno()],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=280,
    )
    listener.close()

    assert done.returncode == 0, done.stdout

"""`manage.py forkmaster` and `forkmaster check --deploy`, on the demo project."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from forkmaster.django.management.commands.forkmaster import split
from tests.conftest import Serve
from tests.e2e.conftest import PROJECT
from tests.process.harness import OTHERS, ROOT


def run(data: Path, *command: str, cwd: Path = PROJECT, **env: str) -> tuple[int, str]:
    """The exit code of a command on the demo project, and all it printed."""
    inherited = {key: value for key, value in os.environ.items() if not OTHERS.fullmatch(key)}
    done = subprocess.run(
        [sys.executable, *command],
        cwd=cwd,
        env={**inherited, "PYTHONPATH": str(ROOT), "PROJECT_DATA": str(data), **env},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=60,
    )
    return done.returncode, done.stdout


@pytest.mark.parametrize(("words", "kind"), [((), "sync"), (("--asgi",), "asgi")])
def test_manage_py_serves_the_project(
    serve: Serve, data: Path, tmp_path: Path, words: tuple[str, ...], kind: str
) -> None:
    script = tmp_path / "serve.sh"
    script.write_text(f'#!/bin/sh\nexec {sys.executable} {PROJECT}/manage.py forkmaster "$@"\n')
    script.chmod(0o755)

    server = serve(*words, "-w", "2", program=script, cwd=tmp_path, env={"PROJECT_DATA": str(data)})
    server.wait_until_ready(2)

    assert b"the first note" in server.get("/").body
    assert {child.kind for child in server.board().children} == {kind}
    assert server.stop() == 0


def test_what_manage_py_passes_on() -> None:
    assert split(["-w", "2", "--settings", "a.b", "--asgi", "--settings=c"]) == (True, ["-w", "2"])
    assert split(["check", "--deploy"]) == (False, ["check", "--deploy"])


def test_manage_py_passes_commands_on(data: Path, tmp_path: Path) -> None:
    manage = str(PROJECT / "manage.py")

    status, output = run(data, manage, "forkmaster", "check", cwd=tmp_path)

    assert status == 0, output
    assert "project.wsgi:application can be loaded: WSGI, for sync workers" in output


def test_the_checks_of_django_and_ours(data: Path) -> None:
    # The settings of the demo have no HTTPS, and a channel layer and a cache in memory.
    status, output = run(data, "-m", "forkmaster", "check", "--deploy", "-w", "3")

    assert status == 0, output
    assert "(security.W004) You have not set a value for the SECURE_HSTS_SECONDS" in output
    assert "(forkmaster.W004) The cache default is in memory: each of 3 workers" in output
    assert "(forkmaster.W005) The channel layer is in memory: of 3 workers" in output
    assert "(forkmaster.I002) 1 async views run under WSGI" in output
    assert "forkmaster.W003" not in output


def test_a_level_at_which_the_check_fails(data: Path) -> None:
    command = ("-m", "forkmaster", "check", "--deploy", "--fail-level", "WARNING")

    status, output = run(data, *command)

    assert status == 1, output


def test_static_files_that_were_not_collected(tmp_path: Path) -> None:
    _, output = run(tmp_path, "-m", "forkmaster", "check", "--deploy")

    assert "(forkmaster.W003) STATIC_ROOT" in output


def test_an_application_that_is_not_django(data: Path) -> None:
    status, output = run(
        data, "-m", "forkmaster", "check", "--deploy", "hello", cwd=ROOT / "tests/apps"
    )

    assert status == 0, output
    assert "security." not in output


@pytest.mark.parametrize("arguments", [(), ("--preload",)], ids=["forked", "preloaded"])
def test_the_static_files_of_the_project(
    serve: Serve, data: Path, arguments: tuple[str, ...]
) -> None:
    server = serve(
        *("--static-map", "auto", *arguments, "project.wsgi"),
        cwd=PROJECT,
        env={"PROJECT_DATA": str(data)},
    )
    page = server.get("/").body.decode()
    path = page.split('<link rel="stylesheet" href="')[1].split('"')[0]

    style = server.get(path)

    assert style.status == 200
    assert b"font:" in style.body
    assert "immutable" in style.headers["cache-control"]  # Django's own view does not say so

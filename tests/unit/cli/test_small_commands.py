"""The commands that only print: workers, schema, completion."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.shell_completion import ShellComplete

from forkmaster.cli import entry
from forkmaster.cli.commands import program
from forkmaster.cli.completion import SHELLS
from forkmaster.cli.schema import schema
from forkmaster.config.gunicorn import ALIASES, GREEN
from forkmaster.config.table import SETTINGS


def test_workers_shows_every_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert entry.run(["workers"]) == 0

    out = capsys.readouterr().out
    assert all(name in out for name in (*ALIASES, *GREEN))


def test_the_schema_has_every_setting_and_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    assert entry.run(["schema"]) == 0

    printed = json.loads(capsys.readouterr().out)
    assert set(printed["properties"]) == set(SETTINGS) - {"config"}
    assert printed["additionalProperties"] is False
    assert printed["properties"]["workers"]["default"] == 1
    assert printed["properties"]["spew"]["deprecated"] is True
    assert printed == schema()


@pytest.mark.parametrize("shell", SHELLS)
def test_completion_prints_a_script(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert entry.run(["completion", shell]) == 0
    assert "_FORKMASTER_COMPLETE" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("before", "word", "found"),
    [
        ([], "ch", ["check"]),
        ([], "project.", ["project.asgi", "project.wsgi"]),
        ([], "m", ["migrate", "main", "manage"]),
        ([], "--bac", ["--backlog"]),
        (["-w", "3"], "--bac", ["--backlog"]),
        (["check"], "--bac", ["--backlog"]),
        (["completion"], "z", ["zsh"]),
        (["project.wsgi"], "--bac", ["--backlog"]),
        (["init"], "sys", ["systemd"]),
        (["--log-level"], "d", ["debug"]),
        (["-k"], "t", ["threaded"]),
        (["-w"], "", ["auto"]),
        (["--user"], "a", []),
        (["check"], "project.", ["project.asgi", "project.wsgi"]),
        (["-w", "3"], "ma", ["main", "manage"]),
    ],
)
def test_commands_options_and_words_are_completed(
    before: list[str],
    word: str,
    found: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "project").mkdir()
    for name in ("main.py", "manage.py", "project/wsgi.py", "project/asgi.py", "project/urls.py"):
        (tmp_path / name).write_text("")
    monkeypatch.chdir(tmp_path)
    shell = ShellComplete(program, {}, "forkmaster", "_FORKMASTER_COMPLETE")

    assert [item.value for item in shell.get_completions(before, word)] == found


@pytest.mark.parametrize(
    ("option", "kind"), [("-c", "file"), ("--pid", "file"), ("--chdir", "dir")]
)
def test_paths_are_left_to_the_shell(option: str, kind: str) -> None:
    shell = ShellComplete(program, {}, "forkmaster", "_FORKMASTER_COMPLETE")

    (item,) = shell.get_completions([option], "co")

    assert (item.value, item.type) == ("co", kind)

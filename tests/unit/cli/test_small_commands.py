"""The commands that only print: workers, schema, completion."""

from __future__ import annotations

import json

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
        ([], "--bac", ["--backlog"]),
        (["-w", "3"], "--bac", ["--backlog"]),
        (["check"], "--bac", ["--backlog"]),
        (["completion"], "z", ["zsh"]),
        (["project.wsgi"], "--bac", ["--backlog"]),
        (["init"], "sys", ["systemd"]),
    ],
)
def test_commands_and_options_are_completed(before: list[str], word: str, found: list[str]) -> None:
    shell = ShellComplete(program, {}, "forkmaster", "_FORKMASTER_COMPLETE")

    assert [item.value for item in shell.get_completions(before, word)] == found

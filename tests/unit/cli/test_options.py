"""The command line says what every other source can say, and names itself as the origin."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click
import pytest

from forkmaster.cli import show
from forkmaster.cli.options import Command, given_by, given_by_variables
from forkmaster.config.sources import Loaded, load
from forkmaster.config.table import SETTINGS
from forkmaster.errors import ConfigError, UsageError


def parsed(*arguments: str) -> dict[str, Any]:
    with Command("serve", usage="").make_context("forkmaster", list(arguments)) as ctx:
        return ctx.params


def loaded(folder: Path, *arguments: str) -> Loaded:
    return load(given_by(parsed(*arguments)), environ={}, folder=folder)


@pytest.mark.parametrize(
    ("arguments", "name", "value", "origin"),
    [
        ("project.wsgi", "app", "project.wsgi", "the command line"),
        ("-w 3", "workers", 3, "--workers"),
        ("--workers=3", "workers", 3, "--workers"),
        ("-w3", "workers", 3, "--workers"),
        ("-t 30s", "timeout", 30.0, "--timeout"),
        ("-D", "daemon", True, "--daemon"),
        ("--preload", "preload_app", True, "--preload"),
        ("--preload-app", "preload_app", True, "--preload"),
        ("--no-preload", "preload_app", False, "--no-preload"),
        ("--no-sendfile", "sendfile", False, "--no-sendfile"),
        ("--sendfile", "sendfile", True, "--sendfile"),
        ("--no-control-socket", "control_socket_disable", True, "--no-control-socket"),
        ("--proxy-protocol", "proxy_protocol", "auto", "--proxy-protocol"),
        ("--proxy-protocol=v2", "proxy_protocol", "v2", "--proxy-protocol"),
        ("-k gthread", "worker_class", "threaded", "--worker-class"),
        ("-m 022", "umask", 0o22, "--umask"),
        ("--log-file -", "errorlog", "-", "--error-logfile"),
        ("--errorlog -", "errorlog", "-", "--error-logfile"),
        ("--limit-request-field_size 99", "limit_request_field_size", 99,
         "--limit-request-field_size"),
        ("--limit-request-field-size 99", "limit_request_field_size", 99,
         "--limit-request-field_size"),
        ("-e A=1 --env B=2", "raw_env", ("A=1", "B=2"), "--env"),
        ("-R", "enable_stdio_inheritance", True, "--enable-stdio-inheritance"),
        ("-n name", "proc_name", "name", "--name"),
    ],
)  # fmt: skip
def test_a_flag_sets_its_setting(
    arguments: str, name: str, value: object, origin: str, tmp_path: Path
) -> None:
    found = loaded(tmp_path, *arguments.split())

    assert getattr(found.config, name) == value
    assert str(found.origins[name]) == origin


@pytest.mark.parametrize(
    ("arguments", "addresses", "origin"),
    [
        ("-b :1 -b :2", ["0.0.0.0:1", "0.0.0.0:2"], "--bind"),
        ("--host 0.0.0.0", ["0.0.0.0:8000"], "--host"),
        ("--port 9000", ["127.0.0.1:9000"], "--port"),
        ("--host 0.0.0.0 --port 9000", ["0.0.0.0:9000"], "--host and --port"),
        ("--host ::1", ["[::1]:8000"], "--host"),
        ("--uds /run/x", ["unix:/run/x"], "--uds"),
        ("--fd 3", ["fd://3"], "--fd"),
        ("--port 9000 --uds /x", ["127.0.0.1:9000", "unix:/x"], "--port and --uds"),
    ],
)
def test_an_address_may_be_said_as_in_uvicorn(
    arguments: str, addresses: list[str], origin: str, tmp_path: Path
) -> None:
    found = loaded(tmp_path, *arguments.split())

    assert [str(address) for address in found.config.bind] == addresses
    assert str(found.origins["bind"]) == origin


def test_an_address_is_not_said_twice(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--bind and --port say the same twice; use one"):
        loaded(tmp_path, "--bind", ":1", "--port", "2")


def test_a_bad_port_is_blamed_on_its_flag(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        loaded(tmp_path, "--port", "http")

    assert str(caught.value) == (
        'bind: "http" is not a port number, in "127.0.0.1:http" (--port); write HOST:PORT'
    )


def test_nothing_on_the_line_gives_nothing() -> None:
    assert list(given_by(parsed())) == []


@pytest.mark.parametrize("name", [name for name, each in SETTINGS.items() if each.flags])
def test_every_flag_of_a_setting_is_understood(name: str) -> None:
    setting = SETTINGS[name]

    for flag in setting.all_flags:
        value = [] if setting.kind.switch else ["x"]
        (given,) = given_by(parsed(flag, *value))
        assert given.name == name
        assert given.value in (True, False, "x", ("x",))


# GUNICORN_CMD_ARGS and FORKMASTER_CMD_ARGS


def test_a_variable_holds_a_command_line(tmp_path: Path) -> None:
    environ = {"GUNICORN_CMD_ARGS": "--workers=3 --bind ':1' other.wsgi"}

    found = load(given_by_variables(environ), environ={}, folder=tmp_path)

    assert found.config.workers == 3
    assert str(found.origins["workers"]) == "GUNICORN_CMD_ARGS --workers"
    assert found.config.app == ""


def test_our_variable_is_stronger_than_gunicorns(tmp_path: Path) -> None:
    environ = {"FORKMASTER_CMD_ARGS": "-w 4", "GUNICORN_CMD_ARGS": "-w 3 -t 9"}

    config = load(given_by_variables(environ), environ={}, folder=tmp_path).config

    assert (config.workers, config.timeout) == (4, 9.0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("--bind 'x", "GUNICORN_CMD_ARGS cannot be read: no closing quotation"),
        (
            "--wrokers 3",
            "GUNICORN_CMD_ARGS: there is no option --wrokers; "
            "did you mean --workers, --workers-max or --workers-min?",
        ),
        (
            "--workers",
            "GUNICORN_CMD_ARGS: option '--workers' requires an argument; see forkmaster --help",
        ),
    ],
)
def test_a_mistake_in_a_variable_names_it(text: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        list(given_by_variables({"GUNICORN_CMD_ARGS": text}))

    assert str(caught.value) == message


# Help


def help_text(*arguments: str, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("COLUMNS", "200")
    command = Command("serve", usage="[OPTIONS] [APP]", help="Serve.")
    with command.make_context("forkmaster", []) as ctx:
        ctx.meta["help_all"] = "--help-all" in arguments
        return click.unstyle(command.get_help(ctx))


def test_the_short_help_shows_the_everyday_options(monkeypatch: pytest.MonkeyPatch) -> None:
    text = help_text(monkeypatch=monkeypatch)

    assert "Usage: forkmaster [OPTIONS] [APP]" in text
    assert "--workers NUMBER|auto" in text
    assert "--backlog" not in text
    assert "--help-all" in text


def test_the_long_help_shows_every_option(monkeypatch: pytest.MonkeyPatch) -> None:
    text = help_text("--help-all", monkeypatch=monkeypatch)

    for setting in SETTINGS.values():
        for flag in setting.flags:
            if not flag.startswith("--no-") or setting.turns_off:
                assert flag in text
        if setting.flags:
            assert setting.variable in text


def test_help_names_default_and_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    text = " ".join(help_text("--help-all", monkeypatch=monkeypatch).split())

    assert "[default: 2048; env: FORKMASTER_BACKLOG]" in text
    assert "[default: $WEB_CONCURRENCY, or 1; env: FORKMASTER_WORKERS]" in text
    assert "[default: off; env: FORKMASTER_PRELOAD_APP]" in text
    assert "[default: none; env: FORKMASTER_PIDFILE]" in text


def test_the_everyday_options_are_fifteen() -> None:
    assert len([each for each in SETTINGS.values() if each.everyday and each.flags]) == 15


def test_the_options_of_the_command_itself_come_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    with show.command().make_context("config", []) as ctx:
        text = click.unstyle(ctx.get_help())

    titles = [line for line in text.splitlines() if line.endswith(":") and line[0] != " "]
    assert titles[:2] == ["Options:", "Application:"]
    assert text.index("--json") < text.index("--chdir")


def test_the_environment_of_the_test_run_is_not_read() -> None:
    assert not any(name in os.environ for name in ("FORKMASTER_CMD_ARGS", "GUNICORN_CMD_ARGS"))

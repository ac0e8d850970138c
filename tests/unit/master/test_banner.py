"""What the first lines of the log say, and when the last of them comes."""

from __future__ import annotations

import logging
import platform
from pathlib import Path
from typing import Literal

import pytest

from forkmaster import __version__
from forkmaster.config.sources import Loaded
from forkmaster.config.table import Config
from forkmaster.config.values import OnePerProcessor
from forkmaster.master.actions import Action
from forkmaster.master.banner import ReadyLine, greeting
from forkmaster.master.events import Tick
from tests.unit.master.fleet import Fleet

PYTHON = f"forkmaster {__version__} (CPython {platform.python_version()}) serves project.wsgi"


def lines(
    config: Config, *, file: str | None = None, environ: dict[str, str] | None = None
) -> list[str]:
    path = Path(file) if file is not None else None
    loaded = Loaded(config, {}, path, [], (), {}, Path("/srv/project"))
    return list(greeting(loaded, environ or {}))


@pytest.mark.parametrize(
    ("file", "told"),
    [
        (None, "without a configuration file"),
        ("/srv/project/conf/gunicorn.py", "configured by conf/gunicorn.py"),
        ("/etc/forkmaster.toml", "configured by /etc/forkmaster.toml"),
    ],
)
def test_the_first_line_names_the_application_and_the_file(file: str | None, told: str) -> None:
    assert lines(Config(app="project.wsgi"), file=file)[0] == f"{PYTHON}, {told}"


@pytest.mark.parametrize(
    ("config", "told"),
    [
        (Config(), "1 worker: sync for WSGI, asgi for ASGI"),
        (
            Config(workers=3, threads=4),
            "3 workers: threaded with 4 threads for WSGI, asgi for ASGI",
        ),
        (Config(workers=3, worker_class="sync"), "3 sync workers"),
        (Config(worker_class="threaded", threads=8), "1 threaded worker with 8 threads"),
        (
            Config(workers=OnePerProcessor(8)),
            "one worker per processor: sync for WSGI, asgi for ASGI",
        ),
        (Config(workers=2, worker_class="asgi", preload_app=True), "2 asgi workers, preloaded"),
        (Config(workers=2, worker_class="hypercorn"), "2 asgi workers with HTTP/2"),
    ],
)
def test_the_second_line_says_which_workers_come(config: Config, told: str) -> None:
    assert lines(config)[1] == told


@pytest.mark.parametrize(
    ("config", "interface", "told"),
    [
        (Config(workers=2), "wsgi", "2 sync workers"),
        (Config(threads=4), "wsgi", "1 threaded worker with 4 threads"),
        (Config(threads=4), "asgi", "1 asgi worker"),
        (Config(worker_class="a.Worker"), "asgi", "1 worker, of a.Worker"),
        (Config(worker_class="threaded"), "wsgi", "1 threaded worker with 1 thread"),
    ],
)
def test_the_interface_of_the_application_tells_which_workers_come(
    config: Config, interface: Literal["wsgi", "asgi"], told: str
) -> None:
    loaded = Loaded(config, {}, None, [], (), {}, Path("/srv/project"))

    assert list(greeting(loaded, {}, interface))[1] == told


def test_the_settings_of_django_that_beat_those_of_the_project_are_named() -> None:
    environ = {"DJANGO_SETTINGS_MODULE": "project.test"}

    inherited = lines(Config(), environ=environ)
    given = lines(Config(raw_env=("A=1", "DJANGO_SETTINGS_MODULE=project.prod")), environ=environ)

    assert inherited[2:] == ["DJANGO_SETTINGS_MODULE is project.test (environment)"]
    assert given[2:] == ["DJANGO_SETTINGS_MODULE is project.prod (raw_env)"]


def test_the_last_line_comes_once_when_all_workers_are_ready(
    caplog: pytest.LogCaptureFixture,
) -> None:
    fleet = Fleet(workers=2)
    ready = ReadyLine(fleet.supervisor)

    def look(actions: list[Action]) -> list[str]:
        caplog.clear()
        with caplog.at_level(logging.INFO, "forkmaster.error"):
            ready.observe(Tick(), actions)
        return [record.getMessage() for record in caplog.records]

    assert look(fleet.start()) == []
    assert look(fleet.ready(1)) == []
    (line,) = look(fleet.ready(2))
    assert line.startswith("ready in ")
    assert line.endswith(" ms: 2 workers")
    fleet.exits(1, 1)
    assert look(fleet.all_ready()) == []

"""A logger_class sets the logs up, and what it makes of each request is written."""

from __future__ import annotations

import importlib
import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from forkmaster.config import shim
from forkmaster.config.table import Config
from forkmaster.errors import ConfigError
from forkmaster.logs import setup
from forkmaster.logs.access import AccessEntry

LOGGERS = ("forkmaster.error", "forkmaster.access", "gunicorn.error", "gunicorn.access")


@pytest.fixture(autouse=True)
def put_back(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(setup, "_logs", setup.Logs())
    monkeypatch.setattr(sys, "meta_path", sys.meta_path[:])
    before = {
        name: (logging.getLogger(name).handlers[:], logging.getLogger(name).filters[:])
        for name in LOGGERS
    }
    yield
    for name, (handlers, filters) in before.items():
        logger = logging.getLogger(name)
        for handler in logger.handlers:
            handler.close()
        logger.handlers, logger.filters = handlers, filters


def base() -> Any:
    shim.install()
    return importlib.import_module("gunicorn.glogging").Logger


def entry(target: str, **more: Any) -> AccessEntry:
    return AccessEntry("10.0.0.1", "GET", target, "HTTP/1.1", 200, 12, 1_500_000_000, **more)


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines()


def test_its_formats_are_those_of_the_error_log(tmp_path: Path) -> None:
    class Short(base()):  # type: ignore[misc]
        error_fmt = "%(levelname)s: %(message)s"

    setup.configure(Config(logger_class=Short, errorlog=str(tmp_path / "error.log")))
    logging.getLogger("forkmaster.error").warning("it hung for %d s", 3)

    assert lines(tmp_path / "error.log") == ["WARNING: it hung for 3 s"]


def test_a_class_that_filters_the_access_log_is_asked_for_each_request(tmp_path: Path) -> None:
    class NoProbes(base()):  # type: ignore[misc]
        def access(self, resp: Any, req: Any, environ: dict[str, Any], request_time: Any) -> None:
            if environ["PATH_INFO"] != "/healthz" and dict(req.headers).get("HOST"):
                super().access(resp, req, environ, request_time)

    format_ = '%(h)s "%(r)s" %(s)s %(b)s %(L)s %({host}i)s %({x-a}o)s'
    config = Config(
        logger_class=NoProbes, accesslog=str(tmp_path / "access.log"), access_log_format=format_
    )
    setup.configure(config)
    write = setup.access_writer(config)
    assert write is not None
    environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/", "SERVER_PROTOCOL": "HTTP/1.1"}

    write(entry("/", environ={**environ, "HTTP_HOST": "a"}, response_headers=[("X-A", "1")]))
    write(entry("/healthz", environ={**environ, "PATH_INFO": "/healthz", "HTTP_HOST": "a"}))
    write(entry("/?q=1", request_headers=[(b"host", b"b")], response_headers=[(b"x-a", b"2")]))

    assert lines(tmp_path / "access.log") == [
        '10.0.0.1 "GET / HTTP/1.1" 200 12 1.500000 a 1',
        '10.0.0.1 "GET /?q=1 HTTP/1.1" 200 12 1.500000 b 2',
    ]


def test_a_class_that_adds_atoms_is_asked_too(tmp_path: Path) -> None:
    class WithTeam(base()):  # type: ignore[misc]
        def atoms(self, *arguments: Any) -> dict[str, Any]:
            return {**super().atoms(*arguments), "team": "blue"}

    config = Config(
        logger_class=WithTeam, accesslog=str(tmp_path / "access.log"), access_log_format="%(team)s"
    )
    setup.configure(config)
    write = setup.access_writer(config)
    assert write is not None

    write(entry("/"))

    assert lines(tmp_path / "access.log") == ["blue"]


def test_a_class_that_only_sets_up_leaves_the_lines_to_us(tmp_path: Path) -> None:
    class Plain(base()):  # type: ignore[misc]
        def setup(self, cfg: Any) -> None:
            super().setup(cfg)
            self.access_log.addFilter(lambda record: "healthz" not in record.getMessage())

    config = Config(
        logger_class=Plain, accesslog=str(tmp_path / "access.log"), access_log_format="%(U)s %(G)s"
    )
    setup.configure(config)
    write = setup.access_writer(config)
    assert write is not None

    write(entry("/healthz"))
    write(entry("/", generation=3))

    assert lines(tmp_path / "access.log") == ["/ 3"]


def test_what_it_raises_costs_a_line_of_the_error_log_and_nothing_else(tmp_path: Path) -> None:
    class Broken(base()):  # type: ignore[misc]
        def access(self, *arguments: Any) -> None:
            raise KeyError("tenant")

    config = Config(logger_class=Broken, accesslog="-", errorlog=str(tmp_path / "error.log"))
    setup.configure(config)
    write = setup.access_writer(config)
    assert write is not None

    write(entry("/"))

    assert "Broken.access raised" in (tmp_path / "error.log").read_text()


def test_a_reload_does_not_write_every_line_twice(tmp_path: Path) -> None:
    class Adds(base()):  # type: ignore[misc]
        def setup(self, cfg: Any) -> None:
            self.error_log.addHandler(logging.FileHandler(tmp_path / "more.log"))

    for _ in range(2):
        setup.configure(Config(logger_class=Adds))
    logging.getLogger("forkmaster.error").error("once")

    assert lines(tmp_path / "more.log") == ["once"]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (
            "nowhere.Logger",
            "logger_class: cannot import \"nowhere.Logger\": No module named 'nowhere'",
        ),
        ("logging.Nothing", 'logger_class: the module logging has no "Nothing"'),
        ("Logger", 'logger_class: "Logger" names no module; write it as package.module.name'),
        ("logging.Logger", "logging.Logger is not derived from gunicorn.glogging.Logger"),
    ],
)
def test_a_class_that_is_none_is_an_error(given: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        setup.configure(Config(logger_class=given))

    assert said in str(caught.value)


def test_a_class_that_cannot_be_made_is_an_error() -> None:
    class Demanding(base()):  # type: ignore[misc]
        def setup(self, cfg: Any) -> None:
            raise RuntimeError("no syslog here")

    with pytest.raises(ConfigError, match="Demanding: RuntimeError: no syslog here"):
        setup.configure(Config(logger_class=Demanding))

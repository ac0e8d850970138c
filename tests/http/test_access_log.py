"""The access log of running workers: every line whole, in order, and soon."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from forkmaster.config.table import Config
from forkmaster.logs import setup
from tests.http.running import running
from tests.process.harness import wait_for

NAMES = ("forkmaster.error", "forkmaster.access")


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An access log in a file, as the master sets it up."""
    monkeypatch.setattr(setup, "_logs", setup.Logs())
    loggers = [logging.getLogger(name) for name in NAMES]
    before = [(each.handlers[:], each.level, each.propagate) for each in loggers]
    path = tmp_path / "access.log"
    setup.configure(
        Config(
            errorlog=str(tmp_path / "error.log"),
            accesslog=str(path),
            access_log_format='"%(r)s" %(s)s %(b)s',
        )
    )
    yield path
    for each, (handlers, level, propagate) in zip(loggers, before, strict=True):
        each.handlers, each.propagate = handlers, propagate
        each.setLevel(level)
    for file in setup._logs.files:
        file.close()


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
    start_response("200 OK", [])
    return [environ["PATH_INFO"].encode()]


def test_each_request_has_its_line_in_order(kind: str, log: Path) -> None:
    requests = [b"GET /%d HTTP/1.1\r\nHost: x\r\n\r\n" % number for number in range(100)]
    last = b"GET /last HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    with running(application, kind, access_log_format='"%(r)s" %(s)s %(b)s') as worker:
        worker.ask(b"".join(requests) + last)

        wait_for(lambda: log.read_bytes().count(b"\n") == 101)

    lines = log.read_text().splitlines()
    assert lines[0] == '"GET /0 HTTP/1.1" 200 2'
    assert lines == [
        *(f'"GET /{n} HTTP/1.1" 200 {len(str(n)) + 1}' for n in range(100)),
        '"GET /last HTTP/1.1" 200 5',
    ]


def test_a_refused_request_has_its_line(kind: str, log: Path) -> None:
    with running(application, kind, access_log_format='"%(r)s" %(s)s %(b)s') as worker:
        worker.ask(b"GET /\x01 HTTP/1.1\r\nHost: x\r\n\r\n")

        wait_for(lambda: log.read_bytes().endswith(b"\n"))

    assert re.fullmatch(r'"GET /\\u0001 HTTP/1.1" 400 0\n', log.read_text())


def test_a_slow_request_holds_back_few_lines(log: Path) -> None:
    seen: list[int] = []

    def slow(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        if environ["PATH_INFO"] == "/slow":
            seen.append(log.read_bytes().count(b"\n"))
        return application(environ, start_response)

    fast = b"GET /fast HTTP/1.1\r\nHost: x\r\n\r\n" * 64
    last = b"GET /slow HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    with running(slow, "sync", access_log_format="%(r)s") as worker:
        worker.ask(fast + last)

    (written,) = seen
    assert 64 - 32 < written <= 64
    assert log.read_bytes().count(b"\n") == 65

"""Both logs, as a configuration wants them."""

from __future__ import annotations

import json
import logging
import logging.config
import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from forkmaster.addresses import TCPAddress
from forkmaster.config.table import Config
from forkmaster.errors import ConfigError, ForkmasterError
from forkmaster.logs import losses, setup
from forkmaster.logs.access import CLIENT_LEFT, AccessEntry
from forkmaster.logs.setup import (
    access_writer,
    configure,
    exchange_writer,
    lost_lines,
    reopen,
)
from tests.unit.logs.test_access import exchange_of

NAMES = ("forkmaster.error", "forkmaster.access", "gunicorn.error", "gunicorn.access", "root")
ENTRY = AccessEntry("127.0.0.1", "GET", "/?%s", "HTTP/1.1", 200, 12, 1_000_000)

error_log = logging.getLogger("forkmaster.error")
access_log = logging.getLogger("forkmaster.access")


@pytest.fixture(autouse=True)
def put_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Logging is global; the other tests want it as it was."""
    monkeypatch.chdir(tmp_path)
    fresh = setup.Logs()
    monkeypatch.setattr(setup, "_logs", fresh)
    monkeypatch.setattr(losses, "_words", None)
    monkeypatch.setattr(losses, "_early", 0)
    loggers = [logging.getLogger(name) for name in NAMES]
    before = [(x.__class__, x.handlers[:], x.level, x.propagate) for x in loggers]
    yield
    for logger, (class_, handlers, level, propagate) in zip(loggers, before, strict=True):
        logger.__class__ = class_
        logger.handlers, logger.propagate = handlers, propagate
        logger.setLevel(level)
    if fresh.statsd is not None:
        fresh.statsd.close()
    for file in {*fresh.files, *fresh.standard.values()}:
        file.close()


def error_lines(**settings: Any) -> list[str]:
    """What is in the error log after a start and one event, with these settings."""
    configure(Config(errorlog="error.log", **settings))
    error_log.info("worker %d started", 3)
    return Path("error.log").read_text().splitlines()


def test_an_error_line_is_gunicorns() -> None:
    (line,) = error_lines()

    assert re.fullmatch(
        rf"\[\d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d [+-]\d{{4}}\] \[{os.getpid()}\] \[INFO\] "
        "worker 3 started",
        line,
    )


def test_the_level_filters() -> None:
    assert error_lines(loglevel="warning") == []


def test_a_message_cannot_look_like_two(tmp_path: Path) -> None:
    configure(Config(errorlog="error.log"))

    error_log.error("bad header %s", "x\n[2026-01-01] [1] [INFO] forged\x1b[2J\r")

    first, second = Path("error.log").read_text().splitlines()
    assert first.endswith("bad header x")
    assert second == r"  [2026-01-01] [1] [INFO] forged\x1b[2J\x0d"


def test_a_traceback_is_one_record() -> None:
    configure(Config(errorlog="error.log"))

    try:
        raise ValueError("é \udcff")
    except ValueError:
        error_log.exception("cannot serve")

    lines = Path("error.log").read_text().splitlines()
    assert lines[1] == "  Traceback (most recent call last):"
    assert lines[-1] == r"  ValueError: é \udcff"


def test_a_message_that_does_not_fit_its_arguments_is_reported(
    capsys: pytest.CaptureFixture[str],
) -> None:
    configure(Config(errorlog="error.log"))

    error_log.info("%d", "x")

    assert "--- Logging error ---" in capsys.readouterr().err


def test_an_application_cannot_silence_the_server() -> None:
    configure(Config(errorlog="error.log", accesslog="access.log"))

    logging.config.dictConfig({"version": 1, "root": {"level": "ERROR"}})
    error_log.info("still here")
    access_log.info("here too")

    assert Path("error.log").read_text().endswith("still here\n")
    assert Path("access.log").read_text() == "here too\n"


def test_no_access_log_no_writer() -> None:
    configure(Config(errorlog="error.log"))

    assert access_writer(Config()) is None


def test_an_access_line_is_written_as_it_is() -> None:
    config = Config(errorlog="error.log", accesslog="access.log", access_log_format="%(r)s é")
    configure(config)

    write = access_writer(config)
    assert write is not None
    write(ENTRY)

    assert Path("access.log").read_text() == "GET /?%s HTTP/1.1 é\n"


def test_handlers_of_the_application_get_access_lines_too() -> None:
    config = Config(errorlog="error.log", accesslog="access.log", access_log_format="%(r)s")
    configure(config)
    seen: list[str] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            seen.append(record.getMessage())

    access_log.addHandler(Handler())
    write = access_writer(config)
    assert write is not None
    write(ENTRY)

    assert seen == ["GET /?%s HTTP/1.1"]
    assert Path("access.log").read_text() == "GET /?%s HTTP/1.1\n"


def test_a_format_that_is_wrong_stops_the_start_but_only_if_it_is_used() -> None:
    with pytest.raises(ConfigError, match="access_log_format: the format cannot be used"):
        configure(Config(errorlog="error.log", accesslog="a.log", access_log_format="%(m)d"))

    configure(Config(errorlog="error.log", access_log_format="%(m)d"))


def test_an_atom_that_does_not_exist_is_a_warning() -> None:
    configure(Config(errorlog="error.log", accesslog="access.log", access_log_format="%(zz)s"))

    assert "access_log_format has no atom %(zz)s" in Path("error.log").read_text()


def test_both_logs_go_to_new_files_after_a_rotation() -> None:
    configure(Config(errorlog="error.log", accesslog="access.log"))
    for name in ("error.log", "access.log"):
        os.rename(name, f"{name}.1")

    reopen()
    error_log.info("new")
    access_log.info("new")

    assert Path("error.log").read_text().endswith("new\n")
    assert Path("access.log").read_text() == "new\n"
    assert "new" not in Path("error.log.1").read_text()


def test_a_file_that_cannot_be_reopened_is_still_written_to() -> None:
    Path("logs").mkdir()
    configure(Config(errorlog="error.log", accesslog="logs/access.log"))
    os.rename("logs", "moved")

    reopen()
    access_log.info("old")

    assert "access.log: No such file or directory; going on in" in Path("error.log").read_text()
    assert Path("moved/access.log").read_text() == "old\n"


def test_a_reload_moves_to_other_files_and_closes_the_old() -> None:
    configure(Config(errorlog="error.log", accesslog="access.log"))
    old = [file.fd for file in setup._logs.files]

    configure(Config(errorlog="other.log"))
    error_log.info("moved")

    assert Path("other.log").read_text().endswith("moved\n")
    assert len(setup._logs.files) == 1
    assert not access_log.handlers
    assert os.fstat(setup._logs.files[0].fd).st_ino == os.stat("other.log").st_ino
    assert len(old) == 2


def test_a_reload_that_cannot_open_its_files_changes_nothing() -> None:
    configure(Config(errorlog="error.log"))

    with pytest.raises(ForkmasterError, match="cannot open log file"):
        configure(Config(errorlog="other.log", accesslog="missing/access.log"))
    error_log.info("as before")

    assert Path("error.log").read_text().endswith("as before\n")


@pytest.mark.parametrize("name", ["-", "/dev/stdout"])
def test_standard_output(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    configure(Config(errorlog="error.log", accesslog=name))

    access_log.info("hello")

    assert capfd.readouterr().out == "hello\n"


def test_standard_error_is_the_default(capfd: pytest.CaptureFixture[str]) -> None:
    configure(Config())
    configure(Config())  # a reload does not close it

    error_log.info("hello")

    assert capfd.readouterr().err.endswith("hello\n")


def test_the_journal_gets_priorities(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("error.log").touch()
    status = os.stat("error.log")
    monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino}")
    configure(Config(errorlog="error.log", loglevel="debug"))

    for level in (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR, logging.CRITICAL):
        error_log.log(level, "two\nlines")

    lines = Path("error.log").read_text().splitlines()
    assert [line[:3] for line in lines] == [f"<{p}>" for p in (7, 7, 6, 6, 4, 4, 3, 3, 2, 2)]


def test_what_is_printed_is_captured_and_the_access_log_is_not(
    capfd: pytest.CaptureFixture[str],
) -> None:
    config = Config(errorlog="error.log", accesslog="-", capture_output=True)
    configure(config)
    configure(config)

    os.write(1, b"printed\n")
    os.rename("error.log", "error.log.1")
    reopen()
    os.write(2, b"and again\n")
    access_log.info("a request")

    assert Path("error.log.1").read_text() == "printed\n"
    assert Path("error.log").read_text() == "and again\n"
    # capfd reads the file that standard output was before.
    assert "printed" not in capfd.readouterr().out


def test_lines_that_are_lost_are_counted() -> None:
    configure(Config(errorlog="error.log", accesslog="/dev/full"))

    access_log.info("lost")
    access_log.info("lost")

    assert lost_lines() == 2


def test_a_configuration_for_gunicorns_loggers_is_for_ours(
    capfd: pytest.CaptureFixture[str],
) -> None:
    handler = {"class": "logging.FileHandler", "filename": "app.log", "formatter": "plain"}
    configure(
        Config(
            logconfig_dict={
                "version": 1,
                "formatters": {"plain": {"format": "%(levelname)s %(message)s"}},
                "handlers": {"file": handler},
                "root": {"handlers": ["file"]},
                "loggers": {
                    "gunicorn.error": {"level": "DEBUG", "handlers": ["file"]},
                    "gunicorn.access": {"handlers": ["file"]},
                },
            }
        )
    )

    error_log.debug("starting")
    access_log.info("a request")

    assert Path("app.log").read_text() == "DEBUG starting\nINFO a request\n"
    logging.getLogger("gunicorn.error").handlers[0].close()


def test_a_configuration_that_names_no_logger_leaves_gunicorns_defaults() -> None:
    config = Config(errorlog="error.log", logconfig_dict={"version": 1})
    configure(config)

    assert access_writer(config) is not None
    assert [type(handler) for handler in error_log.handlers] == [logging.StreamHandler]


def test_a_configuration_in_json() -> None:
    Path("log.json").write_text(json.dumps({"loggers": {"forkmaster.error": {"level": "ERROR"}}}))

    assert error_lines(logconfig_json=Path("log.json")) == []


def test_a_configuration_in_ini() -> None:
    Path("log.ini").write_text(
        """\
[loggers]
keys=root, error
[handlers]
keys=file
[formatters]
keys=plain
[logger_root]
handlers=
[logger_error]
qualname=gunicorn.error
propagate=0
handlers=file
[handler_file]
class=FileHandler
formatter=plain
args=("%(here)s/app.log",)
[formatter_plain]
format=%(message)s
"""
    )
    configure(Config(logconfig=Path("log.ini")))

    error_log.warning("hello")

    assert Path("app.log").read_text() == "hello\n"
    logging.getLogger("gunicorn.error").handlers[0].close()


def test_a_configuration_that_is_wrong_is_an_error() -> None:
    with pytest.raises(ConfigError, match="logconfig: ValueError: Unable to configure"):
        configure(Config(errorlog="error.log", logconfig_dict={"handlers": {"x": {}}}))


def test_syslog_gets_both_logs(tmp_path: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as daemon:
        daemon.bind(("127.0.0.1", 0))
        daemon.settimeout(5)
        address = f"udp://127.0.0.1:{daemon.getsockname()[1]}"
        configure(Config(errorlog="error.log", syslog=True, syslog_addr=address, app="a.b:c"))

        error_log.info("hello")
        access_log.info("a request")

        pid = os.getpid()
        assert daemon.recv(999).decode() == f"<14>forkmaster.a.b.c.error: [{pid}] hello"
        assert daemon.recv(999).decode() == f"<14>forkmaster.a.b.c.access: [{pid}] a request"
    for logger in (error_log, access_log):
        logger.handlers[-1].close()


def test_syslog_can_be_for_errors_only() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as daemon:
        daemon.bind(("127.0.0.1", 0))
        config = Config(
            errorlog="error.log",
            syslog=True,
            syslog_addr=f"udp://127.0.0.1:{daemon.getsockname()[1]}",
            disable_redirect_access_to_syslog=True,
        )
        configure(config)

    assert access_writer(config) is None
    error_log.handlers[-1].close()


def test_on_a_terminal_the_level_has_a_colour(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    ours, theirs = os.openpty()

    configure(Config(errorlog=os.ttyname(theirs)))
    error_log.warning("[WARNING] is said once")
    error_log.info("plain")
    shown = b""
    while shown.count(b"\n") < 2:  # a terminal may hand out one line at a time
        shown += os.read(ours, 4096)
    coloured, plain = shown.decode().splitlines()

    os.close(ours)
    os.close(theirs)
    assert "\x1b[33m[WARNING]\x1b[0m [WARNING] is said once" in coloured
    assert "\x1b" not in plain


def test_lines_that_are_lost_are_counted_on_the_board() -> None:
    words = memoryview(bytearray(16)).cast("Q")
    configure(Config(errorlog="error.log", accesslog="/dev/full"))

    access_log.info("lost before there is a board")
    losses.count_in(words, 1)
    access_log.info("lost")
    counted = words[1]
    words.release()
    access_log.info("lost after the board is gone")

    assert counted == 2


PROBES = (
    ("/healthz", 200),
    ("/healthz?verbose", 204),
    ("/healthz/", 200),
    ("/probe/a/b", 302),
    ("/probe", 200),
    ("/healthz", 503),
    ("/", 200),
)


@pytest.mark.parametrize("worker", ["any", "wsgi"])
def test_probes_get_no_line_unless_they_fail(worker: str) -> None:
    config = Config(
        errorlog="error.log",
        accesslog="access.log",
        access_log_format="%(r)s %(s)s",
        access_log_skip=("/healthz", "/probe/*"),
    )
    configure(config)
    write = access_writer(config)
    assert write is not None
    left: list[object] = []
    write_exchange = exchange_writer(
        config, lambda exchange, _: left.append(exchange), serial=1, generation=0, hold=False
    )

    for target, status in PROBES:
        entry = AccessEntry("127.0.0.1", "GET", target, "HTTP/1.1", status, 0, 0, environ={})
        if worker == "any":
            write(entry)
        else:
            write_exchange(exchange_of(entry), 0)
    gone = exchange_of(
        AccessEntry("", "GET", "/healthz", "HTTP/1.1", 0, 0, 0, environ={}, ending=CLIENT_LEFT)
    )
    write_exchange(gone, 0)

    assert left == [gone]
    assert Path("access.log").read_text().splitlines() == [
        "GET /healthz/ HTTP/1.1 200",
        "GET /probe HTTP/1.1 200",
        "GET /healthz HTTP/1.1 503",
        "GET / HTTP/1.1 200",
    ]


def test_requests_are_told_to_statsd_with_and_without_a_line() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(5)
        place = TCPAddress(*server.getsockname())
        for accesslog in (None, "access.log"):
            config = Config(errorlog="error.log", accesslog=accesslog, statsd_host=place)
            configure(config)
            write = access_writer(config)
            assert write is not None
            write(ENTRY)
            assert b"gunicorn.requests:1|c" in server.recv(999)

        error_log.warning("look")

        assert server.recv(999) == b"gunicorn.log.warning:1|c|@1.0"
        configure(Config(errorlog="error.log"))
        assert setup.statsd() is None
    assert Path("access.log").read_text().count("\n") == 1


def test_statsd_that_cannot_be_found_is_a_warning() -> None:
    # A name that no resolver has to be asked about.
    configure(Config(errorlog="error.log", statsd_host=TCPAddress("a..b", 1)))

    assert "[WARNING] cannot find statsd at a..b:1: " in Path("error.log").read_text()


def test_json_has_typed_fields_and_a_line_per_record(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(setup, "_identity", {"worker": None, "generation": None})
    configure(Config(errorlog="error.log", log_format="json"))

    error_log.warning("two\nlines of %s", "m\x1bine")
    setup.identify(3, 1)
    try:
        raise ValueError("é \udcff")
    except ValueError:
        error_log.exception("cannot serve", extra={"order": 7, "path": Path("/x")})

    first, second = [json.loads(line) for line in Path("error.log").read_text().splitlines()]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}[+-]\d\d:\d\d", first.pop("time"))
    assert first == {
        "level": "warning",
        "logger": "forkmaster.error",
        "message": "two\nlines of m\x1bine",
        "pid": os.getpid(),
        "worker": None,
        "generation": None,
    }
    assert (second["worker"], second["generation"], second["order"]) == (3, 1, 7)
    assert second["exception"].endswith("ValueError: é \udcff")


def test_json_in_the_journal_has_its_priority(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("error.log").touch()
    status = os.stat("error.log")
    monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino}")
    configure(Config(errorlog="error.log", log_format="json"))

    error_log.error("broken")

    line = Path("error.log").read_text()
    assert line.startswith("<3>{")
    assert json.loads(line[3:])["message"] == "broken"

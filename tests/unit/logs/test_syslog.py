"""Where syslog is, and what it gets."""

from __future__ import annotations

import logging
import os
import socket
from pathlib import Path

import pytest

from forkmaster.config.table import Config
from forkmaster.errors import ConfigError, ForkmasterError
from forkmaster.logs.syslog import SyslogHandler, parse_syslog_address, syslog_handler

UDP, TCP = socket.SOCK_DGRAM, socket.SOCK_STREAM


@pytest.mark.parametrize(
    ("text", "address", "kind"),
    [
        ("udp://localhost:514", ("localhost", 514), UDP),
        ("udp://logs.example.com", ("logs.example.com", 514), UDP),
        ("tcp://[::1]:601", ("::1", 601), TCP),
        ("tcp://[::1]", ("::1", 514), TCP),
        ("unix:///dev/log", "/dev/log", None),
        ("unix:///dev/log#dgram", "/dev/log", UDP),
        ("unix:///dev/log#stream", "/dev/log", TCP),
    ],
)
def test_addresses(
    text: str, address: str | tuple[str, int], kind: socket.SocketKind | None
) -> None:
    assert parse_syslog_address(text) == (address, kind)


@pytest.mark.parametrize(
    "text",
    ["localhost:514", "http://x", "unix://", "unix:///x#y", "udp://a:99999", "udp://:fd://", "udp"],
)
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(ConfigError, match=r"^syslog_addr: "):
        parse_syslog_address(text)


def test_a_facility_that_does_not_exist() -> None:
    with pytest.raises(ConfigError, match='"local9" is no syslog facility'):
        syslog_handler(Config(syslog_facility="local9"), "error")


def test_nobody_there() -> None:
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{deaf.getsockname()[1]}"

        with pytest.raises(ForkmasterError, match=rf"^cannot log to {address}: Connection refused"):
            syslog_handler(Config(syslog_addr=address), "error")


def test_a_stream_has_a_line_per_message() -> None:
    with socket.create_server(("127.0.0.1", 0)) as daemon:
        address = f"tcp://127.0.0.1:{daemon.getsockname()[1]}"
        config = Config(syslog_addr=address, syslog_prefix="web", syslog_facility="LOCAL1")
        handler = syslog_handler(config, "access")
        connection, _ = daemon.accept()
        with connection:
            connection.settimeout(5)
            for message in ("one", "two"):
                handler.emit(logging.makeLogRecord({"levelname": "INFO", "msg": message}))
            handler.close()

            received = b"".join(iter(lambda: connection.recv(999), b""))

    line = f"<142>forkmaster.web.access: [{os.getpid()}] "
    assert received.decode() == f"{line}one\n{line}two\n"


def test_a_message_that_cannot_be_sent_is_counted(tmp_path: Path) -> None:
    path = str(tmp_path / "log")
    with socket.socket(socket.AF_UNIX, UDP) as daemon:
        daemon.bind(path)
        handler = syslog_handler(Config(syslog_addr=f"unix://{path}#dgram"), "error")
    os.unlink(path)

    handler.emit(logging.makeLogRecord({"msg": "lost"}))

    assert isinstance(handler, SyslogHandler)
    assert handler.lost == 1
    handler.close()

"""statsd: the datagrams, as a server gets them."""

from __future__ import annotations

import logging
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from forkmaster.addresses import TCPAddress, UnixAddress
from forkmaster.logs.access import AccessEntry
from forkmaster.logs.statsd import Statsd, StatsdHandler

ENTRY = AccessEntry("127.0.0.1", "GET", "/", "HTTP/1.1", 404, 12, 1_234_567)


@pytest.fixture(params=[socket.AF_INET, socket.AF_INET6], ids=["ipv4", "ipv6"])
def server(request: pytest.FixtureRequest) -> Iterator[socket.socket]:
    server = socket.socket(request.param, socket.SOCK_DGRAM)
    try:
        server.bind(("::1" if request.param == socket.AF_INET6 else "127.0.0.1", 0))
    except OSError:
        server.close()
        pytest.skip("there is no such address")
    server.settimeout(5)
    yield server
    server.close()


@pytest.fixture
def made() -> Iterator[list[Statsd]]:
    made: list[Statsd] = []
    yield made
    for each in made:
        each.close()


def to(server: socket.socket, made: list[Statsd], prefix: str = "", tags: str = "") -> Statsd:
    host, port = server.getsockname()[:2]
    made.append(Statsd(TCPAddress(host, port), prefix, tags))
    return made[-1]


def test_a_request_is_three_of_gunicorns_metrics(server: socket.socket, made: list[Statsd]) -> None:
    to(server, made).request(ENTRY)

    assert server.recv(999).decode().split("\n") == [
        "gunicorn.request.duration:1.235|ms",
        "gunicorn.requests:1|c|@1.0",
        "gunicorn.request.status.404:1|c|@1.0",
    ]


@pytest.mark.parametrize("prefix", ["shop", "shop.", "shop.."])
def test_a_prefix_ends_with_one_dot(server: socket.socket, made: list[Statsd], prefix: str) -> None:
    to(server, made, prefix).gauge("gunicorn.workers", 4)

    assert server.recv(999) == b"shop.gunicorn.workers:4|g"


def test_tags_are_those_of_dogstatsd(server: socket.socket, made: list[Statsd]) -> None:
    to(server, made, tags="env:prod,team:web").request(ENTRY)

    lines = server.recv(999).decode().split("\n")
    assert len(lines) == 3
    assert all(line.endswith("|#env:prod,team:web") for line in lines)


def test_messages_are_counted_by_their_level(server: socket.socket, made: list[Statsd]) -> None:
    log = logging.Logger("somebody")
    log.addHandler(StatsdHandler(to(server, made)))

    log.info("nothing")
    log.warning("a")
    log.error("b")
    log.critical("c")
    try:
        raise ValueError("no")
    except ValueError:
        log.exception("d")

    kinds = [server.recv(999).decode().partition(":")[0] for _ in range(4)]
    assert kinds == [
        f"gunicorn.log.{kind}" for kind in ("warning", "error", "critical", "exception")
    ]


def test_a_server_on_a_unix_socket_may_come_later_and_go(
    tmp_path: Path, made: list[Statsd], caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "statsd.sock"
    statsd = Statsd(UnixAddress(str(path)), "", "")
    made.append(statsd)

    statsd.histogram("gunicorn.backlog", 1)
    statsd.histogram("gunicorn.backlog", 2)
    for _ in range(2):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
            server.bind(str(path))
            server.settimeout(5)
            statsd.histogram("gunicorn.backlog", 3)
            assert server.recv(99) == b"gunicorn.backlog:3|h"
        path.unlink()

    assert [record.getMessage() for record in caplog.records] == [
        f"cannot send to statsd at unix:{path}: No such file or directory"
    ]


def test_a_server_that_does_not_read_holds_nobody_up(tmp_path: Path, made: list[Statsd]) -> None:
    path = tmp_path / "statsd.sock"
    made.append(Statsd(UnixAddress(str(path)), "", ""))

    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind(str(path))
        for _ in range(5000):  # ten times what the kernel keeps for a reader
            made[0].request(ENTRY)

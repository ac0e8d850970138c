"""Requests through a real master, whatever the kind of worker."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Serve, Servers
from tests.process.harness import (
    KINDS,
    Kind,
    Response,
    Server,
    ask,
    read_all,
    request_bytes,
    wait_for,
)


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(kind, marks=pytest.mark.xdist_group(f"echo {kind.name}"), id=kind.name)
        for kind in KINDS
    ],
)
def echo(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """The application for all behaviours, under each kind of worker, for many tests."""
    kind = request.param
    servers = Servers(tmp_path_factory.mktemp("echo"))
    yield servers.start(*kind.arguments, kind.app)
    servers.close()


def test_an_answer(serve: Serve, kind: Kind) -> None:
    server = serve(*kind.arguments, kind.hello)

    answer = server.get("/")

    assert answer.status == 200
    assert answer.body == b"hello, world\n"
    assert answer.headers["server"] == "forkmaster"
    assert "date" in answer.headers


def test_a_connection_is_kept_for_the_next_request(echo: Server) -> None:
    connection = echo.connect()

    answers = [ask(connection, "POST", "/", b"x" * size) for size in (1, 100_000, 0)]

    assert [len(answer.body) for answer in answers] == [1, 100_000, 0]
    assert not any(answer.closes for answer in answers)


def test_a_body_in_chunks_arrives_whole(echo: Server) -> None:
    connection = echo.connect()

    connection.request("POST", "/", iter([b"abc", b"defg"]), encode_chunked=True)
    body = connection.getresponse().read()

    assert body == b"abcdefg"


def test_a_big_answer_arrives_whole(echo: Server) -> None:
    assert echo.get("/big?9000000").body == b"x" * 9_000_000


def test_a_stream_arrives_in_chunks(echo: Server) -> None:
    answer = echo.get("/stream?3")

    assert answer.body == b"part 0\npart 1\npart 2\n"
    assert answer.headers["transfer-encoding"] == "chunked"


def test_a_client_that_wants_to_close_is_obeyed(echo: Server) -> None:
    with echo.send(request_bytes("/stream?1", "Connection: close")) as raw:
        received = read_all(raw)

    assert received.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"part 0\n" in received


def test_pipelined_requests_are_answered_in_order(echo: Server) -> None:
    requests = b"".join(
        b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\n%d" % number
        for number in range(5)
    )

    with echo.send(requests + request_bytes("/pid", "Connection: close")) as raw:
        received = read_all(raw)

    bodies = [part.split(b"HTTP/1.1")[0] for part in received.split(b"\r\n\r\n")[1:]]
    assert bodies[:5] == [b"0", b"1", b"2", b"3", b"4"]
    assert received.count(b"200 OK") == 6


def test_a_slow_client_holds_nobody_up(echo: Server) -> None:
    slow_head = echo.send(b"GET /pid HTTP/1.1\r\nHost: lo")
    slow_body = echo.send(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\nx")
    slow_reader = echo.send(request_bytes("/big?20000000", "Connection: close"))

    answer = echo.get("/pid")

    assert answer.status == 200
    slow_head.sendall(b"calhost\r\nConnection: close\r\n\r\n")
    assert read_all(slow_head).endswith(answer.body)
    assert read_all(slow_reader).endswith(b"x" * 1000)
    slow_body.close()


def test_an_idle_connection_is_closed_after_keepalive(serve: Serve, kind: Kind) -> None:
    server = serve(*kind.arguments, "--keep-alive", "1", kind.hello)

    with server.send(request_bytes("/")) as raw:
        received = read_all(raw)

    assert received.endswith(b"hello, world\n")


def test_every_worker_serves(serve: Serve, kind: Kind) -> None:
    server = serve(*kind.arguments, "-w", "3", kind.app).wait_until_ready(3)

    pids = {int(ask(server.connect(), "GET", "/pid").body) for _ in range(30)}

    assert pids == set(server.workers())


def test_a_unix_socket_and_a_port_at_once(serve: Serve, kind: Kind, tmp_path: Path) -> None:
    path = tmp_path / "s"
    server = serve(*kind.arguments, "-b", f"unix:{path}", kind.hello).wait_until_ready()

    with socket.socket(socket.AF_UNIX) as raw:
        raw.connect(str(path))
        raw.sendall(request_bytes("/", "Connection: close"))
        received = read_all(raw)
    by_port = server.get("/")
    server.stop()

    assert received.endswith(b"hello, world\n")
    assert by_port.status == 200
    assert not path.exists()


def test_the_kind_is_found_from_the_application(serve: Serve) -> None:
    wsgi, asgi = serve("wsgi_echo"), serve("asgi_echo")

    answers: list[Response] = [server.get("/pid") for server in (wsgi, asgi)]

    assert [answer.status for answer in answers] == [200, 200]


def test_the_attribute_can_be_named(serve: Serve) -> None:
    assert serve("simple_app:simple_app").get("/").body == b"simple\n"


def test_a_sync_worker_imports_neither_asyncio_nor_uvicorn(serve: Serve) -> None:
    server = serve("wsgi_echo")

    modules = set(server.get("/modules").body.decode().split())

    # What the master imported before the fork is among them.
    assert not modules & {"asyncio", "uvicorn", "uvloop", "websockets"}


def test_fastapi(serve: Serve) -> None:
    server = serve("fastapi_app:app")

    assert server.get("/").body == b'{"hello":"fastapi","ready":true}'
    assert server.get("/sync").body == b'{"hello":"thread"}'


@pytest.mark.parametrize("sendfile", ["--sendfile", "--no-sendfile"])
def test_a_file_is_the_same_with_and_without_sendfile(
    serve: Serve, tmp_path: Path, sendfile: str
) -> None:
    content = bytes(range(256)) * 4096
    (tmp_path / "content").write_bytes(content)
    (tmp_path / "file_app.py").write_text(
        """
def application(environ, start_response):
    start_response("200 OK", [("Content-Length", "1048576")])
    return environ["wsgi.file_wrapper"](open("content", "rb"))
"""
    )
    server = serve(sendfile, "file_app", cwd=tmp_path)

    assert server.get().body == content


def test_a_logger_class_writes_what_it_makes_of_a_request(
    serve: Serve, kind: Kind, tmp_path: Path
) -> None:
    config = tmp_path / "gunicorn.py"
    config.write_text(
        """
from gunicorn.glogging import Logger

class Mine(Logger):
    def access(self, resp, req, environ, request_time):
        self.access_log.info("mine %s %s %s", req.method, req.path, resp.status_code)

logger_class = Mine
accesslog = "access.log"
"""
    )
    server = serve(*kind.arguments, "-c", str(config), "--chdir", str(tmp_path), kind.app)
    log = tmp_path / "access.log"

    assert server.get("/pid?q=1").status == 200

    wait_for(lambda: log.exists() and log.read_text() == "mine GET /pid 200\n")

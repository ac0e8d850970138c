"""The worker hypercorn: HTTP/2 with its clients, and all that an asgi worker does besides."""

from __future__ import annotations

import json
import re
import shutil
import signal
import socket
import subprocess
from pathlib import Path

import pytest

from tests.certificates import Certificates
from tests.conftest import Serve
from tests.process.harness import Clients, Server, ask, is_gone, wait_for
from tests.process.http2_client import HTTP2Client
from tests.process.test_asgi_worker import frame


def connect(server: Server) -> HTTP2Client:
    sock = socket.create_connection(("127.0.0.1", server.port), 10)
    server._clients.append(sock)
    return HTTP2Client(sock)


def curl(*arguments: str) -> subprocess.CompletedProcess[str]:
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed (apt-get install curl)")
    command = ["curl", "--silent", "--show-error", "--max-time", "20", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True)


@pytest.fixture
def h2load() -> str:
    path = shutil.which("h2load")
    if path is None:
        pytest.skip("h2load is not installed (apt-get install nghttp2-client)")
    return path


def test_curl_speaks_either_version(serve: Serve, tmp_path: Path) -> None:
    server = serve("-k", "hypercorn", "--access-logfile", "-", "asgi_echo").wait_until_ready()

    versions = {
        flag: json.loads(curl(flag, f"{server.url}/scope?a").stdout)["http_version"]
        for flag in ("--http2-prior-knowledge", "--http2", "--http1.1")
    }
    body = tmp_path / "body"
    body.write_text(300_000 * "x")
    sent = curl("--http2-prior-knowledge", "--data-binary", f"@{body}", server.url).stdout

    # --http2 asks for an upgrade, which is answered in HTTP/1.1.
    assert versions == {"--http2-prior-knowledge": "2", "--http2": "1.1", "--http1.1": "1.1"}
    assert sent == 300_000 * "x"
    server.wait_for_line(r'127\.0\.0\.1 - - .*"GET /scope\?a HTTP/2\.0" 200 \d+ "-" "curl/')
    server.wait_for_line(r'"POST / HTTP/2\.0" 200 300000 ')


def test_the_version_is_agreed_on_by_alpn(
    serve: Serve, certificates: Certificates, h2load: str
) -> None:
    encrypted = ("--certfile", certificates.cert, "--keyfile", certificates.key)
    server = serve("-k", "hypercorn", *encrypted, "asgi_echo").wait_until_ready()
    url = f"https://127.0.0.1:{server.port}"

    scopes = [
        json.loads(curl("--insecure", flag, f"{url}/scope").stdout)
        for flag in ("--http2", "--http1.1")
    ]
    command = [h2load, "--requests=300", "--clients=3", "--max-concurrent-streams=10"]
    ran = subprocess.run(
        [*command, f"{url}/pid"], check=True, capture_output=True, text=True, timeout=50
    )

    assert [(scope["http_version"], scope["scheme"]) for scope in scopes] == [
        ("2", "https"),
        ("1.1", "https"),
    ]
    assert "Application protocol: h2\n" in ran.stdout
    assert "300 done, 300 succeeded, 0 failed, 0 errored, 0 timeout" in ran.stdout


def test_h2load_loses_nothing(serve: Serve, h2load: str) -> None:
    server = serve("-k", "hypercorn", "-w", "2", "asgi_echo").wait_until_ready(2)

    command = [h2load, "--requests=1000", "--clients=4", "--max-concurrent-streams=20"]
    ran = subprocess.run(
        [*command, f"{server.url}/pid"], check=True, capture_output=True, text=True, timeout=50
    )

    assert "1000 done, 1000 succeeded, 0 failed, 0 errored, 0 timeout" in ran.stdout
    wait_for(lambda: server.board().totals.counters["status_2xx"] == 1000)


def test_a_drain_answers_what_runs_and_what_is_on_its_way(serve: Serve) -> None:
    server = serve("-k", "hypercorn", "asgi_echo").wait_until_ready()
    client = connect(server)
    waiting = client.begin("/until-draining")
    wait_for(lambda: server.board().totals.counters["in_flight"] == 1)
    (worker,) = server.workers()

    server.send_signal(signal.SIGTERM)
    server.wait_until_draining()
    late = client.begin("/pid")

    assert client.answer(waiting).body == b"draining"
    assert client.answer(late).status == 200
    client.read_until(lambda: client.is_told_to_go)
    assert server.wait() == 0
    assert is_gone(worker)


class HTTP2Load(Clients):
    """Clients that ask for all paths at once, and go where they are told to."""

    def __init__(self, server: Server, *paths: str, clients: int = 4) -> None:
        super().__init__(clients)
        self.server = server
        self.paths = paths
        self.connections = 0

    def _run(self) -> None:
        client = None
        while not self.stopping.is_set():
            try:
                if client is None or client.is_told_to_go:
                    client = connect(self.server)
                    self.connections += 1
                streams = [client.begin(path) for path in self.paths]
                for stream in streams:
                    answer = client.answer(stream)
                    if answer.status != 200:
                        self.lost.append(f"status {answer.status}")
                    self.answered += 1
            except OSError as exc:
                self.lost.append(repr(exc))
                client = None


def test_a_reload_under_load_loses_nothing(serve: Serve) -> None:
    server = serve("-k", "hypercorn", "-w", "2", "asgi_echo").wait_until_ready(2)
    before = set(server.workers())

    with HTTP2Load(server, "/pid", "/pid", "/pid") as load:
        load.wait_for_answers(100)
        server.send_signal(signal.SIGHUP)
        wait_for(lambda: not before & set(server.workers()), 30, "new workers")
        load.wait_for_answers(100)

    assert load.lost == []
    assert load.connections > 4


@pytest.mark.lab
def test_a_websocket_over_http_2_is_closed_with_1012(serve: Serve, tmp_path: Path) -> None:
    conf = tmp_path / "gunicorn.py"
    conf.write_text("worker_class = 'hypercorn'\nuvicorn_options = {'ws_ping_interval': None}\n")
    server = serve("-c", str(conf), "asgi_echo").wait_until_ready()
    client = connect(server)
    stream = client.open_websocket()
    client.send(stream, frame(0x81, b"hello"))
    echoed = client.body(stream, 7)

    server.send_signal(signal.SIGTERM)
    closed = client.body(stream, 11)[7:]

    assert echoed == b"\x81\x05hello"
    assert closed[0] == 0x88
    assert int.from_bytes(closed[2:4], "big") == 1012
    client.send(stream, frame(0x88, closed[2:4]), ends=True)
    assert server.wait() == 0


@pytest.mark.lab
def test_a_request_that_takes_too_long_gets_504_and_the_others_go_on(serve: Serve) -> None:
    server = serve("-k", "hypercorn", "--request-timeout", "0.5", "asgi_echo").wait_until_ready()
    server.expect("took longer than request_timeout")
    (worker,) = server.workers()
    client = connect(server)

    late = client.begin("/slow?600")
    other = client.ask("/pid")

    assert other.status == 200
    assert client.answer(late).status == 504
    assert server.workers() == [worker]


@pytest.mark.lab
def test_a_blocked_loop_is_found_with_its_request(serve: Serve) -> None:
    server = serve("-k", "hypercorn", "--timeout", "1", "asgi_echo").wait_until_ready()
    server.expect(r"worker 1 \(pid \d+\) sent no heartbeat for .*, serving GET /block")
    client = connect(server)
    (worker,) = server.workers()

    client.begin("/block")
    wait_for(lambda: is_gone(worker), what="the end of the worker")

    assert re.search(r'asgi_echo\.py", line \d+ in http', server.log)
    assert "Task Task-1 " in server.log


@pytest.mark.lab
def test_max_requests_counts_streams(serve: Serve) -> None:
    server = serve("-k", "hypercorn", "--max-requests", "20", "asgi_echo").wait_until_ready()
    (before,) = server.workers()
    client = connect(server)

    for _ in range(20):
        assert client.ask("/pid").status == 200
    server.wait_for_line("max_requests")

    wait_for(lambda: server.workers() not in ([], [before]), what="a new worker")


@pytest.mark.lab
def test_hooks_see_a_request_of_http_2(serve: Serve, tmp_path: Path) -> None:
    conf = tmp_path / "gunicorn.py"
    conf.write_text(
        "worker_class = 'hypercorn'\n"
        "http_protocols = 'h2,h1'\n"
        "def pre_request(worker, req):\n"
        "    req.headers.append(('X-ADDED', 'by the hook'))\n"
        "def post_request(worker, req, environ, resp):\n"
        "    worker.log.info('%s %s %s %s', req.method, req.uri, req.version, resp.status)\n"
    )
    server = serve("-c", str(conf), "asgi_echo").wait_until_ready()

    answer = connect(server).ask("/request?a")

    assert answer.body == b"http by the hook -"
    server.wait_for_line(r"GET /request\?a \(2, 0\) 200")


def test_an_application_of_http_1_is_served_as_ever(serve: Serve) -> None:
    server = serve("-k", "hypercorn", "asgi_echo").wait_until_ready()
    connection = server.connect()

    assert ask(connection, "POST", "/", b"x").body == b"x"
    assert not ask(connection, "GET", "/pid").closes

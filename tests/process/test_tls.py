"""TLS from the start of a server to its end, for every kind of worker."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import ssl
from http.client import HTTPSConnection
from pathlib import Path

import pytest
from websockets.sync.client import connect

from tests.certificates import Certificates
from tests.conftest import Serve
from tests.process.everybody import PYTHON
from tests.process.harness import (
    Kind,
    Response,
    Server,
    ask,
    read_all,
    request_bytes,
    wait_for,
)
from tests.process.test_reload import reload


def serve_encrypted(serve: Serve, certificates: Certificates, *arguments: str) -> Server:
    return serve("--certfile", certificates.cert, "--keyfile", certificates.key, *arguments)


def open_encrypted(server: Server, context: ssl.SSLContext) -> HTTPSConnection:
    connection = HTTPSConnection("localhost", server.port, timeout=10, context=context)
    connection.connect()
    return connection


def get(server: Server, context: ssl.SSLContext, path: str = "/pid") -> Response:
    connection = open_encrypted(server, context)
    try:
        return ask(connection, "GET", path)
    finally:
        connection.close()


def test_everything_is_encrypted_but_the_word_that_it_is(
    serve: Serve, kind: Kind, certificates: Certificates
) -> None:
    server = serve_encrypted(serve, certificates, *kind.arguments, kind.app)

    kept = open_encrypted(server, certificates.client_context)
    answers = [ask(kept, "GET", "/pid"), ask(kept, "GET", "/pid")]
    # As long as one client shows nothing, and another says the wrong thing.
    with socket.create_connection(("localhost", server.port), 10):
        plain = server.get("/pid")
        answers.append(get(server, certificates.client_context))
    kept.close()

    assert [answer.status for answer in answers] == [200, 200, 200]
    assert plain.status == 400
    assert b"this port speaks TLS" in plain.body


def test_the_proxy_header_comes_before_tls(
    serve: Serve, kind: Kind, certificates: Certificates
) -> None:
    server = serve_encrypted(serve, certificates, "--proxy-protocol", *kind.arguments, kind.app)

    raw = socket.create_connection(("localhost", server.port), 10)
    raw.sendall(b"PROXY TCP4 192.0.2.7 192.0.2.8 1234 443\r\n")
    sock = certificates.client_context.wrap_socket(raw, server_hostname="localhost")
    sock.sendall(request_bytes("/pid", "Connection: close"))
    answer = read_all(sock)
    sock.close()
    with socket.create_connection(("localhost", server.port), 10) as other:
        other.sendall(request_bytes("/pid"))
        refused = read_all(other)

    assert answer.startswith(b"HTTP/1.1 200 ")
    assert refused.startswith(b"HTTP/1.1 400 ")


def test_a_certificate_that_cannot_be_used_stops_the_start(
    serve: Serve, certificates: Certificates
) -> None:
    server = serve("--certfile", certificates.cert, "--keyfile", certificates.client_key, "hello")
    server.expect("is not that of")

    assert server.wait() == 5
    assert f"keyfile: the key in {certificates.client_key} is not that of" in server.log


@pytest.mark.lab
@pytest.mark.parametrize("preload", [False, True], ids=["forked", "preloaded"])
def test_a_reload_takes_the_new_certificate_or_none(
    serve: Serve, certificates: Certificates, tmp_path: Path, preload: bool
) -> None:
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    shutil.copy(certificates.cert, cert)
    shutil.copy(certificates.key, key)
    arguments = ("--preload",) if preload else ()
    server = serve("--certfile", cert, "--keyfile", key, *arguments, "wsgi_echo")
    server.wait_until_ready()
    before = get(server, certificates.client_context).body

    server.expect("reload refused: certfile: ")
    # The worker looks at its files itself, and may be faster than the reload.
    server.tolerate("cannot renew the certificate")
    cert.write_text("broken\n")
    reload(server, "reload refused")
    assert get(server, certificates.client_context).body == before
    shutil.copy(certificates.cert, cert)
    reload(server)

    assert get(server, certificates.client_context).body != before


@pytest.mark.lab
def test_silent_clients_do_not_hold_up_a_stop(
    serve: Serve, kind: Kind, certificates: Certificates
) -> None:
    server = serve_encrypted(
        serve, certificates, "--header-timeout", "60", "--keep-alive", "0.5", *kind.arguments,
        kind.app,
    )  # fmt: skip
    get(server, certificates.client_context)
    silent = socket.create_connection(("localhost", server.port), 10)
    wait_for(lambda: server.board().totals.counters["accepted"] >= 2)

    server.send_signal(signal.SIGTERM)

    assert read_all(silent) == b""
    silent.close()
    assert server.wait() == 0


def test_a_websocket_is_encrypted_too(serve: Serve, certificates: Certificates) -> None:
    server = serve_encrypted(serve, certificates, "asgi_echo")

    url = f"wss://localhost:{server.port}/ws"
    with connect(url, ssl=certificates.client_context) as ws:
        ws.send("héllo")
        received = ws.recv(10)

    assert received == "héllo"


def test_http_2_is_negotiated(serve: Serve, certificates: Certificates) -> None:
    server = serve_encrypted(serve, certificates, "-k", "hypercorn", "asgi_echo")
    context = certificates.new_client_context()
    context.set_alpn_protocols(["h2"])

    with socket.create_connection(("localhost", server.port), 10) as raw:
        sock = context.wrap_socket(raw, server_hostname="localhost")
        agreed = sock.selected_alpn_protocol()
        sock.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0")
        frame = sock.recv(9)
        sock.close()

    assert agreed == "h2"
    assert frame[3] == 4  # SETTINGS (RFC 9113 6.5)


@pytest.mark.skipif(PYTHON is None, reason="needs root, and a Python that nobody may run")
@pytest.mark.lab
@pytest.mark.parametrize("preload", [False, True], ids=["forked", "preloaded"])
def test_the_key_may_be_roots_alone(
    serve: Serve, certificates: Certificates, tmp_path: Path, preload: bool
) -> None:
    assert PYTHON is not None
    python, environ = PYTHON
    key = tmp_path / "key.pem"
    shutil.copy(certificates.key, key)
    os.chmod(key, 0o600)
    arguments = ("--preload",) if preload else ()

    server = serve(
        "--user", "nobody", "--certfile", certificates.cert, "--keyfile", key, *arguments,
        "wsgi_echo", python=python, env=environ,
    )  # fmt: skip

    assert get(server, certificates.client_context).status == 200

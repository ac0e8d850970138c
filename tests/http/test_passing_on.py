"""A kept connection that the other thread is passing to a sibling is not the loop's any more."""

from __future__ import annotations

import socket
import struct
from pathlib import Path
from typing import Any

import pytest

from forkmaster.http.environ import Origin
from forkmaster.worker.connection import Connection
from forkmaster.worker.handoff import pass_on
from tests.http.running import Running, listen, running
from tests.http.test_answers import ask
from tests.process.harness import wait_for


def application(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]


def told(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"{environ['SERVER_PORT']} {environ['wsgi.url_scheme']}".encode()]


def passed(server: Running, listener: socket.socket, where: int) -> socket.socket:
    """A client's connection through `listener`, which a sibling passes on to this worker."""
    client = socket.create_connection(listener.getsockname(), 5)
    with listener.accept()[0] as sock:
        connection = Connection(sock, where, Origin({}))
        connection.host, port = client.getsockname()
        connection.port = str(port)
        assert pass_on(server.site.handoff[1], connection)
    return client


def test_a_sibling_may_have_listeners_that_this_worker_has_not(kind: str, tmp_path: Path) -> None:
    # During a reload that changes `bind`.  Whoever came over TCP must not be taken for one that
    # came through a unix socket, which only a proxy of this machine can.
    unix = listen(socket.AF_UNIX, str(tmp_path / "sock"))
    request = b"GET / HTTP/1.1\r\nHost: h:1\r\nX-Forwarded-Proto: https\r\n\r\n"
    with (
        socket.create_server(("127.0.0.1", 0)) as other,
        running(told, kind, (unix,), forwarded_allow_ips=()) as server,
    ):
        answers = []
        for where in (0, 7):
            with passed(server, other, where) as client:
                answers.append(ask(client, request)[1])
        port = other.getsockname()[1]

    assert answers == [f"{port} http".encode()] * 2


def test_a_client_that_left_while_it_was_passed_on_costs_nothing(kind: str) -> None:
    with running(told, kind, proxy_protocol="v1") as server:
        listener = server.site.listeners[0]
        with socket.create_server(("127.0.0.1", 0)) as other:
            client = socket.create_connection(other.getsockname(), 5)
            sock, _ = other.accept()
            connection = Connection(sock, 0, Origin({}))
            connection.host, connection.port = "192.0.2.1", "1234"
            connection.proxied = {"PROXY_PROTOCOL": "TCP4"}
            reset(client)
            # Until the kernel has forgotten who it was.
            wait_for(lambda: is_nobody(sock))
            assert pass_on(server.site.handoff[1], connection)
            sock.close()
        with socket.create_connection(listener.getsockname(), 5) as good:
            good.sendall(b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n")
            status = ask(good, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")[0].status_code

    assert status == 200


def reset(sock: socket.socket) -> None:
    """End a connection with RST."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def is_nobody(sock: socket.socket) -> bool:
    try:
        sock.getpeername()
    except OSError:
        return True
    return False


def test_a_request_on_a_connection_that_is_being_passed_on_is_left_to_the_sibling() -> None:
    request = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
    with running(application, "sync") as server, server.connect() as client:
        idle = server.worker._idle
        client.sendall(request)
        client.recv(4096)
        wait_for(lambda: len(idle) == 1, what="the connection is idle")
        fd, connection = idle.popitem()  # as the thread does that passes it on

        client.sendall(request)
        seen = server.slot.words[0:64].tolist()
        wait_for(lambda: server.slot.words[0:64].tolist() != seen, what="the loop has run")
        client.settimeout(0.1)
        with pytest.raises(TimeoutError):
            client.recv(4096)
        client.settimeout(5)
        idle[fd] = connection  # no sibling could take it

        assert client.recv(4096).startswith(b"HTTP/1.1 200 OK")

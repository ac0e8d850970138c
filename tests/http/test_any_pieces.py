"""However requests are cut and queued on a connection, they are answered as if each came alone."""

from __future__ import annotations

import hashlib
import socket
from typing import Any

import h11
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.http.running import read_to_end, running
from tests.unit.http.test_any_request import requests


def digest(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    """All that a request says, in one line."""
    names = sorted(key for key in environ if key.startswith("HTTP_") or key.isupper())
    said = [f"{name}={environ[name]!r}" for name in names if not name.startswith("REMOTE_")]
    body = environ["wsgi.input"].read()
    start_response("200 OK", [])
    return [hashlib.sha256("\n".join(said).encode() + body).hexdigest().encode()]


def answers(sock: socket.socket, count: int) -> list[bytes]:
    """The bodies of the next `count` answers, as h11 reads them."""
    client = h11.Connection(h11.CLIENT)
    bodies = []
    for _ in range(count):
        client.send(h11.Request(method="GET", target="/", headers=[("Host", "x")]))
        client.send(h11.EndOfMessage())
        body = b""
        while not isinstance(event := client.next_event(), h11.EndOfMessage):
            if event is h11.NEED_DATA:
                client.receive_data(sock.recv(65536))
            elif isinstance(event, h11.Data):
                body += event.data
        bodies.append(body)
        client.start_next_cycle()
    assert client.trailing_data[0] == b""
    return bodies


def test_any_pieces_of_any_requests_get_the_same_answers(kind: str) -> None:
    with running(digest, kind) as worker:

        @settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
        @given(
            st.lists(requests(), min_size=1, max_size=3),
            st.lists(st.integers(1, 40), min_size=1, max_size=20),
        )
        def check(several: list[bytes], steps: list[int]) -> None:
            alone = []
            for request in several:
                with worker.connect() as sock:
                    sock.sendall(request)
                    alone += answers(sock, 1)

            data, turn = b"".join(several), 0
            with worker.connect() as sock:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                while data:
                    step = steps[turn % len(steps)]
                    sock.sendall(data[:step])
                    data, turn = data[step:], turn + 1
                together = answers(sock, len(several))

            assert together == alone

        check()


# What readers look for, in any order, between any bytes.
WORDS = st.sampled_from(
    [
        *(bytes([byte]) for byte in b"\r\n\0\t :;,=%[]"),
        b"\r\n",
        b"\r\n\r\n",
        b"GET ",
        b"POST ",
        b"/",
        b" HTTP/1.1\r\n",
        b" HTTP/1.0\r\n",
        b"Host: x\r\n",
        b"Content-Length: 3\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"Expect: 100-continue\r\n",
        b"3\r\nabc\r\n",
        b"0\r\n\r\n",
        b"PROXY ",
        b"TCP4 1.2.3.4 5.6.7.8 1 2\r\n",
        b"TCP6 ::1%",
        b" ::2 1 2\r\n",
        b"\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c",
        b"\x16\x03\x01\x00\x05",
    ]
)


@pytest.mark.parametrize("proxy_protocol", ["off", "auto"])
def test_no_bytes_end_a_worker(kind: str, proxy_protocol: str) -> None:
    with running(digest, kind, proxy_protocol=proxy_protocol) as worker:

        @settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
        @given(st.lists(st.one_of(WORDS, st.binary(max_size=8)), max_size=12).map(b"".join))
        def check(data: bytes) -> None:
            with worker.connect() as sock:
                sock.sendall(data)
                sock.shutdown(socket.SHUT_WR)
                try:
                    read_to_end(sock)
                except ConnectionResetError:
                    pass  # half a request and an end: nobody is answered
            assert worker.failure is None

        check()
        first = b"" if proxy_protocol == "off" else b"PROXY UNKNOWN\r\n"
        with worker.connect() as sock:
            sock.sendall(first + b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert len(answers(sock, 1)) == 1

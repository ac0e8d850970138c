"""However requests are cut and queued on a connection, they are answered as if each came alone."""

from __future__ import annotations

import hashlib
import socket
from typing import Any

import h11
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.http.running import running
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

"""Every request that must be refused, over a real socket, with h11 as the client that judges."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import h11
import pytest

from tests.http.running import KINDS, Running, read_to_end, running
from tests.unit.http.test_body import REFUSED as BODIES
from tests.unit.http.test_head import REFUSED as HEADS

CHUNKED = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
SMUGGLED = b"\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"

CASES = {f"head: {name}": (status, head + b"\r\n\r\n") for name, (status, head) in HEADS.items()}
CASES |= {f"body: {name}": (status, CHUNKED + body) for name, (status, body) in BODIES.items()}

asked: list[str] = []


def application(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    asked.append(environ["RAW_URI"])
    start_response("200 OK", [("Content-Length", "0")])
    return []


@pytest.fixture(scope="module", params=list(KINDS))
def worker(request: pytest.FixtureRequest) -> Iterator[Running]:
    """One worker of each kind, which all cases meet one after the other."""
    # As many fields as the bodies of the table are bounded by.
    with running(application, request.param, limit_request_fields=3) as worker:
        yield worker


@pytest.mark.parametrize("case", CASES)
def test_it_is_refused_and_nothing_behind_it_is_a_request(worker: Running, case: str) -> None:
    status, request = CASES[case]
    asked.clear()

    with worker.connect() as sock:
        sock.sendall(request + SMUGGLED)
        answer = read_to_end(sock)

    assert status_and_rest(answer) == (status, b"")
    assert b"\r\nConnection: close\r\n" in answer
    assert asked == []


def status_and_rest(answer: bytes) -> tuple[int, bytes]:
    """What h11 makes of the answer: its status, and what it leaves over."""
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method="POST", target="/", headers=[("Host", "x")]))
    client.send(h11.EndOfMessage())
    client.receive_data(answer)
    client.receive_data(b"")
    response = client.next_event()
    assert isinstance(response, h11.Response)
    while not isinstance(client.next_event(), h11.EndOfMessage):
        pass
    assert client.their_state is h11.MUST_CLOSE
    return response.status_code, client.trailing_data[0]

"""A kept connection that the other thread is passing to a sibling is not the loop's any more."""

from __future__ import annotations

from typing import Any

import pytest

from tests.http.running import running
from tests.process.harness import wait_for


def application(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]


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

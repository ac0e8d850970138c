"""Clients that take their time, on purpose or not: they hold up nobody but themselves."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

from forkmaster.board import layout
from tests.http.running import read_to_end, running
from tests.http.test_answers import ask, hello
from tests.process.harness import wait_for

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
HALVES = (
    b"",
    b"GET / HTTP/1.1\r\nHost: x\r\nX-Slow: ",
    b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nabc",
    b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n40\r\nabc",
)


def is_open(sock: socket.socket) -> bool:
    """Whether nothing has come from the server, its end neither."""
    sock.setblocking(False)
    try:
        sock.recv(1)
    except BlockingIOError:
        return True
    return False


def test_who_was_refused_and_does_not_close_holds_nobody_up(kind: str) -> None:
    # gunicorn waits up to 2 s for each of them, on the thread that accepts.
    with running(hello, kind) as worker, ExitStack() as stack:
        refused = [stack.enter_context(worker.connect()) for _ in range(20)]
        for sock in refused:
            sock.sendall(b"GET /\r\n\r\n")
        for sock in refused:
            assert read_to_end(sock).startswith(b"HTTP/1.1 400 ")
        with worker.connect() as sock:  # which has less patience than 20 times 2 s
            answers = [ask(sock, GET)[0].status_code for _ in range(10)]

        assert answers == [200] * 10
        # They are given up in the end, without their doing.
        wait_for(lambda: worker.slot.words[layout.CONNECTIONS] == 0)


def test_many_that_never_come_to_the_point_hold_nobody_up(kind: str) -> None:
    with running(hello, kind, header_timeout=60, body_timeout=60) as worker, ExitStack() as stack:
        slow = [(stack.enter_context(worker.connect()), HALVES[n % 4]) for n in range(100)]
        for sock, half in slow:
            sock.sendall(half)
        wait_for(lambda: worker.slot.words[layout.CONNECTIONS] == 100)
        with worker.connect() as sock:
            answers = [ask(sock, GET)[0].status_code for _ in range(20)]

        assert answers == [200] * 20
        assert all(is_open(sock) for sock, _ in slow)


def test_a_head_byte_by_byte_has_header_timeout_in_all(kind: str) -> None:
    with running(hello, kind, header_timeout=0.5) as worker:
        began = time.monotonic()
        with worker.connect() as sock:
            while is_open(sock):
                sock.send(b"a")  # the longest method of all
                time.sleep(0.02)
                assert time.monotonic() - began < 20
        took = time.monotonic() - began

    assert took >= 0.5


def test_a_body_byte_by_byte_may_take_as_long_as_it_comes(kind: str) -> None:
    # body_timeout is for the time between two pieces.
    with running(hello, kind, body_timeout=5.0) as worker, worker.connect() as sock:
        sock.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 20\r\n\r\n")
        for _ in range(19):
            sock.sendall(b"x")
            assert is_open(sock)
        sock.setblocking(True)
        response, _ = ask(sock, b"x")

    assert response.status_code == 200


def test_many_that_do_not_read_hold_nobody_up(kind: str) -> None:
    def application(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain")])
        for _ in range(int(environ["QUERY_STRING"])):
            yield b"x" * 65536

    with running(application, kind) as worker, ExitStack() as stack:
        for _ in range(20):
            sock = stack.enter_context(worker.connect())
            sock.sendall(b"GET /?1000 HTTP/1.1\r\nHost: x\r\n\r\n")
        wait_for(lambda: worker.slot.words[layout.CONNECTIONS] == 20)
        with worker.connect() as sock:
            answers = [
                ask(sock, b"GET /?0 HTTP/1.1\r\nHost: x\r\n\r\n")[0].status_code for _ in range(10)
            ]

    assert answers == [200] * 10

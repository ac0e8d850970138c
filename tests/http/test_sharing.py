"""Several workers on one listener: a fair share of connections, and nobody waits for the slow."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from forkmaster.board import layout
from forkmaster.board.counters import read_counters
from forkmaster.worker.connections import SECOND
from tests.http.running import Running, read_to_end, running, several
from tests.http.test_answers import ask, read_answer
from tests.process.harness import wait_for

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


class Holding:
    """An application that holds the requests for /slow until it is told to let go."""

    def __init__(self) -> None:
        self.let_go = threading.Event()

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        if environ["PATH_INFO"] == "/slow":
            assert self.let_go.wait(20)
        start_response("200 OK", [])
        peer = f"{environ['REMOTE_ADDR']}:{environ['REMOTE_PORT']}"
        return [peer.encode()]


@contextmanager
def held(worker: Running, application: Holding, times: int) -> Iterator[None]:
    """`times` requests inside the application, of which this thread does not know the worker."""
    with ExitStack() as stack:
        socks = [stack.enter_context(worker.connect()) for _ in range(times)]
        for sock in socks:
            sock.sendall(b"GET /slow HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        yield
        application.let_go.set()
        for sock in socks:
            assert read_to_end(sock).startswith(b"HTTP/1.1 200 ")


def test_connections_of_a_busy_worker_are_answered_by_a_sibling(kind: str) -> None:
    application = Holding()
    threads = 1 if kind == "sync" else 2
    with ExitStack() as stack:
        workers = stack.enter_context(several(application, kind, 2, keepalive=30, threads=threads))
        kept = [stack.enter_context(workers[0].connect()) for _ in range(8)]
        for sock in kept:
            ask(sock, GET)
        words = [worker.slot.words for worker in workers]

        def is_busy(words: memoryview[int]) -> bool:
            return read_counters(words)["in_flight"] == threads

        of_each = [w[layout.CONNECTIONS] for w in words]

        # So many that one of the two has no thread left, and the other has.
        with held(workers[0], application, 2 * threads - 1):
            wait_for(lambda: any(map(is_busy, words)))
            busy = list(map(is_busy, words)).index(True)
            for sock in kept:
                began = time.monotonic()
                _, body = ask(sock, GET)
                assert time.monotonic() - began < 5
                host, port = sock.getsockname()
                assert body == f"{host}:{port}".encode()

        # It is counted when the connection is gone, and the answer may be there by then.
        wait_for(lambda: words[busy][layout.HANDED_OFF] >= of_each[busy])
        assert words[1 - busy][layout.ADOPTED] >= of_each[busy]


def test_a_burst_of_connections_is_shared(kind: str) -> None:
    with ExitStack() as stack:
        workers = stack.enter_context(several(Holding(), kind, 4, keepalive=30))
        socks = [stack.enter_context(workers[0].connect()) for _ in range(40)]
        for sock in socks:
            ask(sock, GET)
        counts = [worker.slot.words[layout.CONNECTIONS] for worker in workers]

        assert sum(counts) == 40
        assert max(counts) <= 14


def test_connections_one_by_one_are_shared(kind: str) -> None:
    with ExitStack() as stack:
        workers = stack.enter_context(several(Holding(), kind, 4, keepalive=30))
        for _ in range(20):
            ask(stack.enter_context(workers[0].connect()), GET)
        counts = [worker.slot.words[layout.CONNECTIONS] for worker in workers]

        assert sum(counts) == 20
        assert max(counts) <= 7


def test_a_worker_takes_no_more_connections_than_it_may(kind: str) -> None:
    with ExitStack() as stack:
        (worker,) = stack.enter_context(
            several(Holding(), kind, 1, keepalive=30, worker_connections=2)
        )
        first, second = (stack.enter_context(worker.connect()) for _ in range(2))
        ask(first, GET)
        ask(second, GET)
        third = stack.enter_context(worker.connect())
        third.sendall(GET)
        assert worker.slot.words[layout.CONNECTIONS] == 2
        first.close()

        assert third.recv(100).startswith(b"HTTP/1.1 200 ")


def test_requests_on_one_connection_let_others_have_their_turn() -> None:
    # Of the sync worker, whose loop is inside the requests themselves.
    order = []
    begun, let_go = threading.Event(), threading.Event()

    def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        path = environ["PATH_INFO"]
        order.append(path)
        if path == "/first":
            begun.set()
            assert let_go.wait(20)
        start_response("200 OK", [("Content-Length", "0")])
        return []

    request = b"GET %b HTTP/1.1\r\nHost: x\r\n\r\n"
    with running(application, "sync") as worker, worker.connect() as greedy:
        with worker.connect() as other:
            ask(other, request % b"/before")
            greedy.sendall(request % b"/first" + request % b"/more" * 200)
            assert begun.wait(20)
            other.sendall(request % b"/other")
            let_go.set()
            read_answer(other)
        for _ in range(201):
            read_answer(greedy)

    assert order.index("/other") <= 4
    assert order.count("/more") == 200


@pytest.mark.parametrize("way", ["pipelined", "together", "queued"])
def test_a_sync_worker_beats_between_requests_that_come_at_once(way: str) -> None:
    # Else many short ones are taken for one that hangs, and it is killed.
    beats: list[int] = []
    begun, let_go = threading.Event(), threading.Event()

    def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        if environ["PATH_INFO"] == "/first":
            begun.set()
            assert let_go.wait(20)
        elif environ["PATH_INFO"] == "/more":
            beats.append(worker.slot.words[layout.BEAT])
            if way == "together":  # then only those that take long are told at once
                until = time.monotonic_ns() + SECOND // 256
                wait_for(lambda: time.monotonic_ns() > until)
        start_response("200 OK", [("Content-Length", "0")])
        return []

    more = b"GET /more HTTP/1.1\r\nHost: x\r\n\r\n"
    with ExitStack() as stack:
        worker = stack.enter_context(running(application, "sync", keepalive=30))
        kept = [stack.enter_context(worker.connect()) for _ in range(5)]
        if way == "together":
            for sock in kept:
                ask(sock, GET)
        first = stack.enter_context(worker.connect())
        first.sendall(b"GET /first HTTP/1.1\r\nHost: x\r\n\r\n")
        assert begun.wait(20)
        if way == "pipelined":
            kept = [first]
            first.sendall(more * 5)
        elif way == "queued":
            kept = [stack.enter_context(worker.connect()) for _ in range(5)]
        if way != "pipelined":
            for sock in kept:
                sock.sendall(more)
        let_go.set()
        wait_for(lambda: len(beats) == 5)

    assert len(set(beats)) == 5

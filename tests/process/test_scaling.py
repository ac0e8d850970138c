"""How many workers there are, on a real master."""

from __future__ import annotations

import signal
import socket
import time
from pathlib import Path

import pytest

from tests.conftest import Serve
from tests.process.harness import Kind, Load, Server, request_bytes, wait_for

SIZES = ("-w", "1", "--workers-min", "1", "--workers-max", "3")


def test_auto_says_how_it_was_counted(serve: Serve) -> None:
    server = serve("-w", "auto", "hello")

    said = server.wait_for_line(r"workers = auto: (\d+) \((\d+) processors.*\)")

    server.wait_until_ready(int(said[1]))
    server.wait_for_workers(int(said[1]))


def test_busy_workers_get_help(serve: Serve, kind: Kind) -> None:
    # In an asgi worker only what computes keeps it busy, so there it is the queue that tells.
    path = "/block?0.05" if kind.name == "asgi" else "/slow?0.05"
    server = serve(*kind.arguments, *SIZES, "--worker-connections", "2", kind.app)
    server.wait_until_ready()

    with Load(server, path, clients=12) as load:
        server.wait_for_line(r"busy for \d+% of the time.*; workers wanted: [23]")
        wait_for(lambda: len(server.workers()) > 1, 30, "a second worker")
        load.wait_for_answers(10)

    assert load.lost == []


def test_a_number_that_is_asked_for_stays(serve: Serve) -> None:
    server = serve(*SIZES, "wsgi_echo").wait_until_ready()
    server.send_signal(signal.SIGTTIN)
    server.wait_until_ready(2)
    server.send_signal(signal.SIGTTOU)
    server.wait_for_line("received SIGTTOU; workers wanted: 1")

    with Load(server, "/slow?0.1", clients=8) as load:
        load.wait_for_answers(40)  # four seconds of work that waits in a queue

    assert not server.lines("busy for")
    assert load.lost == []


def in_flight(server: Server) -> int:
    return sum(len(child.in_flight) for child in server.board().children)


@pytest.mark.parametrize("family", ["tcp", "unix"])
def test_a_full_accept_queue_is_said_once(serve: Serve, family: str, tmp_path: Path) -> None:
    if family == "tcp":
        listener = socket.create_server(("127.0.0.1", 0), backlog=2)
    else:
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(tmp_path / "s"))
        listener.listen(2)
    server = serve(
        *("-w", "1", "--workers-max", "2", "--workers-min", "2", "--backlog", "2"),
        "block",
        listener=listener,
    )
    server.wait_until_ready(2)
    server.expect("the accept queue of fd .* is full: 3 connections wait")
    clients = []

    # Two are taken by the workers, which hang then; the queue holds one more than its limit.
    for number in range(2 + 3):
        client = socket.socket(listener.family)
        client.connect(listener.getsockname())
        client.send(request_bytes("/block"))
        clients.append(client)
        if number < 2:
            wait_for(lambda taken=number: in_flight(server) > taken)
    server.wait_for_line("is full")
    # docs/tuning.md: over TCP nobody answers, and a unix socket says so at once.
    with socket.socket(listener.family) as late:
        late.settimeout(0.5)
        with pytest.raises(TimeoutError if family == "tcp" else BlockingIOError):
            late.connect(listener.getsockname())

    server.stop(signal.SIGQUIT)
    assert len(server.lines("is full")) == 1
    for client in clients:
        client.close()


def test_a_worker_that_grows_is_replaced(serve: Serve, kind: Kind) -> None:
    app = "grows:asgi" if kind.name == "asgi" else "grows:wsgi"
    server = serve(*kind.arguments, "--max-worker-memory", "150MB", app).wait_until_ready()
    first = server.pid_of_worker()
    # What it holds in its first second, its application needs.
    (child,) = server.board().children
    wait_for(lambda: time.monotonic() > child.ready + 1.5)

    with Load(server, "/pid", clients=1) as load:
        server.get("/grow?200")
        server.wait_for_line(
            r"worker 1: max_worker_memory: it holds \d+ MiB for itself; sending SIGTERM", timeout=40
        )
        load.wait_for_answers(20)

    assert load.lost == []
    assert server.pid_of_worker() != first

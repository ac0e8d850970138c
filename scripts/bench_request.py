"""What Python adds to a request of hello-world in a sync worker, without a network.

    python scripts/bench_request.py

A worker's `_readable` is called for requests that come through a socket pair, and what the same
system calls take without a worker is subtracted.  The least of many short runs, so that a busy
machine does not matter.  Run it before and after a change to the request path.
"""

from __future__ import annotations

import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from bench.load import BROWSER

from forkmaster.config.table import Config
from forkmaster.system.poller import READ
from forkmaster.worker.connection import Connection
from forkmaster.worker.sync import SyncWorker
from tests.apps.hello import application
from tests.http.running import Site

TWO = b"GET / HTTP/1.1\r\nHost: 127.0.0.1:8000\r\n\r\n"
MANY = "".join(f"{name}: {value}\r\n" for name, value in BROWSER.items()).encode()
REQUESTS = {"headers of wrk": TWO, "headers of a browser": TWO[:-2] + MANY + b"\r\n"}
COUNT, RUNS = 200, 200


def served(worker: SyncWorker, connection: Connection, client: socket.socket) -> Callable[..., int]:
    """What serves so many requests and says how long it took, in nanoseconds."""
    idle, fd, readable = worker._idle, connection.fd, worker._readable

    def run(request: bytes) -> int:
        began = time.perf_counter_ns()
        for _ in range(COUNT):
            client.send(request)
            readable(idle.pop(fd))
            client.recv(65536)
        return time.perf_counter_ns() - began

    return run


def moved(server: socket.socket, client: socket.socket) -> Callable[..., int]:
    """The same system calls alone."""
    answer = b"x" * 150

    def run(request: bytes) -> int:
        began = time.perf_counter_ns()
        for _ in range(COUNT):
            client.send(request)
            server.recv(65536)
            server.send(answer)
            client.recv(65536)
        return time.perf_counter_ns() - began

    return run


def main() -> None:
    site = Site(Config(workers=1))
    worker = SyncWorker(site.assignment(), application)
    server, client = socket.socketpair()
    server.setblocking(False)
    connection = Connection(server, 0, worker._listeners[0].other)
    connection.host, connection.port, connection.client = "127.0.0.1", "40000", b"127.0.0.1:40000"
    connection.mask = READ
    worker._poller.register(connection.fd, READ)
    worker._connections[connection.fd] = worker._idle[connection.fd] = connection
    serve, move = served(worker, connection, client), moved(server, client)
    for name, request in REQUESTS.items():
        least = [min(run(request) for _ in range(RUNS)) / COUNT / 1e3 for run in (serve, move)]
        print(f"{name:24} {least[0] - least[1]:5.2f} us of Python")
    client.close()
    site.close()


if __name__ == "__main__":
    main()

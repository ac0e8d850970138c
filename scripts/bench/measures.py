"""Every comparison: which servers, under which load, and what is counted."""

from __future__ import annotations

import asyncio
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import psutil

from bench import load, stores
from bench.report import Figure, Table
from bench.servers import (
    APPS,
    BJOERN,
    DJANGO,
    GRANIAN,
    ROOT,
    UVICORN,
    UVICORN_WORKER,
    UWSGI,
    Server,
    forkmaster,
    gunicorn,
    running,
)
from forkmaster.board.reader import find_boards, read_board

HELLO = "hello:application"
# The first is what counts on a machine with nothing else to do; the second tells nearly the same
# on a busy one.
REQUESTS = ("requests/s", "requests/s of processor time")


def _compare(
    table: Table,
    rounds: int,
    contenders: list[Server],
    app: str,
    measure: Callable[[int, int], Figure],
    cwd: Path = APPS,
) -> Table:
    """Fill `table`: each round measures every server once.  `measure` takes pid and port."""
    for _ in range(rounds):
        for server in contenders:
            if not server.is_here:
                continue
            try:
                with running(server, app, cwd) as (pid, port):
                    table.add(server.name, measure(pid, port))
            except RuntimeError as exc:
                print(f"{server.name}: {exc}", file=sys.stderr)
    return table


def _compare_closely(
    table: Table,
    rounds: int,
    contenders: list[Server],
    measure: Callable[[int, int], Figure],
) -> Table:
    """The same for differences of a few percent: all run at once, and each is asked four times.

    Between two starts the speed of a machine can change by more than that.
    """
    for _ in range(rounds):
        with ExitStack() as stack:
            started = [
                (server.name, *stack.enter_context(running(server, HELLO, APPS)))
                for server in contenders
            ]
            for _ in range(4):
                for name, pid, port in started:
                    table.add(name, measure(pid, port))
    return table


def _requests(pid: int, port: int, path: str = "/", **options: Any) -> tuple[float, float]:
    """Requests that were answered in a second, and in a second of the server's processor time."""
    before = _server_ns(pid)
    answered = load.wrk(port, path, **options)
    spent = _server_ns(pid) - before
    return answered.a_second, answered.count / spent * 1e9


def _server_ns(pid: int) -> int:
    family = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    return sum(_cpu_ns(each.pid) for each in family)


def _wsgi() -> list[Server]:
    return [forkmaster("-w", "1"), GRANIAN, BJOERN, UWSGI, gunicorn(name="gunicorn sync")]


def hello(rounds: int) -> Table:
    about = "One worker, hello world, 16 kept-alive connections, the two headers of wrk."
    table = Table("WSGI, keep-alive", about, REQUESTS)
    return _compare(table, rounds, _wsgi(), HELLO, _requests)


def browser(rounds: int) -> Table:
    about = "The same with the headers that a browser sends."
    table = Table("WSGI, keep-alive, headers of a browser", about, REQUESTS)
    return _compare(
        table, rounds, _wsgi(), HELLO, lambda pid, port: _requests(pid, port, headers=load.BROWSER)
    )


def close(rounds: int) -> Table:
    about = "One worker, hello world, a new connection for every request."
    table = Table("WSGI, Connection: close", about, REQUESTS)
    headers = {"Connection": "close"}
    return _compare(
        table, rounds, _wsgi(), HELLO, lambda pid, port: _requests(pid, port, headers=headers)
    )


def threads(rounds: int) -> Table:
    about = "One worker with four threads, hello world, 16 kept-alive connections."
    table = Table("WSGI with threads", about, REQUESTS)
    contenders = [
        forkmaster("-w", "1", "--threads", "4"),
        gunicorn("--threads", "4", name="gunicorn gthread"),
    ]
    return _compare(table, rounds, contenders, HELLO, _requests)


def django(rounds: int) -> Table:
    about = "The Django project of the tests: a page from a template and SQLite."
    subprocess.run(
        [sys.executable, "manage.py", "prepare"], cwd=DJANGO, check=True, capture_output=True
    )
    table = Table("A Django page", about, REQUESTS)
    return _compare(table, rounds, _wsgi(), "project.wsgi:application", _requests, DJANGO)


def _large() -> list[Server]:
    return [forkmaster("-w", "1"), GRANIAN, gunicorn(name="gunicorn sync")]


def download(rounds: int) -> Table:
    about = "Answers of 1 MiB."
    table = Table("WSGI, large answers", about, REQUESTS)
    return _compare(
        table,
        rounds,
        _large(),
        "big:application",
        lambda pid, port: _requests(pid, port, f"/?{1 << 20}"),
    )


def upload(rounds: int) -> Table:
    about = "Requests with a body of 1 MiB, which the application reads."
    table = Table("WSGI, large bodies", about, REQUESTS)
    return _compare(
        table,
        rounds,
        _large(),
        "swallow:application",
        lambda pid, port: _requests(pid, port, body=1 << 20),
    )


def _asgi() -> list[Server]:
    return [
        forkmaster("-w", "1"),
        UVICORN,
        UVICORN_WORKER,
        gunicorn("-k", "asgi", name="gunicorn asgi"),
    ]


def asgi(rounds: int) -> Table:
    about = "One worker, hello world, 16 kept-alive connections; no access log anywhere."
    table = Table("ASGI, keep-alive", about, REQUESTS)
    return _compare(table, rounds, _asgi(), "asgi_hello:application", _requests)


def asgi_close(rounds: int) -> Table:
    about = "One worker, hello world, a new connection for every request."
    table = Table("ASGI, Connection: close", about, REQUESTS)
    headers = {"Connection": "close"}
    return _compare(
        table,
        rounds,
        _asgi(),
        "asgi_hello:application",
        lambda pid, port: _requests(pid, port, headers=headers),
    )


def tail(rounds: int) -> Table:
    about = (
        "Two workers; eight kept-alive clients ask for a fast view while one asks for a view that"
        " takes 300 ms.  The 99th percentile of the fast ones."
    )
    table = Table("A fast view beside a slow one", about, ("ms (p99)",), more_is_better=False)
    contenders = [
        forkmaster("-w", "2"),
        gunicorn("-w", "2", "-k", "gthread", "--threads", "4", name="gunicorn gthread, 4 threads"),
        Server("granian", tuple("2" if w == "1" else w for w in GRANIAN.command)),
    ]

    longest: list[float] = []

    def measure(_: int, port: int) -> float:
        latencies = asyncio.run(load.fast_beside_slow(port, "/", "/?0.3"))
        longest.append(latencies.longest)
        return latencies.p99

    for server in contenders:
        longest.clear()
        _compare(table, rounds, [server], "slow:application", measure)
        if longest:
            table.about += f"  The longest with {server.name}: {max(longest):.1f} ms."
    return table


def idle_connections(rounds: int) -> Table:
    """Ten thousand connections on one worker: what they cost while nothing happens."""
    count = 10_000
    _open_many_files()
    about = f"{count:,} idle kept-alive connections on one worker: its memory."
    table = Table("Idle connections", about, ("MiB (USS of the worker)",), more_is_better=False)
    server = forkmaster("-w", "1", "--keep-alive", "60", "--worker-connections", str(count + 100))
    with running(server, HELLO) as (pid, port):
        client = threading.Thread(target=lambda: asyncio.run(load.hold(port, count, seconds=8)))
        client.start()
        (worker,) = psutil.Process(pid).children()
        while len(worker.net_connections()) < count:
            time.sleep(0.2)
        time.sleep(1)
        before = _cpu_ns(worker.pid)
        time.sleep(4)
        spent = (_cpu_ns(worker.pid) - before) / 4 / 1e6
        table.add("forkmaster", worker.memory_full_info().uss / 2**20)
        client.join()
    table.about += f"  CPU meanwhile: {spent:.2f} ms a second."
    return table


def _open_many_files() -> None:
    """For the clients in this program, and for the servers, which inherit it."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def websockets(rounds: int) -> Table:
    """Five thousand websockets on one worker: what each server holds for them."""
    count = 5000
    _open_many_files()
    about = f"{count:,} idle websockets on one worker: its memory."
    table = Table("Idle websockets", about, ("MiB (USS of the worker)",), more_is_better=False)

    def measure(pid: int, port: int) -> float:
        process = psutil.Process(pid)
        worker = max([process, *process.children()], key=lambda each: each.memory_info().rss)
        client = threading.Thread(target=lambda: asyncio.run(load.upgrade(port, count, seconds=6)))
        client.start()
        while len(worker.net_connections()) < count:
            time.sleep(0.2)
        time.sleep(1)
        held: int = worker.memory_full_info().uss
        client.join()
        return held / 2**20

    ours = forkmaster("-w", "1", "--worker-connections", str(count + 100))
    return _compare(table, 1, [ours, UVICORN], "asgi_echo:application", measure)


def access_log(rounds: int) -> Table:
    about = "Hello world with and without an access log in a file, gunicorn's default format."
    table = Table("Access log", about, REQUESTS)
    with TemporaryDirectory() as folder:
        contenders = [
            forkmaster("-w", "1", "--access-logfile", f"{folder}/log", name="with access log"),
            forkmaster("-w", "1", name="without"),
        ]
        return _compare_closely(table, rounds, contenders, partial(_requests, seconds=1))


def board(rounds: int) -> Table:
    """What telling the board costs a request: its stores, timed alone, beside a whole request."""
    about = "What a sync worker stores in the board for a request of hello world, and all of it."
    table = Table("The board", about, ("µs a request",), more_is_better=False)

    def measure(pid: int, port: int) -> float:
        table.add("the stores", stores.microseconds())
        return 1e6 / _requests(pid, port)[0]

    return _compare(table, rounds, [forkmaster("-w", "1", name="the request")], HELLO, measure)


def idle(rounds: int) -> Table:
    about = "A server with four workers that nobody asks anything: processor time of all of it."
    table = Table("Idle server", about, ("ms of CPU a second",), more_is_better=False)

    def measure(pid: int, _: int) -> float:
        time.sleep(2)
        before = _server_ns(pid)
        time.sleep(10)
        return (_server_ns(pid) - before) / 10 / 1e6

    contenders = [
        forkmaster("-w", "4"),
        forkmaster("-w", "4", "-k", "uvicorn", name="forkmaster asgi"),
        gunicorn("-w", "4"),
    ]
    for server in contenders:
        app = "asgi_hello:application" if "asgi" in server.name else HELLO
        _compare(table, 1, [server], app, measure)
    return table


def _cpu_ns(pid: int) -> int:
    """Nanoseconds on a processor, as the scheduler counts them; /proc/PID/stat has only ticks."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks)


def start(rounds: int) -> Table:
    about = "From the command to its end."
    table = Table("forkmaster --version", about, ("ms",), more_is_better=False)
    for name, command in (
        ("forkmaster --version", [sys.executable, "-m", "forkmaster", "--version"]),
        ("forkmaster --help", [sys.executable, "-m", "forkmaster", "--help"]),
        ("python -c pass", [sys.executable, "-c", "pass"]),
    ):
        for _ in range(max(rounds, 5)):
            began = time.monotonic()
            subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
            table.add(name, (time.monotonic() - began) * 1e3)
    return table


def respawn(rounds: int) -> Table:
    about = (
        "The same application with preload, four workers: from the kill -9 of a worker until"
        " another one is ready."
    )
    table = Table("A worker killed", about, ("ms",), more_is_better=False)
    taken: list[float] = []

    def measure(pid: int, _: int) -> float:
        (folder,) = [each.path for each in find_boards() if each.pid == pid]
        while (
            sum(child.kind == "sync" and child.ready > 0 for child in read_board(folder).children)
            < 4
        ):
            time.sleep(0.05)
        time.sleep(1)  # what they do after their start is not to be counted
        known = {child.serial for child in read_board(folder).children}
        victim = max(psutil.Process(pid).children(recursive=True), key=lambda each: each.pid)
        processor_time = _server_ns(pid) - _cpu_ns(victim.pid)
        killed = time.monotonic()
        victim.kill()
        while True:
            for child in read_board(folder).children:
                if child.serial not in known and child.ready:
                    taken.append((_server_ns(pid) - processor_time) / 1e6)
                    return (child.ready - killed) * 1e3
            time.sleep(0.01)

    server = forkmaster("-w", "4", "--preload", "--warmup", "/", name="forkmaster --preload")
    _compare(table, rounds, [server], "heavy:application", measure)
    table.about += f"  Processor time of all processes for it: {median(taken):.0f} ms."
    return table


def memory(rounds: int) -> Table:
    about = (
        "An application of the weight of a large Django site, four workers that have all"
        " answered: proportional memory (PSS) of all processes.  Every request reads the same"
        " hundredth of the objects, so what is not shared is what the garbage collector has"
        " written to, and what was made after the fork."
    )
    table = Table("Memory with preload", about, ("MiB (PSS)",), more_is_better=False)
    contenders = [
        forkmaster("-w", "4", "--preload", "--warmup", "/", name="forkmaster --preload"),
        gunicorn("-w", "4", "--preload", name="gunicorn --preload"),
        forkmaster("-w", "4", name="forkmaster without preload"),
    ]

    def measure(pid: int, port: int) -> float:
        load.wrk(port, seconds=2, headers={"Connection": "close"})
        family = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
        return sum(each.memory_full_info().pss for each in family) / 2**20

    return _compare(table, max(1, rounds // 2), contenders, "heavy:application", measure)

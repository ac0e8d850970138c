"""Every comparison: which servers, under which load, and what is counted."""

from __future__ import annotations

import asyncio
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from bench import load
from bench.report import Table
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

HELLO = "hello:application"


def _compare(
    table: Table,
    rounds: int,
    contenders: list[Server],
    app: str,
    measure: Callable[[int, int], float],
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


def _wsgi() -> list[Server]:
    return [forkmaster("-w", "1"), GRANIAN, BJOERN, UWSGI, gunicorn(name="gunicorn sync")]


def hello(rounds: int) -> Table:
    about = "One worker, hello world, 16 kept-alive connections, the two headers of wrk."
    table = Table("WSGI, keep-alive", about, "requests/s")
    return _compare(table, rounds, _wsgi(), HELLO, lambda _, port: load.wrk(port))


def browser(rounds: int) -> Table:
    about = "The same with the headers that a browser sends."
    table = Table("WSGI, keep-alive, headers of a browser", about, "requests/s")
    return _compare(
        table, rounds, _wsgi(), HELLO, lambda _, port: load.wrk(port, headers=load.BROWSER)
    )


def close(rounds: int) -> Table:
    about = "One worker, hello world, a new connection for every request."
    table = Table("WSGI, Connection: close", about, "requests/s")
    headers = {"Connection": "close"}
    return _compare(table, rounds, _wsgi(), HELLO, lambda _, port: load.wrk(port, headers=headers))


def threads(rounds: int) -> Table:
    about = "One worker with four threads, hello world, 16 kept-alive connections."
    table = Table("WSGI with threads", about, "requests/s")
    contenders = [
        forkmaster("-w", "1", "--threads", "4"),
        gunicorn("--threads", "4", name="gunicorn gthread"),
    ]
    return _compare(table, rounds, contenders, HELLO, lambda _, port: load.wrk(port))


def django(rounds: int) -> Table:
    about = "The Django project of the tests: a page from a template and SQLite."
    subprocess.run(
        [sys.executable, "manage.py", "prepare"], cwd=DJANGO, check=True, capture_output=True
    )
    table = Table("A Django page", about, "requests/s")
    return _compare(
        table, rounds, _wsgi(), "project.wsgi:application", lambda _, port: load.wrk(port), DJANGO
    )


def download(rounds: int) -> Table:
    about = "Answers of 1 MiB."
    table = Table("WSGI, large answers", about, "requests/s")
    return _compare(
        table,
        rounds,
        _wsgi(),
        "big:application",
        lambda _, port: load.wrk(port, f"/?{1 << 20}"),
    )


def upload(rounds: int) -> Table:
    about = "Requests with a body of 1 MiB, which the application reads."
    table = Table("WSGI, large bodies", about, "requests/s")
    return _compare(
        table,
        rounds,
        _wsgi(),
        "swallow:application",
        lambda _, port: load.wrk(port, body=1 << 20),
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
    table = Table("ASGI, keep-alive", about, "requests/s")
    return _compare(
        table, rounds, _asgi(), "asgi_hello:application", lambda _, port: load.wrk(port)
    )


def asgi_close(rounds: int) -> Table:
    about = "One worker, hello world, a new connection for every request."
    table = Table("ASGI, Connection: close", about, "requests/s")
    headers = {"Connection": "close"}
    return _compare(
        table,
        rounds,
        _asgi(),
        "asgi_hello:application",
        lambda _, port: load.wrk(port, headers=headers),
    )


def tail(rounds: int) -> Table:
    about = (
        "Two workers; eight kept-alive clients ask for a fast view while one asks for a view that"
        " takes 300 ms.  The 99th percentile of the fast ones."
    )
    table = Table("A fast view beside a slow one", about, "ms (p99)", more_is_better=False)
    contenders = [
        forkmaster("-w", "2"),
        gunicorn("-w", "2", "-k", "gthread", "--threads", "4", name="gunicorn gthread, 4 threads"),
        Server("granian", tuple("2" if w == "1" else w for w in GRANIAN.command)),
    ]

    def measure(_: int, port: int) -> float:
        return asyncio.run(load.fast_beside_slow(port, "/", "/?0.3")).p99

    return _compare(table, rounds, contenders, "slow:application", measure)


def idle_connections(rounds: int) -> Table:
    """Ten thousand connections on one worker: what they cost while nothing happens."""
    count = 10_000
    resource.setrlimit(resource.RLIMIT_NOFILE, (65536, 65536))
    about = f"{count:,} idle kept-alive connections on one worker: its memory."
    table = Table("Idle connections", about, "MiB (USS of the worker)", more_is_better=False)
    server = forkmaster("-w", "1", "--keep-alive", "60", "--worker-connections", str(count + 100))
    with running(server, HELLO) as (pid, port):
        client = threading.Thread(target=lambda: asyncio.run(load.hold(port, count, seconds=8)))
        client.start()
        (worker,) = psutil.Process(pid).children()
        while len(worker.net_connections()) < count:
            time.sleep(0.2)
        time.sleep(1)
        before = sum(worker.cpu_times()[:2])
        time.sleep(4)
        spent = (sum(worker.cpu_times()[:2]) - before) / 4 * 1e3
        table.add("forkmaster", worker.memory_full_info().uss / 2**20)
        client.join()
    table.about += f"  CPU meanwhile: {spent:.2f} ms a second."
    return table


def idle(rounds: int) -> Table:
    about = "A server with four workers that nobody asks anything: processor time of all of it."
    table = Table("Idle server", about, "ms of CPU a second", more_is_better=False)

    def measure(pid: int, _: int) -> float:
        family = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
        time.sleep(2)
        before = sum(_cpu_ns(each.pid) for each in family)
        time.sleep(10)
        return (sum(_cpu_ns(each.pid) for each in family) - before) / 10 / 1e6

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
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0])


def start(rounds: int) -> Table:
    about = "From the command to its end."
    table = Table("forkmaster --version", about, "ms", more_is_better=False)
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


def memory(rounds: int) -> Table:
    about = (
        "An application of the weight of a large Django site, four workers that have all"
        " answered: proportional memory (PSS) of all processes.  Every request reads the same"
        " hundredth of the objects, so what is not shared is what the garbage collector has"
        " written to, and what was made after the fork."
    )
    table = Table("Memory with preload", about, "MiB (PSS)", more_is_better=False)
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

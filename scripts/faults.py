"""What a server loses when things go wrong, counted by clients that retry nothing.

    python scripts/faults.py                    every fault, every kind of worker, about 15 minutes
    python scripts/faults.py hup kill9          only these; --list names them all
    python scripts/faults.py --kind asgi --preload on
    python scripts/faults.py kill9 --write      put these rows into docs/faults.md, keep the others

Two workers, and four clients that ask all the time: two on kept-alive connections, two with a new
connection for each request.  Everything that is not a whole 200 is lost: a refused or reset
connection, an end of file, another status.  Each fault has a bound; the exit code is 1 if one
does not hold.  Times mean something only while nothing else runs.

The other faults of the machine (no process, no descriptor, no room, a wrong clock) are tests:
tests/process/test_machine.py.
"""

from __future__ import annotations

import argparse
import compileall
import contextlib
import http.client
import os
import platform
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from tests.process.harness import Server, is_gone, wait_for  # noqa: E402  a tool of the tests

PAGE = ROOT / "docs" / "faults.md"
BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"

KINDS = {
    "sync": ("-k", "sync"),
    "threaded": ("-k", "gthread", "--threads", "4"),
    "asgi": ("-k", "uvicorn"),
}

WSGI = """
import os, time
{break_it}
def application(environ, start_response):
    if environ["PATH_INFO"] == "/hang":
        time.sleep(600)
    if environ["PATH_INFO"] == "/slow":
        time.sleep(0.05)
    body = b"{release} %d" % os.getpid()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
"""

ASGI = """
import asyncio, os, time
{break_it}
async def application(scope, receive, send):
    if scope["type"] != "http":
        raise NotImplementedError
    if scope["path"] == "/hang":
        time.sleep(600)
    if scope["path"] == "/slow":
        await asyncio.sleep(0.05)
    body = b"{release} %d" % os.getpid()
    headers = [(b"content-length", str(len(body)).encode())]
    await send({{"type": "http.response.start", "status": 200, "headers": headers}})
    await send({{"type": "http.response.body", "body": body}})
"""


# --- Clients ----------------------------------------------------------------------------------


class Clients:
    """Clients that ask all the time, retry nothing, and count.  Used as a context."""

    def __init__(
        self,
        port: int,
        path: str = "/slow",
        *,
        keeping: int = 2,
        closing: int = 2,
        pause: float = 0.0,
    ) -> None:
        """`keeping` clients keep their connection; `pause` seconds lie between two requests."""
        self.port, self.path, self.count = port, path, keeping + closing
        self.pause = pause
        self.answered = 0
        self.lost: list[str] = []
        self.took: list[float] = []
        """Seconds from each request to the end of its answer."""
        self.bodies: dict[str, float] = {}
        """When each body was seen for the first time, monotonic seconds."""
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, args=(keeps,), daemon=True)
            for keeps in [True] * keeping + [False] * closing
        ]

    def __enter__(self) -> Clients:
        for thread in self._threads:
            thread.start()
        self.wait_for(20)
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    def wait_for(self, more: int, timeout: float = 30.0) -> None:
        """Returns when so many more requests have been answered."""
        target = self.answered + more
        wait_for(lambda: self.answered >= target, timeout, f"{more} more answers")

    def quantile(self, share: float) -> float:
        """The seconds within which that share of the requests was answered."""
        return sorted(self.took)[int(share * (len(self.took) - 1))]

    def _run(self, keeps: bool) -> None:
        connection: http.client.HTTPConnection | None = None
        while not self._stopping.is_set():
            failure, closes, body = "", True, ""
            asked = time.monotonic()
            try:
                if connection is None:
                    connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
                    connection.connect()
                    connection.auto_open = 0
                headers = {} if keeps else {"Connection": "close"}
                connection.request("GET", self.path, headers=headers)
                answer = connection.getresponse()
                body = answer.read().decode()
                closes = answer.will_close
                if answer.status != 200:
                    failure = f"status {answer.status}"
            except (OSError, http.client.HTTPException) as exc:
                failure = repr(exc)
            with self._lock:
                if failure:
                    self.lost.append(failure)
                else:
                    self.answered += 1
                    now = time.monotonic()
                    self.took.append(now - asked)
                    self.bodies.setdefault(body, now)
            if closes and connection is not None:
                connection.close()
                connection = None
            if self.pause:
                time.sleep(self.pause)
        if connection is not None:
            connection.close()


# --- Faults -----------------------------------------------------------------------------------


@dataclass
class Scene:
    """One server and what it serves, for one fault."""

    kind: str
    preload: bool
    folder: Path
    servers: list[Server] = field(default_factory=list)

    def write(self, release: str, *, broken: bool = False) -> None:
        """Put a release of the application into place."""
        template = ASGI if self.kind == "asgi" else WSGI
        text = template.format(release=release, break_it="1 / 0" if broken else "")
        # Not in place: a worker must find the one or the other.
        new = self.folder / "app.py.new"
        new.write_text(text)
        new.rename(self.folder / "app.py")

    def serve(self, *arguments: str, workers: int = 2) -> Server:
        """Start the server; returns when all its workers are ready."""
        self.write("one")
        preload = ("--preload",) if self.preload else ()
        server = Server(
            *(*KINDS[self.kind], "-w", str(workers), *preload, *arguments, "app"),
            folder=self.folder,
            cwd=self.folder,
            env={"PYTHONDONTWRITEBYTECODE": "1"},
        )
        self.servers.append(server)
        return server.wait_until_ready(workers, timeout=120)


@dataclass(frozen=True)
class Finding:
    """What one fault cost."""

    text: str
    holds: bool


def lost_none(clients: Clients, *, also: bool = True, text: str = "") -> Finding:
    """The finding for a fault that may cost nothing."""
    found = f"{len(clients.lost)} of {clients.answered + len(clients.lost)}"
    return Finding(found + (f", {text}" if text else ""), not clients.lost and also)


def reloaded(server: Server, times: int) -> None:
    """Reload so often, each when the last is done."""
    done = len(server.lines("reload done"))
    for number in range(1, times + 1):
        server.send_signal(signal.SIGHUP)
        server.wait_for_line("reload done", done + number, timeout=60)


def hup(scene: Scene) -> Finding:
    """SIGHUP, five times"""
    server = scene.serve()
    with Clients(server.port) as clients:
        reloaded(server, 5)
        clients.wait_for(20)
    return lost_none(clients)


def term_worker(scene: Scene) -> Finding:
    """SIGTERM to a worker, five times"""
    server = scene.serve()
    with Clients(server.port) as clients:
        for number in range(5):
            os.kill(server.workers()[0], signal.SIGTERM)
            server.wait_until_ready(3 + number)
            clients.wait_for(10)
    return lost_none(clients)


def storm(scene: Scene) -> Finding:
    """SIGTTIN and SIGTTOU, 40 of them"""
    server = scene.serve()
    with Clients(server.port) as clients:
        for _ in range(4):
            for number in [signal.SIGTTIN] * 5 + [signal.SIGTTOU] * 5:
                server.send_signal(number)
                time.sleep(0.02)
        clients.wait_for(20)
        # Two signals of one number that come while the first waits are one: not 2 in the end.
        wanted = int(server.lines(r"workers wanted: (\d+)")[-1][1])
        wait_for(lambda: len(server.workers()) == wanted, 60, f"{wanted} workers")
        clients.wait_for(20)
    return lost_none(clients)


def recycling(scene: Scene) -> Finding:
    """max_requests = 40"""
    server = scene.serve("--max-requests", "40")
    with Clients(server.port, "/") as clients:
        server.wait_until_ready(12, timeout=60)
    return lost_none(clients, text=f"{server.times_ready() - 2} replaced")


def delay(scene: Scene) -> Finding:
    """max_requests = 40, 30,000 requests kept alive"""
    # 5 ms apart: clients that leave no processor time to boot with would measure that.
    requests, load = 30_000, {"keeping": 4, "closing": 0, "pause": 0.005}
    quantiles = []
    for arguments in ((), ("--max-requests", "40")):
        server = scene.serve(*arguments)
        with Clients(server.port, "/", **load) as clients:
            clients.wait_for(requests, timeout=240)
        quantiles.append(clients.quantile(0.99) * 1000)
        if not arguments:
            server.stop(timeout=60)
    without, with_it = quantiles
    times = server.times_ready() - 2
    text = f"{times} replaced; p99 {with_it:.1f} ms, without {without:.1f}"
    return lost_none(clients, also=with_it <= 2 * without, text=text)


def upgrade(scene: Scene) -> Finding:
    """SIGUSR2"""
    server = scene.serve()
    with Clients(server.port) as clients:
        server.send_signal(signal.SIGUSR2)
        server.wait_until_ready(4, timeout=60)
        server.wait_for_line("reload done", timeout=60)
        clients.wait_for(20)
    return lost_none(clients, also=server.process.poll() is None)


def broken_deploy(scene: Scene) -> Finding:
    """a broken release, then a mended one"""
    server = scene.serve()
    with Clients(server.port) as clients:
        scene.write("two", broken=True)
        server.send_signal(signal.SIGHUP)
        server.wait_for_line("rolled back|refused", timeout=60)
        clients.wait_for(20)
        kept = all(body.startswith("one") for body in clients.bodies)
        scene.write("three")
        reloaded(server, 1)
        clients.wait_for(20)
    mended = any(body.startswith("three") for body in clients.bodies)
    return lost_none(clients, also=kept and mended, text="mended" if mended else "NOT mended")


def kill9(scene: Scene) -> Finding:
    """SIGKILL of a worker, three times"""
    server = scene.serve()
    times = []
    with Clients(server.port, "/") as clients:
        for number in range(3):
            clients.wait_for(20)
            before = set(clients.bodies)
            began = time.monotonic()
            os.kill(server.workers()[0], signal.SIGKILL)
            server.wait_until_ready(3 + number)
            wait_for(lambda before=before: set(clients.bodies) - before, 20, "a new pid serves")
            times.append(max(clients.bodies.values()) - began)
    slowest = max(times) * 1000
    # Each kill may cost what was in flight: no more than there are clients.
    holds = len(clients.lost) <= 3 * clients.count and (not scene.preload or slowest < 100)
    return Finding(f"{len(clients.lost)} in flight; new pid {slowest:.0f} ms", holds)


def hang(scene: Scene) -> Finding:
    """a request that hangs, timeout 2"""
    limit = ("--request-timeout", "2") if scene.kind == "threaded" else ("--timeout", "2")
    server = scene.serve(*limit, "--kill-timeout", "1")
    began = time.monotonic()
    server.send(b"GET /hang HTTP/1.1\r\nHost: x\r\n\r\n")
    server.wait_until_ready(3)
    took = time.monotonic() - began
    # faulthandler writes "line 6 in", a traceback "line 6, in".
    server.wait_for_line(r"app\.py\S* line \d+,? in application", timeout=20)
    named = bool(server.lines("GET /hang"))
    return Finding(f"{took:.1f} s, {'named' if named else 'NOT named'}", took < 2.5 and named)


def stopped_worker(scene: Scene) -> Finding:
    """SIGSTOP of a worker, timeout 2"""
    server = scene.serve("--timeout", "2", "--kill-timeout", "1")
    stopped = server.workers()[0]
    began = time.monotonic()
    os.kill(stopped, signal.SIGSTOP)
    server.wait_until_ready(3)
    took = time.monotonic() - began
    wait_for(lambda: is_gone(stopped), 20, "the stopped worker is gone")
    return Finding(f"{took:.1f} s", took < 2.5)


def master_kill9(scene: Scene) -> Finding:
    """SIGKILL of the master"""
    server = scene.serve()
    with contextlib.suppress(AssertionError), Clients(server.port):
        everybody = [child.pid for child in psutil.Process(server.pid).children(recursive=True)]
        began = time.monotonic()
        server.process.kill()
        server.process.wait()
        wait_for(lambda: all(is_gone(pid) for pid in everybody), 20, "all gone")
        took = time.monotonic() - began
    return Finding(f"all gone after {took:.2f} s", took < 1.0)


def crash_loop(scene: Scene) -> Finding:
    """workers that crash, 30 s"""
    server = scene.serve("--error-logfile", "-")
    scene.write("two", broken=True)
    began = time.monotonic()
    # Of the generation that serves: what is on disk is broken, so no replacement boots.
    for pid in server.workers():
        os.kill(pid, signal.SIGKILL)
    if scene.preload:
        # The zygote has the old code: it is what must be gone for a crash loop.
        for child in psutil.Process(server.pid).children():
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()
    forks = len(server.lines("started"))
    time.sleep(max(0.0, 30 - (time.monotonic() - began)))
    forks = len(server.lines("started")) - forks
    with socket.create_connection(("127.0.0.1", server.port), timeout=5):
        pass  # the port is open
    lines = len(server.log.splitlines())
    scene.write("three")
    server.wait_until_ready(server.times_ready() + 1, timeout=60)
    return Finding(f"{forks} forks, {lines} lines", forks <= 12 and lines < 400)


def cpu_seconds(pid: int) -> float:
    """What a process has computed so far; proc_pid_stat counts in ticks of 10 ms."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9


def many_workers(scene: Scene) -> Finding:
    """200 workers: the idle master, a reload"""
    server = scene.serve(workers=200)
    time.sleep(1)
    before = cpu_seconds(server.pid)
    time.sleep(10)
    idle = (cpu_seconds(server.pid) - before) / 10 * 1000
    began = time.monotonic()
    reloaded(server, 1)
    took = time.monotonic() - began
    return Finding(f"{idle:.2f} ms/s; reload {took:.1f} s", idle < 1 and took < 20)


@dataclass(frozen=True)
class Fault:
    run: Callable[[Scene], Finding]
    bound: str
    kinds: tuple[str, ...] = tuple(KINDS)
    preload: tuple[bool, ...] = (False, True)

    @property
    def title(self) -> str:
        return (self.run.__doc__ or "").strip()


FAULTS = {
    "hup": Fault(hup, "lost 0"),
    "term": Fault(term_worker, "lost 0"),
    "storm": Fault(storm, "lost 0"),
    "recycling": Fault(recycling, "lost 0"),
    "delay": Fault(delay, "lost 0, p99 at most twice", preload=(False,)),
    "usr2": Fault(upgrade, "lost 0"),
    "deploy": Fault(broken_deploy, "lost 0, mended"),
    "kill9": Fault(kill9, "in flight only; preloaded within 100 ms"),
    "hang": Fault(hang, "replaced within 2.5 s, named", preload=(False,)),
    "stopped": Fault(stopped_worker, "replaced within 2.5 s", preload=(False,)),
    "master": Fault(master_kill9, "all gone within 1 s"),
    "loop": Fault(crash_loop, "at most 12 forks, port open"),
    "many": Fault(many_workers, "below 1 ms/s; below 20 s", kinds=("sync",), preload=(False,)),
}


# --- The table --------------------------------------------------------------------------------


@contextlib.contextmanager
def scene_of(kind: str, preload: bool) -> Iterator[Scene]:
    """A folder and a server in it, which are gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="forkmaster-faults-") as folder:
        scene = Scene(kind, preload, Path(folder))
        try:
            yield scene
        finally:
            for server in scene.servers:
                if server.process.poll() is None:
                    server.stop(signal.SIGQUIT, timeout=60)
                server.clean_up()


def measure(name: str, kind: str, preload: bool) -> Finding:
    """One cell of the table; a fault that cannot be measured does not hold."""
    with scene_of(kind, preload) as scene:
        try:
            return FAULTS[name].run(scene)
        except AssertionError as exc:
            for server in scene.servers:
                print("\n".join(server.log.splitlines()[-30:]), file=sys.stderr)
            return Finding(f"failed: {str(exc).partition(chr(10))[0]}", False)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("faults", nargs="*", metavar="FAULT", help="which; all without")
    parser.add_argument("--kind", choices=KINDS, action="append")
    parser.add_argument("--preload", choices=("on", "off"))
    parser.add_argument("--list", action="store_true", help="name every fault")
    parser.add_argument("--write", action="store_true", help=f"put the table into {PAGE.name}")
    asked = parser.parse_args()
    if asked.list:
        for name, fault in FAULTS.items():
            print(f"{name:<10} {fault.title}: {fault.bound}")
        return 0
    if unknown := set(asked.faults) - set(FAULTS):
        parser.error(f"there is no fault {', '.join(sorted(unknown))}; see --list")
    # As an installation has it: without, every worker would compile what it imports.
    compileall.compile_dir(ROOT / "forkmaster", quiet=2)
    kinds = asked.kind or list(KINDS)
    print(*head_of(kinds), sep="\n", flush=True)
    table: Table = {}
    failed = 0
    for name in asked.faults or FAULTS:
        fault = FAULTS[name]
        for preload in fault.preload:
            if asked.preload == ("off" if preload else "on"):
                continue
            row = table.setdefault((fault.title, preload), {})
            for kind in kinds:
                if kind in fault.kinds:
                    found = measure(name, kind, preload)
                    failed += not found.holds
                    row[kind] = found.text if found.holds else f"**{found.text}**"
            print(line_of(fault, preload, row, kinds), flush=True)
    if failed:
        print(f"\n{failed} of them do not hold (in bold)", file=sys.stderr)
    if asked.write:
        write(table)
    return 1 if failed else 0


Row = dict[str, str]
"""By kind of worker."""
Table = dict[tuple[str, bool], Row]
"""By the title of the fault, and whether the application is preloaded."""


def head_of(kinds: Sequence[str]) -> list[str]:
    return [
        f"| fault | bound | preload | {' | '.join(kinds)} |",
        f"|---|---|---|{'---|' * len(kinds)}",
    ]


def line_of(fault: Fault, preload: bool, row: Row, kinds: Sequence[str]) -> str:
    cells = " | ".join(row.get(kind, "") for kind in kinds)
    return f"| {fault.title} | {fault.bound} | {'on' if preload else 'off'} | {cells} |"


def write(measured: Table) -> None:
    """Put what was measured into the page, between its marks; its other cells stay."""
    head, _, rest = PAGE.read_text().partition(BEGIN)
    old, _, tail = rest.partition(END)
    table = read_table(old)
    for key, row in measured.items():
        table[key] = table.get(key, {}) | row
    lines = [
        line_of(fault, preload, table[fault.title, preload], list(KINDS))
        for fault in FAULTS.values()
        for preload in fault.preload
        if (fault.title, preload) in table
    ]
    machine = f"Python {platform.python_version()}, {os.cpu_count()} processors."
    page = [head + BEGIN, "", machine, "", *head_of(list(KINDS)), *lines, "", END + tail]
    PAGE.write_text("\n".join(page))


def read_table(text: str) -> Table:
    """The table that `write` has written."""
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    return {
        (title, preload == "on"): dict(zip(KINDS, cells, strict=False))
        for title, _, preload, *cells in rows[1:]
    }


if __name__ == "__main__":
    sys.exit(main())

"""A real master in a process of its own, as the process tests need it.

The test binds the listener and passes it down as `fd://N`, so there is no port race, and no loop
that waits until the port answers: a connection waits in the backlog until a worker takes it.
"""

from __future__ import annotations

import http.client
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self, TypeVar

import psutil

from forkmaster.board import reader

ROOT = Path(__file__).parents[2]
APPS = ROOT / "tests" / "apps"
LEVELS = re.compile(r"\[(WARNING|ERROR|CRITICAL)\]|^Traceback|Warning: ")
# What the environment of whoever runs the tests must not decide.
OTHERS = re.compile(
    r"PORT|WEB_CONCURRENCY|FORWARDED_ALLOW_IPS|(FORKMASTER|GUNICORN|LISTEN|NOTIFY)_.*"
)

FIXED = {
    "PYTHONPATH": str(ROOT),
    # In a container root is nobody special, so nobody is warned of it.
    "container": "tests",
    # A module that a test writes twice in a second, equally long, would still be the first one.
    "PYTHONDONTWRITEBYTECODE": "1",
}

T = TypeVar("T")


@dataclass(frozen=True)
class Kind:
    """A kind of worker, and the application with a path for each behaviour that it can serve."""

    name: str
    arguments: tuple[str, ...]
    app: str
    hello: str


KINDS = (
    Kind("sync", ("-k", "sync"), "wsgi_echo", "hello"),
    Kind("threaded", ("-k", "gthread", "--threads", "4"), "wsgi_echo", "hello"),
    Kind("asgi", ("-k", "uvicorn"), "asgi_echo", "asgi_hello"),
)


# Seconds that anything may take on a busy machine.  Nothing takes that long unless it fails.
PATIENCE = 60.0


def wait_for(predicate: Callable[[], T], timeout: float = PATIENCE, what: str = "") -> T:
    """What `predicate` returns as soon as it is true; AssertionError after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while not (result := predicate()):
        assert time.monotonic() < deadline, f"not within {timeout:g} s: {what or predicate}"
        time.sleep(0.005)
    return result


class Server:
    """One master.  Everything it is told and all it logs goes through here."""

    def __init__(
        self,
        *arguments: str,
        folder: Path,
        listener: socket.socket | None = None,
        binds: bool = True,
        env: Mapping[str, str] | None = None,
        cwd: Path = APPS,
        through: Sequence[str] = (),
        program: Path | None = None,
        python: str = sys.executable,
        passes: Sequence[int] = (),
    ) -> None:
        """`binds`: add `-b fd://N` for `listener`, or for one on a free port of the loopback.

        `passes`: more descriptors to pass down.  `through`: a command that executes what follows
        it.  `program`: a script to start it with, instead of `python -m forkmaster`.
        """
        self.folder = folder
        self.log_path = folder / "server.log"
        self.listener = listener
        self._expected: list[re.Pattern[str]] = []
        # A developer may well sit in a container.
        self._tolerated = [re.compile("published ports of this container do not lead to")]
        # Not the tests' temporary folder: heartbeats belong into memory.  Not the common folder
        # either: commands find the masters there.
        shm = "/dev/shm" if os.path.isdir("/dev/shm") else None
        self.board_folder = Path(tempfile.mkdtemp(prefix="forkmaster-test-", dir=shm))
        started = [str(program)] if program else [python, "-m", "forkmaster"]
        command = [*started, "--worker-tmp-dir", str(self.board_folder)]
        if binds:
            if self.listener is None:
                self.listener = socket.create_server(("127.0.0.1", 0), backlog=128)
            command += ["-b", f"fd://{self.listener.fileno()}"]
        descriptors = [] if self.listener is None else [self.listener.fileno()]
        inherited = {key: value for key, value in os.environ.items() if not OTHERS.fullmatch(key)}
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                [*through, *command, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=[*descriptors, *passes],
                cwd=cwd,
                env={**inherited, **FIXED, **(env or {})},
            )
        self.pid = self.process.pid
        self._seen: dict[int, psutil.Process] = {}
        self._clients: list[socket.socket | http.client.HTTPConnection] = []

    # --- What it logged -----------------------------------------------------------------------

    @property
    def log(self) -> str:
        """All it has logged so far."""
        return self.log_path.read_text(errors="replace")

    def lines(self, pattern: str) -> list[re.Match[str]]:
        """The places of the log that match, in order."""
        return list(re.finditer(pattern, self.log, re.MULTILINE))

    def wait_for_line(
        self, pattern: str, count: int = 1, timeout: float = PATIENCE
    ) -> re.Match[str]:
        """The `count`th place of the log that matches, as soon as it is there."""

        def found() -> list[re.Match[str]]:
            matches = self.lines(pattern)
            return matches if len(matches) >= count else []

        return wait_for(found, timeout, f"{pattern!r} {count} times in the log")[count - 1]

    def expect(self, *patterns: str) -> None:
        """Warnings and errors that belong to the test: each must come, and no other may."""
        self._expected += [re.compile(pattern) for pattern in patterns]

    def tolerate(self, *patterns: str) -> None:
        """Warnings and errors that may come."""
        self._tolerated += [re.compile(pattern) for pattern in patterns]

    def unexpected(self) -> list[str]:
        """Warnings and errors that no test expected, and the expected ones that did not come."""
        known = self._expected + self._tolerated
        wrong = [
            line
            for line in self.log.splitlines()
            if LEVELS.search(line) and not any(each.search(line) for each in known)
        ]
        log = self.log
        return wrong + [
            f"(expected, but not there) {each.pattern}"
            for each in self._expected
            if not re.search(each.pattern, log, re.MULTILINE)
        ]

    # --- Its processes ------------------------------------------------------------------------

    def wait_until_ready(self, count: int = 1, timeout: float = PATIENCE) -> Server:
        """Returns when `count` workers have become ready since the start.

        The workers of the start count together, when the last of them is ready.
        """
        wait_for(
            lambda: self.times_ready() >= count or self.process.poll() is not None,
            timeout,
            f"{count} workers ready",
        )
        assert self.process.poll() is None, f"the server ended:\n{self.log}"
        return self

    def times_ready(self) -> int:
        """How many workers have become ready so far, by the log."""
        # Not by the board, which forgets the dead, and on which a worker is ready before the
        # master has taken notice.
        at_start = sum(int(found[1]) for found in self.lines(r"ready in \d+ ms: (\d+) worker"))
        return at_start + len(self.lines(r"worker \d+ ready"))

    def workers(self) -> list[int]:
        """The pids of the living workers, the oldest first."""
        # Not by psutil, which reads the status of every process there is: tests ask all the time.
        try:
            pids = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        except (FileNotFoundError, ProcessLookupError):
            return []
        alive = []
        for pid in sorted(map(int, pids)):
            try:
                child = psutil.Process(pid)
            except psutil.NoSuchProcess:
                continue
            self._seen.setdefault(pid, child)
            if self._is_worker(child):
                alive.append(pid)
        return alive

    def wait_for_workers(self, count: int, timeout: float = PATIENCE) -> list[int]:
        """The pids of the workers, as soon as there are exactly `count`."""
        wait_for(lambda: len(self.workers()) == count, timeout, f"exactly {count} workers")
        return self.workers()

    def board(self) -> reader.BoardView:
        """What the board says."""
        (folder,) = reader.find_boards(self.board_folder)
        return reader.read_board(folder.path)

    def wait_until_running(self, count: int = 1, target: str = "/") -> None:
        """Returns when so many requests are inside the application, and no others.

        `target` is how theirs begins.  One before that was answered may not have ended yet.
        """

        def running() -> bool:
            shown = [request for child in self.board().children for request in child.in_flight]
            return len(shown) >= count and all(each.target.startswith(target) for each in shown)

        wait_for(running, what=f"{count} requests in flight")

    def wait_until_draining(self) -> None:
        """Returns when a worker has begun to drain."""
        wait_for(
            lambda: any(child.state == "draining" for child in self.board().children),
            what="a worker drains",
        )

    @staticmethod
    def _is_worker(child: psutil.Process) -> bool:
        try:
            title = " ".join(child.cmdline())
            return child.status() != psutil.STATUS_ZOMBIE and ": worker" in title
        except psutil.NoSuchProcess:
            return False

    def send_signal(self, number: signal.Signals) -> None:
        """Send the master a signal."""
        os.kill(self.pid, number)

    def wait(self, timeout: float = PATIENCE) -> int:
        """The exit code of the master, as soon as it has one."""
        self.workers()
        return self.process.wait(timeout)

    def stop(self, number: signal.Signals = signal.SIGTERM, timeout: float = PATIENCE) -> int:
        """Stop it by a signal, and return its exit code."""
        self.workers()
        if self.process.poll() is None:
            self.send_signal(number)
        return self.wait(timeout)

    def survivors(self) -> list[int]:
        """The pids of workers that still run, whoever their parent is now."""
        return [
            pid
            for pid, child in self._seen.items()
            if child.is_running() and child.status() != psutil.STATUS_ZOMBIE
        ]

    def close_clients(self) -> None:
        """Close all connections that the test has left open."""
        for client in self._clients:
            client.close()

    def clean_up(self) -> None:
        """End whatever is left, by pid, and remove the folder of its board."""
        self.close_clients()
        self.workers()
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        for pid in self.survivors():
            os.kill(pid, signal.SIGKILL)
        if self.listener is not None:
            self.listener.close()
        shutil.rmtree(self.board_folder, ignore_errors=True)

    # --- Its clients --------------------------------------------------------------------------

    @property
    def port(self) -> int:
        """The port of the listener that the test made."""
        assert self.listener is not None
        return int(self.listener.getsockname()[1])

    @property
    def url(self) -> str:
        """Where it serves, without a slash at the end."""
        return f"http://127.0.0.1:{self.port}"

    def connect(self, timeout: float = PATIENCE) -> http.client.HTTPConnection:
        """A keep-alive connection, already open."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        connection.connect()
        self._clients.append(connection)
        return connection

    def get(self, path: str = "/", timeout: float = PATIENCE, **headers: str) -> Response:
        """The answer to one GET on a connection of its own."""
        connection = self.connect(timeout)
        try:
            return ask(connection, "GET", path, headers=headers)
        finally:
            connection.close()

    def pid_of_worker(self) -> int:
        """The pid of the worker that answered."""
        return int(self.get("/pid").body)

    def send(self, data: bytes, timeout: float = PATIENCE) -> socket.socket:
        """A connection on which these bytes were sent."""
        raw = socket.create_connection(("127.0.0.1", self.port), timeout)
        self._clients.append(raw)
        raw.sendall(data)
        return raw


@dataclass(frozen=True)
class Response:
    """An answer, read to its end."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def closes(self) -> bool:
        """Whether the server said that it closes the connection."""
        return self.headers.get("connection", "").lower() == "close"


def ask(
    connection: http.client.HTTPConnection,
    method: str,
    path: str,
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """The answer to one request on an open connection.  Does not connect again by itself."""
    connection.auto_open = False
    connection.request(method, path, body, dict(headers or {}))
    answer = connection.getresponse()
    received = {key.lower(): value for key, value in answer.getheaders()}
    return Response(answer.status, received, answer.read())


def read_all(raw: socket.socket) -> bytes:
    """Everything up to the end of the connection, which must be FIN and not RST."""
    parts = []
    while part := raw.recv(65536):
        parts.append(part)
    return b"".join(parts)


def request_bytes(path: str, *headers: str) -> bytes:
    """The head of a GET."""
    return "\r\n".join((f"GET {path} HTTP/1.1", "Host: localhost", *headers, "", "")).encode()


class Clients:
    """Threads that ask a server all the time, retry nothing, and count.  `_run` is one of them."""

    def __init__(self, clients: int) -> None:
        self.answered = 0
        self.lost: list[str] = []
        self.stopping = threading.Event()
        """Set it, and each ends once what it has asked is answered."""
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._run) for _ in range(clients)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, _: object, exc: BaseException | None, __: object) -> None:
        self.stopping.set()
        for thread in self._threads:
            thread.join()
        if exc is not None and self.lost:
            exc.add_note(f"{type(self).__name__} lost {len(self.lost)}: {self.lost[:3]}")

    def wait_for_answers(self, count: int, patience: float = PATIENCE) -> None:
        """Returns when so many more requests have been answered."""
        target = self.answered + count
        wait_for(lambda: self.answered >= target, patience, f"{count} more answers")

    def _run(self) -> None:
        raise NotImplementedError


class Load(Clients):
    """Clients on kept-alive connections.

    A connection is opened anew only if the server said that it would close the last one.
    """

    def __init__(self, server: Server, path: str = "/pid", clients: int = 4) -> None:
        super().__init__(clients)
        self.server, self.path = server, path
        self.bodies: set[bytes] = set()

    def _run(self) -> None:
        connection = None
        while not self.stopping.is_set():
            try:
                if connection is None:
                    connection = self.server.connect()
                answer = ask(connection, "GET", self.path)
                failure = "" if answer.status == 200 else f"status {answer.status}"
                closed = answer.closes
            except (OSError, http.client.HTTPException) as exc:
                failure, closed = repr(exc), True
                answer = Response(0, {}, b"")
            with self._lock:
                if failure:
                    self.lost.append(failure)
                else:
                    self.answered += 1
                    self.bodies.add(answer.body)
            if closed and connection is not None:
                connection.close()
                connection = None
        if connection is not None:
            connection.close()


def is_gone(pid: int) -> bool:
    """Whether no process of that pid runs any more."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def all_gone(pids: Iterable[int]) -> bool:
    """Whether none of them runs any more."""
    return all(is_gone(pid) for pid in pids)

"""A worker without a master: the real one, in a thread of the test or in a child process."""

from __future__ import annotations

import os
import shutil
import socket
import ssl
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from forkmaster.board import layout
from forkmaster.board.balance import Balance
from forkmaster.board.slot import Slot
from forkmaster.config.table import Config
from forkmaster.worker.assignment import Assignment, encryption_of
from forkmaster.worker.reactor import Reactor
from forkmaster.worker.sync import SyncWorker
from forkmaster.worker.threaded import ThreadedWorker
from forkmaster.worker.views import ServerView, WorkerView
from tests.certificates import Certificates


@cache
def certificates() -> Certificates:
    """Those of all workers here that speak TLS."""
    return Certificates(Path(tempfile.mkdtemp(prefix="forkmaster-test-")))


KINDS: dict[str, type[Reactor]] = {"sync": SyncWorker, "threaded": ThreadedWorker}


def listen(family: int = socket.AF_INET, address: Any = ("127.0.0.1", 0)) -> socket.socket:
    """A listener as `system.listeners` makes them."""
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind(address)
    sock.listen(2048)
    sock.setblocking(False)
    return sock


class Site:
    """What several workers of one server share: listeners, the page of counts, the hand-off."""

    def __init__(self, config: Config, *listeners: socket.socket) -> None:
        self.config = config
        self.encryption = encryption_of(config)
        if self.encryption is not None:
            self.encryption.load()
        self.listeners = listeners or (listen(),)
        self.folder = Path(tempfile.mkdtemp(prefix="forkmaster-test-"))
        self.balance = Balance.create(self.folder / "balance")
        self.handoff = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        for end in self.handoff:
            end.setblocking(False)
        self.serial = 0
        self._fds: list[int] = []

    def assignment(self) -> Assignment:
        self.serial += 1
        config = self.config
        records = max(1, config.threads) + layout.HISTORY
        slot = Slot.create(
            self.folder / f"worker-{self.serial}",
            serial=self.serial,
            generation=0,
            records=records,
        )
        live_read, live_write = os.pipe()
        announce_read, announce_write = os.pipe()
        self._fds += [live_read, live_write, announce_read, announce_write]
        return Assignment(
            serial=self.serial,
            generation=0,
            config=config,
            listeners=self.listeners,
            slot=slot,
            balance=self.balance.share(self.balance.take()),
            handoff=self.handoff,
            liveness_fd=live_read,
            announce_fd=announce_write,
            stacks_fd=2,
            output_fd=-1,
            folder=str(self.folder),
            master_pid=os.getpid(),
            server=ServerView(config),
            preloaded=False,
            view=WorkerView(self.serial, config, self.listeners, slot),
            encryption=self.encryption,
        )

    def close(self) -> None:
        for fd in self._fds:
            os.close(fd)
        for sock in (*self.listeners, *self.handoff):
            sock.close()
        shutil.rmtree(self.folder)


class Running:
    """A worker that serves in a thread of this process."""

    def __init__(self, application: Callable[..., Any], kind: str, site: Site) -> None:
        self.site = site
        self.assignment = self.site.assignment()
        self.slot = self.assignment.slot
        self.address = self.site.listeners[0].getsockname()
        self.worker = KINDS[kind](self.assignment, application)
        self.failure: BaseException | None = None
        self.client_context: ssl.SSLContext | None = None
        """What clients connect with, if they are to speak TLS."""
        ready = threading.Event()
        self.thread = threading.Thread(target=self._serve, args=(ready,), daemon=True)
        self.thread.start()
        assert ready.wait(5)

    def _serve(self, ready: threading.Event) -> None:
        try:
            self.worker.serve(ready.set)
        except BaseException as exc:
            self.failure = exc

    def connect(self, timeout: float = 5) -> socket.socket:
        """A client's connection."""
        family = self.site.listeners[0].family
        sock = socket.socket(family, socket.SOCK_STREAM)
        sock.settimeout(timeout)
        sock.connect(self.address)
        if self.client_context is not None:
            return self.client_context.wrap_socket(sock, server_hostname="localhost")
        return sock

    def ask(self, data: bytes, *, timeout: float = 5) -> bytes:
        """Everything that comes back for `data`, up to the end of the connection."""
        with self.connect(timeout) as sock:
            sock.sendall(data)
            return read_to_end(sock)

    def stop(self) -> None:
        self.worker.quit()
        self.thread.join(5)
        assert not self.thread.is_alive()
        if self.failure is not None:
            raise self.failure


def read_to_end(sock: socket.socket) -> bytes:
    """What comes until the other end closes its side."""
    parts = []
    while data := sock.recv(65536):
        parts.append(data)
    return b"".join(parts)


@contextmanager
def running(
    application: Callable[..., Any],
    kind: str = "sync",
    listeners: tuple[socket.socket, ...] = (),
    **settings: Any,
) -> Iterator[Running]:
    """A worker that serves `application` while the block runs."""
    with several(application, kind, 1, listeners, **settings) as (worker,):
        yield worker


@contextmanager
def several(
    application: Callable[..., Any],
    kind: str,
    count: int,
    listeners: tuple[socket.socket, ...] = (),
    **settings: Any,
) -> Iterator[list[Running]]:
    """Workers of one server, each in a thread of this process."""
    kind, _, over = kind.partition(" over ")
    if kind == "threaded":
        settings.setdefault("threads", 4)
    if over:
        settings = {"certfile": certificates().cert, "keyfile": certificates().key, **settings}
    site = Site(Config(workers=count, **settings), *listeners)
    workers: list[Running] = []
    try:
        workers += [Running(application, kind, site) for _ in range(count)]
        if over:
            for worker in workers:
                worker.client_context = certificates().client_context
        yield workers
    finally:
        for worker in workers:
            worker.stop()
        site.close()

"""How four asgi workers share 40 kept connections, opened at once or one by one.

    python scripts/lab_accept.py [ROUNDS]

Three ways to accept, each with uvloop or asyncio where it exists: the loop's own (as uvicorn's
workers do), one per wake-up with the page of counts (forkmaster's), and an exclusive registration
(EPOLLEXCLUSIVE, registered anew after every accept) in asyncio's selector.  What is printed is the
connections of each worker, of the worst round, and the median of the largest.
"""

from __future__ import annotations

import asyncio
import os
import select
import selectors
import signal
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import uvloop

sys.path.insert(0, str(Path(__file__).parent.parent))

from forkmaster.board.balance import Balance, Share

WORKERS, CONNECTIONS = 4, 40
YIELD = 0.005

opening: set[asyncio.Task[Any]] = set()


class ExclusiveSelector(selectors.EpollSelector):
    """One wake-up per connection for the listener that is told of here."""

    listener = -1

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        fd = fileobj if isinstance(fileobj, int) else fileobj.fileno()
        if fd != self.listener:
            return super().register(fileobj, events, data)
        # Past EpollSelector and its parent, which would register it as shared.
        key = selectors._BaseSelectorImpl.register(self, fileobj, events, data)
        self._selector.register(fd, select.EPOLLIN | select.EPOLLEXCLUSIVE)
        return key


class Kept(asyncio.Protocol):
    """A connection that is held."""

    def __init__(self, share: Share, counts: list[int]) -> None:
        self._share, self._counts = share, counts

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._counts[0] += 1
        self._share.publish(self._counts[0])

    def connection_lost(self, exc: Exception | None) -> None:
        self._counts[0] -= 1
        self._share.publish(self._counts[0])


def begin(loop: asyncio.AbstractEventLoop, connection: socket.socket, protocol: Kept) -> None:
    """Start the protocol of an accepted connection."""
    task = loop.create_task(loop.connect_accepted_socket(lambda: protocol, connection))
    opening.add(task)
    task.add_done_callback(opening.discard)


async def own(listener: socket.socket, share: Share) -> None:
    """As uvicorn: the loop accepts what it can get."""
    counts = [0]
    share.publish(0)
    loop = asyncio.get_running_loop()
    await loop.create_server(lambda: Kept(share, counts), sock=listener, backlog=2048)
    await asyncio.Event().wait()


async def guarded(listener: socket.socket, share: Share) -> None:
    """As forkmaster: one per wake-up, and who has more than its share lets the others go first."""
    counts = [0]
    share.publish(0)
    loop = asyncio.get_running_loop()

    def take() -> None:
        try:
            connection, _ = listener.accept()
        except BlockingIOError:
            return
        connection.setblocking(False)
        begin(loop, connection, Kept(share, counts))

    def accept() -> None:
        if share.has_more_than_its_share(counts[0]):
            loop.remove_reader(listener)
            loop.call_later(YIELD, resume)
        else:
            take()

    def resume() -> None:
        take()
        loop.add_reader(listener, accept)

    loop.add_reader(listener, accept)
    await asyncio.Event().wait()


async def exclusive(listener: socket.socket, share: Share) -> None:
    """One wake-up per connection, registered anew after every accept."""
    counts = [0]
    share.publish(0)
    loop = asyncio.get_running_loop()

    def accept() -> None:
        try:
            connection, _ = listener.accept()
        except BlockingIOError:
            return
        connection.setblocking(False)
        begin(loop, connection, Kept(share, counts))
        loop.remove_reader(listener)
        loop.add_reader(listener, accept)

    loop.add_reader(listener, accept)
    await asyncio.Event().wait()


def exclusive_loop(listener: socket.socket) -> asyncio.AbstractEventLoop:
    selector = ExclusiveSelector()
    selector.listener = listener.fileno()
    return asyncio.SelectorEventLoop(selector)


VARIANTS: dict[str, tuple[Callable[..., Any], Callable[..., asyncio.AbstractEventLoop]]] = {
    "uvloop, its own accept": (own, lambda _: uvloop.new_event_loop()),
    "asyncio, its own accept": (own, lambda _: asyncio.new_event_loop()),
    "uvloop, guarded accept": (guarded, lambda _: uvloop.new_event_loop()),
    "asyncio, guarded accept": (guarded, lambda _: asyncio.new_event_loop()),
    "asyncio, exclusive selector": (exclusive, exclusive_loop),
}


def measure(variant: str, at_once: bool) -> list[int]:
    """The connections of each worker when all are open."""
    work, make_loop = VARIANTS[variant]
    with (
        tempfile.TemporaryDirectory() as folder,
        socket.create_server(("127.0.0.1", 0), backlog=2048) as listener,
    ):
        listener.setblocking(False)
        balance = Balance.create(Path(folder) / "balance")
        shares = [balance.share(balance.take()) for _ in range(WORKERS)]
        pids = []
        for share in shares:
            pid = os.fork()
            if not pid:
                try:
                    with asyncio.Runner(loop_factory=lambda: make_loop(listener)) as runner:
                        runner.run(work(listener, share))
                finally:
                    os._exit(1)
            pids.append(pid)
        words = balance._words
        while 0 in words[1 : 1 + WORKERS].tolist():
            time.sleep(0.01)
        time.sleep(0.1)
        clients = []
        for _ in range(CONNECTIONS):
            client = socket.socket()
            client.setblocking(False)
            client.connect_ex(listener.getsockname())
            clients.append(client)
            if not at_once:
                time.sleep(0.005)
        deadline = time.monotonic() + 5
        while sum(words[1 : 1 + WORKERS]) - WORKERS < CONNECTIONS and time.monotonic() < deadline:
            time.sleep(0.01)
        counts = sorted(each - 1 for each in words[1 : 1 + WORKERS].tolist())
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        for client in clients:
            client.close()
        words.release()
        return counts


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 10
    print("| accept | opened at once: worst, median of the largest | one by one |")
    print("|---|---|---|")
    for variant in VARIANTS:
        cells = []
        for at_once in (True, False):
            results = [measure(variant, at_once) for _ in range(rounds)]
            worst = max(results, key=max)
            cells.append(f"{worst}, {statistics.median(map(max, results)):g}")
        print(f"| {variant} | {cells[0]} | {cells[1]} |", flush=True)


if __name__ == "__main__":
    main()

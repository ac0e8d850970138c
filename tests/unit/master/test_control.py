"""The control socket, with clients that behave badly."""

from __future__ import annotations

import json
import os
import selectors
import socket
from collections.abc import Iterator
from pathlib import Path
from time import monotonic
from typing import Any, cast

import pytest

from forkmaster.master import control, events, protocol
from forkmaster.master.control import Control, reachable, refusal_of
from forkmaster.master.orders import Conversation, OrderError, Orders
from forkmaster.master.protocol import Done


class Loop:
    """The master's loop, turned by hand, around orders that do what a test wants."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.selector = selectors.DefaultSelector()
        self.control = Control.open(folder, self.selector, cast("Orders", self))
        self.now = 0.0

    def carry_out(self, request: protocol.Request, say: Any) -> Conversation:
        match request:
            case protocol.Scale(0):
                raise OrderError("never")
            case protocol.Reload():
                return self._wait(say)
            case protocol.Stacks():
                return self._at(1e12)
        return self._flood(say)

    def _wait(self, say: Any) -> Conversation:
        heard = yield float("inf")
        say(f"heard {heard and heard[0]}")
        return Done("ok", {"number": 3})

    def _at(self, time: float) -> Conversation:
        assert (yield time) is None
        return Done("it is time")

    def _flood(self, say: Any) -> Conversation:
        while True:
            say("x" * 10_000)
            yield float("inf")

    def turn(self, now: float | None = None) -> None:
        for key, _ in self.selector.select(0):
            if key.fd in self.selector.get_map():
                key.data()
        self.control.turn(monotonic() if now is None else now)

    def connect(self) -> socket.socket:
        client = socket.socket(socket.AF_UNIX)
        client.settimeout(5)
        client.connect(str(self.folder / protocol.SOCKET_NAME))
        self.turn()
        return client

    def ask(self, line: bytes) -> socket.socket:
        client = self.connect()
        client.sendall(line)
        self.turn()
        return client

    def close(self) -> None:
        self.control.close()
        self.selector.close()


@pytest.fixture
def loop(tmp_path: Path) -> Iterator[Loop]:
    loop = Loop(tmp_path)
    yield loop
    loop.close()


def answers(client: socket.socket) -> list[dict[str, Any]]:
    """All answers up to the end of the connection."""
    with client, client.makefile("rb") as file:
        return [json.loads(line) for line in file]


def is_open(client: socket.socket) -> bool:
    client.setblocking(False)
    try:
        return client.recv(1 << 20) != b""
    except BlockingIOError:
        return True


def test_the_outcome_ends_the_connection(loop: Loop) -> None:
    client = loop.ask(b'{"command": "reload"}\n')

    loop.control.observe(events.Reload(), [])
    loop.turn()

    assert answers(client) == [
        {"accepted": "reload"},
        {"progress": "heard Reload()"},
        {"done": "ok", "data": {"number": 3}},
    ]
    assert loop.control.next_deadline() == float("inf")


def test_a_reason_ends_it_too(loop: Loop) -> None:
    assert answers(loop.ask(b'{"command": "scale", "workers": 0}\n'))[-1] == {"error": "never"}
    assert answers(loop.ask(b"nonsense\n")) == [{"error": "a request is one line of JSON"}]
    assert answers(loop.ask(b"x" * 5000)) == [{"error": "a request has at most 4096 bytes"}]


def test_a_command_is_resumed_when_it_wanted_to_be(loop: Loop) -> None:
    client = loop.ask(b'{"command": "stacks", "serial": null}\n')
    assert loop.control.next_deadline() == 1e12

    loop.turn(now=1e12)

    assert answers(client)[-1]["done"] == "it is time"


def test_a_client_that_asks_nothing_is_dropped(loop: Loop) -> None:
    client = loop.ask(b'{"comm')
    due = loop.control.next_deadline()
    assert due < monotonic() + control.STALL + 1
    assert is_open(client)

    loop.turn(now=due)

    assert not is_open(client)
    client.close()


def test_a_client_that_waits_for_an_outcome_is_not(loop: Loop) -> None:
    client = loop.ask(b'{"command": "reload"}\n')

    loop.turn(now=monotonic() + 1000 * control.STALL)

    assert is_open(client)
    client.close()


def test_a_client_that_reads_no_answers_is_dropped(loop: Loop) -> None:
    client = loop.ask(b'{"command": "reopen"}\n')
    for _ in range(100):  # more than a socket buffers
        loop.control.observe(events.Reload(), [])
    loop.turn()
    assert loop.control.next_deadline() < float("inf")

    loop.turn(now=monotonic() + control.STALL + 1)

    assert loop.control.next_deadline() == float("inf")
    client.close()


def test_a_slow_reader_gets_all_of_it(loop: Loop) -> None:
    client = loop.ask(b'{"command": "reopen"}\n')
    for _ in range(60):
        loop.control.observe(events.Reload(), [])
    loop.turn()

    received = b""
    client.settimeout(0.05)
    while received.count(b"\n") < 61:
        received += client.recv(1000)
        loop.turn()

    assert loop.control.next_deadline() == float("inf")
    client.close()


def test_a_client_may_close_its_half_after_asking(loop: Loop) -> None:
    client = loop.ask(b'{"command": "reload"}\n')
    client.shutdown(socket.SHUT_WR)
    loop.turn()
    assert not loop.selector.select(0), "the loop would turn for nothing"

    loop.control.observe(events.Reload(), [])
    loop.turn()

    assert answers(client)[-1]["done"] == "ok"


def test_a_client_that_has_gone_does_no_harm(loop: Loop) -> None:
    loop.ask(b'{"command": "reload"}\n').close()
    loop.connect().close()
    loop.turn()

    loop.control.observe(events.Reload(), [])
    loop.turn()
    loop.turn()

    assert loop.control.next_deadline() == float("inf")


def test_only_so_many_at_a_time(loop: Loop) -> None:
    waiting = [loop.ask(b'{"command": "reload"}\n') for _ in range(control.MOST_CLIENTS)]

    refused = loop.connect()

    assert answers(refused) == [{"error": "16 commands are under way; try again"}]
    for client in waiting:
        client.close()


def test_who_may_command() -> None:
    assert refusal_of(uid=0, own=33) == ""
    assert refusal_of(uid=33, own=33) == ""
    assert refusal_of(uid=1000, own=33) == "only root and user 33 may command this master"


def test_a_board_that_lies_deep_can_be_reached(tmp_path: Path) -> None:
    folder = tmp_path / ("x" * 120)
    folder.mkdir()
    loop = Loop(folder)

    with socket.socket(socket.AF_UNIX) as client, reachable(folder) as path:
        assert len(path) < 108
        client.connect(path)

    loop.close()


def test_the_socket_of_our_former_self_is_replaced(tmp_path: Path) -> None:
    before = Loop(tmp_path)
    before.close()

    after = Loop(tmp_path)

    after.connect().close()
    after.close()


def test_a_child_lets_go_of_everything(loop: Loop) -> None:
    client = loop.connect()
    before = len(os.listdir("/proc/self/fd"))

    loop.control.close_in_child()

    assert len(os.listdir("/proc/self/fd")) == before - 2
    loop.control = Control.open(loop.folder, selectors.DefaultSelector(), cast("Orders", loop))
    client.close()

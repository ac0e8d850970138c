"""Connections that wait to be accepted."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from forkmaster.system.queues import (
    AcceptQueue,
    accept_queue,
    accept_queues,
    inode_of,
    parse_answer,
)


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as made:
        yield made


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_UNIX])
def test_the_queue_grows_with_each_connection_and_shrinks_with_each_accept(
    family: socket.AddressFamily,
    stack: ExitStack,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    listener = stack.enter_context(socket.socket(family))
    listener.bind("x.sock" if family == socket.AF_UNIX else ("127.0.0.1", 0))
    listener.listen(7)
    assert accept_queue(listener) == AcceptQueue(waiting=0, limit=7)

    for _ in range(3):
        stack.enter_context(socket.socket(family)).connect(listener.getsockname())
    assert accept_queue(listener) == AcceptQueue(waiting=3, limit=7)

    stack.enter_context(listener.accept()[0])
    assert accept_queue(listener) == AcceptQueue(waiting=2, limit=7)


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "x.sock"])
def test_every_listener_is_known_by_its_inode(
    address: str, stack: ExitStack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    families = {"x.sock": socket.AF_UNIX, "::1": socket.AF_INET6}
    listener = stack.enter_context(socket.socket(families.get(address, socket.AF_INET)))
    try:
        listener.bind(address if address == "x.sock" else (address, 0))
    except OSError:
        pytest.skip(f"this machine has no {address}")
    listener.listen(7)
    assert accept_queues()[inode_of(listener)] == AcceptQueue(waiting=0, limit=7)

    for _ in range(3):
        client = stack.enter_context(socket.socket(listener.family))
        client.connect(listener.getsockname())

    assert accept_queues()[inode_of(listener)] == AcceptQueue(waiting=3, limit=7)


def test_listeners_that_fill_more_than_one_message(stack: ExitStack, tmp_path: Path) -> None:
    listeners = [stack.enter_context(socket.socket(socket.AF_UNIX)) for _ in range(300)]
    for number, listener in enumerate(listeners, start=1):
        listener.bind(str(tmp_path / f"{number}"))
        listener.listen(number)

    queues = accept_queues()

    assert [queues[inode_of(each)].limit for each in listeners] == list(range(1, 301))


def test_what_has_no_queue(stack: ExitStack) -> None:
    datagram = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))

    assert accept_queue(datagram) is None


def test_an_answer_with_other_attributes_first() -> None:
    header = struct.pack("=IHHII", 0, 20, 0, 0, 0) + bytes(16)
    name = struct.pack("=HH", 6, 0) + b"ab" + b"\0\0"
    queue = struct.pack("=HHII", 12, 4, 5, 10)

    assert parse_answer(header + name + queue) == AcceptQueue(5, 10)
    assert parse_answer(header + name) is None
    assert parse_answer(header + bytes(4)) is None


def test_an_error_is_no_answer() -> None:
    assert parse_answer(struct.pack("=IHHIIi", 0, 2, 0, 0, 0, -2)) is None

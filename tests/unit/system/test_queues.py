"""Connections that wait to be accepted."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from forkmaster.system.queues import AcceptQueue, accept_queue, parse_answer


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

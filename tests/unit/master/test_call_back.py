"""One turn of the master's loop: who is called when descriptors are ready."""

from __future__ import annotations

import os
import selectors
from collections.abc import Iterator

import pytest

from forkmaster.master.master import call_back


@pytest.fixture
def selector() -> Iterator[selectors.BaseSelector]:
    with selectors.DefaultSelector() as made:
        yield made


def readable() -> int:
    """A descriptor that is ready."""
    read_end, write_end = os.pipe()
    os.close(write_end)
    return read_end


def test_everybody_who_is_ready_is_called(selector: selectors.BaseSelector) -> None:
    called: list[str] = []
    fds = [readable(), readable()]
    for name, fd in zip("ab", fds, strict=True):
        selector.register(fd, selectors.EVENT_READ, lambda name=name: called.append(name))

    call_back(selector, 0)

    assert sorted(called) == ["a", "b"]
    for fd in fds:
        os.close(fd)


@pytest.mark.parametrize("reused", [False, True], ids=["closed", "closed and its number reused"])
def test_who_was_closed_meanwhile_is_not_called(
    selector: selectors.BaseSelector, reused: bool
) -> None:
    # Whichever of the two is called first closes the other one.
    fds = [readable(), readable()]
    called: list[str] = []

    def close(own: int, other: int) -> None:
        called.append("first")
        selector.unregister(other)
        os.close(other)
        if reused:
            assert os.dup2(own, other) == other
            selector.register(other, selectors.EVENT_READ, lambda: called.append("new"))

    selector.register(fds[0], selectors.EVENT_READ, lambda: close(fds[0], fds[1]))
    selector.register(fds[1], selectors.EVENT_READ, lambda: close(fds[1], fds[0]))

    call_back(selector, 0)

    assert called == ["first"]
    for fd in selector.get_map():
        os.close(fd)

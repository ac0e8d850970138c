"""Colour is for terminals, and for who asks for it."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from forkmaster.system.terminal import wants_colour


@pytest.fixture(scope="module")
def terminal() -> Iterator[int]:
    ours, theirs = os.openpty()
    yield theirs
    os.close(ours)
    os.close(theirs)


@pytest.fixture(scope="module")
def pipe() -> Iterator[int]:
    read_end, write_end = os.pipe()
    yield write_end
    os.close(read_end)
    os.close(write_end)


@pytest.mark.parametrize(
    ("environ", "on_terminal", "elsewhere"),
    [
        ({}, True, False),
        ({"TERM": "dumb"}, False, False),
        ({"NO_COLOR": "1"}, False, False),
        ({"NO_COLOR": ""}, True, False),
        ({"FORCE_COLOR": "1"}, True, True),
        ({"FORCE_COLOR": "1", "NO_COLOR": "1"}, False, False),
        ({"FORCE_COLOR": "1", "TERM": "dumb"}, True, True),
    ],
    ids=str,
)
def test_colour_is_for_terminals_and_for_who_asks(
    environ: dict[str, str], on_terminal: bool, elsewhere: bool, terminal: int, pipe: int
) -> None:
    assert wants_colour(terminal, environ) is on_terminal
    assert wants_colour(pipe, environ) is elsewhere

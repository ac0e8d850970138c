"""No depth at which a call maps memory again and again."""

import resource
import sys
import threading
from collections.abc import Callable

import pytest

from forkmaster.system.stack import with_room

CALLS = 50


def leaf(*values: int) -> int:
    return sum(values)


def call_often() -> int:
    """The page faults of a few calls."""
    before = resource.getrusage(resource.RUSAGE_THREAD).ru_minflt
    for _ in range(CALLS):
        leaf(1, 2, 3)
    return resource.getrusage(resource.RUSAGE_THREAD).ru_minflt - before


def at_depth(depth: int) -> int:
    return at_depth(depth - 1) if depth else call_often()


def worst_of_all_depths() -> int:
    # From a few hundred frames on, the first chunk has ended wherever this began.
    at_depth(500)
    return max(at_depth(depth) for depth in range(500))


def in_a_thread(function: Callable[[], int]) -> int:
    """Where the stack is empty, whatever pytest has put on that of the main thread."""
    found: list[int] = []
    thread = threading.Thread(target=lambda: found.append(function()))
    thread.start()
    thread.join()
    return found[0]


def test_no_call_crosses_the_end_of_a_chunk() -> None:
    assert in_a_thread(lambda: with_room(worst_of_all_depths)) < CALLS


@pytest.mark.skipif(sys.version_info >= (3, 13), reason="3.13 may keep a spare chunk")
def test_without_room_one_does() -> None:
    assert in_a_thread(worst_of_all_depths) >= CALLS


def test_passes_on_arguments_and_result() -> None:
    assert with_room(divmod, 7, 3) == (2, 1)


def test_passes_on_what_is_raised() -> None:
    with pytest.raises(ZeroDivisionError):
        with_room(divmod, 1, 0)

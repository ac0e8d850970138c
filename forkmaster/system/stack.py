"""Room on the interpreter's stack, so that no call of an application crosses the end of a chunk.

CPython keeps the frames of a thread in chunks of 16 KiB, and gives one back to the kernel as soon
as the last frame in it returns.  A loop that happens to stand at the end of a chunk then maps and
unmaps memory with every call it makes: with a page of Django's that cost a seventh of the
throughput, and which page it strikes depends on nothing but how deep in the stack the server calls
the application.  Python 3.13 and 3.14 have kept a spare chunk since their releases of spring 2026
(https://github.com/python/cpython/issues/142183); 3.11 and 3.12 do not.

A chunk is as large as the frame that asks for it needs, rounded up to a power of two.  So one frame
that claims to need a little more than half a mebibyte gets one of a mebibyte, and what it does not
use itself is there for all that it calls.  Memory that nobody touches costs nothing.

Rejected: `sys.setrecursionlimit`, which bounds the frames and not the chunks, and calling the
application from a thread of its own, which only moves the end of the chunk.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import ParamSpec, TypeVar

Args = ParamSpec("Args")
Result = TypeVar("Result")

# In pointers: 512 KiB.  As much again is left over: the frames of a Django page take 30 KiB.
_CLAIM = 64 << 10


def with_room(function: Callable[Args, Result], *args: Args.args, **kwargs: Args.kwargs) -> Result:
    """Call `function`; 500 KiB of frames have room under it before a chunk ends.

    For the outermost call of a thread, not for one made often: it maps and unmaps a mebibyte.
    """
    return function(*args, **kwargs)


if sys.implementation.name == "cpython":
    with_room.__code__ = with_room.__code__.replace(co_stacksize=_CLAIM)

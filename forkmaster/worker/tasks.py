"""Where the tasks of an event loop stand: what no thread's stack shows.

The dump signal is first answered by faulthandler, in C, with the stacks of the threads.  Then, as
soon as Python code runs again, the tasks follow here, in the same form.  If the loop is blocked by
C code that holds the GIL they never come, and the thread's stack is the answer anyway.
"""

from __future__ import annotations

import asyncio
import faulthandler
import os
import signal
from collections.abc import Iterator
from types import FrameType
from typing import Any

from forkmaster.worker.asgi_exchange import Exchange
from forkmaster.worker.asgi_websocket import Session
from forkmaster.worker.child import DUMP_SIGNAL

SHOWN = 50  # tasks; a worker with a thousand websockets has as many that all look the same


def show_on_dump_signal(loop: asyncio.AbstractEventLoop, fd: int) -> None:
    """Have the dump signal write the tasks of `loop` to `fd`, after the threads."""

    def write(*_: object) -> None:
        os.write(fd, describe(loop).encode(errors="replace"))

    # Held back while faulthandler does not stand: its default action ends the process.
    signal.pthread_sigmask(signal.SIG_BLOCK, (DUMP_SIGNAL,))
    try:
        faulthandler.unregister(DUMP_SIGNAL)
        signal.signal(DUMP_SIGNAL, write)
        faulthandler.register(DUMP_SIGNAL, file=fd, all_threads=True, chain=True)
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (DUMP_SIGNAL,))


def describe(loop: asyncio.AbstractEventLoop) -> str:
    """The stacks of the tasks of `loop` that wait, requests first, in faulthandler's form."""
    running = asyncio.current_task(loop)
    waiting = sorted(
        (_Waiting(task) for task in asyncio.all_tasks(loop) if task is not running),
        key=lambda task: (not task.request, task.name),
    )
    parts = [str(task) for task in waiting[:SHOWN]]
    if len(waiting) > SHOWN:
        parts.append(f"and {len(waiting) - SHOWN} more tasks")
    return "".join(f"{part}\n" for part in parts)


class _Waiting:
    """A task, and the request that it serves, if it does."""

    def __init__(self, task: asyncio.Task[Any]) -> None:
        self.name = task.get_name()
        self.frames = list(_frames(task.get_coro()))
        self.request = next((line for frame in self.frames if (line := _request_of(frame))), "")

    def __str__(self) -> str:
        request = f" ({self.request})" if self.request else ""
        lines = [
            f'  File "{frame.f_code.co_filename}", line {frame.f_lineno} in {frame.f_code.co_name}'
            for frame in reversed(self.frames)
        ]
        return "\n".join((f"Task {self.name}{request} (most recent call first):", *lines))


def _frames(awaited: Any) -> Iterator[FrameType]:
    """The frames of a coroutine and of what it waits for, the outermost first."""
    while awaited is not None:
        # The same for coroutines, generators and asynchronous generators.
        for kind in ("cr", "gi", "ag"):
            frame = getattr(awaited, f"{kind}_frame", None)
            if frame is not None:
                yield frame
                awaited = getattr(awaited, "gi_yieldfrom" if kind == "gi" else f"{kind}_await")
                break
        else:
            return  # a future, or a coroutine written in C


def _request_of(frame: FrameType) -> str:
    """The request that a frame of ours serves."""
    served = frame.f_locals.get("self")
    if frame.f_code is Exchange.run.__code__ and isinstance(served, Exchange):
        return served.request
    if frame.f_code is Session.__call__.__code__ and isinstance(served, Session):
        return f"websocket {served.scope['path']}"
    return ""

"""Finds what an application made while it was loaded that will not survive a fork.  In the zygote.

A thread does not exist in a forked child, though the locks it held do; a connected socket exists
in all of them, and they would take turns to read each other's answers.  Both are found in /proc,
also those that C code made; the line of Python that led to each comes from an audit hook
(PEP 578), which notes the stack at every start of a thread and every connect.
"""

from __future__ import annotations

import os
import socket
import stat
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

# Of these modules nobody wants to hear: the line sought is in whoever called them.
_MACHINERY = ("threading.py", "socket.py", "concurrent/futures/", "asyncio/", "<frozen ")


class Watch:
    """Watches from `__enter__` to `__exit__`; `problems` says what is left afterwards."""

    def __init__(self) -> None:
        self._active = False
        self._threads: list[str] = []
        self._connects: dict[int, str] = {}
        self._before: set[int] = set()

    def __enter__(self) -> Watch:
        self._before = _sockets()
        self._active = True
        # A hook cannot be removed; that is why this one only ever exists in a zygote.
        sys.addaudithook(self._hook)
        if sys.version_info < (3, 12):
            self._start = threading.Thread.start  # no audit event yet
            threading.Thread.start = _noting(self._threads, self._start)  # type: ignore[assignment, method-assign]
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._active = False
        if sys.version_info < (3, 12):
            threading.Thread.start = self._start  # type: ignore[method-assign]

    def problems(self) -> list[str]:
        """One line for each thread and each connected socket that is there now."""
        return [*self._thread_problems(), *self._socket_problems()]

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self._active:
            return
        if event in ("_thread.start_new_thread", "_thread.start_joinable_thread"):
            self._threads.append(_caller(sys._getframe(1)))
        elif event == "socket.connect":
            self._connects[arguments[0].fileno()] = _caller(sys._getframe(1))

    def _thread_problems(self) -> list[str]:
        python = [t for t in threading.enumerate() if t is not threading.main_thread()]
        native = _settled_thread_count(len(python) + 1) - 1
        if native <= 0:
            return []
        names = ", ".join(thread.name for thread in python) or "started by C code"
        where = f"; started at {', '.join(dict.fromkeys(self._threads))}" if self._threads else ""
        return [
            f"{native} thread(s) run after the application was loaded ({names}){where};"
            " workers are forked without them, so start them in post_worker_init"
        ]

    def _socket_problems(self) -> list[str]:
        problems = []
        for fd in sorted(_sockets() - self._before):
            peer = _peer(fd)
            if peer is None:
                continue
            where = self._connects.get(fd)
            by = f", connected at {where}" if where else ""
            problems.append(
                f"a connection to {peer} is open after the application was loaded{by};"
                " all workers would share it, so connect after the fork"
            )
        return problems


def _noting(
    lines: list[str], start: Callable[[threading.Thread], None]
) -> Callable[[threading.Thread], None]:
    """`start`, but the line that calls it is noted."""

    def noted(thread: threading.Thread) -> None:
        lines.append(_caller(sys._getframe(1)))
        start(thread)

    return noted


def _caller(frame: FrameType | None) -> str:
    """File and line of the nearest frame outside the standard library's machinery."""
    while frame is not None:
        name = frame.f_code.co_filename
        if not any(part in name for part in _MACHINERY):
            return f"{name}:{frame.f_lineno}"
        frame = frame.f_back
    return "an unknown line"


def _settled_thread_count(expected: int) -> int:
    """The threads there are, once those that were joined have left the kernel too."""
    for _ in range(20):
        if _thread_count() <= expected:
            break
        time.sleep(0.005)
    return _thread_count()


def _thread_count() -> int:
    try:
        return len(os.listdir("/proc/self/task"))
    except OSError:
        return threading.active_count()  # no /proc: threads of C code stay unseen


def _sockets() -> set[int]:
    found: set[int] = set()
    try:
        names = os.listdir("/proc/self/fd")
    except OSError:
        return found
    for name in names:
        try:
            if stat.S_ISSOCK(os.fstat(int(name)).st_mode):
                found.add(int(name))
        except OSError:
            continue  # the descriptor of the listing itself
    return found


def _peer(fd: int) -> str | None:
    """The address at the other end of a connected internet or named unix socket, else None."""
    duplicate = socket.socket(fileno=os.dup(fd))
    try:
        name = duplicate.getpeername()
    except OSError:
        return None  # not connected: a listener, or a datagram socket
    finally:
        duplicate.close()
    if isinstance(name, tuple):
        return f"{name[0]}:{name[1]}"
    # A pair of nameless sockets is our own, or asyncio's.
    return os.fsdecode(name) or None

"""Which descriptors are ready: epoll on Linux, poll elsewhere, behind the methods of epoll.

The methods are epoll's own C functions where there is epoll, because the reactor calls them with
every request.
"""

from __future__ import annotations

import os
import select
import sys
from typing import Protocol

READ = 0x001  # POLLIN and EPOLLIN are equal by definition, and so are the others
WRITE = 0x004
ERROR = 0x008
HANGUP = 0x010
# Of all who wait for one listener, wake one only.  Taken with `register`, never with `modify`.
EXCLUSIVE = 1 << 28 if sys.platform == "linux" else 0
# Report once, then nothing until `modify`.
ONE_SHOT = 1 << 30


class Poller(Protocol):
    """Descriptors and what is waited for on each.  `poll` may run while another thread changes
    the registrations, on Linux; elsewhere such a change takes effect with the next `poll`."""

    def register(self, fd: int, eventmask: int, /) -> None: ...
    def modify(self, fd: int, eventmask: int, /) -> None: ...
    def unregister(self, fd: int, /) -> None: ...
    def poll(self, timeout: float, maxevents: int, /) -> list[tuple[int, int]]:
        """The ready descriptors and why, after at most `timeout` seconds; negative: no limit."""
        ...

    def close(self) -> None: ...


class PortablePoller:
    """`select.poll` with epoll's methods."""

    def __init__(self) -> None:
        self._poll = select.poll()
        self._once: set[int] = set()

    def register(self, fd: int, eventmask: int, /) -> None:
        if eventmask & ONE_SHOT:
            self._once.add(fd)
        else:
            self._once.discard(fd)
        self._poll.register(fd, eventmask & (READ | WRITE))

    modify = register

    def unregister(self, fd: int, /) -> None:
        self._once.discard(fd)
        self._poll.unregister(fd)

    def poll(self, timeout: float, maxevents: int, /) -> list[tuple[int, int]]:
        # Rounded up: a poll that ends before the deadline would spin until it.
        milliseconds = None if timeout < 0 else int(timeout * 1000) + (timeout > 0)
        events = self._poll.poll(milliseconds)[:maxevents]
        for fd, _ in events:
            if fd in self._once:
                self._poll.modify(fd, 0)
        return events

    def close(self) -> None:
        """Nothing to give back: poll holds no descriptor."""


def open_poller() -> Poller:
    """A new poller with nothing registered.  Called in the worker, after the fork."""
    return select.epoll() if hasattr(select, "epoll") else PortablePoller()


class Waker:
    """A descriptor that another thread, or a signal handler, can make readable.

    A flag alone does not end a poll: Python resumes one that a signal interrupted (PEP 475).
    """

    def __init__(self) -> None:
        if hasattr(os, "eventfd"):
            self._read = self._write = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        else:
            self._read, self._write = os.pipe()
            os.set_blocking(self._read, False)
            os.set_blocking(self._write, False)

    def fileno(self) -> int:
        return self._read

    def wake(self) -> None:
        """Make it readable.  Never blocks; may be called from anywhere, any number of times.

        After `close` it does nothing: a signal may come later than the end of the loop.
        """
        fd = self._write
        if fd < 0:
            return
        try:
            os.write(fd, b"\1\0\0\0\0\0\0\0")
        except OSError:
            pass  # full, so it is readable already; or closed this moment by its own thread

    def clear(self) -> None:
        """Make it unreadable again.  Before looking at what was changed, or a wake is lost."""
        try:
            while len(os.read(self._read, 4096)) == 4096:
                pass
        except BlockingIOError:
            pass

    def close(self) -> None:
        descriptors = {self._read, self._write}
        self._read = self._write = -1  # before: a signal must not write to whoever is next
        for fd in descriptors:
            os.close(fd)

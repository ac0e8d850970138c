"""Signals as a descriptor to wait for in the master, and as nothing at all around a fork.

In the master a signal runs no Python code of ours: the interpreter's C handler writes its number
to a pipe, and the one loop that waits reads it from there.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import FrameType


class SignalPipe:
    """The signals that arrived, in order.  One per process, on the main thread."""

    def __init__(self, signals: Iterable[signal.Signals]) -> None:
        """Catch `signals` from now on."""
        self._read_fd, self._write_fd = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        # 64 KiB: if the master cannot read for 65,000 signals, one more changes nothing.
        self._before = signal.set_wakeup_fd(self._write_fd, warn_on_full_buffer=False)
        self._handlers = {number: signal.signal(number, _do_nothing) for number in signals}

    def fileno(self) -> int:
        """Readable when a signal has arrived."""
        return self._read_fd

    def read(self) -> list[signal.Signals]:
        """The signals that arrived since the last call; never blocks."""
        arrived: list[signal.Signals] = []
        while True:
            try:
                numbers = os.read(self._read_fd, 4096)
            except BlockingIOError:
                return arrived
            # A signal that somebody else catches in this process lands here too.
            arrived += [signal.Signals(number) for number in numbers if number in self._handlers]

    def close(self) -> None:
        """Put back what was before.  Called in the master."""
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._before)
        self._close_fds()

    def close_in_child(self) -> None:
        """Let go of the pipe, which is the master's.  Called before a signal can arrive."""
        # Otherwise a signal to this child would appear in the master's pipe as the master's own.
        signal.set_wakeup_fd(-1)
        self._close_fds()

    def _close_fds(self) -> None:
        os.close(self._read_fd)
        os.close(self._write_fd)


@contextmanager
def signals_blocked() -> Iterator[None]:
    """Hold back every signal, so that none meets a half-made child.

    Put around a fork.  A child calls `reset_signals` and does not come back here.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def reset_signals() -> None:
    """Give every signal that Python catches its default action.

    Called in a child after the fork, and after `SignalPipe.close_in_child`.  They are blocked
    still: a SIGUSR1 that comes before the child has its own handlers must not kill it.  It lets
    them arrive by `unblock_signals`.  What is ignored stays so: SIGPIPE by Python, SIGHUP under
    nohup.
    """
    for number in signal.valid_signals():
        if callable(signal.getsignal(number)):
            signal.signal(number, signal.SIG_DFL)


def unblock_signals() -> None:
    """Let every signal arrive, those that came meanwhile at once."""
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def signal_name(number: int) -> str:
    """ "SIGTERM" for 15; a number for those between SIGRTMIN and SIGRTMAX, which have no name."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _do_nothing(number: int, frame: FrameType | None) -> None:
    # Not SIG_IGN, which would also keep the number out of the pipe.
    pass

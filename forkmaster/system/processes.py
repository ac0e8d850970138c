"""Processes: their titles, their deaths, their parents and children, what they cost.

The only module that imports setproctitle and psutil.  Errors of psutil become OSError here, so that
nobody else has to know it.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from resource import struct_rusage

import psutil
from setproctitle import getproctitle, setproctitle

from forkmaster.system.signals import signal_name

# Now: it finds the memory of the title by the environment that follows it, and gives up for ever
# if that has been moved meanwhile by the first change of a variable.
getproctitle()

# linux/prctl.h
PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36


@dataclass(frozen=True)
class Exit:
    """How a process ended.  One of `status` and `signal` is None."""

    status: int | None
    signal: int | None
    core: bool = False
    """Whether it left a core dump."""
    peak: int | None = field(default=None, compare=False)
    """The most bytes it ever had in RAM; None if the kernel did not say."""
    cpu: float | None = field(default=None, compare=False)
    """Seconds of processor time that it used."""

    @classmethod
    def from_wait(cls, status: int, usage: struct_rusage | None = None) -> Exit:
        """From the status that waitpid returns, and what wait4 returns besides."""
        peak = cpu = None
        if usage is not None:
            # ru_maxrss: kilobytes, says getrusage(2); bytes on macOS.
            peak = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
            cpu = usage.ru_utime + usage.ru_stime
        if os.WIFSIGNALED(status):
            return cls(None, os.WTERMSIG(status), os.WCOREDUMP(status), peak, cpu)
        return cls(os.WEXITSTATUS(status), None, False, peak, cpu)

    def __str__(self) -> str:
        if self.signal is None:
            return f"exited with status {self.status}"
        return f"was killed by {signal_name(self.signal)}{' (core dumped)' if self.core else ''}"


@dataclass(frozen=True)
class Holder:
    """A process that holds something we want."""

    pid: int
    command: str

    def __str__(self) -> str:
        return f"pid {self.pid} ({self.command})"


def set_title(title: str) -> None:
    """Make `title` what ps and top show for this process."""
    setproctitle(title)


def open_pidfd(pid: int) -> int | None:
    """A descriptor for the process, readable once it ended; None where the kernel has none.

    The caller closes it.  Raises ProcessLookupError.
    """
    if sys.platform != "linux":
        return None
    try:
        return os.pidfd_open(pid)
    except ProcessLookupError:
        raise
    except OSError:
        return None  # ENOSYS before Linux 5.3, EPERM in an old sandbox, EMFILE


def send(pid: int, number: int, pidfd: int | None = None) -> bool:
    """Send a signal; whether there was still a process to receive it.

    With `pidfd` it cannot hit a stranger who was given the same pid.  Raises PermissionError.
    """
    try:
        if pidfd is None:
            os.kill(pid, number)
        else:
            signal.pidfd_send_signal(pidfd, number)
    except ProcessLookupError:
        return False
    return True


def reap() -> list[tuple[int, Exit]]:
    """Every child that has ended and was not reaped yet, ours or inherited; never blocks."""
    reaped: list[tuple[int, Exit]] = []
    while True:
        try:
            pid, status, usage = os.wait4(-1, os.WNOHANG)
        except ChildProcessError:
            return reaped
        if pid == 0:
            return reaped
        reaped.append((pid, Exit.from_wait(status, usage)))


def die_with_parent(number: int, parent: int) -> bool:
    """Have the kernel send `number` to this process when its parent dies; False if it has.

    Called in a child, after it has dropped its privileges: changing them clears the wish.  Does
    nothing but look on systems without it.
    """
    if sys.platform == "linux":
        _prctl(PR_SET_PDEATHSIG, number)
    # The parent may have died before the wish was made.
    return os.getppid() == parent


def become_subreaper() -> bool:
    """Become the parent of descendants whose parents die; False where the kernel cannot."""
    if sys.platform != "linux":
        return False
    _prctl(PR_SET_CHILD_SUBREAPER, 1)
    return True


def resident_memory(pid: int) -> int:
    """Bytes of memory that the process has in RAM, shared ones too.  Raises OSError."""
    with _psutil_errors(pid):
        return int(psutil.Process(pid).memory_info().rss)


def cpu_seconds(pid: int) -> float:
    """Seconds of processor time that the process has used, in user and in kernel mode."""
    with _psutil_errors(pid):
        times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


def age() -> float:
    """How long this process has lived, in seconds, to a clock tick (10 ms on most machines).

    Not by the time of day of its start, as psutil has it: on Linux that is counted from the second
    of the boot, so that half a second more or less is usual.  See proc(5), `starttime`.
    """
    try:
        with open("/proc/self/stat", "rb") as file:
            ticks = int(file.read().rpartition(b")")[2].split()[19])
        lived = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    except (OSError, AttributeError):  # not Linux
        lived = time.time() - psutil.Process().create_time()
    return max(0.0, lived)


def children_of(pid: int) -> list[int]:
    """The pids of the children that the process has now.  Raises ProcessLookupError."""
    with _psutil_errors(pid):
        return [child.pid for child in psutil.Process(pid).children()]


def command_of(pid: int) -> str:
    """The command line of the process, cut at 100 characters.  Raises OSError."""
    with _psutil_errors(pid):
        process = psutil.Process(pid)
        return " ".join(process.cmdline()).strip()[:100] or process.name()


def is_alive(pid: int) -> bool:
    """Whether a process with that pid exists, whoever owns it."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def listener_on(port: int) -> Holder | None:
    """Who listens on that TCP port, if we may know: others' processes only root sees."""
    return next((_holder(pid) for address, pid in _bound("tcp") if address[1:] == (port,)), None)


def listener_at(path: str) -> Holder | None:
    """Who listens on the unix socket at that path, if we may know."""
    return next((_holder(pid) for address, pid in _bound("unix") if address == path), None)


def peer_of(pid: int, fd: int) -> str | None:
    """The address at the other end of a socket of the process, for people; None if unknown."""
    try:
        with _psutil_errors(pid):
            connections = psutil.Process(pid).net_connections("all")
    except OSError:
        return None
    for connection in connections:
        if connection.fd == fd and connection.raddr:
            peer = connection.raddr
            return str(peer) if isinstance(peer, str) else f"{peer.ip}:{peer.port}"
    return None


def _holder(pid: int) -> Holder:
    try:
        return Holder(pid, command_of(pid))
    except OSError:
        return Holder(pid, "unknown command")


def _bound(kind: str) -> list[tuple[str | tuple[object, ...], int]]:
    """The addresses that processes listen on: a path, or a host and a port."""
    try:
        connections = psutil.net_connections(kind)
    except (psutil.Error, OSError):
        return []  # this only makes a message better
    waiting = (psutil.CONN_LISTEN, psutil.CONN_NONE)  # unix sockets have no state
    return [(c.laddr, c.pid) for c in connections if c.pid and c.status in waiting]


def _prctl(option: int, value: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, ctypes.c_ulong(value), *[ctypes.c_ulong(0)] * 3) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


@contextmanager
def _psutil_errors(pid: int) -> Iterator[None]:
    try:
        yield
    except psutil.NoSuchProcess as exc:
        raise ProcessLookupError(f"no process {pid}") from exc
    except psutil.AccessDenied as exc:
        raise PermissionError(f"process {pid} belongs to somebody else") from exc

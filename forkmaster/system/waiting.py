"""What a process, or one of its threads, is doing in the kernel right now, in words.

A worker that hangs either computes or waits, and if it waits, for what: this tells the database
that does not answer from the lock that nobody releases.  Read from /proc/<pid>/{stat,syscall,
wchan,fd}; what may not be read is left out of the sentence.
"""

from __future__ import annotations

import os
import platform
from pathlib import Path

from forkmaster.system.processes import peer_of

STATES = {
    "R": "running",
    "S": "asleep",
    "D": "in uninterruptible sleep",
    "T": "stopped by a signal",
    "t": "stopped by a debugger",
    "Z": "dead",
    "X": "dead",
    "I": "idle",
}

# The system calls that a process sleeps in.  Numbers: arch/x86/entry/syscalls/syscall_64.tbl and
# include/uapi/asm-generic/unistd.h of Linux.
SYSTEM_CALLS = {
    "x86_64": {
        0: "read",
        1: "write",
        7: "poll",
        17: "pread64",
        18: "pwrite64",
        19: "readv",
        20: "writev",
        23: "select",
        34: "pause",
        35: "nanosleep",
        40: "sendfile",
        42: "connect",
        43: "accept",
        44: "sendto",
        45: "recvfrom",
        46: "sendmsg",
        47: "recvmsg",
        61: "wait4",
        72: "fcntl",
        73: "flock",
        74: "fsync",
        75: "fdatasync",
        128: "rt_sigtimedwait",
        202: "futex",
        230: "clock_nanosleep",
        232: "epoll_wait",
        247: "waitid",
        257: "openat",
        270: "pselect6",
        271: "ppoll",
        281: "epoll_pwait",
        288: "accept4",
        426: "io_uring_enter",
        441: "epoll_pwait2",
    },
    "aarch64": {
        22: "epoll_pwait",
        25: "fcntl",
        32: "flock",
        56: "openat",
        63: "read",
        64: "write",
        65: "readv",
        66: "writev",
        67: "pread64",
        68: "pwrite64",
        71: "sendfile",
        72: "pselect6",
        73: "ppoll",
        82: "fsync",
        83: "fdatasync",
        95: "waitid",
        98: "futex",
        101: "nanosleep",
        115: "clock_nanosleep",
        137: "rt_sigtimedwait",
        202: "accept",
        203: "connect",
        206: "sendto",
        207: "recvfrom",
        211: "sendmsg",
        212: "recvmsg",
        242: "accept4",
        260: "wait4",
        426: "io_uring_enter",
        441: "epoll_pwait2",
    },
}

MEANINGS = {
    "futex": "a lock",
    "nanosleep": "a timer",
    "clock_nanosleep": "a timer",
    "wait4": "a child process",
    "waitid": "a child process",
}

# Those whose first argument is the descriptor they wait for.
ON_A_DESCRIPTOR = {
    *("read", "readv", "pread64", "recvfrom", "recvmsg"),
    *("write", "writev", "pwrite64", "sendto", "sendmsg", "sendfile"),
    *("connect", "accept", "accept4"),
    *("fcntl", "flock", "fsync", "fdatasync"),
}


def waits_for(pid: int, thread: int = 0) -> str:
    """What the process does, as "asleep in recvfrom on fd 7 (10.0.0.5:5432)".

    `thread` is a native thread id; without it the main thread is meant.  Raises
    ProcessLookupError if there is no such process or thread.
    """
    folder = Path(f"/proc/{pid}/task/{thread or pid}")
    try:
        # The name in parentheses may itself hold spaces and parentheses.
        letter = (folder / "stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError as exc:
        raise ProcessLookupError(f"no process {pid}") from exc
    state = STATES.get(letter, f"in state {letter}")
    if letter not in "SD":
        return state
    return f"{state}{_where(pid, _read(folder / 'syscall'), _read(folder / 'wchan'))}"


def _where(pid: int, syscall: str, wchan: str) -> str:
    """The rest of the sentence, from the texts of the two files."""
    number, *arguments = syscall.split()[:2] or [""]
    name = SYSTEM_CALLS.get(platform.machine(), {}).get(int(number)) if number.isdigit() else None
    if name is None:
        # "0" or nothing: not asleep any more, or not for us to know.
        return f" in {wchan}" if wchan not in ("", "0") else ""
    if name in ON_A_DESCRIPTOR:
        fd = int(arguments[0], 16)
        target = _target(pid, fd)
        return f" in {name} on fd {fd}{f' ({target})' if target else ''}"
    meaning = MEANINGS.get(name)
    return f" in {name}{f' ({meaning})' if meaning else ''}"


def _target(pid: int, fd: int) -> str | None:
    try:
        target = os.readlink(f"/proc/{pid}/fd/{fd}")
    except OSError:
        return None
    return peer_of(pid, fd) or target if target.startswith("socket:") else target


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""

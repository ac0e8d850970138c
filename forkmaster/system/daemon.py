"""Going into the background, with somebody at the terminal who waits for the outcome.

    terminal ── parent ── waits for the word of the daemon, and exits with its code
                   └─ child: a new session, no terminal; exits at once
                         └─ daemon: no session leader, so it can never get a terminal again

The second fork is what every daemon does; the parent that waits is not: a server that cannot bind,
or whose application is broken, says so at the terminal, and the exit code is the server's own.
"""

from __future__ import annotations

import os
import selectors
import signal
import sys
from typing import NoReturn

from forkmaster.errors import ForkmasterError
from forkmaster.system.signals import SignalPipe

STANDARD = (0, 1, 2)
INTERRUPTED = 130  # as a shell says that Ctrl-C ended a command


class Launch:
    """The way from the daemon to its parent.  In the daemon, or in a server that is none."""

    def __init__(self, fd: int | None = None) -> None:
        self._fd = fd

    @property
    def is_awaited(self) -> bool:
        """Whether somebody at the terminal waits for the outcome."""
        return self._fd is not None

    def succeeded(self) -> None:
        """The server serves: let the parent go."""
        self.ended(0)

    def ended(self, status: int, reason: str = "") -> None:
        """Let the parent go with this exit code, having said why."""
        if self._fd is None:
            return
        try:
            os.write(self._fd, f"{status} {reason}".encode())
        except BrokenPipeError:
            pass  # the parent was killed; the server is none the worse for it
        self.close()

    def close(self) -> None:
        """Forget the parent.  In a child of the daemon: it is not its to tell."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


def detach() -> Launch:
    """Go on in a process without a terminal.  Returns in that process only.

    The caller's process waits, and ends with SystemExit, or with a ForkmasterError that has the
    daemon's reason and exit code.  Standard input, output and error stay; see `leave_terminal`.
    """
    for stream in (sys.stdout, sys.stderr):
        stream.flush()  # or each of us would write what is buffered
    read_end, write_end = os.pipe2(os.O_CLOEXEC)
    # From before the fork on, so that no Ctrl-C leaves a daemon behind that nobody wanted.
    interrupts = SignalPipe([signal.SIGINT])
    try:
        child = os.fork()
    except OSError as exc:
        raise ForkmasterError(f"cannot go into the background: {exc.strerror}") from exc
    if child:
        os.close(write_end)
        os.waitpid(child, 0)
        _wait(read_end, interrupts)
    os.close(read_end)
    interrupts.close()
    os.setsid()
    try:
        if os.fork():
            os._exit(0)
    except OSError as exc:
        _introduce(write_end).ended(1, f"cannot go into the background: {exc.strerror}")
        os._exit(1)
    return _introduce(write_end)


def leave_terminal(*, output: bool) -> None:
    """Read from and, with `output`, write to /dev/null from now on."""
    null = os.open(os.devnull, os.O_RDWR)
    for fd in STANDARD if output else STANDARD[:1]:
        os.dup2(null, fd)
    if null not in STANDARD:
        os.close(null)


def _introduce(write_end: int) -> Launch:
    """Tell the parent whom to stop; what follows is the outcome."""
    os.write(write_end, b"%d\n" % os.getpid())
    return Launch(write_end)


def _wait(read_end: int, interrupts: SignalPipe) -> NoReturn:
    """Wait for the outcome of the daemon, and end as it says."""
    told, interrupted, ended = b"", False, False
    with selectors.DefaultSelector() as selector:
        selector.register(read_end, selectors.EVENT_READ)
        selector.register(interrupts, selectors.EVENT_READ)
        while not ended:
            for key, _ in selector.select():
                if key.fileobj is interrupts:
                    interrupted = bool(interrupts.read())
                else:
                    part = os.read(read_end, 4096)
                    told, ended = told + part, not part
            pid, newline, outcome = told.decode().partition("\n")
            if interrupted and newline:
                os.kill(int(pid), signal.SIGTERM)
                raise SystemExit(INTERRUPTED)
    # Without a word it was killed, or has failed in a way that is a mistake of ours.
    status, _, reason = (outcome or "1 the server ended while it started").partition(" ")
    if status == "0" or not reason:
        raise SystemExit(int(status))
    error = ForkmasterError(reason)
    error.exit_code = int(status)
    raise error

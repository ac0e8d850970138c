"""Where lines go: a descriptor to append to, shared with other processes, that never fails.

Every `os.write` to a descriptor in append mode is one line or several whole ones, so lines of
several workers never mix, and a line written before a crash is there.  A disk that is full, a
reader that is gone or one that does not read cost lines, which are counted, and never a request.

`held` is for the access log of a sync worker under load: a write takes 0.9 µs, a twelfth of what
hello-world takes, and twelve lines in one take 1.7.  Whoever holds lines sees to `write_held`.
"""

from __future__ import annotations

import os
import select
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from forkmaster.errors import ForkmasterError
from forkmaster.logs import losses

if TYPE_CHECKING:
    from collections.abc import Callable

STDOUT, STDERR = 1, 2

# A reader of a pipe is often a moment late, and dropping then would lose what a burst says.  One
# that has not read for a second is stuck, and is not waited for again until it has read.
STALL = 1000  # milliseconds, as poll wants them


class LogFile:
    """One open log.  Used on both sides of the fork, each with its own count of lost lines."""

    def __init__(self, fd: int, path: Path | None, owner: tuple[int, int] | None = None) -> None:
        self.fd = fd
        self.path = path
        """None for a descriptor that somebody else opened."""
        self.owner = owner
        """Who else must be able to open it: the (uid, gid) of the workers."""
        self.lost = 0
        """Lines that could not be written."""
        self._poll: select.poll | None = None
        if not stat.S_ISREG(os.fstat(fd).st_mode):  # a pipe, a socket, a terminal: may block
            self._poll = select.poll()
            self._poll.register(fd, select.POLLOUT)
        self._stalled = False
        self.held: list[str] = []
        """Lines that are not written yet, each with its newline."""

    @classmethod
    def open(cls, path: Path, owner: tuple[int, int] | None = None) -> LogFile:
        """The file at `path`, made if missing; `owner` (uid, gid) is who will reopen it later.

        Raises ForkmasterError.
        """
        path = path.absolute()  # it is reopened after the application has changed the folder
        try:
            fd = _open(path, owner)
        except OSError as exc:
            raise ForkmasterError(f"cannot open log file {path}: {exc.strerror}") from exc
        return cls(fd, path, owner)

    @classmethod
    def standard(cls, fd: int) -> LogFile:
        """Standard output or error.

        A copy, so that the log stays where it is when the application's output is captured.
        """
        try:
            return cls(os.dup(fd), None)
        except OSError:
            return cls(os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC), None)  # started without

    def line_writer(self, *, hold: bool) -> Callable[[str], object]:
        """What takes lines, each with its newline; with `hold` they may wait for `write_held`.

        A pipe would take several lines in pieces, so that those for one never wait.
        """
        return self.held.append if hold and self._poll is None else self.write_text

    def write_text(self, line: str) -> None:
        """`write` for text; what is no Unicode is written as an escape."""
        self.write(line.encode(errors="backslashreplace"))

    def write(self, line: bytes) -> None:
        """Append `line`, or whole lines, each with its newline; never raises.

        Blocks for a second, once for each time that a reader stops reading; longer only for a
        line of more than 4096 bytes, which a pipe may take in pieces.
        """
        if self._poll is not None:
            # An end that is gone counts as room: the write then says so.
            self._stalled = not self._poll.poll(0 if self._stalled else STALL)
            if self._stalled:
                self._lose(line)
                return
        try:
            while (written := os.write(self.fd, line)) < len(line):
                line = line[written:]  # a disk that was nearly full
        except OSError:
            self._lose(line)

    def _lose(self, lines: bytes) -> None:
        count = lines.count(b"\n")
        self.lost += count
        losses.count(count)

    def write_held(self) -> None:
        """Write the lines that are held."""
        # Emptied first: a signal that comes meanwhile writes what is held, too.
        lines = "".join(self.held)
        self.held.clear()
        if lines:
            self.write_text(lines)

    def reopen(self) -> None:
        """Go on in a new file if the old one was moved away.  Raises OSError, nothing changed."""
        if self.path is None:
            return
        fd = _open(self.path, self.owner)
        # The number stays, so everybody who holds it, other threads too, moves along at once.
        os.dup2(fd, self.fd, inheritable=False)
        os.close(fd)

    def close(self) -> None:
        os.close(self.fd)


def _open(path: Path, owner: tuple[int, int] | None) -> int:
    fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
    # Only root can give a file away; a worker that reopens it is the owner.
    if owner is not None and os.geteuid() == 0:
        try:
            os.fchown(fd, *owner)
        except OSError:
            os.close(fd)
            raise
    return fd

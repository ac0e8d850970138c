"""What workers print, line by line in the error log: capture_output.  In the master.

Standard output and error of a worker, and of every process that it starts, are one pipe that the
master reads.  So it does not matter who writes, Python, C or a child with a shell of its own; each
line bears the time and the worker; and what a process says in the moment of its death is there.

Rejected: the log file itself in place of the pipe, as gunicorn has it, because its lines are
anybody's; and a thread in the worker, which would die with it, and hang with it while C code that
prints holds the interpreter's lock.

A worker that prints faster than the master writes waits for it, as it would for a slow disk.
"""

from __future__ import annotations

import logging
import os
import selectors
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from forkmaster.master.spawn import Process

log = logging.getLogger("forkmaster.error")

# What a pipe holds, pipe(7).  At a turn no more is read, so that one who prints a lot does not keep
# the master from its work.
READ = 64 << 10
LONGEST = 8 << 10  # of a line; more is several


class Outputs:
    """The pipes of all children whose output is captured."""

    def __init__(self, selector: selectors.BaseSelector) -> None:
        self._selector = selector
        self._open: dict[int, Output] = {}
        """By descriptor.  A pipe may outlive its worker: whoever it has started holds it open."""

    def pipe_for(self, process: Process) -> int:
        """A new pipe; returns the end that the child writes to.  Raises OSError (EMFILE)."""
        read_end, write_end = os.pipe2(os.O_CLOEXEC)
        self.adopt(process, read_end)
        return write_end

    def adopt(self, process: Process, read_end: int) -> None:
        """Read what the child prints.  Also after an upgrade, in the new program."""
        os.set_blocking(read_end, False)
        output = self._open[read_end] = Output(process, read_end)
        self._selector.register(read_end, selectors.EVENT_READ, lambda: self._read(output))

    def fd_of(self, process: Process) -> int | None:
        """Where its output is read, if it is."""
        return next((fd for fd, each in self._open.items() if each.process is process), None)

    def take_last_words(self, process: Process) -> None:
        """Log what a child has printed that is dead now."""
        fd = self.fd_of(process)
        if fd is not None:
            output = self._open[fd]
            # No more than a pipe holds: what it has started may go on for ever.
            if self._read(output):
                self._read(output)
            output.end_line()

    def drop(self, process: Process) -> None:
        """Forget a child that never came."""
        fd = self.fd_of(process)
        if fd is not None:
            self._close(self._open[fd])

    def close_in_child(self) -> None:
        """Let go of everything.  After a fork, where the selector is closed already."""
        for fd in self._open:
            os.close(fd)
        self._open = {}

    def close(self) -> None:
        """Let go of everything: the server ends."""
        for output in list(self._open.values()):
            self._close(output)

    def _read(self, output: Output) -> bool:
        """Read once; whether there may be more."""
        try:
            data = os.read(output.fd, READ)
        except BlockingIOError:
            return False
        if data:
            output.feed(data)
            return True
        output.end_line()
        self._close(output)
        return False

    def _close(self, output: Output) -> None:
        self._selector.unregister(output.fd)
        del self._open[output.fd]
        os.close(output.fd)


class Output:
    """What one child prints."""

    def __init__(self, process: Process, fd: int) -> None:
        self.process = process
        self.fd = fd
        self._begun = b""  # of a line that has no end yet

    def feed(self, data: bytes) -> None:
        """Log the lines that are whole now."""
        *lines, self._begun = (self._begun + data).split(b"\n")
        for line in lines:
            self._log(line)
        if len(self._begun) > LONGEST:
            self.end_line()

    def end_line(self) -> None:
        """No more of the line is to come."""
        if self._begun:
            line, self._begun = self._begun, b""
            self._log(line)

    def _log(self, line: bytes) -> None:
        process = self.process
        for start in range(0, max(1, len(line)), LONGEST):
            text = line[start : start + LONGEST].rstrip(b"\r").decode(errors="backslashreplace")
            extra = {"worker": process.serial, "generation": process.generation}
            arguments = (process, text)
            record = log.makeRecord(
                log.name, logging.INFO, __file__, 0, "%s: %s", arguments, None, extra=extra
            )
            record.process = process.pid
            log.handle(record)  # whatever the level: it is the application that speaks

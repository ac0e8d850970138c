"""The file that tells the pid of the master to whoever wants to signal it."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from forkmaster.errors import ForkmasterError
from forkmaster.system.processes import command_of, is_alive


@dataclass(frozen=True)
class Pidfile:
    """A pid file that this process has written."""

    path: Path
    pid: int

    @classmethod
    def write(cls, path: Path) -> Pidfile:
        """Write this process' pid to `path`, which is seen whole or not at all.

        What a dead process left there is replaced.  Raises ForkmasterError if another process
        that lives is named there, or the file cannot be written.
        """
        path = path.absolute()  # the server may change its folder before it stops
        pid = os.getpid()
        other = read_pid(path)
        if other is not None and other != pid and is_alive(other):
            raise ForkmasterError(f"cannot write {path}: it names {_describe(other)}, which lives")
        try:
            _replace(path, f"{pid}\n")
        except OSError as exc:
            raise ForkmasterError(f"cannot write {path}: {exc.strerror}") from exc
        return cls(path, pid)

    def remove(self) -> bool:
        """Remove the file if it still names the process that wrote it; whether it did."""
        if read_pid(self.path) != self.pid:
            return False
        try:
            self.path.unlink()
        except OSError:
            return False  # its folder is not ours since the privileges were dropped
        return True


def read_pid(path: Path) -> int | None:
    """The pid in the file; None if there is no file, or no pid in it."""
    try:
        pid = int(path.read_bytes()[:20])
    except (OSError, ValueError):
        return None
    return pid if 0 < pid < 1 << 31 else None


def _replace(path: Path, text: str) -> None:
    fd, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    try:
        with open(fd, "w") as file:
            file.write(text)
            os.fchmod(fd, 0o644)  # others may signal us only if they may, but may always look
        os.rename(name, path)
    except OSError:
        os.unlink(name)
        raise


def _describe(pid: int) -> str:
    try:
        return f"pid {pid} ({command_of(pid)})"
    except OSError:
        return f"pid {pid}"

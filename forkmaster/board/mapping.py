"""Files of shared memory: created whole, mapped, and inherited by every process forked later."""

from __future__ import annotations

import mmap
import os
from pathlib import Path


def create_mapping(path: Path, size: int) -> mmap.mmap:
    """A new zeroed file at `path`, which must not exist, mapped for reading and writing.

    Raises OSError (ENOSPC, EACCES, EEXIST); nothing is left at `path` then, but what was there.
    """
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        # Not ftruncate alone: on a full tmpfs the first store would then be a SIGBUS.
        os.posix_fallocate(fd, 0, size)
        return mmap.mmap(fd, size)
    except OSError:
        path.unlink()
        raise
    finally:
        os.close(fd)


def open_mapping(path: Path) -> mmap.mmap:
    """The file at `path`, mapped for reading and writing.  For a master after an upgrade."""
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        return mmap.mmap(fd, 0)
    finally:
        os.close(fd)

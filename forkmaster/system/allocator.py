"""The allocator of libc: memory that one request has freed is there for the next.

glibc gives the end of its heap back to the kernel as soon as a little more is free there than the
largest block of the past, and asks for it again with the next request.  The kernel then clears
each page anew when it is touched: of a request with a body of 1 MiB that was four fifths of the
time.  Large blocks besides, which are mappings of their own, go back with every `free`.

Told not to, a process keeps what its largest request needed, up to a bound.  It is half of what
glibc itself comes to keep after a few blocks of 32 MiB, because it raises its thresholds as it
goes; but it does so only after the fact, and never high enough for two blocks at a time.
See mallopt(3).
"""

from __future__ import annotations

import ctypes
import os

KEPT = 32 << 20
"""Bytes that a process keeps at most, and the smallest block that is always given back."""

# malloc.h
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3

# Whoever has set one of these has thought about it.
_CHOSEN = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TOP_PAD_", "MALLOC_TRIM_THRESHOLD_")


def keep_freed_memory() -> bool:
    """Keep up to `KEPT` bytes for what comes next; False if that is not ours to decide.

    For a process that is about to serve: what loading an application has freed went back before.
    """
    is_tuned = "glibc.malloc." in os.environ.get("GLIBC_TUNABLES", "")
    if is_tuned or any(name in os.environ for name in _CHOSEN):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:
        return False  # musl, which has no such heap
    return all(mallopt(option, KEPT) for option in (_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD))

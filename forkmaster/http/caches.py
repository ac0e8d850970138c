"""What was read is kept, because clients say the same over and over; but not more than so much.

A cache that is full is emptied: a client that never repeats itself gains nothing and costs nobody
anything, and those that do repeat themselves fill it again at once.
"""

from __future__ import annotations

from typing import TypeVar

V = TypeVar("V")

# Entries, and bytes of each: about 1 MiB in the worst case.
LINES, LONGEST_LINE = 2048, 256
BLOCKS, LONGEST_BLOCK = 256, 2048


def keep_line(cache: dict[bytes, V], line: bytes, meaning: V) -> None:
    """Keep what a line means, if it is not too long."""
    if len(line) <= LONGEST_LINE:
        if len(cache) >= LINES:
            cache.clear()
        cache[line] = meaning


def keep_block(cache: dict[bytes, V], block: bytes, meaning: V) -> None:
    """Keep what a block of lines means, if it is not too long."""
    if len(block) <= LONGEST_BLOCK:
        if len(cache) >= BLOCKS:
            cache.clear()
        cache[block] = meaning

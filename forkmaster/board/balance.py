"""How many connections every worker has open, in one small page that all of them map.

EPOLLEXCLUSIVE hands a burst of connections to whichever worker is awake.  With this page a worker
sees that it holds more than its share and lets the others go first.

The page is 8-byte words: first the reach, then the cells.

    word 0         the reach: no cell at or beyond it is taken.  Written by the master
    word 1 + n     cell n: 0 while nobody counts there, else the open connections plus one

Invariant: a cell has one writer.  While a worker lives it is the worker; before the fork and after
the reap it is the master, who clears it, so the dead do not count.  Nothing is locked: an aligned
8-byte store is seen whole or not at all, and a sum that is one connection old does no harm.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterable
from pathlib import Path

from forkmaster.board.mapping import create_mapping, open_mapping

WORD = 8
ABSENT = 0


class Balance:
    """The page as the master sees it: which cell belongs to which worker."""

    def __init__(self, mapping: mmap.mmap, *, taken: Iterable[int] = ()) -> None:
        self._map = mapping
        self._words = memoryview(mapping).cast("Q")
        self._taken = set(taken)

    @classmethod
    def create(cls, path: Path, capacity: int = 512) -> Balance:
        """A new page at `path`, which must not exist, for `capacity` workers.  Raises OSError."""
        return cls(create_mapping(path, (1 + capacity) * WORD))

    @classmethod
    def reopen(cls, path: Path, *, taken: Iterable[int]) -> Balance:
        """The page of a server that goes on after an upgrade, `taken` being its cells in use."""
        return cls(open_mapping(path), taken=taken)

    def take(self) -> int:
        """The smallest free cell, now taken; nobody counts there before the first `publish`.

        Raises OverflowError if every cell is taken.  Called in the master, before the fork.
        """
        # The smallest, so that the reach, and with it the cost of a look, stays near the number
        # of workers however many have come and gone.
        index = next(i for i in range(len(self._taken) + 1) if i not in self._taken)
        if index + 1 >= len(self._words):
            raise OverflowError(f"cannot take a cell: all {len(self._taken)} are taken")
        self._taken.add(index)
        self._words[1 + index] = ABSENT
        self._words[0] = max(self._taken) + 1
        return index

    def give_back(self, index: int) -> None:
        """Clear the cell of a worker that was reaped.  Called in the master."""
        self._taken.remove(index)
        self._words[1 + index] = ABSENT
        self._words[0] = max(self._taken, default=-1) + 1

    def share(self, index: int) -> Share:
        """What the worker that `index` was taken for uses.  Made in the master, before the fork."""
        return Share(self._words, index)

    def close(self) -> None:
        """Unmap.  No share of it may be used afterwards."""
        self._words.release()
        self._map.close()


class Share:
    """One worker's cell, and its view of all the others.  Used in the worker.

    Cheap enough to be called at every accept and close: no system call, no lock.
    """

    __slots__ = ("_cell", "_words")

    def __init__(self, words: memoryview[int], index: int) -> None:
        self._words = words
        self._cell = 1 + index

    def publish(self, count: int) -> None:
        """Tell the others that this worker has `count` connections open and takes more."""
        self._words[self._cell] = count + 1

    def leave(self) -> None:
        """Stop counting: this worker takes no more connections, because it drains."""
        self._words[self._cell] = ABSENT

    @property
    def number(self) -> int:
        """Of the cell: small, and of no other worker while this one lives."""
        return self._cell - 1

    def is_alone(self) -> bool:
        """Whether no other worker takes connections."""
        words = self._words
        cells: list[int] = words[1 : 1 + words[0]].tolist()
        return len(cells) - cells.count(ABSENT) <= 1

    def has_more_than_its_share(self, count: int) -> bool:
        """Whether a worker with `count` connections should let the others accept first."""
        words = self._words
        cells: list[int] = words[1 : 1 + words[0]].tolist()
        active = len(cells) - cells.count(ABSENT)
        return active > 1 and count > fair_share(sum(cells) - active, active)


def fair_share(total: int, active: int) -> int:
    """How many of `total` connections one of `active` workers may hold before it waits.

    An eighth more than an equal part, and at least one more: exactly equal parts would make
    workers wait for each other over every single connection.
    """
    equal = -(-total // active)
    return equal + 1 + equal // 8

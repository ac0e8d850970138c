"""Deadlines of many connections, looked at as rarely as can be.

A coarse wheel: connections stand in buckets of 134 ms, by the time at which they must be looked
at.  A deadline that moves later is not moved in the wheel; when its old bucket comes up the
connection is put where it belongs then.  So a request costs one attribute store and one
comparison, and 10,000 idle connections cost nothing until one is due.
"""

from __future__ import annotations

from heapq import heappop, heappush
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from forkmaster.worker.connection import Connection

_SHIFT = 27  # 2**27 ns, 134 ms: no timeout of HTTP needs to be more exact
NEVER = 1 << 62


class Timers:
    """The wheel.  Times are monotonic nanoseconds."""

    def __init__(self) -> None:
        self._buckets: dict[int, list[Connection]] = {}
        self._order: list[int] = []  # heap of the keys of _buckets

    def watch(self, connection: Connection) -> None:
        """See to it that the connection is looked at when its deadline has passed.

        To be called when it is new, and when its deadline becomes earlier than `listed`.
        """
        bucket = (connection.deadline >> _SHIFT) + 1
        connection.listed = bucket << _SHIFT
        waiting = self._buckets.get(bucket)
        if waiting is None:
            self._buckets[bucket] = [connection]
            heappush(self._order, bucket)
        else:
            waiting.append(connection)

    def next(self) -> int:
        """When to call `expired` next; NEVER if there is nothing to wait for."""
        return self._order[0] << _SHIFT if self._order else NEVER

    def expired(self, now: int) -> Iterator[Connection]:
        """The connections whose deadline has passed, which are then no longer watched."""
        while self._order and self._order[0] << _SHIFT <= now:
            bucket = heappop(self._order)
            for connection in self._buckets.pop(bucket):
                if connection.listed != bucket << _SHIFT:
                    continue  # closed, or listed elsewhere since
                # First unlisted, then looked at: a thread that sets the deadline meanwhile looks
                # in the opposite order, so one of the two sees that it must be listed again.
                connection.listed = NEVER
                if connection.deadline <= now:
                    yield connection
                elif connection.deadline < NEVER:
                    self.watch(connection)

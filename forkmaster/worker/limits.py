"""What a worker may do before it asks to be replaced.  In the worker, the same for all kinds.

A worker that reached a limit goes on serving.  It raises a flag in its slot and wakes the master,
which starts a replacement and only then has this one drain.  So nothing here ends anything, and a
request more or less does not matter.
"""

from __future__ import annotations

from random import randint, uniform
from time import monotonic_ns
from typing import TYPE_CHECKING

from forkmaster.board import layout
from forkmaster.worker.assignment import announce

if TYPE_CHECKING:
    from forkmaster.worker.assignment import Assignment

NEVER = 1 << 62  # nanoseconds
# 2 s: a worker that is replaced more often than that costs the others the processor.  With
# max_requests = 40 on two busy processors the slowest hundredth of the requests took three times
# as long (delay of scripts/faults.py).
YOUNG = 2 * 1_000_000_000


class WorkerLimits:
    """The limits of this worker; each has its jitter, or all workers would reach it at once.

    The request path asks `counts` before it calls `count`: without max_requests, the usual case,
    a request costs one attribute.
    """

    def __init__(self, assignment: Assignment) -> None:
        config = assignment.config
        self._announce_fd = assignment.announce_fd
        self._words = assignment.slot.words
        self.counts = config.max_requests > 0
        self._worn_at = NEVER
        """When a worker that has served its requests is old enough to be replaced."""
        self._requests_left = config.max_requests + randint(0, config.max_requests_jitter)
        self._expires = NEVER
        if config.max_worker_lifetime:
            lifetime = config.max_worker_lifetime + uniform(0, config.max_worker_lifetime_jitter)
            self._expires = self._words[layout.STARTED] + int(lifetime * 1e9)

    def count(self) -> None:
        """A request or a websocket has ended.  Only if `counts`."""
        self._requests_left -= 1
        if self._requests_left <= 0:
            self.counts = False
            self._worn_at = self._words[layout.READY] + YOUNG
            self.look(monotonic_ns())

    def look(self, now: int) -> None:
        """Look at the age; to be called with every beat.  `now` is monotonic_ns()."""
        if now >= self._worn_at:
            self._worn_at = NEVER
            self.ask("max_requests")
        if now >= self._expires:
            self._expires = NEVER
            self.ask("max_worker_lifetime")

    def ask(self, reason: str) -> None:
        """Ask to be replaced, for one of layout.RECYCLE_REASONS.  The first reason stays."""
        flags = self._words[layout.FLAGS]
        if flags & layout.WANT_RECYCLE:
            return
        number = layout.RECYCLE_REASONS.index(reason)
        self._words[layout.FLAGS] = (
            flags | layout.WANT_RECYCLE | number << layout.WANT_RECYCLE_REASON_SHIFT
        )
        announce(self._announce_fd)

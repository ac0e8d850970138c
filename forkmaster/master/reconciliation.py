"""Moves the children one step closer to what they should be.  Pure; see supervisor.py."""

from __future__ import annotations

from collections.abc import Iterator

from forkmaster.master.actions import Action
from forkmaster.master.fleet import SERVING
from forkmaster.master.generations import Generations
from forkmaster.master.policy import Role, State


class Reconciliation(Generations):
    """The layer of a `Supervisor` that spawns what is missing and retires what is too much."""

    def _reconcile(self, now: float) -> Iterator[Action]:
        """Move the children one step closer to what they should be."""
        if not self.started:
            return
        if self.halt is not None:
            if now < self._drain_at and self.workers():
                return  # who dies meanwhile is not replaced: it would hardly be ready in time
            self._drain_at = 0.0
            others = [c for c in self.children.values() if c.role is not Role.MONITOR]
            for child in others or self.children.values():
                if child.state in SERVING:
                    yield self._retire(child, "the server stops", now)
            if not self.children:
                yield self.halt
            return
        yield from self._commit_if_done()
        yield from self._spawn_missing(now)
        yield from self._retire_surplus(now)
        yield from self._retire_zygotes(now)
        yield from self._keep_watcher(now)
        yield from self._keep_monitor(now)

    def _spawn_missing(self, now: float) -> Iterator[Action]:
        if now < self.backoff.retry_at or (self.waiting and self.candidate is None):
            return
        self.backoff.retry_at = 0.0
        if self.candidate is not None and not self._gate_open:
            # The committed generation stays at full strength while the gate is tried.
            standing = sum(child.generation != self.candidate for child in self.workers())
            if not self.waiting:
                missing = self.target - self._making_room() - standing
                yield from self._spawn_workers(self.committed, missing, "missing", now)
            if not self._fresh(self.candidate):
                yield from self._spawn_workers(self.candidate, 1, "first of its generation", now)
            return
        wanted = self._wanted()
        reason = "missing"
        if self.candidate is not None:
            reason = "reload"
        elif self._stale(wanted):
            reason = "replacement"
        yield from self._spawn_workers(wanted, self._missing(wanted), reason, now)

    def _missing(self, generation: int) -> int:
        """How many workers of `generation` to spawn now, within what may run at once."""
        fresh, stale = self._fresh(generation), self._stale(generation)
        # A worker that makes room keeps its place until it is gone.
        target = self._target_of(generation) - self._making_room()
        surge = self._policies[generation].surge
        missing = min(target - len(fresh), target + (surge if stale else 0) - len(fresh + stale))
        if self.backoff.cautious:
            starting = sum(child.state is State.STARTING for child in fresh)
            missing = min(missing, 1 - starting)
        return missing

    def _spawn_workers(
        self, generation: int, count: int, reason: str, now: float
    ) -> Iterator[Action]:
        if self._policies[generation].preload:
            zygote = self._zygote(generation)
            if zygote is None:
                yield self._spawn(generation, Role.ZYGOTE, "preload", now)
                return
            if zygote.state is State.STARTING:
                return  # it will be ready, or fail: either is an event
        for _ in range(count):  # none if negative
            yield self._spawn(generation, Role.WORKER, reason, now)

    def _retire_surplus(self, now: float) -> Iterator[Action]:
        wanted = self._wanted()
        if self.candidate is not None and not self._gate_open:
            wanted = self.committed
        kept = (wanted, self.candidate)
        for child in self.workers():
            if child.state is State.STARTING and child.generation not in kept:
                yield self._retire(child, "its generation was given up", now)
        if wanted == self.committed and self.candidate is not None:
            return
        fresh = self._fresh(wanted)
        stale = [child for child in self._stale(wanted) if child.state is State.READY]
        ready = sum(child.state is State.READY for child in fresh)
        target = self._target_of(wanted)
        recycled = self._recycled()
        alone = self._making_room() == 1 and ready >= target - 1
        if recycled is not None and recycled.makes_room and alone:
            # The one exception from "ready before the old one goes".
            stale = [child for child in stale if child is not recycled]
            yield self._retire(recycled, recycled.recycle, now)
        for child in stale[: max(0, ready + len(stale) - target)]:
            replaced = child.recycle if child.generation == wanted else ""
            yield self._retire(child, replaced or "replaced", now)
        # The youngest first: the others have warm caches.  What is not ready before all.
        fresh.sort(key=lambda child: (child.state is State.STARTING, child.serial), reverse=True)
        for child in fresh[: max(0, len(fresh) - target)]:
            yield self._retire(child, "surplus", now)

    def _retire_zygotes(self, now: float) -> Iterator[Action]:
        kept = (self.committed, self.candidate, self.previous)
        for child in self.children.values():
            if (
                child.role is Role.ZYGOTE
                and child.state in SERVING
                and child.generation not in kept
            ):
                yield self._retire(child, "its generation was given up", now)

    def _keep_watcher(self, now: float) -> Iterator[Action]:
        """One watcher of what the committed generation wants watched, if it does."""
        wanted = self.policy.watch
        watchers = [
            c for c in self.children.values() if c.role is Role.WATCHER and c.state in SERVING
        ]
        fresh = [c for c in watchers if wanted and self._policy_of(c).watch == wanted]
        # The one before watches until its successor does, so that no change is missed.
        if not wanted or any(c.state is State.READY for c in fresh):
            for child in watchers:
                if child not in fresh:
                    yield self._retire(child, "replaced" if wanted else "surplus", now)
        if fresh or not wanted:
            self.watcher_backoff.retry_at = 0.0
        elif now >= self.watcher_backoff.retry_at:
            self.watcher_backoff.retry_at = 0.0
            yield self._spawn(self.committed, Role.WATCHER, "missing", now)

    def _keep_monitor(self, now: float) -> Iterator[Action]:
        """One monitor, of the committed generation, if that wants one."""
        monitors = [
            c for c in self.children.values() if c.role is Role.MONITOR and c.state in SERVING
        ]
        for child in monitors:
            if child.generation != self.committed or not self.policy.monitor:
                yield self._retire(child, "replaced" if self.policy.monitor else "surplus", now)
        if any(c.generation == self.committed for c in monitors) or not self.policy.monitor:
            self.monitor_backoff.retry_at = 0.0
        elif now >= self.monitor_backoff.retry_at:
            self.monitor_backoff.retry_at = 0.0
            yield self._spawn(self.committed, Role.MONITOR, "missing", now)

"""How one generation follows another, and what it means that a child does not boot.  Pure.

VALIDATE → ADOPT → GATE → ROLL → COMMIT, as told in supervisor.py.
"""

from __future__ import annotations

from collections.abc import Iterator

from forkmaster.master.actions import Action, Commit, Delay, Halt, Refuse, RollBack, Wait
from forkmaster.master.events import Propose, Refused, Reload, Rollback
from forkmaster.master.fleet import Child, Fleet
from forkmaster.master.policy import Role, State

BOOT_FAILURE = 3  # exit status of a child whose application raised while it was loaded
APP_FAILURE = 4  # exit status of a child whose application does not exist


class Generations(Fleet):
    """The layer of a `Supervisor` that proposes, proves, commits and drops generations."""

    def _record_reload(
        self, event: Reload | Refused | Propose | Rollback, now: float
    ) -> Iterator[Action]:
        if self.stopping:
            return
        match event:
            case Reload():
                probe = self._probe()
                if probe is not None:
                    # What it reads may be older than the wish.
                    yield self._retire(probe, "another reload was asked for", now)
                yield self._spawn(self.committed, Role.VALIDATOR, "reload", now)
            case Refused(reason):
                yield Refuse(reason)
            case Propose(policy):
                self._last_generation += 1
                self._policies[self._last_generation] = policy
                yield from self._try(self._last_generation)
            case Rollback():
                if self.previous is None:
                    yield Refuse("there is no generation to go back to")
                elif self.candidate == self.previous:
                    yield Refuse("a rollback is under way")
                else:
                    yield from self._try(self.previous)

    def _try(self, generation: int) -> Iterator[Action]:
        # A second reload starts over: workers of the candidate before become stale ones.
        if self.candidate is not None:
            yield RollBack(self.candidate, "another reload was asked for", failed=False)
        self.candidate = generation
        self._candidate_target = self._policies[generation].workers
        self._candidate_pinned = False
        # Going back to a generation of which some still serve needs no proof.
        self._gate_open = any(
            child.generation == generation and child.state is State.READY
            for child in self.workers()
        )
        self.backoff.reset()

    def _roll_back(self, reason: str, *, failed: bool = True) -> RollBack:
        assert self.candidate is not None
        dropped, self.candidate = self.candidate, None
        if dropped == self.previous:
            self.previous = None
        self.backoff.reset()
        return RollBack(dropped, reason, failed)

    def _failed_to_boot(
        self, child: Child, reason: str, status: int | None, now: float
    ) -> Iterator[Action]:
        if child.role in (Role.WATCHER, Role.MONITOR):
            yield Delay(self._backoff_of(child).died_unready(now), reason)
        elif child.generation == self.candidate:
            yield self._roll_back(reason)
        elif (
            status in (BOOT_FAILURE, APP_FAILURE)
            and self.policy.watch
            and child.generation == self.committed
        ):
            if not self.waiting:
                self.waiting = True
                yield Wait(reason)
        elif status in (BOOT_FAILURE, APP_FAILURE) and not self.was_ready:
            # Nothing has ever worked, so nothing is lost by saying so at once: a supervisor
            # above us, or the person at the terminal, needs the exit status.
            self.halt = Halt(status, reason)
        else:
            yield Delay(self.backoff.died_unready(now), reason)

    def _aim(self, workers: int, *, pin: bool = False) -> None:
        if self.candidate is None:
            self.target = workers
            self.pinned = self.pinned or pin
        else:
            self._candidate_target = workers
            self._candidate_pinned = self._candidate_pinned or pin

    def _commit_if_done(self) -> Iterator[Action]:
        if self.candidate is None or not self._gate_open:
            return
        fresh, stale = self._fresh(self.candidate), self._stale(self.candidate)
        ready = [child for child in fresh if child.state is State.READY]
        # Whoever was told that the reload is done, and asks, must meet the new code.
        alone = not stale and not self._may_still_accept(self.candidate)
        if len(ready) >= self._candidate_target and alone:
            self.previous, self.committed = self.committed, self.candidate
            self.candidate = None
            self.waiting = False
            self.policy = self._policies[self.committed]
            self.target = self._candidate_target
            self.pinned = self._candidate_pinned
            yield Commit(self.committed)
            needed = self.generations
            self._policies = {g: policy for g, policy in self._policies.items() if g in needed}

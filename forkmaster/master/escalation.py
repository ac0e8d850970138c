"""What becomes of a child that misses a deadline, and of a request that takes too long.  Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator
from signal import SIGABRT, SIGKILL

from forkmaster.master.actions import Abort, Action, Dump, Kill, Refuse
from forkmaster.master.events import Pulse
from forkmaster.master.fleet import PROBES, Child
from forkmaster.master.generations import Generations
from forkmaster.master.policy import Role, State

OVERSLEPT = 5.0  # seconds: a tick later than this was not the scheduler's doing
LATE = 0.3  # seconds: on a machine so busy the workers' beats come late, too

# What a missed deadline means in each state: the signal to send, and the state after it.
ESCALATION = {
    State.STARTING: (SIGABRT, State.ABORTING),
    State.READY: (SIGABRT, State.ABORTING),
    State.STOPPING: (SIGKILL, State.KILLED),
    State.ABORTING: (SIGKILL, State.KILLED),
    State.KILLED: (SIGKILL, State.KILLED),  # in an uninterruptible sleep; insist
}


class Escalation(Generations):
    """The layer of a `Supervisor` that judges, one step up the ladder at a time."""

    def next_deadline(self) -> float:
        """The monotonic time at which `Tick` is due; `inf` when nothing is pending."""
        deadlines = [self._next_look(child) for child in self.children.values()]
        if self.halt is None:
            backoffs = (self.backoff, self.watcher_backoff, self.monitor_backoff)
            waits = (backoff.retry_at for backoff in backoffs)
            deadlines += [retry_at for retry_at in waits if retry_at > 0.0]
        elif self._drain_at:
            deadlines.append(self._drain_at)
        return min(deadlines, default=math.inf)

    def _forgive_if_overslept(self, now: float) -> None:
        # We asked to be woken at `due`.  If it is much later, the master was stopped (SIGSTOP)
        # or the machine was suspended, and no worker could have been heard.  Start every
        # deadline again rather than kill the innocent.
        late = now - self.due
        if late > OVERSLEPT:
            for child in self.children.values():
                child.deadline = now + self._patience(child, child.state)
                child.pulse = Pulse(now)
        elif late > LATE:
            for child in self.children.values():
                child.deadline += late + LATE  # and a moment to beat, now that it can

    def _next_look(self, child: Child) -> float:
        """When `child` must be judged again."""
        if child.state is not State.READY or child.role is not Role.WORKER:
            return child.deadline
        policy = self._policy_of(child)
        # A request that starts after our last look cannot be overdue before a whole timeout.
        since = child.pulse.oldest or child.heard
        looks = [child.deadline]
        if policy.request_timeout and not (child.pulse.cancels and child.recycle):
            looks.append(self._overdue_at(child, since))
        if policy.slow_request:
            shown = child.pulse.oldest and child.dumped == child.pulse.oldest
            looks.append((child.heard if shown else since) + policy.slow_request)
        return min(looks)

    def _escalate(self, now: float) -> Iterator[Action]:
        for child in self.children.values():
            if child.state is State.READY and child.role is Role.WORKER:
                yield from self._judge_request(child, now)
            if child.deadline > now:
                continue
            missed = child.state
            patience = self._patience(child, missed)
            since = now - patience
            if missed is State.READY:
                since = max(child.pulse.beat, child.ready_at or 0.0)
            yield from self._miss(child, _overdue(missed, now - since, patience), now)

    def _overdue_at(self, child: Child, start: float) -> float:
        """When a request of a worker that began at `start` is judged to have taken too long."""
        policy = self._policy_of(child)
        # A worker that can give one up and go on with the others gets the time to do so.
        grace = policy.kill_timeout if child.pulse.cancels else 0.0
        return max(start + policy.request_timeout, child.pulse.extended) + grace

    def _judge_request(self, child: Child, now: float) -> Iterator[Action]:
        policy, start = self._policy_of(child), child.pulse.oldest
        if not start:
            return
        age = now - start
        if policy.request_timeout and now >= self._overdue_at(child, start):
            limit = f"request_timeout {policy.request_timeout:g} s"
            reason = f"served one request for {age:.1f} s ({limit})"
            # One that does not even beat any more lets no other request finish either.
            is_stuck = now - child.pulse.beat >= max(1.0, policy.kill_timeout)
            if is_stuck or not child.pulse.cancels:
                yield from self._miss(child, reason, now)
            elif not child.recycle:
                # The others that it serves are not to blame: they finish while it drains.
                child.recycle = reason
                yield Dump(child.serial, f"{reason} and cannot give it up")
        elif policy.slow_request and age >= policy.slow_request and child.dumped != start:
            child.dumped = start
            yield Dump(child.serial, f"slow request (slow_request {policy.slow_request:g} s)")

    def _miss(self, child: Child, reason: str, now: float) -> Iterator[Action]:
        """The child missed a deadline: one step up the ladder."""
        missed = child.state
        child.missed = True
        signal, after = ESCALATION[missed]
        self._move(child, after, now)
        if signal is SIGKILL:
            yield Kill(child.serial, reason)
            return
        yield Abort(child.serial, reason)
        if missed is State.STARTING and not self.stopping:
            # Its exit, whenever that comes, adds nothing to what we know.
            child.expected = True
            if child.role in PROBES:
                yield Refuse(f"{child} {reason}", PROBES[child.role])
            else:
                yield from self._failed_to_boot(child, f"{child} {reason}", None, now)


def _overdue(state: State, seconds: float, patience: float) -> str:
    match state:
        case State.STARTING:
            return f"was not ready after {seconds:.1f} s (boot_timeout {patience:g} s)"
        case State.READY:
            return f"sent no heartbeat for {seconds:.1f} s (timeout {patience:g} s)"
        case State.STOPPING:
            return f"did not stop within {patience:g} s (graceful_timeout)"
        case _:
            return f"is still there {patience:g} s after the last signal (kill_timeout)"

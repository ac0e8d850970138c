"""Decides what the master does next.  No forks, no clock, no I/O.

**Strategy.**  The master turns everything that happens into an event and passes it to
`Supervisor.handle` with the current time.  The answer is a list of actions, which the master
performs in order.  Between two events nothing happens here, so `next_deadline` also tells the
master how long it may sleep.

Two mechanisms do all the work.  *Escalation*: every child has one deadline, and a table says
what missing it means in each state.  *Reconciliation*: after every event the children that
serve are compared with those that should, and moved one step closer.  Start, crash, TTIN,
reload, recycling, scaling and a rollback are all the same comparison:

    wanted   the generation that new workers belong to
    fresh    children of that generation that are not being recycled
    stale    all others that still serve; each is retired when a ready fresh one stands in for it

A reload proposes a *candidate* generation.  Its first worker is the gate: until that one is
ready nothing else of the candidate is spawned, and nothing of the committed generation retired.
If a worker of the candidate dies before it is ready, the candidate is dropped and `wanted` is
the committed generation again, which makes the candidate's workers the stale ones.  So rolling
back needs no code of its own.

A child is known here by its serial (1 for the first ever spawned).  Pids belong to the master:
the kernel reuses them; serials are never reused.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from signal import SIGABRT, SIGKILL, SIGQUIT, SIGTERM, Signals

from forkmaster.master.backoff import Backoff

BOOT_FAILURE = 3  # exit status of a worker whose application raised while it was loaded
APP_FAILURE = 4  # exit status of a worker whose application does not exist
OVERSLEPT = 5.0  # seconds: a tick later than this was not the scheduler's doing


class State(Enum):
    """Where a child stands in its life, as the master sees it."""

    STARTING = auto()  # forked, not ready yet
    READY = auto()  # serves
    STOPPING = auto()  # asked to finish its requests and exit
    ABORTING = auto()  # asked to exit now
    KILLED = auto()  # sent SIGKILL


SERVING = frozenset({State.STARTING, State.READY})

# What a missed deadline means in each state: the signal to send, and the state after it.
ESCALATION = {
    State.STARTING: (SIGABRT, State.ABORTING),
    State.READY: (SIGABRT, State.ABORTING),
    State.STOPPING: (SIGKILL, State.KILLED),
    State.ABORTING: (SIGKILL, State.KILLED),
    State.KILLED: (SIGKILL, State.KILLED),  # in an uninterruptible sleep; insist
}


@dataclass(frozen=True)
class Policy:
    """The part of a generation's configuration that decisions depend on.  Times in seconds."""

    workers: int = 1
    timeout: float = 30.0
    boot_timeout: float = 60.0
    graceful_timeout: float = 30.0
    kill_timeout: float = 5.0
    surge: int = 1

    def patience(self, state: State) -> float:
        """How long a child may stay in `state`, or between two beats; `inf` for ever."""
        return {
            State.STARTING: self.boot_timeout,
            State.READY: self.timeout,
            State.STOPPING: self.graceful_timeout,
            State.ABORTING: self.kill_timeout,
            State.KILLED: self.kill_timeout,
        }[state] or math.inf


@dataclass
class Child:
    """A worker as the master sees it."""

    serial: int
    generation: int
    state: State
    deadline: float  # monotonic seconds
    ready_at: float | None = None  # monotonic seconds; None before it is ready
    beat: float = 0.0  # the last one heard of, monotonic seconds
    recycle: str = ""  # why it asked to be replaced
    expected: bool = False  # we asked it to go, so its death says nothing about the application

    def __str__(self) -> str:
        return f"worker {self.serial}"


# --- Events: what happened --------------------------------------------------------------------


@dataclass(frozen=True)
class Start:
    """The listeners are bound; bring up the first generation."""


@dataclass(frozen=True)
class Tick:
    """Time has passed."""


@dataclass(frozen=True)
class Ready:
    """A worker can accept."""

    serial: int


@dataclass(frozen=True)
class Beats:
    """The last beat of each worker, in monotonic seconds, by serial."""

    latest: Mapping[int, float]


@dataclass(frozen=True)
class Exited:
    """A child was reaped.  `status` is its exit status, None if a signal killed it."""

    serial: int
    status: int | None = None


@dataclass(frozen=True)
class SpawnFailed:
    """The kernel refused the fork, or a resource for it."""

    serial: int
    reason: str


@dataclass(frozen=True)
class Recycle:
    """A worker reached a limit and asks to be replaced."""

    serial: int
    reason: str


@dataclass(frozen=True)
class Resize:
    """One worker more or fewer; never below one."""

    by: int


@dataclass(frozen=True)
class Scale:
    """Exactly so many workers; 0 keeps the master alone."""

    to: int


@dataclass(frozen=True)
class Reload:
    """There is a new configuration and perhaps new code."""

    policy: Policy


@dataclass(frozen=True)
class Stop:
    """End the server: finish the requests in flight, or do not."""

    graceful: bool = True


Event = (
    Start | Tick | Ready | Beats | Exited | SpawnFailed | Recycle | Resize | Scale | Reload | Stop
)


# --- Actions: what to do about it -------------------------------------------------------------


@dataclass(frozen=True)
class Spawn:
    """Fork a worker."""

    serial: int
    generation: int
    reason: str


@dataclass(frozen=True)
class Retire:
    """Ask a worker to finish its requests and exit: SIGTERM."""

    serial: int
    reason: str
    signal: Signals = SIGTERM


@dataclass(frozen=True)
class Abort:
    """Dump the stacks of a worker that does not answer, then SIGABRT."""

    serial: int
    reason: str
    signal: Signals = SIGABRT


@dataclass(frozen=True)
class Kill:
    """End a worker that softer signals did not."""

    serial: int
    reason: str
    signal: Signals = SIGKILL


@dataclass(frozen=True)
class Quit:
    """Ask a worker to exit without finishing anything: SIGQUIT."""

    serial: int
    reason: str
    signal: Signals = SIGQUIT


@dataclass(frozen=True)
class Delay:
    """Nothing is done but logged: the next attempt waits."""

    seconds: float
    reason: str


@dataclass(frozen=True)
class Commit:
    """The candidate serves alone; its configuration is the server's now."""

    generation: int


@dataclass(frozen=True)
class RollBack:
    """The candidate is dropped; the committed generation stays."""

    generation: int
    reason: str


@dataclass(frozen=True)
class Halt:
    """No child is left: end the master."""

    exit_code: int
    reason: str


Action = Spawn | Retire | Abort | Kill | Quit | Delay | Commit | RollBack | Halt


@dataclass
class Supervisor:
    """The whole policy of the master.  Deterministic: same events and times, same actions."""

    policy: Policy
    target: int = 0
    committed: int = 0
    candidate: int | None = None
    children: dict[int, Child] = field(default_factory=dict)
    backoff: Backoff = field(default_factory=Backoff)
    halt: Halt | None = None  # what ends the server, once it is stopping
    started: bool = False
    was_ready: bool = False  # whether any worker ever became ready
    due: float = math.inf  # when the next Tick was promised
    _policies: dict[int, Policy] = field(default_factory=dict)
    _candidate_target: int = 0
    _gate_open: bool = False
    _last_generation: int = 0
    _last_serial: int = 0

    def __post_init__(self) -> None:
        self.target = self.policy.workers
        self._policies[self.committed] = self.policy

    def handle(self, event: Event, now: float) -> list[Action]:
        """What to do about `event`, in order.  `now` is monotonic seconds and never goes back."""
        self._forgive_if_overslept(now)
        actions = [*self._record(event, now), *self._escalate(now), *self._reconcile(now)]
        self.due = self.next_deadline()
        return actions

    def next_deadline(self) -> float:
        """The monotonic time at which `Tick` is due; `inf` when nothing is pending."""
        deadlines = [child.deadline for child in self.children.values()]
        if self.halt is None and self.backoff.retry_at > 0.0:
            deadlines.append(self.backoff.retry_at)
        return min(deadlines, default=math.inf)

    @property
    def stopping(self) -> bool:
        """Whether the server is on its way down."""
        return self.halt is not None

    @property
    def reloading(self) -> bool:
        """Whether a candidate generation is being brought up."""
        return self.candidate is not None

    # --- Events -------------------------------------------------------------------------------

    def _record(self, event: Event, now: float) -> Iterator[Action]:
        match event:
            case Start():
                self.started = True
            case Tick():
                pass
            case Ready(serial):
                self._record_ready(serial, now)
            case Beats(latest):
                self._record_beats(latest)
            case Exited(serial, status):
                yield from self._record_exit(serial, status, now)
            case SpawnFailed(serial, reason):
                del self.children[serial]
                yield Delay(self.backoff.died_unready(now), reason)
            case Recycle(serial, reason):
                child = self.children.get(serial)
                if child is not None and child.state is State.READY and not child.recycle:
                    child.recycle = reason
            case Resize(by):
                self._aim(max(1, self._aimed() + by))
            case Scale(to):
                self._aim(to)
            case Reload(policy):
                self._propose(policy)
            case Stop(graceful):
                yield from self._stop(graceful, now)

    def _record_ready(self, serial: int, now: float) -> None:
        child = self.children.get(serial)
        if child is None or child.state is not State.STARTING:
            return
        child.state = State.READY
        child.ready_at = now
        child.deadline = now + self._policy_of(child).patience(State.READY)
        self.was_ready = True
        self.backoff.became_ready()
        if child.generation == self.candidate:
            self._gate_open = True

    def _record_beats(self, latest: Mapping[int, float]) -> None:
        for serial, at in latest.items():
            child = self.children.get(serial)
            if child is not None and child.state is State.READY and at > child.beat:
                child.beat = at
                beaten = at + self._policy_of(child).patience(State.READY)
                child.deadline = max(child.deadline, beaten)

    def _record_exit(self, serial: int, status: int | None, now: float) -> Iterator[Action]:
        child = self.children.pop(serial, None)
        if child is None or self.stopping or child.expected:
            return
        if child.ready_at is not None:
            wait = self.backoff.died_ready(now - child.ready_at, now)
            if wait:
                yield Delay(wait, f"{self.backoff.quick_deaths} workers died shortly after boot")
            return
        how = "was killed" if status is None else f"exited with status {status}"
        yield from self._failed_to_boot(child, f"{child} {how} before it was ready", status, now)

    def _failed_to_boot(
        self, child: Child, reason: str, status: int | None, now: float
    ) -> Iterator[Action]:
        if child.generation == self.candidate:
            yield self._roll_back(reason)
        elif status in (BOOT_FAILURE, APP_FAILURE) and not self.was_ready:
            # Nothing has ever worked, so nothing is lost by saying so at once: a supervisor
            # above us, or the person at the terminal, needs the exit status.
            self.halt = Halt(status, reason)
        else:
            yield Delay(self.backoff.died_unready(now), reason)

    def _propose(self, policy: Policy) -> None:
        if self.stopping:
            return
        # A second reload starts over: workers of the candidate before become stale ones.
        self._last_generation += 1
        self.candidate = self._last_generation
        self._policies[self.candidate] = policy
        self._candidate_target = policy.workers
        self._gate_open = False
        self.backoff.reset()

    def _roll_back(self, reason: str) -> RollBack:
        assert self.candidate is not None
        dropped, self.candidate = self.candidate, None
        self.backoff.reset()
        return RollBack(dropped, reason)

    def _stop(self, graceful: bool, now: float) -> Iterator[Action]:
        self.halt = self.halt or Halt(0, "asked to stop")
        self.candidate = None
        if graceful:
            return  # reconciling retires what still serves
        for child in self.children.values():
            if child.state in SERVING or child.state is State.STOPPING:
                self._move(child, State.ABORTING, now)
                child.expected = True
                yield Quit(child.serial, "quick stop")

    def _aimed(self) -> int:
        return self.target if self.candidate is None else self._candidate_target

    def _aim(self, workers: int) -> None:
        if self.candidate is None:
            self.target = workers
        else:
            self._candidate_target = workers

    # --- Deadlines ----------------------------------------------------------------------------

    def _policy_of(self, child: Child) -> Policy:
        return self._policies[child.generation]

    def _move(self, child: Child, state: State, now: float) -> None:
        child.state = state
        child.deadline = now + self._policy_of(child).patience(state)

    def _forgive_if_overslept(self, now: float) -> None:
        # We asked to be woken at `due`.  If it is much later, the master was stopped (SIGSTOP)
        # or the machine was suspended, and no worker could have been heard.  Start every
        # deadline again rather than kill the innocent.
        if now - self.due > OVERSLEPT:
            for child in self.children.values():
                child.deadline = now + self._policy_of(child).patience(child.state)

    def _escalate(self, now: float) -> Iterator[Action]:
        for child in self.children.values():
            if child.deadline > now:
                continue
            missed, patience = child.state, self._policy_of(child).patience(child.state)
            since = now - patience
            if missed is State.READY:
                since = max(child.beat, child.ready_at or 0.0)
            signal, after = ESCALATION[missed]
            self._move(child, after, now)
            reason = _overdue(missed, now - since, patience)
            if signal is SIGABRT:
                yield Abort(child.serial, reason)
                if missed is State.STARTING and not self.stopping:
                    # Its exit, whenever that comes, adds nothing to what we know.
                    child.expected = True
                    yield from self._failed_to_boot(child, f"{child} {reason}", None, now)
            else:
                child.expected = child.expected or missed is State.STOPPING
                yield Kill(child.serial, reason)

    # --- Reconciliation -----------------------------------------------------------------------

    def _reconcile(self, now: float) -> Iterator[Action]:
        """Move the children one step closer to what they should be."""
        if not self.started:
            return
        if self.halt is not None:
            for child in self.children.values():
                if child.state in SERVING:
                    yield self._retire(child, "the server stops", now)
            if not self.children:
                yield self.halt
            return
        yield from self._commit_if_done()
        yield from self._spawn_missing(now)
        yield from self._retire_surplus(now)

    def _commit_if_done(self) -> Iterator[Action]:
        if self.candidate is None or not self._gate_open:
            return
        fresh, stale = self._fresh(self.candidate), self._stale(self.candidate)
        ready = [child for child in fresh if child.state is State.READY]
        if len(ready) >= self._candidate_target and not stale:
            self.committed, self.candidate = self.candidate, None
            self.policy = self._policies[self.committed]
            self.target = self._candidate_target
            yield Commit(self.committed)
            living = {child.generation for child in self.children.values()}
            self._policies = {
                generation: policy
                for generation, policy in self._policies.items()
                if generation in living or generation == self.committed
            }

    def _spawn_missing(self, now: float) -> Iterator[Action]:
        if now < self.backoff.retry_at:
            return
        self.backoff.retry_at = 0.0
        if self.candidate is not None and not self._gate_open:
            # The committed generation stays at full strength while the gate is tried.
            standing = sum(child.generation != self.candidate for child in self._serving())
            yield from self._spawn(self.committed, self.target - standing, "missing", now)
            if not self._fresh(self.candidate):
                yield from self._spawn(self.candidate, 1, "first of its generation", now)
            return
        wanted = self._wanted()
        reason = "missing"
        if self.candidate is not None:
            reason = "reload"
        elif self._stale(wanted):
            reason = "replacement"
        yield from self._spawn(wanted, self._missing(wanted), reason, now)

    def _missing(self, generation: int) -> int:
        """How many workers of `generation` to spawn now, within what may run at once."""
        fresh, stale = self._fresh(generation), self._stale(generation)
        target = self._target_of(generation)
        surge = self._policies[generation].surge
        missing = min(target - len(fresh), target + (surge if stale else 0) - len(fresh + stale))
        if self.backoff.cautious:
            starting = sum(child.state is State.STARTING for child in fresh)
            missing = min(missing, 1 - starting)
        return missing

    def _retire_surplus(self, now: float) -> Iterator[Action]:
        if self.candidate is not None and not self._gate_open:
            stale = [
                c for c in self._serving() if c.generation not in (self.candidate, self.committed)
            ]
            for child in stale:
                if child.state is State.STARTING:
                    yield self._retire(child, "its generation was given up", now)
            return
        wanted = self._wanted()
        fresh, stale = self._fresh(wanted), self._stale(wanted)
        for child in stale:
            if child.state is State.STARTING:
                yield self._retire(child, "its generation was given up", now)
        stale = [child for child in stale if child.state is State.READY]
        ready = sum(child.state is State.READY for child in fresh)
        target = self._target_of(wanted)
        for child in stale[: max(0, ready + len(stale) - target)]:
            replaced = child.recycle if child.generation == wanted else "replaced"
            yield self._retire(child, replaced or "replaced", now)
        # The youngest first: the others have warm caches.  What is not ready before all.
        fresh.sort(key=lambda child: (child.state is State.STARTING, child.serial), reverse=True)
        for child in fresh[: max(0, len(fresh) - target)]:
            yield self._retire(child, "surplus", now)

    def _wanted(self) -> int:
        return self.committed if self.candidate is None else self.candidate

    def _target_of(self, generation: int) -> int:
        return self._candidate_target if generation == self.candidate else self.target

    def _serving(self) -> list[Child]:
        return [child for child in self.children.values() if child.state in SERVING]

    def _recycled(self) -> Child | None:
        """The one worker that is being replaced because it asked for it."""
        if self.candidate is not None:
            return None  # a reload replaces them all
        asking = (c for c in self._serving() if c.recycle and c.generation == self.committed)
        return next(asking, None)

    def _fresh(self, generation: int) -> list[Child]:
        recycled = self._recycled()
        return [c for c in self._serving() if c.generation == generation and c is not recycled]

    def _stale(self, generation: int) -> list[Child]:
        recycled = self._recycled()
        return [c for c in self._serving() if c.generation != generation or c is recycled]

    def _spawn(self, generation: int, count: int, reason: str, now: float) -> Iterator[Action]:
        for _ in range(count):  # none if negative
            self._last_serial += 1
            child = Child(self._last_serial, generation, State.STARTING, math.inf)
            self._move(child, State.STARTING, now)
            self.children[child.serial] = child
            yield Spawn(child.serial, generation, reason)

    def _retire(self, child: Child, reason: str, now: float) -> Retire:
        self._move(child, State.STOPPING, now)
        child.expected = True
        return Retire(child.serial, reason)


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

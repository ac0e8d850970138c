"""Decides what the master does next.  No forks, no clock, no I/O.

**Strategy.**  The master turns everything that happens into an event and passes it to
`Supervisor.handle` with the current time.  The answer is a list of actions, which the master
performs in order.  Between two events nothing happens here, so `next_deadline` also tells the
master how long it may sleep.

Two mechanisms do all the work.  *Escalation*: every child has a deadline, and a table says what
missing it means in each state.  *Reconciliation*: after every event the workers that serve are
compared with those that should, and moved one step closer.  Start, crash, TTIN, reload,
recycling, scaling and a rollback are all the same comparison:

    wanted   the generation that new workers belong to
    fresh    workers of that generation that are not being recycled
    stale    all others that still serve; each is retired when a ready fresh one stands in for it

A reload goes VALIDATE → ADOPT → GATE → ROLL → COMMIT.  A throw-away child reads the new
configuration; if that succeeds the master adopts it as the *candidate* generation.  The first
worker of the candidate is the gate: until it is ready nothing else of the candidate is spawned,
and nothing of the committed generation retired.  If a child of the candidate dies before it is
ready, the candidate is dropped and `wanted` is the committed generation again, which makes the
candidate's workers the stale ones.  So rolling back needs no code of its own.

With preload every generation has a zygote, and a worker can only be spawned once its zygote is
ready.  The zygote of the generation before stays, so that a rollback is a fork from memory.

With reload a watcher asks for a reload whenever the code changes.  Code that cannot be loaded is
not tried again before the next change, and ends nothing, not even the first boot.

The monitor is a child like a worker, judged by its beats, but nothing depends on it: its deaths
delay only itself, no reload waits for it, and it goes last, so that it can tell of the others.

A child is known here by its serial (1 for the first ever spawned).  Pids belong to the master:
the kernel reuses them; serials are never reused.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from signal import SIGABRT, SIGKILL
from typing import Any

from forkmaster.master.actions import (
    Abort,
    Action,
    Adopt,
    Commit,
    Delay,
    Dump,
    Execute,
    Halt,
    Kill,
    Linger,
    Quit,
    Refuse,
    Retire,
    RollBack,
    Spawn,
    Wait,
)
from forkmaster.master.backoff import Backoff
from forkmaster.master.events import (
    Aim,
    Event,
    Exited,
    Left,
    Propose,
    Pulse,
    Pulses,
    Ready,
    Recycle,
    Refused,
    Reload,
    Resize,
    Rollback,
    Scale,
    SpawnFailed,
    Start,
    Stop,
    Tick,
    Upgrade,
)
from forkmaster.master.policy import Policy, Role, State

BOOT_FAILURE = 3  # exit status of a child whose application raised while it was loaded
APP_FAILURE = 4  # exit status of a child whose application does not exist
OVERSLEPT = 5.0  # seconds: a tick later than this was not the scheduler's doing
LATE = 0.3  # seconds: on a machine so busy the workers' beats come late, too

# Children that find something out and end, and what it is for.
PROBES = {Role.VALIDATOR: "reload", Role.PREFLIGHT: "upgrade"}

UNHEARD = Pulse(0.0)
SERVING = frozenset({State.STARTING, State.READY})
BEATING = frozenset({Role.WORKER, Role.MONITOR})  # the others wait for us

# What a missed deadline means in each state: the signal to send, and the state after it.
ESCALATION = {
    State.STARTING: (SIGABRT, State.ABORTING),
    State.READY: (SIGABRT, State.ABORTING),
    State.STOPPING: (SIGKILL, State.KILLED),
    State.ABORTING: (SIGKILL, State.KILLED),
    State.KILLED: (SIGKILL, State.KILLED),  # in an uninterruptible sleep; insist
}


@dataclass
class Child:
    """A process of ours as the master sees it.  Times are monotonic seconds."""

    serial: int
    generation: int
    role: Role
    state: State
    deadline: float
    ready_at: float | None = None  # None before it is ready
    pulse: Pulse = UNHEARD
    heard: float = 0.0  # when the pulse was taken
    dumped: float = 0.0  # the start of the request whose stacks were logged
    recycle: str = ""  # why it is to be replaced
    makes_room: bool = False  # before its replacement starts
    expected: bool = False  # we asked it to go, so its death says nothing about the application
    missed: bool = False  # a deadline, and that is what ends it
    has_left: bool = False  # the listeners, so that it serves no new connection

    def __str__(self) -> str:
        return f"{self.role.value} {self.serial}"


@dataclass
class Supervisor:
    """The whole policy of the master.  Deterministic: same events and times, same actions."""

    policy: Policy
    target: int = 0
    committed: int = 0
    candidate: int | None = None
    previous: int | None = None  # the generation that a rollback goes back to
    children: dict[int, Child] = field(default_factory=dict)
    backoff: Backoff = field(default_factory=Backoff)
    watcher_backoff: Backoff = field(default_factory=Backoff)
    monitor_backoff: Backoff = field(default_factory=Backoff)
    halt: Halt | None = None  # what ends the server, once it is stopping
    started: bool = False
    pinned: bool = False  # somebody asked for this number of workers, so the load does not decide
    was_ready: bool = False  # whether any worker ever became ready
    waiting: bool = False  # the code cannot be loaded, and is watched: wait until it changes
    due: float = math.inf  # when the next Tick was promised
    _policies: dict[int, Policy] = field(default_factory=dict)
    _candidate_target: int = 0
    _candidate_pinned: bool = False
    _gate_open: bool = False
    _last_generation: int = 0
    _last_serial: int = 0
    _drain_at: float = 0.0  # when a server that is to stop begins to; 0.0 when it has

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
        deadlines = [self._next_look(child) for child in self.children.values()]
        if self.halt is None:
            backoffs = (self.backoff, self.watcher_backoff, self.monitor_backoff)
            waits = (backoff.retry_at for backoff in backoffs)
            deadlines += [retry_at for retry_at in waits if retry_at > 0.0]
        elif self._drain_at:
            deadlines.append(self._drain_at)
        return min(deadlines, default=math.inf)

    @property
    def stopping(self) -> bool:
        """Whether the server is on its way down."""
        return self.halt is not None

    @property
    def reloading(self) -> bool:
        """Whether a new configuration is read or a candidate generation brought up."""
        return self.candidate is not None or self._probe() is not None

    @property
    def judges_requests(self) -> bool:
        """Whether any generation limits the time of single requests."""
        return any(p.request_timeout or p.slow_request for p in self._policies.values())

    @property
    def aimed(self) -> int:
        """How many workers there are to be when everything under way is done."""
        return self._target_of(self._wanted())

    @property
    def scales(self) -> bool:
        """Whether the load decides how many workers there are."""
        fixed = self.pinned or self.reloading or self.stopping
        return self.policy.workers_max > 0 and not fixed

    @property
    def next_generation(self) -> int:
        """The number that the next `Propose` will give its generation."""
        return self._last_generation + 1

    @property
    def generations(self) -> set[int]:
        """The generations whose configuration may still be needed."""
        living = {child.generation for child in self.children.values()}
        kept = {self.committed, self.candidate, self.previous}
        return living | {generation for generation in kept if generation is not None}

    def workers(self) -> list[Child]:
        """The workers that serve or are about to, oldest first."""
        return [c for c in self.children.values() if c.role is Role.WORKER and c.state in SERVING]

    # --- Handing over -------------------------------------------------------------------------

    def snapshot(self) -> dict[str, Any]:
        """What another supervisor must know to go on from here, as plain values."""
        return {
            "committed": self.committed,
            "target": self.target,
            "was_ready": self.was_ready,
            "last_generation": self._last_generation,
            "last_serial": self._last_serial,
            "policies": {str(g): asdict(policy) for g, policy in self._policies.items()},
            "children": [
                {
                    "serial": child.serial,
                    "generation": child.generation,
                    "role": child.role.value,
                    "state": child.state.name,
                    "ready_at": child.ready_at,
                    "recycle": child.recycle,
                    "expected": child.expected,
                }
                for child in self.children.values()
            ],
        }

    @classmethod
    def restore(cls, snapshot: Mapping[str, Any], now: float) -> Supervisor:
        """The supervisor that goes on from `snapshot`.  Every deadline starts again at `now`."""
        policies = {int(g): Policy(**policy) for g, policy in snapshot["policies"].items()}
        committed = snapshot["committed"]
        supervisor = cls(policies[committed], committed=committed)
        supervisor.target = snapshot["target"]
        supervisor.was_ready = snapshot["was_ready"]
        supervisor.started = True
        supervisor._policies = policies
        supervisor._last_generation = snapshot["last_generation"]
        supervisor._last_serial = snapshot["last_serial"]
        for told in snapshot["children"]:
            role, state = Role(told.pop("role")), State[told.pop("state")]
            child = Child(**told, role=role, state=state, deadline=math.inf, heard=now)
            supervisor._move(child, state, now)
            supervisor.children[child.serial] = child
        return supervisor

    # --- Events -------------------------------------------------------------------------------

    def _record(self, event: Event, now: float) -> Iterator[Action]:
        match event:
            case Start():
                self.started = True
            case Tick():
                pass
            case Ready(serial):
                self._record_ready(serial, now)
            case Left(serial):
                if serial in self.children:
                    self.children[serial].has_left = True
            case Pulses(latest):
                self._record_pulses(latest, now)
            case Exited(serial, status, reason):
                yield from self._record_exit(serial, status, reason, now)
            case SpawnFailed(serial, reason):
                missing = self.children.pop(serial)
                if missing.role in PROBES:
                    yield Refuse(reason, PROBES[missing.role])
                elif not self.stopping:
                    yield Delay(self._backoff_of(missing).died_unready(now), reason)
            case Recycle(serial, reason, makes_room):
                child = self.children.get(serial)
                if child is not None and child.state is State.READY and not child.recycle:
                    child.recycle, child.makes_room = reason, makes_room
            case Aim(workers, _):
                if self.scales:
                    self._aim(workers)
            case Resize(by):
                self._aim(max(1, self.aimed + by), pin=True)
            case Scale(to):
                self._aim(to, pin=True)
            case Reload() | Refused() | Propose() | Rollback():
                yield from self._record_reload(event, now)
            case Upgrade():
                yield from self._upgrade(now)
            case Stop(graceful):
                yield from self._stop(graceful, now)

    def _record_ready(self, serial: int, now: float) -> None:
        child = self.children.get(serial)
        if child is None or child.state is not State.STARTING:
            return
        self._move(child, State.READY, now)
        child.ready_at = child.heard = now
        if child.role in (Role.WORKER, Role.WATCHER, Role.MONITOR):
            self._backoff_of(child).became_ready()
        if child.role is Role.WORKER:
            self.was_ready = True
            self.waiting = False
            if child.generation == self.candidate:
                self._gate_open = True

    def _record_pulses(self, latest: Mapping[int, Pulse], now: float) -> None:
        for serial, pulse in latest.items():
            child = self.children.get(serial)
            if child is None or child.role not in BEATING or child.state is not State.READY:
                continue
            if pulse.beat > child.pulse.beat:
                beaten = pulse.beat + self._policy_of(child).patience(State.READY)
                child.deadline = max(child.deadline, beaten)
            child.deadline = max(child.deadline, pulse.extended)
            child.pulse, child.heard = pulse, now

    def _record_exit(
        self, serial: int, status: int | None, reason: str, now: float
    ) -> Iterator[Action]:
        child = self.children.pop(serial, None)
        if child is None or self.stopping or child.expected:
            return
        if child.role in PROBES:
            if status != 0:
                yield Refuse(reason or f"{child} {_end(status)}", PROBES[child.role])
            else:
                yield Adopt() if child.role is Role.VALIDATOR else Execute()
        elif child.ready_at is None:
            died = f"{child} {_end(status)} before it was ready"
            yield from self._failed_to_boot(child, died, status, now)
        else:
            backoff = self._backoff_of(child)
            wait = backoff.died_ready(now - child.ready_at, now)
            if wait:
                died = f"{backoff.quick_deaths} {child.role.value}s died shortly after boot"
                yield Delay(wait, died)

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

    def _upgrade(self, now: float) -> Iterator[Action]:
        if self.stopping:
            return
        if self.reloading:
            yield Refuse("a reload or an upgrade is under way", "upgrade")
        else:
            yield self._spawn(self.committed, Role.PREFLIGHT, "upgrade", now)

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

    def _stop(self, graceful: bool, now: float) -> Iterator[Action]:
        delay = self.policy.shutdown_delay
        if not graceful:
            self._drain_at = 0.0
        elif self.halt is None and self.was_ready and delay > 0.0:
            self._drain_at = now + delay
            yield Linger(delay, "the server is to stop (shutdown_delay)")
        self.halt = self.halt or Halt(0, "asked to stop")
        if self.candidate is not None:
            yield self._roll_back("the server stops", failed=False)
        if graceful:
            return  # reconciling retires what still serves
        for child in self.children.values():
            if child.state in SERVING or child.state is State.STOPPING:
                self._move(child, State.ABORTING, now)
                child.expected = True
                yield Quit(child.serial, "quick stop")

    def _aim(self, workers: int, *, pin: bool = False) -> None:
        if self.candidate is None:
            self.target = workers
            self.pinned = self.pinned or pin
        else:
            self._candidate_target = workers
            self._candidate_pinned = self._candidate_pinned or pin

    # --- Deadlines ----------------------------------------------------------------------------

    def _policy_of(self, child: Child) -> Policy:
        return self._policies[child.generation]

    def _patience(self, child: Child, state: State) -> float:
        if state is State.READY and child.role not in BEATING:
            return math.inf  # it waits for us, so it does not beat
        return self._policy_of(child).patience(state)

    def _move(self, child: Child, state: State, now: float) -> None:
        child.state = state
        child.deadline = now + self._patience(child, state)

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

    # --- Reconciliation -----------------------------------------------------------------------

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

    def _backoff_of(self, child: Child) -> Backoff:
        backoffs = {Role.WATCHER: self.watcher_backoff, Role.MONITOR: self.monitor_backoff}
        return backoffs.get(child.role, self.backoff)

    def _wanted(self) -> int:
        return self.committed if self.candidate is None else self.candidate

    def _target_of(self, generation: int) -> int:
        return self._candidate_target if generation == self.candidate else self.target

    def _recycled(self) -> Child | None:
        """The one worker that is being replaced because it asked for it."""
        if self.candidate is not None:
            return None  # a reload replaces them all
        asking = [c for c in self.workers() if c.recycle and c.generation == self.committed]
        asking.sort(key=lambda child: not child.makes_room)
        return asking[0] if asking else None

    def _making_room(self) -> int:
        """How many workers must be gone before their replacements start."""
        recycled = self._recycled()
        return sum(
            child.makes_room and (child.state not in SERVING or child is recycled)
            for child in self.children.values()
        )

    def _fresh(self, generation: int) -> list[Child]:
        recycled = self._recycled()
        return [c for c in self.workers() if c.generation == generation and c is not recycled]

    def _stale(self, generation: int) -> list[Child]:
        recycled = self._recycled()
        return [c for c in self.workers() if c.generation != generation or c is recycled]

    def _may_still_accept(self, wanted: int) -> bool:
        """Whether a worker of another generation was told to stop and still takes connections."""
        return any(
            child.role is Role.WORKER
            and child.generation != wanted
            and child.state is State.STOPPING
            and not child.has_left
            for child in self.children.values()
        )

    def _probe(self) -> Child | None:
        probes = (c for c in self.children.values() if c.role in PROBES)
        return next((c for c in probes if c.state is State.STARTING), None)

    def _zygote(self, generation: int) -> Child | None:
        zygotes = (c for c in self.children.values() if c.role is Role.ZYGOTE)
        return next((c for c in zygotes if c.generation == generation and c.state in SERVING), None)

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

    def _spawn(self, generation: int, role: Role, reason: str, now: float) -> Spawn:
        self._last_serial += 1
        child = Child(self._last_serial, generation, role, State.STARTING, math.inf)
        self._move(child, State.STARTING, now)
        self.children[child.serial] = child
        return Spawn(child.serial, generation, reason, role)

    def _retire(self, child: Child, reason: str, now: float) -> Retire:
        self._move(child, State.STOPPING, now)
        child.expected = True
        return Retire(child.serial, reason)


def _end(status: int | None) -> str:
    return "was killed" if status is None else f"exited with status {status}"


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

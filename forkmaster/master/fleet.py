"""The children of a master, and the generations they belong to: what there is, and what should be.

The state that every decision of the supervisor is made from, and the questions asked of it.  Pure.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from forkmaster.master.actions import Halt, Retire, Spawn
from forkmaster.master.backoff import Backoff
from forkmaster.master.events import Pulse
from forkmaster.master.policy import Policy, Role, State

# Children that find something out and end, and what it is for.
PROBES = {Role.VALIDATOR: "reload", Role.PREFLIGHT: "upgrade"}

UNHEARD = Pulse(0.0)
SERVING = frozenset({State.STARTING, State.READY})
BEATING = frozenset({Role.WORKER, Role.MONITOR})  # the others wait for us


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
class Fleet:
    """All children, and what is wanted of them.  Times are monotonic seconds."""

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

    # --- Of one child -------------------------------------------------------------------------

    def _policy_of(self, child: Child) -> Policy:
        return self._policies[child.generation]

    def _patience(self, child: Child, state: State) -> float:
        if state is State.READY and child.role not in BEATING:
            return math.inf  # it waits for us, so it does not beat
        return self._policy_of(child).patience(state)

    def _backoff_of(self, child: Child) -> Backoff:
        backoffs = {Role.WATCHER: self.watcher_backoff, Role.MONITOR: self.monitor_backoff}
        return backoffs.get(child.role, self.backoff)

    def _move(self, child: Child, state: State, now: float) -> None:
        child.state = state
        child.deadline = now + self._patience(child, state)

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

    # --- Of a generation ----------------------------------------------------------------------

    def _wanted(self) -> int:
        return self.committed if self.candidate is None else self.candidate

    def _target_of(self, generation: int) -> int:
        return self._candidate_target if generation == self.candidate else self.target

    def _fresh(self, generation: int) -> list[Child]:
        recycled = self._recycled()
        return [c for c in self.workers() if c.generation == generation and c is not recycled]

    def _stale(self, generation: int) -> list[Child]:
        recycled = self._recycled()
        return [c for c in self.workers() if c.generation != generation or c is recycled]

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

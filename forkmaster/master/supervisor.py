"""Decides what the master does next.  No forks, no clock, no I/O.

**Strategy.**  The master turns everything that happens into an event and passes it to
`Supervisor.handle` with the current time.  The answer is a list of actions, which the master
performs in order.  Between two events nothing happens here, so `next_deadline` also tells the
master how long it may sleep.

Two mechanisms do all the work.  *Escalation* (escalation.py): every child has a deadline, and a
table says what missing it means in each state.  *Reconciliation* (reconciliation.py): after every
event the workers that serve are compared with those that should, and moved one step closer.  Start,
crash, TTIN, reload, recycling, scaling and a rollback are all the same comparison:

    wanted   the generation that new workers belong to
    fresh    workers of that generation that are not being recycled
    stale    all others that still serve; each is retired when a ready fresh one stands in for it

A reload (generations.py) goes VALIDATE → ADOPT → GATE → ROLL → COMMIT.  A throw-away child reads
the new configuration; if that succeeds the master adopts it as the *candidate* generation.  The
first worker of the candidate is the gate: until it is ready nothing else of the candidate is
spawned, and nothing of the committed generation retired.  If a child of the candidate dies before
it is ready, the candidate is dropped and `wanted` is the committed generation again, which makes
the candidate's workers the stale ones.  So rolling back needs no code of its own.

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
from dataclasses import asdict
from typing import Any

from forkmaster.master.actions import (
    Action,
    Adopt,
    Delay,
    Execute,
    Halt,
    Linger,
    Quit,
    Refuse,
)
from forkmaster.master.escalation import Escalation
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
from forkmaster.master.fleet import BEATING, PROBES, SERVING, Child
from forkmaster.master.policy import Policy, Role, State
from forkmaster.master.reconciliation import Reconciliation


class Supervisor(Escalation, Reconciliation):
    """The whole policy of the master.  Deterministic: same events and times, same actions."""

    def handle(self, event: Event, now: float) -> list[Action]:
        """What to do about `event`, in order.  `now` is monotonic seconds and never goes back."""
        self._forgive_if_overslept(now)
        actions = [*self._record(event, now), *self._escalate(now), *self._reconcile(now)]
        self.due = self.next_deadline()
        return actions

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

    def _upgrade(self, now: float) -> Iterator[Action]:
        if self.stopping:
            return
        if self.reloading:
            yield Refuse("a reload or an upgrade is under way", "upgrade")
        else:
            yield self._spawn(self.committed, Role.PREFLIGHT, "upgrade", now)

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


def _end(status: int | None) -> str:
    return "was killed" if status is None else f"exited with status {status}"

"""Random fleets: whatever happens, in whatever order, the invariants of the policy hold."""

from __future__ import annotations

import os
import random

import pytest

from forkmaster.master.actions import (
    Abort,
    Action,
    Adopt,
    Commit,
    Halt,
    Kill,
    Quit,
    Retire,
    RollBack,
    Spawn,
)
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
    Reload,
    Resize,
    Rollback,
    Start,
    Stop,
    Tick,
)
from forkmaster.master.fleet import SERVING
from forkmaster.master.policy import Policy, Role, State
from forkmaster.master.supervisor import Supervisor

FLEETS = int(os.environ.get("FORKMASTER_FLEETS", "60"))


class World:
    """A random machine around one supervisor.  `check` is called after every event."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.policy = self.any_policy()
        self.supervisor = Supervisor(self.policy)
        self.now = 100.0
        self.temper: dict[int, str] = {}  # serial -> ok, slow, crash, hang
        self.softened: set[int] = set()  # got a signal softer than SIGKILL
        self.dying: list[int] = []
        self.halted: Halt | None = None
        self.sound = True  # whether new workers are well
        self.standing = 0  # how many served before the event

    def any_policy(self) -> Policy:
        pick = self.random.randint
        return Policy(
            workers=pick(1, 6),
            surge=pick(1, 3),
            timeout=pick(0, 3) * 10.0,
            preload=pick(0, 1) == 1,
            watch=("code",) * pick(0, 1),
            monitor=pick(0, 1) == 1,
            workers_max=pick(0, 1) * 6,
            shutdown_delay=pick(0, 1) * 5.0,
        )

    def tell(self, event: Event) -> None:
        # Told before every event, as the master does.
        pulses = {s: Pulse(self.now) for s, temper in self.temper.items() if temper != "hang"}
        self.perform(self.supervisor.handle(Pulses(pulses), self.now))
        ready = self.ready()
        self.standing = len(self.supervisor.workers())
        actions = self.supervisor.handle(event, self.now)
        self.check(event, actions, ready)
        self.perform(actions)

    def ready(self) -> int:
        return sum(c.state is State.READY for c in self.supervisor.workers())

    def check(self, event: Event, actions: list[Action], ready: int) -> None:
        supervisor = self.supervisor
        halts = [action for action in actions if isinstance(action, Halt)]
        assert not halts or not supervisor.children, "halted with children left"
        assert len(halts) <= 1
        if halts or supervisor.stopping:
            assert not any(isinstance(action, Spawn) for action in actions)
        roles = {c.serial: c.role for c in supervisor.children.values()}
        serving = [c for c in supervisor.children.values() if c.state in SERVING]
        monitors = [c for c in serving if c.role is Role.MONITOR]
        assert len(monitors) <= 1, "two monitors at once"
        retired = [
            supervisor.children[action.serial]
            for action in actions
            if isinstance(action, Retire) and roles[action.serial] is Role.WORKER
        ]
        if any(isinstance(action, Commit) for action in actions):
            old = [c for c in supervisor.children.values() if c.generation != supervisor.committed]
            accepting = [c for c in old if c.state is State.STOPPING and not c.has_left]
            assert not [c for c in accepting if c.role is Role.WORKER], "old code is still served"
        if retired and not supervisor.stopping and not isinstance(event, (Resize, Aim)):
            # Retiring for any other cause than fewer workers leaves the target ready, but for
            # one worker whose replacement has no room beside it.
            left = self.ready()
            wanted = min(supervisor.target, supervisor._target_of(supervisor._wanted()))
            rooms = sum(child.makes_room for child in retired)
            assert left >= min(ready, wanted) - min(rooms, 1), (event, actions)

    def perform(self, actions: list[Action]) -> None:
        supervisor = self.supervisor
        for action in actions:
            match action:
                case Spawn(serial, generation, _, role):
                    assert serial not in self.temper, "a serial was used again"
                    assert generation in (supervisor.committed, supervisor.candidate)
                    self.check_zygote(generation, role)
                    serving = len(supervisor.workers())
                    most = max(supervisor.target, supervisor._candidate_target)
                    surge = max(p.surge for p in supervisor._policies.values())
                    # More than the target may stand when a reload asks for fewer.
                    most = max(most, self.standing)
                    assert serving <= most + surge, "more workers than target and surge"
                    moods = ["ok"] * 8 + (["slow"] if self.sound else ["crash", "hang", "crash"])
                    self.temper[serial] = self.random.choice(moods)
                case Kill(serial):
                    assert serial in self.softened, "SIGKILL before a softer signal"
                    self.dying.append(serial)
                case Retire(serial) | Abort(serial) | Quit(serial):
                    self.softened.add(serial)
                    # One that has died already hears nothing; its exit is about to be told.
                    if self.temper.get(serial, "dead") not in ("hang", "dead"):
                        self.dying.append(serial)
                case Halt():
                    self.halted = action
                case _:
                    pass

    def check_zygote(self, generation: int, role: Role) -> None:
        supervisor = self.supervisor
        zygotes = [
            child.state
            for child in supervisor.children.values()
            if child.role is Role.ZYGOTE and child.generation == generation
            if child.state in SERVING
        ]
        if role is Role.ZYGOTE:
            assert zygotes == [State.STARTING], "two zygotes of one generation"
        elif role is Role.WORKER and supervisor._policies[generation].preload:
            assert zygotes == [State.READY], "a worker without its zygote"

    def step(self) -> None:
        supervisor, chance = self.supervisor, self.random.random
        due = supervisor.next_deadline() - self.now
        self.now += self.random.choice([0.0, 0.01, 0.5, min(20.0, max(0.0, due))])
        for serial in self.dying:
            if chance() < 0.3:
                self.tell(Left(serial))
        while self.dying and chance() < 0.7:
            serial = self.dying.pop(0)
            if self.temper.pop(serial, None) is not None:
                self.tell(Exited(serial, 0))
        for serial, temper in list(self.temper.items()):
            child = supervisor.children.get(serial)
            if child is None or child.state is not State.STARTING:
                continue
            if child.role is Role.VALIDATOR:
                del self.temper[serial]
                sound = temper != "crash"
                self.tell(Exited(serial, 0 if sound else 5))
                if sound and not supervisor.stopping:
                    self.tell(Propose(self.next_policy))
            elif temper == "crash":
                del self.temper[serial]
                self.tell(Exited(serial, self.random.choice([None, 1, 3, 4])))
            elif temper == "slow":
                self.temper[serial] = "ok"
            elif temper == "ok":
                self.tell(Ready(serial))
        if self.halted is None:
            self.tell(Tick())

    def reload(self, policy: Policy) -> None:
        self.next_policy = policy
        self.tell(Reload())

    def disturb(self) -> None:
        supervisor, chance = self.supervisor, self.random.random
        self.sound = chance() < 0.9

        def living() -> list[int]:
            return [serial for serial in self.temper if serial not in self.dying]

        if chance() < 0.05:
            self.reload(self.any_policy())
        if chance() < 0.02:
            self.tell(Rollback())
        if chance() < 0.05:
            self.tell(Resize(self.random.choice([-1, 1])))
        if living() and chance() < 0.05:
            self.tell(Recycle(self.random.choice(living()), "max_requests", chance() < 0.3))
        if chance() < 0.05:
            self.tell(Aim(self.random.randint(1, 6), "busy"))
        if living() and chance() < 0.05:
            serial = self.random.choice(living())
            del self.temper[serial]
            self.tell(Exited(serial, None))
        if living() and chance() < 0.03:
            self.temper[self.random.choice(living())] = "hang"
        if chance() < 0.01:
            self.now += 3600.0  # SIGSTOP, or a laptop's lid
            actions = supervisor.handle(Tick(), self.now)
            self.perform(actions)
            assert not any(isinstance(a, (Kill, Abort)) for a in actions), "killed on waking"


@pytest.mark.parametrize("block", range(10))
def test_random_fleets_keep_the_invariants_and_stop(block: int) -> None:
    for seed in range(block * FLEETS // 10, (block + 1) * FLEETS // 10):
        world = World(seed)
        world.tell(Start())
        for _ in range(150):
            if world.halted is not None:
                break
            world.disturb()
            if world.halted is None:
                world.step()
        if world.halted is None:
            world.tell(Stop())
        for _ in range(500):
            if world.halted is not None:
                break
            world.step()

        assert world.halted is not None, f"seed {seed} never halted"
        assert not world.temper or set(world.temper) <= set(world.dying)


@pytest.mark.parametrize("block", range(5))
def test_a_quiet_fleet_settles_at_exactly_its_target(block: int) -> None:
    for seed in range(block * FLEETS // 5, (block + 1) * FLEETS // 5):
        world = World(seed)
        world.tell(Start())
        for _ in range(60):
            if world.halted is None:
                world.disturb()
            if world.halted is None:
                world.step()
        if world.halted is not None:
            continue
        world.sound = True
        world.reload(world.policy)
        for _ in range(400):
            world.step()

        supervisor = world.supervisor
        workers = supervisor.workers()
        assert not supervisor.reloading, seed
        assert len(workers) == world.policy.workers, seed
        assert all(c.state is State.READY for c in workers), seed
        assert {c.generation for c in workers} == {supervisor.committed}, seed
        others = {c.serial for c in supervisor.children.values() if c.role is Role.WORKER}
        assert others - {c.serial for c in workers} <= set(world.dying), seed
        watchers = [c for c in supervisor.children.values() if c.role is Role.WATCHER]
        watching = [c for c in watchers if c.state in SERVING]
        assert len(watching) == len(world.policy.watch), seed
        monitors = [c for c in supervisor.children.values() if c.role is Role.MONITOR]
        serving = [c.generation for c in monitors if c.state in SERVING]
        assert serving == [supervisor.committed] * world.policy.monitor, seed


@pytest.mark.parametrize("block", range(5))
def test_a_reload_of_a_sound_fleet_never_lowers_the_ready_workers(block: int) -> None:
    for seed in range(block * FLEETS // 5, (block + 1) * FLEETS // 5):
        world = World(seed)
        world.tell(Start())
        while world.ready() < world.policy.workers:
            world.step()
        world.reload(world.policy)
        fewest = world.ready()
        for _ in range(300):
            world.step()
            fewest = min(fewest, world.ready())

        assert fewest >= world.policy.workers, seed
        assert world.supervisor.committed == 1, seed


def test_the_simulation_would_notice_a_policy_that_retires_too_early() -> None:
    class Hasty(Supervisor):
        def _target_of(self, generation: int) -> int:
            return 1

    world = World(1)
    world.supervisor = Hasty(Policy(workers=4))
    world.tell(Start())
    while world.ready() < 1:
        world.step()
    for _ in range(50):
        world.step()

    assert world.ready() != 4


def test_verdict_types_are_known() -> None:
    # The simulation matches on these; a renamed action must not pass silently.
    assert {Adopt, Commit, RollBack} <= set(Action.__args__)  # type: ignore[attr-defined]

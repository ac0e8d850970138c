"""A supervisor with imaginary children: stories are told to it, and time is an argument."""

from __future__ import annotations

from forkmaster.master.actions import (
    Abort,
    Action,
    Commit,
    Halt,
    Kill,
    Quit,
    Refuse,
    Retire,
    RollBack,
    Spawn,
)
from forkmaster.master.events import (
    Event,
    Exited,
    Propose,
    Pulse,
    Pulses,
    Ready,
    Reload,
    Start,
    Tick,
)
from forkmaster.master.policy import Policy, Role, State
from forkmaster.master.supervisor import Supervisor


class Fleet:
    """One server.  Every method that makes something happen returns the actions it led to."""

    def __init__(self, *, now: float = 100.0, **policy: float | tuple[str, ...]) -> None:
        self.policy = Policy(**policy)  # type: ignore[arg-type]
        self.supervisor = Supervisor(self.policy)
        self.now = now
        self.alive: set[int] = set()
        self.halted: Halt | None = None

    def tell(self, event: Event) -> list[Action]:
        actions = self.supervisor.handle(event, self.now)
        for action in actions:
            if isinstance(action, Spawn):
                self.alive.add(action.serial)
            if isinstance(action, Halt):
                self.halted = action
        return actions

    def start(self) -> list[Action]:
        return self.tell(Start())

    def serve(self) -> None:
        """Start, and let every worker become ready."""
        self.start()
        self.all_ready()

    def at(self, now: float) -> list[Action]:
        self.now = now
        return self.tell(Tick())

    def after(self, seconds: float) -> list[Action]:
        """Let time pass in steps no longer than the supervisor asked for, beats included."""
        until, actions = self.now + seconds, []
        while True:
            due = min(until, max(self.now, self.supervisor.next_deadline()))
            self.now = due
            actions += self.beat()
            actions += self.tell(Tick())
            if due >= until:
                return actions

    def beat(self, *serials: int) -> list[Action]:
        chosen = serials or tuple(self.alive)
        return self.tell(Pulses(dict.fromkeys(chosen, Pulse(self.now))))

    def busy(self, serial: int, since: float) -> list[Action]:
        """The worker beats, and its oldest request started at `since`."""
        return self.tell(Pulses({serial: Pulse(self.now, oldest=since)}))

    def reload(self, **policy: float | tuple[str, ...]) -> list[Action]:
        """A reload whose configuration is sound, up to the first worker of the candidate."""
        (validator,) = [a for a in self.tell(Reload()) if isinstance(a, Spawn)]
        assert validator.role is Role.VALIDATOR
        self.exits(validator.serial, 0)
        return self.tell(Propose(Policy(**policy)))  # type: ignore[arg-type]

    def ready(self, *serials: int) -> list[Action]:
        return [action for serial in serials for action in self.tell(Ready(serial))]

    def all_ready(self) -> list[Action]:
        """Whoever starts becomes ready, until nobody starts any more."""
        actions: list[Action] = []
        while starting := self.in_state(State.STARTING):
            actions += self.ready(*starting)
            actions += self.gone()
        return actions

    def all_but_gone(self) -> list[Action]:
        """Whoever starts becomes ready, and nobody who was asked to go has gone yet."""
        actions: list[Action] = []
        while starting := self.in_state(State.STARTING):
            actions += self.ready(*starting) + self.at(self.now)
        return actions

    def settle(self) -> list[Action]:
        """Whoever starts becomes ready and whoever is asked to goes, until nothing changes."""
        actions: list[Action] = []
        while step := self.all_ready() + self.gone() + self.at(self.now):
            actions += step
        return actions

    def exits(self, serial: int, status: int | None = 0) -> list[Action]:
        self.alive.discard(serial)
        return self.tell(Exited(serial, status))

    def gone(self) -> list[Action]:
        """Every child that was asked to go has gone."""
        going = self.in_state(State.STOPPING, State.ABORTING, State.KILLED)
        return [action for serial in going for action in self.exits(serial)]

    def in_state(self, *states: State, role: Role | None = None) -> list[int]:
        children = self.supervisor.children.values()
        return [c.serial for c in children if c.state in states and role in (None, c.role)]

    def generation(self, number: int) -> list[int]:
        children = self.supervisor.children.values()
        return [c.serial for c in children if c.generation == number and c.role is Role.WORKER]


def spawned(actions: list[Action], role: Role = Role.WORKER) -> list[tuple[int, int]]:
    """(serial, generation) of every child of that role spawned."""
    return [(a.serial, a.generation) for a in actions if isinstance(a, Spawn) and a.role is role]


def signalled(actions: list[Action]) -> list[tuple[int, str]]:
    """(serial, signal) of every signal sent."""
    kinds = (Retire, Abort, Kill, Quit)
    return [(a.serial, a.signal.name) for a in actions if isinstance(a, kinds)]


def verdicts(actions: list[Action]) -> list[str]:
    """Which reloads were refused, committed or rolled back, as words."""
    return [type(a).__name__ for a in actions if isinstance(a, (Commit, Refuse, RollBack))]

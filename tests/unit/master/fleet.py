"""A supervisor with imaginary children: stories are told to it, and time is an argument."""

from __future__ import annotations

from forkmaster.master.supervisor import (
    Abort,
    Action,
    Beats,
    Commit,
    Event,
    Exited,
    Halt,
    Kill,
    Policy,
    Quit,
    Ready,
    Retire,
    RollBack,
    Spawn,
    Start,
    State,
    Supervisor,
    Tick,
)


class Fleet:
    """One server.  Every method that makes something happen returns the actions it led to."""

    def __init__(self, *, now: float = 100.0, **policy: float) -> None:
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
        return self.tell(Beats(dict.fromkeys(chosen, self.now)))

    def ready(self, *serials: int) -> list[Action]:
        return [action for serial in serials for action in self.tell(Ready(serial))]

    def all_ready(self) -> list[Action]:
        """Whoever starts becomes ready, until nobody starts any more."""
        actions: list[Action] = []
        while starting := self.in_state(State.STARTING):
            actions += self.ready(*starting)
            actions += self.gone()
        return actions

    def exits(self, serial: int, status: int | None = 0) -> list[Action]:
        self.alive.discard(serial)
        return self.tell(Exited(serial, status))

    def gone(self) -> list[Action]:
        """Every child that was asked to go has gone."""
        going = self.in_state(State.STOPPING, State.ABORTING, State.KILLED)
        return [action for serial in going for action in self.exits(serial)]

    def in_state(self, *states: State) -> list[int]:
        return [c.serial for c in self.supervisor.children.values() if c.state in states]

    def generation(self, number: int) -> list[int]:
        children = self.supervisor.children.values()
        return [c.serial for c in children if c.generation == number]


def spawned(actions: list[Action]) -> list[tuple[int, int]]:
    """(serial, generation) of every worker spawned."""
    return [(a.serial, a.generation) for a in actions if isinstance(a, Spawn)]


def signalled(actions: list[Action]) -> list[tuple[int, str]]:
    """(serial, signal) of every signal sent."""
    kinds = (Retire, Abort, Kill, Quit)
    return [(a.serial, a.signal.name) for a in actions if isinstance(a, kinds)]


def verdicts(actions: list[Action]) -> list[str]:
    """Which reloads were committed or rolled back, as words."""
    return [type(a).__name__ for a in actions if isinstance(a, (Commit, RollBack))]

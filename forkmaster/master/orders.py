"""What each command of the control socket does, and when it is done.

A command is a generator.  It tells the supervisor what is wanted, and is then resumed with every
event that was decided and the actions that followed, until these say that it succeeded or failed;
so it waits without holding anything up.  No rule of the supervisor's is repeated here: a command
learns the outcome from the actions, as the log does.

    yields     the monotonic time at which it wants to be resumed, whatever happens
    is sent    what happened, or None at that time
    returns    Done; or raises OrderError with the reason
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING

from forkmaster.errors import ForkmasterError
from forkmaster.master import actions, events, incidents, protocol
from forkmaster.master.policy import Role, State
from forkmaster.master.protocol import Done
from forkmaster.system.waiting import waits_for
from forkmaster.worker.child import DUMP_SIGNAL

if TYPE_CHECKING:
    from forkmaster.board.board import Board
    from forkmaster.master.spawn import Process
    from forkmaster.master.supervisor import Supervisor

LOOK = 0.02  # seconds between two looks at what a worker has dumped
DUMP_PATIENCE = 2.0  # seconds; a process in an uninterruptible sleep dumps nothing

Heard = tuple[events.Event, Sequence[actions.Action]]
Conversation = Generator[float, Heard | None, Done]


class OrderError(ForkmasterError):
    """A command failed, or was refused."""


@dataclass
class Orders:
    """Carries out commands.  In the master."""

    supervisor: Supervisor
    processes: Mapping[int, Process]
    board: Board
    decide: Callable[[events.Event], None]
    resize: Callable[[events.Event, str], None]
    """Decide an event that changes the number of workers; the text says who wants it."""
    reopen: Callable[[], None]
    set_level: Callable[[str], None]
    status: Callable[[], dict[str, object]]

    def carry_out(self, request: protocol.Request, say: Callable[[str], None]) -> Conversation:
        """The conversation about one request; `say` tells the client of progress."""
        match request:
            case protocol.Status():
                return _at_once(Done("", self.status()))
            case protocol.Reload():
                return self._reload(say)
            case protocol.Rollback():
                return self._rollback(say)
            case protocol.Upgrade():
                return self._upgrade(say)
            case protocol.Scale(workers):
                return self._scale(workers, say)
            case protocol.Recycle(serial):
                return self._recycle(serial, say)
            case protocol.Stacks(serial):
                return self._stacks(serial)
            case protocol.Reopen():
                self.reopen()
                return _at_once(Done("the logs were reopened"))
            case protocol.LogLevel(level):
                self.set_level(level)
                return _at_once(Done(f"messages of level {level} and above are written"))
            case protocol.Stop(quick):
                return self._stop(quick, say)

    def _reload(self, say: Callable[[str], None]) -> Conversation:
        self._refuse_if_stopping()
        generation = self.supervisor.next_generation
        self.decide(events.Reload())
        proposed = False
        while True:
            event, done = yield from self._heard(say)
            if isinstance(event, events.Propose):
                proposed = True
            for action in done:
                match action:
                    case actions.Refuse(reason, "reload") if not (
                        proposed or isinstance(event, events.Rollback)
                    ):
                        raise OrderError(f"reload refused: {reason}")
                    case _:
                        outcome = _outcome(action, generation, "reload")
                        if outcome is not None:
                            return outcome

    def _upgrade(self, say: Callable[[str], None]) -> Conversation:
        """If all goes well this ends with the connection: nothing of us survives the exec."""
        self._refuse_if_stopping()
        self.decide(events.Upgrade())
        while True:
            _, done = yield from self._heard(say)
            for action in done:
                match action:
                    case actions.Refuse(reason, "upgrade"):
                        raise OrderError(f"upgrade refused: {reason}")
                    case actions.Execute():
                        # It was performed, and we are still here.
                        raise OrderError("upgrade refused; the error log says why")

    def _rollback(self, say: Callable[[str], None]) -> Conversation:
        self._refuse_if_stopping()
        generation = self.supervisor.previous
        self.decide(events.Rollback())
        while True:
            event, done = yield from self._heard(say)
            for action in done:
                match action:
                    case actions.Refuse(reason) if event == events.Rollback():
                        raise OrderError(f"rollback refused: {reason}")
                    case _:
                        outcome = _outcome(action, generation, "rollback")
                        if outcome is not None:
                            return outcome

    def _scale(self, workers: int, say: Callable[[str], None]) -> Conversation:
        self._refuse_if_stopping()
        self.resize(events.Scale(workers), f"scale to {workers}")
        while True:
            serving = self.supervisor.workers()
            ready = [child for child in serving if child.state is State.READY]
            if len(ready) == len(serving) == workers:
                return Done(_ready(workers), {"workers": workers})
            _, done = yield from self._heard(say)
            if self.supervisor.aimed != workers:
                raise OrderError(
                    f"somebody else wants {self.supervisor.aimed} workers now"
                    f" ({len(ready)} are ready)"
                )
            _fail_if_delayed(done, f"{len(ready)} of {workers} workers are ready")

    def _recycle(self, serial: int | None, say: Callable[[str], None]) -> Conversation:
        self._refuse_if_stopping()
        serials = {process.serial for process in self._workers(serial)}
        for each in serials:
            self.decide(events.Recycle(each, "asked for"))
        while serials & {child.serial for child in self.supervisor.workers()}:
            _, done = yield from self._heard(say)
            _fail_if_delayed(done, "the old workers serve on")
        return Done(
            "every worker was replaced" if serial is None else f"worker {serial} was replaced"
        )

    def _stacks(self, serial: int | None) -> Conversation:
        asked = self._workers(serial)
        for process in asked:
            process.send(DUMP_SIGNAL)
        waiting = {process.serial for process in asked}
        sizes = dict.fromkeys(waiting, 0)
        until = monotonic() + DUMP_PATIENCE
        look = monotonic() + LOOK
        while waiting and look < until:
            if (yield look) is not None:
                continue  # something else happened
            look = monotonic() + LOOK
            waiting &= self.processes.keys()
            for each in list(waiting):
                size = self.board.stacks_size(each)
                # faulthandler writes line by line: what grows is not whole yet.
                if size and size == sizes[each]:
                    waiting.discard(each)
                sizes[each] = size
        return Done("", {"stacks": [self._stack(process) for process in asked]})

    def _stack(self, process: Process) -> dict[str, object]:
        stacks = ""
        if process.serial in self.processes:
            stacks = incidents.own_frames(self.board.take_stacks(process.serial))
        return {
            "serial": process.serial,
            "pid": process.pid,
            "waits": _waits(process.pid),
            "stacks": stacks,
        }

    def _stop(self, quick: bool, say: Callable[[str], None]) -> Conversation:
        self.decide(events.Stop(graceful=not quick))
        while True:
            heard = yield math.inf
            assert heard is not None  # no time was named
            for text in progress_of(*heard):
                say(text)
            for action in heard[1]:
                if isinstance(action, actions.Halt):
                    return Done("stopped", {"exit_code": action.exit_code})

    def _heard(self, say: Callable[[str], None]) -> Generator[float, Heard | None, Heard]:
        """The next thing that happens, having told the client of it."""
        heard = yield math.inf
        assert heard is not None  # no time was named
        event, done = heard
        for text in progress_of(event, done):
            say(text)
        if isinstance(event, events.Stop):
            raise OrderError("the server stops")
        return heard

    def _workers(self, serial: int | None) -> list[Process]:
        """The worker of that serial, or all.  Raises OrderError if there is none."""
        workers = [p for p in self.processes.values() if p.role is Role.WORKER]
        chosen = [p for p in workers if serial in (None, p.serial)]
        if not chosen:
            wanted = "worker" if serial is None else f"worker {serial}"
            there = ", ".join(str(p.serial) for p in workers)
            raise OrderError(f"there is no {wanted}{f'; there are {there}' if there else ''}")
        return chosen

    def _refuse_if_stopping(self) -> None:
        if self.supervisor.stopping:
            raise OrderError("the server stops")


def progress_of(event: events.Event, done: Sequence[actions.Action]) -> list[str]:
    """What is worth telling a person who waits, in the words of the log."""
    told = []
    match event:
        case events.Ready(serial):
            told.append(f"worker {serial} ready")
        case events.Propose():
            told.append("the new configuration is sound")
    for action in done:
        match action:
            case actions.Spawn(serial, generation, reason, role):
                told.append(f"{role.value} {serial} started (generation {generation}): {reason}")
            case actions.Retire(serial, reason) | actions.Quit(serial, reason):
                told.append(f"worker {serial}: {reason}; stopping")
            case actions.Abort(serial, reason) | actions.Kill(serial, reason):
                told.append(f"worker {serial} {reason}; killed")
            case actions.Delay(seconds, reason):
                told.append(f"{reason}; next attempt in {seconds:.1f} s")
    return told


def _outcome(action: actions.Action, generation: int | None, what: str) -> Done | None:
    """How the generation fared, if this action says so.  Raises OrderError."""
    match action:
        case actions.Commit(number) if number == generation:
            return Done(f"generation {number} serves alone", {"generation": number})
        case actions.RollBack(number, reason) if number == generation:
            raise OrderError(f"{what} rolled back: {reason}")
    return None


def _fail_if_delayed(done: Sequence[actions.Action], state: str) -> None:
    for action in done:
        if isinstance(action, actions.Delay):
            raise OrderError(
                f"{action.reason}; {state}, and the next attempt is in {action.seconds:.1f} s"
            )


def _at_once(done: Done) -> Conversation:
    yield from ()
    return done


def _ready(workers: int) -> str:
    return "1 worker is ready" if workers == 1 else f"{workers} workers are ready"


def _waits(pid: int) -> str:
    try:
        return waits_for(pid)
    except OSError:
        return "gone"

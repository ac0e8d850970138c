"""What has happened to the server so far: reloads and their outcomes, workers and their ends.

Pure: it observes what the supervisor decided, and is told how a process ended.  It makes the
notice that the master puts on its board, which everything that watches reads.
"""

from __future__ import annotations

import platform
from collections import Counter, deque
from collections.abc import Sequence
from typing import TYPE_CHECKING

from forkmaster import __version__
from forkmaster.board.notice import Death, Listening, Notice, Outcome
from forkmaster.master import actions, events
from forkmaster.master.notify import standing_of
from forkmaster.master.policy import Role

if TYPE_CHECKING:
    from forkmaster.config.sources import Loaded
    from forkmaster.master.supervisor import Supervisor

REMEMBERED = 10  # deaths


class Chronicle:
    """Remembers.  In the master."""

    def __init__(self, now: float, before: Notice | None = None) -> None:
        """`before` is the last notice of our former self, whose counts go on."""
        self.started = before.started if before else now
        self.outcome = before.outcome if before else None
        self.outcomes = Counter(before.outcomes or {} if before else {})
        self.spawned = before.spawned if before else 0
        self.deaths: deque[Death] = deque(before.deaths if before else (), REMEMBERED)
        self.started_up = before.started_up if before else False
        self._reasons: dict[int, str] = {}  # why we want a child to go, by serial
        self._aborted: set[int] = set()

    def observe(
        self, event: events.Event, done: Sequence[actions.Action], serving: int, at: float
    ) -> None:
        """Something was decided; `serving` is the committed generation, `at` seconds since 1970."""
        for action in done:
            match action:
                case actions.Spawn(role=Role.WORKER):
                    self.spawned += 1
                case actions.Retire(serial, reason) | actions.Quit(serial, reason):
                    self._reasons[serial] = reason
                case actions.Abort(serial, reason):
                    self._reasons[serial] = reason
                    self._aborted.add(serial)
                case actions.Kill(serial, reason) if serial not in self._aborted:
                    self._reasons[serial] = reason
                case actions.Commit(generation):
                    self._ended("committed", generation, "", at)
                case actions.Refuse(reason, "reload") if not isinstance(event, events.Rollback):
                    self._ended("refused", serving, reason, at)
                case actions.RollBack(_, reason):
                    self._ended("rolled_back", serving, reason, at)

    def buried(self, serial: int, pid: int, cause: str, how: str, at: float) -> None:
        """A worker is gone; `how` is the end of the sentence that begins with its name."""
        reason = self._reasons.get(serial)
        text = f"{reason}; {how}" if reason else how
        self.deaths.appendleft(Death(serial, pid, cause, text, at))
        self.forget(serial)

    def forget(self, serial: int) -> None:
        """A child is gone."""
        self._reasons.pop(serial, None)
        self._aborted.discard(serial)

    def notice(
        self,
        loaded: Loaded,
        supervisor: Supervisor,
        *,
        listeners: tuple[Listening, ...],
        monitor: tuple[Listening, ...],
        incidents: str,
    ) -> Notice:
        """What there is to know of the server now."""
        config = loaded.config
        standing = standing_of(supervisor, config.ready_workers, "")
        self.started_up |= standing.ready >= standing.needed > 0
        if standing.stopping:
            state = "stopping"
        elif standing.reloading:
            state = "reloading"
        else:
            state = "serving" if self.started_up else "starting"
        return Notice(
            version=__version__,
            python=platform.python_version(),
            app=config.app,
            file=None if loaded.file is None else str(loaded.file),
            started=self.started,
            state=state,
            started_up=self.started_up,
            generation=supervisor.committed,
            wanted=supervisor.aimed,
            # Of a server that was told to have none, nobody should say that it is ready.
            needed=max(1, min(config.ready_workers or 1, supervisor.aimed)),
            listeners=listeners,
            monitor=monitor,
            incidents=incidents,
            outcome=self.outcome,
            outcomes=dict(self.outcomes),
            spawned=self.spawned,
            deaths=tuple(self.deaths),
        )

    def _ended(self, result: str, generation: int, reason: str, at: float) -> None:
        self.outcome = Outcome(result, generation, reason, at)
        self.outcomes[result] += 1

"""Finds out where a worker stands that is in trouble, and says so in one record.  In the master.

The dump signal is answered in C, so the stacks are there within a millisecond even while other C
code holds the GIL; but nothing tells us when, and a process that was stopped does not answer at
all.  So an inquest is left open: the master looks a few times, and when the stacks are complete,
or it is no use to wait, the record is written and only then the worker sent what ends it.  If the
worker dies meanwhile, that closes the inquest.

    open(…) → dump signal → look, every 20 ms → record, then the signal that follows
"""

from __future__ import annotations

import logging
import math
import time
from dataclasses import dataclass, replace
from time import monotonic
from typing import TYPE_CHECKING

from forkmaster.board.reader import read_slot
from forkmaster.master.evidence import condition_of
from forkmaster.master.incidents import Cause, Condition, Incident, Served
from forkmaster.system.signals import signal_name
from forkmaster.worker.child import DUMP_SIGNAL

if TYPE_CHECKING:
    from collections.abc import Sequence

    from forkmaster.board.board import Board
    from forkmaster.master.evidence import IncidentFolder
    from forkmaster.master.spawn import Process
    from forkmaster.system.processes import Exit

log = logging.getLogger("forkmaster.error")

LOOK = 0.02  # seconds between two looks; stacks that did not grow meanwhile are complete
PATIENCE = 0.3  # seconds: a process that has dumped nothing by then does not run
UNREADABLE = "its stacks could not be read: it does not run"


@dataclass
class Inquest:
    """One worker that is looked at."""

    process: Process
    incident: Incident
    level: int
    then: int | None
    """The signal to send when the record is written."""
    kept: bool
    """Whether it goes into the incidents folder; a request that is merely slow does not."""
    opened: float
    next_look: float
    size: int = 0
    """Of the stacks at the last look."""


class Inquests:
    """All that are open.  The master asks `next_look` how long it may sleep, then calls `look`."""

    def __init__(self, board: Board, folder: IncidentFolder) -> None:
        self.board = board
        self.folder = folder
        self._open: dict[int, Inquest] = {}
        self._told: set[int] = set()

    def next_look(self) -> float:
        """When `look` is due, monotonic seconds; `inf` when nothing is open."""
        return min((inquest.next_look for inquest in self._open.values()), default=math.inf)

    def open(
        self,
        process: Process,
        reason: str,
        *,
        level: int,
        then: int | None,
        kept: bool = True,
    ) -> None:
        """Have the process show where it stands; tell it, then send `then`."""
        if process.serial in self._open:
            self._close(self._open[process.serial])
        now = monotonic()
        follows = f"sending {signal_name(then)}" if then is not None else "its stacks follow"
        # Before the signals: they change what it is doing.
        condition = condition_of(process.pid)
        incident = incident_of(process, Cause.TIMEOUT, reason, condition, follows)
        if kept:
            self._told.add(process.serial)
        process.send(DUMP_SIGNAL)
        self._open[process.serial] = Inquest(
            process, incident, level, then, kept, opened=now, next_look=now + LOOK
        )

    def has_told(self, serial: int) -> bool:
        """Whether the end of that process is on record already, or will be."""
        return serial in self._told

    def look(self, now: float) -> None:
        """Close every inquest that has what it waits for, or has waited too long."""
        for inquest in [each for each in self._open.values() if each.next_look <= now]:
            size = self.board.stacks_size(inquest.process.serial)
            if (size and size == inquest.size) or now - inquest.opened >= PATIENCE:
                self._close(inquest)
            else:
                inquest.size, inquest.next_look = size, now + LOOK

    def died(self, process: Process, cause: Cause, reason: str, ended: Exit, level: int) -> None:
        """The process was reaped and its end is abnormal: tell that, unless it is told already."""
        inquest = self._open.get(process.serial)
        if inquest is not None:
            inquest.then = None
            self._close(inquest)
        if process.serial in self._told:
            log.info("%s (pid %d) %s", process, process.pid, ended)
            return
        condition = Condition(peak=ended.peak, cpu=ended.cpu)
        incident = incident_of(process, cause, reason, condition)
        how = signal_name(ended.signal) if ended.signal is not None else None
        incident = replace(incident, status=ended.status, signal=how)
        self._tell(incident, level, kept=True)

    def forget(self, serial: int) -> None:
        """The process is gone."""
        self._open.pop(serial, None)
        self._told.discard(serial)

    def _close(self, inquest: Inquest) -> None:
        del self._open[inquest.process.serial]
        self._tell(inquest.incident, inquest.level, kept=inquest.kept)
        if inquest.then is not None:
            inquest.process.send(inquest.then)

    def _tell(self, incident: Incident, level: int, *, kept: bool) -> None:
        stacks = self.board.take_stacks(incident.serial)
        if not stacks and incident.signal is None and incident.status is None:
            stacks = UNREADABLE
        incident = replace(incident, stacks=stacks)
        log.log(level, "%s", incident)
        if kept:
            self.folder.write(incident)


def incident_of(
    process: Process, cause: Cause, reason: str, condition: Condition, follows: str = ""
) -> Incident:
    """What the board and the kernel have of a process now, without its stacks."""
    now = monotonic()
    view = read_slot(process.slot)
    return Incident(
        cause=cause,
        reason=reason,
        follows=follows,
        time=time.time(),
        role=process.role.value,
        serial=process.serial,
        pid=process.pid,
        generation=process.generation,
        kind=view.kind,
        age=round(view.age(now), 3),
        status=None,
        signal=None,
        in_flight=_served(view.in_flight, now),
        unseen=max(0, view.counters["in_flight"] - len(view.in_flight)),
        recent=_served(view.finished[:8], now),
        condition=condition,
        stacks="",
    )


def _served(requests: Sequence[object], now: float) -> tuple[Served, ...]:
    return tuple(Served.of(request, now) for request in requests)  # type: ignore[arg-type]

"""What can be found out about a process that hangs or has died.  In the master; never blocks long.

The decisions and the words are in incidents.py; this module reads /proc and the control group,
and writes the files.
"""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from forkmaster.master.incidents import Condition
from forkmaster.system.memory import oom_kills, private_memory
from forkmaster.system.processes import cpu_seconds, resident_memory
from forkmaster.system.waiting import waits_for

if TYPE_CHECKING:
    from collections.abc import Callable

    from forkmaster.master.incidents import Incident
    from forkmaster.system.cgroup import ControlGroup

log = logging.getLogger("forkmaster.error")

T = TypeVar("T")


def condition_of(pid: int) -> Condition:
    """What the kernel says of a living process; costs it some milliseconds."""
    return Condition(
        doing=_told(waits_for, pid) or "",
        resident=_told(resident_memory, pid),
        private=_told(private_memory, pid),
        cpu=_told(cpu_seconds, pid),
    )


def _told(ask: Callable[[int], T], pid: int) -> T | None:
    try:
        return ask(pid)
    except OSError:
        return None  # it has ended, or is not ours to look at


@dataclass
class KernelKills:
    """Whether the kernel has killed processes of our control group for want of memory."""

    group: ControlGroup | None
    explained: int = 0
    """The kills that were there at the start, or have been laid to a process since."""

    def __post_init__(self) -> None:
        self.explained = oom_kills(self.group) or 0

    def explain_one(self) -> bool:
        """Whether there is a kill that no process was named for.  It is then laid to the caller's.

        The kernel counts before it sends the signal, so a victim that was reaped is counted.
        """
        if (oom_kills(self.group) or 0) <= self.explained:
            return False
        self.explained += 1
        return True


class IncidentFolder:
    """The JSON records, of which the newest are kept."""

    def __init__(self, path: Path, limit: int) -> None:
        self.path = path
        self.limit = limit
        self.readers = -1
        """The group that may read them, besides their owner; -1 for none."""

    def prepare(self) -> None:
        """Make the folder; what is in the way is logged now and not when it is needed."""
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            if self.readers != -1:
                os.chown(self.path, -1, self.readers)
                self.path.chmod(0o750)
        except OSError as exc:
            log.warning("cannot make the folder for incidents %s: %s", self.path, exc.strerror)

    def write(self, incident: Incident) -> None:
        """Keep the record, and drop the oldest ones beyond the limit.

        Logs what fails: the error log has the incident anyway.
        """
        try:
            # Under another name first, so that a reader never sees half a record.
            unfinished = self.path / f".{incident.file_name}"
            with open(unfinished, "x", opener=_private) as file:
                file.write(incident.as_json())
                if self.readers != -1:
                    os.fchown(file.fileno(), -1, self.readers)
                    os.fchmod(file.fileno(), 0o640)
            unfinished.rename(self.path / incident.file_name)
            for old in sorted(self.path.glob("incident-*.json"))[: -self.limit]:
                old.unlink(missing_ok=True)
        except OSError as exc:
            log.warning("cannot keep the incident in %s: %s", self.path, exc.strerror)


def _private(path: str, flags: int) -> int:
    # What was asked of a server, and by whom, is nobody else's business.
    return os.open(path, flags, 0o600)

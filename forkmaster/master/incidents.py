"""The record of a death or a hang: why, what was being served, where it stood.  Pure.

A death the master asked for is one line.  Anything else is an incident: one record in the log and
the same as JSON, because somebody lost something and will want to know what.  A worker that missed
a deadline is recorded while it still stands there, one that died with what the board has of it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import Enum
from typing import Protocol

BOOT_FRAME = "forkmaster/worker/child.py"
SHOWN = 4  # requests named in one line; a threaded worker may have had more
MEBIBYTE = 1 << 20


class Cause(Enum):
    """What ended a process, or is about to.  In the order of layout.DEATHS."""

    REQUESTED = "requested"
    LIMIT = "limit"
    TIMEOUT = "timeout"
    BOOT_FAILURE = "boot failure"
    SIGNAL = "signal"
    OUT_OF_MEMORY = "out of memory"
    EXIT_CODE = "exit code"


@dataclass(frozen=True)
class Death:
    """All that is known when a process is reaped."""

    status: int | None
    """None if a signal ended it."""
    was_ready: bool
    asked: bool
    """The master told it to stop."""
    limit: bool
    """Because it had reached a limit."""
    missed: bool
    """The master ended it because it missed a deadline."""
    orderly: bool
    """It ended by itself, having drained."""
    by_kernel: bool
    """The kernel has killed a process of this control group for want of memory."""


def cause_of(death: Death) -> Cause:
    """The one word for a death, the truest first."""
    if death.missed:
        return Cause.TIMEOUT
    if death.status is None:
        return Cause.OUT_OF_MEMORY if death.by_kernel else Cause.SIGNAL
    if death.status == 0 and (death.asked or death.orderly):
        # Without our asking if somebody sent the worker a SIGTERM.
        return Cause.LIMIT if death.limit else Cause.REQUESTED
    if not death.was_ready:
        return Cause.BOOT_FAILURE
    return Cause.EXIT_CODE


class Request(Protocol):
    """What of a request is told: board.reader.RequestView has it."""

    @property
    def client(self) -> str: ...
    @property
    def status(self) -> int: ...
    @property
    def sent(self) -> int: ...
    @property
    def thread(self) -> int: ...
    @property
    def end(self) -> float: ...

    def duration(self, now: float) -> float: ...


@dataclass(frozen=True)
class Served:
    """One request, as an incident keeps it."""

    request: str
    client: str
    seconds: float
    """How long it took, or had taken."""
    ended: float | None
    """How many seconds before the incident; None if it was in flight."""
    status: int
    sent: int
    thread: int

    @classmethod
    def of(cls, request: Request, now: float) -> Served:
        """From the board.  `now` is monotonic seconds."""
        return cls(
            request=str(request),
            client=request.client,
            seconds=round(request.duration(now), 3),
            ended=round(now - request.end, 3) if request.end else None,
            status=request.status,
            sent=request.sent,
            thread=request.thread,
        )

    def __str__(self) -> str:
        client = f" (client {self.client})" if self.client else ""
        return f"{self.request} for {self.seconds:.1f} s{client}"


@dataclass(frozen=True)
class Condition:
    """What the kernel says of a process.  None: it would not tell."""

    doing: str = ""
    """As "asleep in recvfrom on fd 7 (10.0.0.5:5432)"."""
    resident: int | None = None
    private: int | None = None
    peak: int | None = None
    """Of the resident bytes; known of the dead."""
    cpu: float | None = None
    """Seconds of processor time since its start."""

    def __str__(self) -> str:
        sizes = (("resident", self.resident), ("private", self.private), ("at its peak", self.peak))
        parts = [self.doing] if self.doing else []
        parts += [f"{size / MEBIBYTE:.0f} MiB {name}" for name, size in sizes if size is not None]
        if self.cpu is not None:
            parts.append(f"{self.cpu:.1f} s of processor time")
        return ", ".join(parts)


@dataclass(frozen=True)
class Incident:
    """One abnormal death, or a hang that leads to one."""

    cause: Cause
    reason: str
    """What happened, as the end of a sentence about the process."""
    follows: str
    """What is done about it, if anything."""
    time: float
    """Seconds since the epoch."""
    role: str
    serial: int
    pid: int
    generation: int
    kind: str
    age: float
    """Seconds since the fork."""
    status: int | None
    signal: str | None
    """How it ended; both None while it has not."""
    in_flight: tuple[Served, ...]
    """Oldest first."""
    unseen: int
    """How many more were in flight for which the slot has no record."""
    recent: tuple[Served, ...]
    """The last ones finished, newest first."""
    condition: Condition
    stacks: str

    @property
    def headline(self) -> str:
        """The line that says it all."""
        lost = serving(self.in_flight, self.unseen)
        follows = f"; {self.follows}" if self.follows else ""
        return f"{self.role} {self.serial} (pid {self.pid}) {self.reason}{lost}{follows}"

    def __str__(self) -> str:
        lines = [self.headline]
        if condition := str(self.condition):
            lines.append(f"{condition}, {self.age:.0f} s after its start")
        if self.stacks:
            lines += [f"{self.role} {self.serial} stood here:", own_frames(self.stacks)]
        return "\n".join(lines)

    def as_json(self) -> str:
        """The record as one JSON object, for a file."""
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(self.time))
        fields = {
            **asdict(self),
            "cause": self.cause.value,
            "time": f"{moment}.{int(self.time % 1 * 1000):03}Z",
            "stacks": self.stacks.splitlines(),
        }
        return json.dumps({"summary": self.headline, **fields}, indent=1)

    @property
    def file_name(self) -> str:
        """Of its JSON; the names of later incidents sort behind it."""
        moment = time.strftime("%Y%m%dT%H%M%S", time.gmtime(self.time))
        millisecond = int(self.time % 1 * 1000)
        return f"incident-{moment}.{millisecond:03}-{self.role}-{self.serial}.json"


def serving(requests: Sequence[object], unseen: int = 0) -> str:
    """What was in flight, as the end of a sentence; empty if nothing was."""
    if not requests and not unseen:
        return ""
    hidden = max(0, len(requests) - SHOWN) + unseen
    named = ", ".join(str(request) for request in requests[:SHOWN])
    more = f"{' and ' if named else ''}{hidden} {'more' if named else 'requests'}" if hidden else ""
    return f", serving {named}{more}"


def own_frames(dump: str) -> str:
    """What faulthandler wrote, without the frames that every worker has in common.

    Those of the application stand on top; below come the worker's loop and then what led from
    `main` through the fork to it, which tells nobody anything.
    """
    kept, skipping = [], False
    for line in dump.splitlines():
        if not line.startswith("  File "):
            skipping = False
        elif BOOT_FRAME in line:
            skipping = True
        if line and not skipping and not line.startswith("Extension modules"):
            kept.append(line)
    return "\n".join(kept)

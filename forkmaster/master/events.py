"""What can happen to a server, as the supervisor is told.  Times are monotonic seconds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from forkmaster.master.policy import Policy


@dataclass(frozen=True)
class Start:
    """The listeners are bound; bring up the first generation."""


@dataclass(frozen=True)
class Tick:
    """Time has passed."""


@dataclass(frozen=True)
class Ready:
    """A child has done what it must before it can serve."""

    serial: int


@dataclass(frozen=True)
class Left:
    """A worker that drains has left the listeners: who connects now, others serve."""

    serial: int


@dataclass(frozen=True)
class Pulse:
    """What the slot of one worker says."""

    beat: float
    """The last one; 0.0 before the first."""
    oldest: float = 0.0
    """The start of the oldest request in flight; 0.0 if there is none."""
    extended: float = 0.0
    """The application asked not to be judged before this time."""
    cancels: bool = False
    """Whether the worker gives up overdue requests itself, being busy with others too."""


@dataclass(frozen=True)
class Pulses:
    """The pulse of every worker, by serial.  Told before any other event."""

    latest: Mapping[int, Pulse]


@dataclass(frozen=True)
class Exited:
    """A child was reaped.  `status` is its exit status, None if a signal killed it."""

    serial: int
    status: int | None = None
    reason: str = ""
    """What it said about its failure, if it could."""


@dataclass(frozen=True)
class SpawnFailed:
    """The kernel refused the fork, or a resource for it."""

    serial: int
    reason: str


@dataclass(frozen=True)
class Recycle:
    """A worker reached a limit and asks to be replaced, or somebody asks for it."""

    serial: int
    reason: str
    makes_room: bool = False
    """There is no memory for both: it must be gone before its replacement starts."""


@dataclass(frozen=True)
class Aim:
    """So many workers are right for the load; nobody has asked for a number."""

    workers: int
    reason: str


@dataclass(frozen=True)
class Resize:
    """So many workers more or fewer; never below one.  Pins the number, see `Aim`."""

    by: int


@dataclass(frozen=True)
class Scale:
    """Exactly so many workers; 0 keeps the master alone.  Pins the number, see `Aim`."""

    to: int


@dataclass(frozen=True)
class Reload:
    """There may be a new configuration and new code."""


@dataclass(frozen=True)
class Propose:
    """The new configuration was read; `policy` is what it says to the supervisor."""

    policy: Policy


@dataclass(frozen=True)
class Refused:
    """The new configuration is valid but cannot be adopted."""

    reason: str


@dataclass(frozen=True)
class Rollback:
    """Somebody wants the generation before back."""


@dataclass(frozen=True)
class Upgrade:
    """There is a new forkmaster or a new Python under the name that was executed."""


@dataclass(frozen=True)
class Stop:
    """End the server: finish the requests in flight, or do not."""

    graceful: bool = True


Event = (
    Start
    | Tick
    | Ready
    | Left
    | Pulses
    | Exited
    | SpawnFailed
    | Recycle
    | Aim
    | Resize
    | Scale
    | Reload
    | Propose
    | Refused
    | Rollback
    | Upgrade
    | Stop
)

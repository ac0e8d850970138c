"""What the supervisor wants done.  Every action says why; performing it logs one line."""

from __future__ import annotations

from dataclasses import dataclass
from signal import SIGABRT, SIGKILL, SIGQUIT, SIGTERM, Signals

from forkmaster.master.policy import Role


@dataclass(frozen=True)
class Spawn:
    """Bring a child into being: fork it here, or have the zygote of its generation do so."""

    serial: int
    generation: int
    reason: str
    role: Role = Role.WORKER


@dataclass(frozen=True)
class Retire:
    """Ask a child to finish its requests and exit: SIGTERM."""

    serial: int
    reason: str
    signal: Signals = SIGTERM


@dataclass(frozen=True)
class Quit:
    """Ask a child to exit without finishing anything: SIGQUIT."""

    serial: int
    reason: str
    signal: Signals = SIGQUIT


@dataclass(frozen=True)
class Abort:
    """Dump the stacks of a child that does not answer, then SIGABRT."""

    serial: int
    reason: str
    signal: Signals = SIGABRT


@dataclass(frozen=True)
class Kill:
    """End a child that softer signals did not: SIGKILL."""

    serial: int
    reason: str
    signal: Signals = SIGKILL


@dataclass(frozen=True)
class Dump:
    """Log where a worker stands; it goes on."""

    serial: int
    reason: str


@dataclass(frozen=True)
class Delay:
    """Nothing is done but logged: the next attempt waits."""

    seconds: float
    reason: str


@dataclass(frozen=True)
class Wait:
    """Nothing is done but logged: the code must change before the next attempt."""

    reason: str


@dataclass(frozen=True)
class Linger:
    """Nothing is done but logged: the workers serve on for so long before they are to stop."""

    seconds: float
    reason: str


@dataclass(frozen=True)
class Adopt:
    """The new configuration is sound: read it, bind what it adds, and answer Propose."""


@dataclass(frozen=True)
class Execute:
    """The new program can take over: become it."""


@dataclass(frozen=True)
class Refuse:
    """Nothing has changed: what was to be reloaded, or upgraded to, is not sound."""

    reason: str
    what: str = "reload"


@dataclass(frozen=True)
class Commit:
    """The candidate serves alone; its configuration is the server's now."""

    generation: int


@dataclass(frozen=True)
class RollBack:
    """The candidate is dropped; the committed generation stays."""

    generation: int
    reason: str
    failed: bool = True
    """False if somebody changed their mind."""


@dataclass(frozen=True)
class Halt:
    """No child is left: end the master."""

    exit_code: int
    reason: str


Action = (
    Spawn
    | Retire
    | Quit
    | Abort
    | Kill
    | Dump
    | Delay
    | Wait
    | Linger
    | Adopt
    | Execute
    | Refuse
    | Commit
    | RollBack
    | Halt
)

"""What the master knows that no slot says: a small file on the board, for everything that watches.

The master replaces it whenever something in it changes, whole, by a rename; so whoever reads it
needs no answer from the master, and can say even of a stuck one what it was doing.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

NAME = "notice"


@dataclass(frozen=True)
class Listening:
    """One listener."""

    address: str
    inode: int
    """By which system.queues knows it."""


@dataclass(frozen=True)
class Outcome:
    """How a reload or rollback ended."""

    result: str
    """committed, refused or rolled_back."""
    generation: int
    """Which serves since."""
    reason: str
    at: float
    """Seconds since 1970, as every time in a notice: people in other time zones read them."""


@dataclass(frozen=True)
class Death:
    """The end of one worker."""

    serial: int
    pid: int
    cause: str
    """One of layout.DEATHS."""
    text: str
    """The whole sentence."""
    at: float


@dataclass(frozen=True)
class Notice:
    """The server at one moment."""

    version: str
    python: str
    app: str
    file: str | None
    """The settings file."""
    started: float
    state: str
    """starting, serving, reloading or stopping."""
    started_up: bool
    """Whether as many workers as the start needs were ever ready."""
    generation: int
    wanted: int
    """How many workers there are to be."""
    needed: int
    """How many of them must be ready for the server to be."""
    listeners: tuple[Listening, ...] = ()
    monitor: tuple[Listening, ...] = ()
    incidents: str = ""
    """The folder of their records."""
    outcome: Outcome | None = None
    """Of the last reload."""
    outcomes: dict[str, int] | None = None
    """How many reloads ended with each result."""
    spawned: int = 0
    """How many workers were ever started."""
    deaths: tuple[Death, ...] = ()
    """The last ones, the newest first."""

    def write(self, folder: Path, owner: int = -1) -> None:
        """Put it up in place of the one before; `owner` is a group that may read it.

        Raises OSError (ENOSPC).
        """
        new = folder / f"{NAME}.new"
        fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            os.write(fd, json.dumps(asdict(self)).encode())
            if owner != -1:
                os.fchown(fd, -1, owner)
                os.fchmod(fd, 0o640)
        finally:
            os.close(fd)
        new.rename(folder / NAME)


def read_notice(folder: Path) -> Notice | None:
    """The notice on the board; None before there is one.  Raises FileNotFoundError without board.

    A field that this version does not know is left out: the master may be a newer one.
    """
    try:
        found = json.loads((folder / NAME).read_bytes())
    except FileNotFoundError:
        if folder.is_dir():
            return None
        raise
    known = {each.name for each in fields(Notice)}
    kept: dict[str, Any] = {name: value for name, value in found.items() if name in known}
    kept["listeners"] = tuple(Listening(**each) for each in kept.get("listeners", ()))
    kept["monitor"] = tuple(Listening(**each) for each in kept.get("monitor", ()))
    kept["deaths"] = tuple(Death(**each) for each in kept.get("deaths", ()))
    outcome = kept.get("outcome")
    kept["outcome"] = None if outcome is None else Outcome(**outcome)
    return Notice(**kept)

"""Upgrade in place: this process becomes a new forkmaster, or a new Python, by exec.

The pid stays, and so do the children, the listeners and the board, so systemd, an init and a pid
file see nothing: einhorn's way, not the fork and exec of nginx and gunicorn.

    PREFLIGHT   a child runs the new program, which reads its configuration and says whether it
                understands the state; nothing has changed if it does not
    FREEZE      the state goes into a memfd as JSON; its descriptors survive the exec
    EXEC        children serve on: their parent has the same pid, and their pipes stay open
    ADOPT       the new program takes over what the state names
    ROLL        and reloads: its workers replace the old ones, or do not boot and are rolled back

If the new program fails before ADOPT is done, it execs the old one with the same state.

What is pure is here first: the form of the state and what to exec.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any

from forkmaster import __version__
from forkmaster.errors import ForkmasterError

STATE_VERSION = 1
# Underscored, so that nobody takes them for settings.
STATE_VARIABLE = "_FORKMASTER_STATE_FD"
PREFLIGHT_VARIABLE = "_FORKMASTER_PREFLIGHT"
BACK_VARIABLE = "_FORKMASTER_WENT_BACK"


@dataclass(frozen=True)
class Program:
    """What was executed, and what to execute again."""

    path: str
    arguments: tuple[str, ...]
    folder: str


@dataclass(frozen=True)
class ListenerState:
    address: str
    fd: int
    file: tuple[str, int, int] | None
    """Path, device and inode of a unix socket that this server made."""
    inherited: bool
    """Whether systemd opened it."""


@dataclass(frozen=True)
class ProcessState:
    serial: int
    generation: int
    role: str
    pid: int
    cell: int
    born: float
    link_fd: int | None
    output_fd: int | None = None


@dataclass(frozen=True)
class State:
    """Everything that one master leaves to the next."""

    version: int
    program: Program
    """The one that leaves it: to go back to."""
    board: str
    lock_fd: int
    records: int
    announce: tuple[int, int]
    liveness: tuple[int, int]
    handoff: tuple[int, int]
    listeners: tuple[ListenerState, ...]
    processes: tuple[ProcessState, ...]
    supervisor: dict[str, Any]
    forkmaster: str

    def descriptors(self) -> list[int]:
        """Every descriptor that must survive the exec."""
        links = [each.link_fd for each in self.processes if each.link_fd is not None]
        links += [each.output_fd for each in self.processes if each.output_fd is not None]
        listeners = [each.fd for each in self.listeners]
        return [self.lock_fd, *self.announce, *self.liveness, *self.handoff, *listeners, *links]

    def to_bytes(self) -> bytes:
        return json.dumps(dataclasses.asdict(self)).encode()


class NotOursError(ValueError):
    """A state in a form that this program does not know."""


def state_from_bytes(text: bytes) -> State:
    """The state that `to_bytes` wrote.  Raises NotOursError."""
    found = json.loads(text)
    if found.get("version") != STATE_VERSION:
        raise NotOursError(f"the state has version {found.get('version')}, not {STATE_VERSION}")
    program = found["program"]
    return State(
        **{
            **found,
            "program": Program(program["path"], tuple(program["arguments"]), program["folder"]),
            "announce": tuple(found["announce"]),
            "liveness": tuple(found["liveness"]),
            "handoff": tuple(found["handoff"]),
            "listeners": tuple(
                ListenerState(**{**each, "file": each["file"] and tuple(each["file"])})
                for each in found["listeners"]
            ),
            "processes": tuple(ProcessState(**each) for each in found["processes"]),
        }
    )


def program_of(orig_argv: Sequence[str], executable: str, folder: str) -> Program:
    """What to execute for the same command line, with whatever is there by its names now.

    A script is executed itself: its first line says which Python, and a release that brings a
    virtual environment of its own has another one there.  `python -m forkmaster`, and a script
    that cannot be executed, go through the Python that runs now.
    """
    if len(orig_argv) > 1 and not orig_argv[1].startswith("-"):
        script = os.path.join(folder, orig_argv[1])
        if os.access(script, os.X_OK):
            return Program(script, tuple(orig_argv[1:]), folder)
    return Program(executable, tuple(orig_argv), folder)


def this_program(folder: str) -> Program:
    """What to execute to have this very command line again."""
    return program_of(sys.orig_argv, sys.executable, folder)


def execute(program: Program, environ: Mapping[str, str]) -> None:
    """Become `program`.  Raises OSError, or does not return."""
    os.chdir(program.folder)
    os.execve(program.path, list(program.arguments), dict(environ))


# --- The state in a descriptor ----------------------------------------------------------------


def freeze(state: State) -> int:
    """A descriptor with `state` in it; it and all that the state names survive an exec."""
    fd = os.memfd_create("forkmaster-state", 0)
    os.write(fd, state.to_bytes())
    for descriptor in state.descriptors():
        os.set_inheritable(descriptor, True)
    return fd


def thaw(state: State, fd: int) -> None:
    """There was no exec: the descriptors are closed by the next one again."""
    os.close(fd)
    for descriptor in state.descriptors():
        os.set_inheritable(descriptor, False)


def inherited(environ: Mapping[str, str]) -> State | None:
    """The state that another master left to this one, if there is one.  Raises NotOursError."""
    variable = environ.get(STATE_VARIABLE)
    return None if variable is None else state_from_bytes(_content(int(variable)))


def adopted(state: State, environ: MutableMapping[str, str]) -> None:
    """This program has taken over: there is no way back, and the state is of no more use."""
    environ.pop(BACK_VARIABLE, None)
    thaw(state, int(environ.pop(STATE_VARIABLE)))


def go_back(environ: Mapping[str, str]) -> None:
    """If this program was to take over and cannot, become the one that left the state.

    Returns if it was not, or if it is itself what was gone back to.  Raises OSError.
    """
    variable = environ.get(STATE_VARIABLE)
    if variable is None or environ.get(BACK_VARIABLE):
        return
    # Only what every version has: this program may not understand the rest.
    found = json.loads(_content(int(variable)))["program"]
    program = Program(found["path"], tuple(found["arguments"]), found["folder"])
    execute(program, {**environ, BACK_VARIABLE: "1"})


def _content(fd: int) -> bytes:
    return os.pread(fd, os.fstat(fd).st_size, 0)


# --- Preflight --------------------------------------------------------------------------------


def is_preflight(environ: Mapping[str, str]) -> bool:
    """Whether this process was only started to say whether it could take over."""
    return PREFLIGHT_VARIABLE in environ


def preflight(environ: Mapping[str, str]) -> int:
    """The exit status of a program that has read its configuration and could take over.

    Raises ForkmasterError if it could not.
    """
    theirs = environ[PREFLIGHT_VARIABLE]
    if theirs != str(STATE_VERSION):
        raise ForkmasterError(
            f"forkmaster {__version__} understands state version {STATE_VERSION}, not {theirs}"
        )
    return 0

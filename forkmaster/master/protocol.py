"""What is said on the control socket.  Pure: bytes in, a request out; answers in, bytes out.

One line of JSON asks, and lines of JSON answer.  The first answer to a request that makes sense
comes at once and says so; the last holds "done" or "error", and the connection ends with it:

    {"command": "scale", "workers": 3}
    {"accepted": "scale"}
    {"progress": "worker 4 started (generation 0): missing"}
    {"done": "3 workers are ready", "data": {}}

A connection carries one command, so nobody has to match answers to questions, and what a client
sends after its line is ignored.  docs/control.md describes every command.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

SOCKET_NAME = "control.sock"
"""In the folder of the board."""

LONGEST_REQUEST = 4096  # bytes; the longest command there is takes 50
MOST_WORKERS = 500  # the board counts connections for 512 children

LEVELS = ("debug", "info", "warning", "error", "critical")


class MalformedError(ValueError):
    """What came is no request; the message says what is wrong with it."""


@dataclass(frozen=True)
class Status:
    """What the master knows."""


@dataclass(frozen=True)
class Reload:
    """Read configuration and code anew; answer with the outcome."""


@dataclass(frozen=True)
class Rollback:
    """Go back to the generation before; answer with the outcome."""


@dataclass(frozen=True)
class Upgrade:
    """Go on as a new forkmaster in the same process; answer with the outcome."""


@dataclass(frozen=True)
class Scale:
    """Serve with exactly so many workers; answer when they are ready."""

    workers: int


@dataclass(frozen=True)
class Recycle:
    """Replace one worker, or every one; answer when the replacements are ready."""

    serial: int | None


@dataclass(frozen=True)
class Stacks:
    """Where the threads of one worker stand, or of every one."""

    serial: int | None


@dataclass(frozen=True)
class Reopen:
    """Go on in new log files."""


@dataclass(frozen=True)
class LogLevel:
    """Write messages of this level and above."""

    level: str


@dataclass(frozen=True)
class Stop:
    """End the server; answer when the last worker is gone."""

    quick: bool


Request = Status | Reload | Rollback | Upgrade | Scale | Recycle | Stacks | Reopen | LogLevel | Stop


@dataclass(frozen=True)
class Done:
    """The last answer to a command that succeeded."""

    text: str
    """For people; empty if the data says it all."""
    data: dict[str, Any] = field(default_factory=dict)


class Incoming:
    """The bytes of one client, until they are a line."""

    def __init__(self) -> None:
        self._received = b""

    def feed(self, data: bytes) -> bytes | None:
        """The line, without its end, once it is complete.  Raises MalformedError if too long."""
        self._received += data
        line, end, _ = self._received.partition(b"\n")
        if len(line) > LONGEST_REQUEST:
            raise MalformedError(f"a request has at most {LONGEST_REQUEST} bytes")
        return line if end else None


def request_of(line: bytes) -> Request:
    """The request that a line is.  Raises MalformedError."""
    try:
        message = json.loads(line)
    except (ValueError, RecursionError) as exc:
        raise MalformedError("a request is one line of JSON") from exc
    if not isinstance(message, dict) or not isinstance(message.get("command"), str):
        raise MalformedError('a request is an object with a "command"')
    command = message.pop("command")
    match command, message:
        case "status", {}:
            return Status()
        case "reload", {}:
            return Reload()
        case "rollback", {}:
            return Rollback()
        case "upgrade", {}:
            return Upgrade()
        case "scale", {"workers": workers} if _is_number(workers, 0, MOST_WORKERS):
            return Scale(workers)
        case "scale", _:
            raise MalformedError(f'scale takes "workers", a number from 0 to {MOST_WORKERS}')
        case "recycle", {"serial": serial} if _is_serial(serial):
            return Recycle(serial)
        case "stacks", {"serial": serial} if _is_serial(serial):
            return Stacks(serial)
        case "stacks" | "recycle", _:
            raise MalformedError(f'{command} takes "serial", the number of a worker or null')
        case "reopen", {}:
            return Reopen()
        case "loglevel", {"level": level} if level in LEVELS:
            return LogLevel(level)
        case "loglevel", _:
            raise MalformedError(f'loglevel takes "level", one of {", ".join(LEVELS)}')
        case "stop", {"quick": bool(quick)}:
            return Stop(quick)
        case "stop", {"quick": _}:
            raise MalformedError('stop takes "quick", true or false')
        case "stop", {}:
            return Stop(quick=False)
    raise MalformedError(f'there is no command "{command[:40]}"')


def line_of(request: Request) -> bytes:
    """The line that asks for `request`."""
    return _line({"command": name_of(request), **vars(request)})


def name_of(request: Request) -> str:
    """The command that it is."""
    return type(request).__name__.lower()


def accepted_line(request: Request) -> bytes:
    """The first answer to a request that makes sense."""
    return _line({"accepted": name_of(request)})


def progress_line(text: str) -> bytes:
    """An answer before the last."""
    return _line({"progress": text})


def done_line(done: Done) -> bytes:
    """The last answer to a command that succeeded."""
    return _line({"done": done.text, "data": done.data})


def error_line(reason: str) -> bytes:
    """The last answer to a command that failed."""
    return _line({"error": reason})


def _line(message: dict[str, Any]) -> bytes:
    return json.dumps(message).encode() + b"\n"


def _is_number(value: object, least: int, most: int) -> bool:
    return type(value) is int and least <= value <= most


def _is_serial(value: object) -> bool:
    return value is None or (type(value) is int and value > 0)

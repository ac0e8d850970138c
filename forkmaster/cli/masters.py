"""The masters that run on this machine, and how a command reaches one.

A master is found by its board, so nothing has to be configured.  A board that somebody else owns
can be seen, not entered; one whose lock is free belongs to a master that was killed.
"""

from __future__ import annotations

import json
import os
import pwd
import select
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from forkmaster.board import board
from forkmaster.board.notice import Notice, Outcome, read_notice
from forkmaster.board.reader import BoardFolder, find_boards
from forkmaster.errors import ForkmasterError
from forkmaster.master import protocol
from forkmaster.master.control import reachable

# A master answers at once that it has understood.  Its longest pause is a fork of a big process.
PATIENCE = 10.0
EXIT_PATIENCE = 10.0  # seconds between its last answer and its exit: pid file, hooks, board


class MasterError(ForkmasterError):
    """There is no master to command, or it failed to do what was asked."""


class GoneError(MasterError):
    """The master ended, or became another program, before it had answered."""


def options() -> list[click.Parameter]:
    """The options of every command that is about a running master."""
    return [
        click.Option(
            ["--master", "pid"], type=int, metavar="PID", help="Which one, if several are running."
        ),
        click.Option(
            ["--worker-tmp-dir", "root"],
            type=click.Path(path_type=Path),
            envvar="FORKMASTER_WORKER_TMP_DIR",
            metavar="PATH",
            help="Where its board is, if the setting of that name says so.",
        ),
    ]


def choose(pid: int | None, root: Path | None) -> BoardFolder:
    """The board of the only master, or of the one with that pid.

    Raises MasterError if there is none, or more than one, or it is not ours to command.
    """
    boards = find_boards(root)
    alive = [each for each in boards if each.is_alive and pid in (None, each.pid)]
    if len(alive) == 1:
        return alive[0]
    if alive:
        listed = "\n".join(f"  --master {each.pid}{_about(each)}" for each in alive)
        raise MasterError(f"{len(alive)} masters are running; choose one of them:\n{listed}")
    raise MasterError(_nobody(pid, root, boards))


def ask(
    found: BoardFolder,
    request: protocol.Request,
    say: Callable[[str], None] = lambda text: None,
) -> protocol.Done:
    """Have the master carry out `request`; blocks until it has, telling `say` of the progress.

    Raises MasterError with the reason if it did not.
    """
    with _connected(found) as connection, connection.makefile("rb") as answers:
        try:
            connection.sendall(protocol.line_of(request))
            for line in answers:
                # From here on it may take as long as it takes: the master is alive.
                connection.settimeout(None)
                match json.loads(line):
                    case {"progress": str(text)}:
                        say(text)
                    case {"done": str(text), "data": dict(data)}:
                        return protocol.Done(text, data)
                    case {"error": str(reason)}:
                        raise MasterError(reason)
        except TimeoutError:
            raise MasterError(f"master {found.pid} does not answer") from None
        except ConnectionError:
            pass
    raise GoneError(f"master {found.pid} ended before it had answered")


def wait_for_outcome(found: BoardFolder, before: Outcome | None) -> Notice:
    """The notice with the outcome of the reload that follows an upgrade; blocks until then.

    Raises MasterError if the server ends, or the reload fails.
    """
    while True:
        notice = _notice_of(found)
        if notice is None or not board.is_held(found.path):
            raise MasterError(f"master {found.pid} has ended")
        outcome = notice.outcome
        if outcome is not None and outcome != before and notice.state == "serving":
            if outcome.result != "committed":
                raise MasterError(f"the workers could not be replaced: {outcome.reason}")
            return notice
        time.sleep(0.1)


def _notice_of(found: BoardFolder) -> Notice | None:
    try:
        return read_notice(found.path)
    except OSError:
        return None


def wait_for_exit(found: BoardFolder) -> None:
    """Returns when the process of the master is gone.  Raises MasterError if it stays."""
    try:
        pidfd = os.pidfd_open(found.pid)
    except (OSError, AttributeError):
        return  # gone, or in a container of its own
    try:
        # A pid is that of the master as long as it holds the lock of its board.
        if not select.select([pidfd], [], [], EXIT_PATIENCE)[0]:
            raise MasterError(f"master {found.pid} has stopped serving, but does not exit")
    finally:
        os.close(pidfd)


@contextmanager
def _connected(found: BoardFolder) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(PATIENCE)
        try:
            with reachable(found.path) as path:
                connection.connect(path)
        except OSError as exc:
            reason = f"cannot reach master {found.pid}: {exc.strerror or exc}"
            raise MasterError(reason) from None
        yield connection


def _nobody(pid: int | None, root: Path | None, mine: list[BoardFolder]) -> str:
    """Why there is no master, in one line."""
    for place in board.places(root):
        for folder in board.folders(place, None):
            name = board.FOLDER_NAME.fullmatch(folder.name)
            assert name is not None  # `folders` lists no other
            uid, theirs = folder.stat().st_uid, int(name["pid"])
            if uid != os.geteuid() and os.geteuid() != 0 and pid in (None, theirs):
                user = _user(uid)
                return f"master {theirs} is {user}'s; run this command as {user}"
    for each in mine:
        if not each.is_alive and pid in (None, each.pid):
            return (
                f"master {each.pid} is not running: it was killed, and left {each.path}, which"
                " the next one to start removes"
            )
    which = "no master is running" if pid is None else f"there is no master with pid {pid}"
    where = f" with its board in {root}" if root is not None else ""
    return f"{which}{where}"


def _about(found: BoardFolder) -> str:
    """What to know a master by."""
    notice = _notice_of(found)
    if notice is None:
        return ""
    return f"  serves {notice.app} on {', '.join(each.address for each in notice.listeners)}"


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"


def stack_lines(stacks: list[dict[str, Any]]) -> list[str]:
    """What the master answers about stacks, for people."""
    lines = []
    for each in stacks:
        lines.append(f"worker {each['serial']} (pid {each['pid']}) is {each['waits']}")
        dump = each["stacks"].splitlines() or ["it did not say where it stands"]
        lines += [f"  {line}" for line in dump]
    return lines


def as_json(data: Any) -> str:
    """`data` for other programs, and still readable."""
    return json.dumps(data, indent=2, ensure_ascii=False)

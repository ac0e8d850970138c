"""The commands that have a running master do something: reload, scale, stop and the like.

Each waits for the outcome and exits with 1 and the reason if that is a failure, so that a script
can go by it.  Progress is for people: it is shown on a terminal, on standard error.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from forkmaster.board.notice import read_notice
from forkmaster.cli import masters
from forkmaster.master import protocol

SERIAL = click.IntRange(min=1)


def _serial_or_all(text: str) -> int | None:
    """The serial of a worker, or None for all of them."""
    return None if text == "all" else int(text)


def reload() -> click.Command:
    return _order(
        "reload",
        "Replace the workers by ones with the configuration and the code of now. If the first new "
        "one does not become ready the old ones stay, and the exit code is 1.",
        protocol.Reload,
    )


def rollback() -> click.Command:
    return _order(
        "rollback", "Go back to the generation before the last reload.", protocol.Rollback
    )


def upgrade() -> click.Command:
    return click.Command(
        "upgrade",
        params=masters.options(),
        callback=_upgrade,
        help=(
            "Become the forkmaster, and the Python, that is installed now, with the same pid and "
            "without losing a connection; then replace the workers."
        ),
        context_settings={"help_option_names": ["-h", "--help"]},
    )


def _upgrade(pid: int | None, root: Path | None) -> int:
    found = masters.choose(pid, root)
    say = _teller()
    before = read_notice(found.path)
    try:
        masters.ask(found, protocol.Upgrade(), say)
    except masters.GoneError:
        # It has become the new program, or has ended: the board tells.
        say("the master is another program now")
    notice = masters.wait_for_outcome(found, before.outcome if before else None)
    print(f"forkmaster {notice.version} serves, generation {notice.generation}")
    return 0


def scale() -> click.Command:
    return _order(
        "scale",
        "Serve with WORKERS workers, and wait until they are ready.",
        protocol.Scale,
        click.Argument(["workers"], type=click.IntRange(0, protocol.MOST_WORKERS)),
    )


def recycle() -> click.Command:
    return _order(
        "recycle",
        "Replace the worker SERIAL, or one after the other all of them. A new one is ready before "
        "an old one stops.",
        protocol.Recycle,
        click.Argument(["serial"], type=_serial_or_all, metavar="SERIAL|all"),
    )


def reopen() -> click.Command:
    return _order("reopen", "Go on in new log files, after a rotation.", protocol.Reopen)


def loglevel() -> click.Command:
    return _order(
        "loglevel",
        "Write messages of LEVEL and above into the error log, until the next reload.",
        protocol.LogLevel,
        click.Argument(["level"], type=click.Choice(protocol.LEVELS, case_sensitive=False)),
    )


def stop() -> click.Command:
    return _order(
        "stop",
        "Stop the server, and wait until it has ended. Requests in flight are finished.",
        protocol.Stop,
        click.Option(["--quick"], is_flag=True, help="Finish nothing."),
        afterwards=masters.wait_for_exit,
    )


def stacks() -> click.Command:
    return click.Command(
        "stacks",
        params=[
            click.Argument(["serial"], type=SERIAL, required=False),
            click.Option(["--json", "as_json"], is_flag=True, help="As JSON."),
            *masters.options(),
        ],
        callback=_show_stacks,
        help="Show where every thread of the worker SERIAL stands now, or of every worker.",
    )


def _show_stacks(serial: int | None, as_json: bool, pid: int | None, root: Path | None) -> int:
    done = masters.ask(masters.choose(pid, root), protocol.Stacks(serial))
    if as_json:
        print(masters.as_json(done.data["stacks"]))
        return 0
    print("\n".join(masters.stack_lines(done.data["stacks"])))
    return 0


def _order(
    name: str,
    about: str,
    make: Callable[..., protocol.Request],
    *params: click.Parameter,
    afterwards: Callable[[Any], None] = lambda found: None,
) -> click.Command:
    def run(pid: int | None, root: Path | None, **arguments: Any) -> int:
        found = masters.choose(pid, root)
        done = masters.ask(found, make(**arguments), _teller())
        afterwards(found)
        print(done.text)
        return 0

    return click.Command(
        name,
        params=[*params, *masters.options()],
        callback=run,
        help=about,
        context_settings={"help_option_names": ["-h", "--help"]},
    )


def _teller() -> Callable[[str], None]:
    """Shows progress to a person; a script reads the outcome alone."""
    if not sys.stderr.isatty():
        return lambda text: None
    return lambda text: print(text, file=sys.stderr, flush=True)

"""The entry point: `forkmaster [COMMAND] …`, where the command may be left out for serve.

Everything heavy is imported by the command that needs it, when it runs.
"""

from __future__ import annotations

import os
import sys

from forkmaster import __version__
from forkmaster.errors import ForkmasterError, UsageError

VERSION_FLAGS = ("-v", "-V", "--version")


def main(arguments: list[str] | None = None) -> None:
    """Run forkmaster and exit.  `arguments` are those after the program's name."""
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        try:
            status = run(arguments)
        except BaseException:
            _go_back_if_upgrading()
            raise
    except ForkmasterError as exc:
        print(exc.said(), file=sys.stderr)
        status = exc.exit_code
    except KeyboardInterrupt:
        status = 130
    except BrokenPipeError:
        # `forkmaster config | head`; Python would complain once more while it exits.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 1
    sys.exit(status)


def _go_back_if_upgrading() -> None:
    """If an upgrade has made this process what it is, and it cannot start, undo that."""
    from forkmaster.master import upgrade

    upgrade.go_back(os.environ)


def run(arguments: list[str]) -> int:
    """Run the command that `arguments` ask for.  Returns the exit code; raises ForkmasterError."""
    if arguments and arguments[0] in VERSION_FLAGS:
        print(version())
        return 0
    # Imported late: the version is asked for in scripts, again and again.
    import click

    from forkmaster.cli.commands import COMMANDS, FOREIGN, program
    from forkmaster.cli.options import explained
    from forkmaster.system.terminal import colour_asked

    try:
        result = program.main(
            arguments,
            prog_name="forkmaster",
            standalone_mode=False,
            color=colour_asked(os.environ),
        )
    except click.exceptions.Abort:
        return 130
    except click.ClickException as exc:
        first = arguments[0] if arguments else ""
        if first in FOREIGN and "extra argument" in exc.format_message():
            what = f"there is no command {first}; did you mean forkmaster {FOREIGN[first]}?"
            raise UsageError(what) from None
        named = " ".join(["forkmaster", *(word for word in arguments[:1] if word in COMMANDS)])
        raise UsageError(explained(exc, named)) from None
    return result if isinstance(result, int) else 0


def version() -> str:
    """What `forkmaster --version` prints."""
    import platform

    python = f"{platform.python_implementation()} {platform.python_version()}"
    return f"forkmaster {__version__} ({python}, {platform.system()})"

"""`forkmaster [serve] [OPTIONS] [APP]`: serve an application."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from forkmaster.cli.commands import COMMANDS, FOREIGN
from forkmaster.cli.options import Command, given_by_everything, write_section
from forkmaster.errors import UsageError

if TYPE_CHECKING:
    from forkmaster.config.sources import Loaded

NO_APPLICATION = (
    "no application is named; write forkmaster MODULE:ATTRIBUTE, "
    "as forkmaster project.wsgi or forkmaster main:app"
)


class Serve(Command):
    """The default command, whose help is that of the program."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        write_section(
            formatter, "Commands", [(name, about) for name, (_, about) in COMMANDS.items()]
        )
        super().format_epilog(ctx, formatter)


def command() -> click.Command:
    return Serve(
        "serve",
        usage="[OPTIONS] [APP]  |  COMMAND [OPTIONS]",
        help=(
            "Serve the WSGI or ASGI application APP: MODULE:ATTRIBUTE, or MODULE, whose "
            "attribute is then application."
        ),
        callback=serve,
        params=[_version_option()],
    )


def serve(**parameters: Any) -> int:
    """Serve until told to stop.  Returns the exit code of the server."""
    refuse_slips(parameters["app"])
    # Imported late, here and below: --help needs none of it, and people wait for that.
    from forkmaster.config.sources import load

    loaded = load(given_by_everything(parameters))
    require_application(loaded)
    if loaded.config.print_config or loaded.config.check_config:
        from forkmaster.cli import check, show

        if loaded.config.print_config:
            show.print_settings(loaded)
        return check.check(loaded)
    from forkmaster.master import startup, upgrade

    if upgrade.is_preflight(os.environ):
        return upgrade.preflight(os.environ)
    return startup.run(loaded)


def require_application(loaded: Loaded) -> None:
    """Raise UsageError if nothing names an application."""
    if not loaded.config.app:
        raise UsageError(NO_APPLICATION)


def refuse_slips(app: str | None) -> None:
    """Raise UsageError if `app` is a slip of the keyboard rather than an application."""
    if app is None:
        return
    if not app.strip():
        raise UsageError(
            "the application is a blank; is there a space after the backslash at the end of a line?"
        )
    commands = list(COMMANDS)
    if app in commands:
        raise UsageError(
            f"{app} is a command and must come first: forkmaster {app} …; "
            f"for the module of that name write {app}:application"
        )
    if app.isidentifier() and not Path(f"{app}.py").exists() and not Path(app).exists():
        import difflib
        from importlib.util import find_spec

        close = difflib.get_close_matches(app, commands, n=1, cutoff=0.8)
        meant = FOREIGN.get(app) or "".join(close)
        if meant and find_spec(app) is None:
            raise UsageError(f"there is no module {app}; did you mean forkmaster {meant}?")


def _version_option() -> click.Option:
    def callback(ctx: click.Context, param: click.Parameter, value: bool) -> None:
        if value:
            from forkmaster.cli.entry import version

            click.echo(version())
            ctx.exit()

    return click.Option(
        ["-v", "-V", "--version"],
        is_flag=True,
        is_eager=True,
        expose_value=False,
        callback=callback,
        help="Show the version and exit.",
    )

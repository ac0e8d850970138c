"""The commands, and which one a command line means.

To add a command, write a module with a function `command()` that returns it, and name both in
COMMANDS.  A first word that is no command's name is an argument of `serve`.
"""

from __future__ import annotations

import importlib

import click

from forkmaster.errors import UsageError

DEFAULT = "serve"

# Name: the module that makes it, and what it does.
COMMANDS = {
    "serve": ("forkmaster.cli.serve", "Serve an application; the default command."),
    "check": ("forkmaster.cli.check", "Check the configuration and load the application."),
    "config": ("forkmaster.cli.show", "Show every setting with where its value came from."),
}

# Names of commands to come.  Taken now, so that no application's name changes its meaning later.
RESERVED = {
    *("completion", "health", "incidents", "init", "loglevel", "migrate", "recycle", "reload"),
    *("reopen", "rollback", "scale", "schema", "stacks", "status", "stop", "top", "upgrade"),
    "workers",
} - set(COMMANDS)


class Forkmaster(click.Group):
    """`forkmaster` itself: a group of commands with a default one."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        made: click.Command = importlib.import_module(COMMANDS[cmd_name][0]).command()
        return made

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        first = args[0] if args else None
        if first in RESERVED:
            raise UsageError(
                f"{first} is the name of a command that is not built yet; "
                f"for the module of that name write {first}:application"
            )
        if first not in COMMANDS:
            args = [DEFAULT, *args]
        return super().parse_args(ctx, args)


program = Forkmaster("forkmaster", add_help_option=False)

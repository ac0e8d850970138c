"""The commands, and which one a command line means.

To add a command, write a function that returns it, and name its module and it in COMMANDS.  A
module of one command calls that `command`, which need not be named.  A first word that is no
command's name is an argument of `serve`.
"""

from __future__ import annotations

import importlib

import click
from click.shell_completion import CompletionItem

DEFAULT = "serve"

# Name: what makes it, as MODULE or MODULE:FUNCTION, and what it does.
COMMANDS = {
    "serve": ("forkmaster.cli.serve", "Serve an application; the default command."),
    "check": ("forkmaster.cli.check", "Check the configuration and load the application."),
    "config": ("forkmaster.cli.show", "Show every setting with where its value came from."),
    "workers": ("forkmaster.cli.workers", "Show the kinds of worker."),
    "schema": ("forkmaster.cli.schema", "Print the JSON Schema of forkmaster.toml."),
    "completion": ("forkmaster.cli.completion", "Print what completes our commands in a shell."),
    "init": ("forkmaster.cli.init", "Write files for deployment, fitted to the project here."),
    "migrate": ("forkmaster.cli.migrate", "Print the configuration that an uwsgi.ini amounts to."),
    "status": ("forkmaster.cli.status", "Show the server and its workers."),
    "top": ("forkmaster.cli.top", "Watch the workers live."),
    "incidents": ("forkmaster.cli.status:incidents", "Show the last hangs and abnormal deaths."),
    "health": ("forkmaster.cli.status:health", "Exit with 0 if the server is ready."),
    "reload": ("forkmaster.cli.orders:reload", "Replace workers, configuration and code."),
    "rollback": ("forkmaster.cli.orders:rollback", "Go back to the generation before."),
    "upgrade": ("forkmaster.cli.orders:upgrade", "Become the program that is installed now."),
    "scale": ("forkmaster.cli.orders:scale", "Change the number of workers."),
    "recycle": ("forkmaster.cli.orders:recycle", "Replace one worker, or all of them."),
    "stacks": ("forkmaster.cli.orders:stacks", "Show where the workers stand in their code."),
    "reopen": ("forkmaster.cli.orders:reopen", "Go on in new log files."),
    "loglevel": ("forkmaster.cli.orders:loglevel", "Write more, or less, into the error log."),
    "stop": ("forkmaster.cli.orders:stop", "Stop the server."),
}


# Words of other programs, and what they are here.
FOREIGN = {
    "help": "--help",
    "version": "--version",
    "run": "serve",
    "start": "serve",
    "restart": "reload",
    "quit": "stop",
}


class Forkmaster(click.Group):
    """`forkmaster` itself: a group of commands with a default one."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, _, function = COMMANDS[cmd_name][0].partition(":")
        made: click.Command = getattr(importlib.import_module(module), function or "command")()
        return made

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """The commands, and what the default one takes: applications and options."""
        default = self.get_command(ctx, DEFAULT)
        assert default is not None
        if incomplete.startswith("-"):
            return default.shell_complete(ctx, incomplete)
        found = [
            CompletionItem(name, help=about)
            for name, (_, about) in COMMANDS.items()
            if name.startswith(incomplete)
        ]
        for param in default.params:
            if isinstance(param, click.Argument):
                found += param.shell_complete(ctx, incomplete)
        return found

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        first = args[0] if args else None
        if ctx.resilient_parsing and first is None:
            return super().parse_args(ctx, args)  # a shell wants the commands completed
        if first not in COMMANDS:
            args = [DEFAULT, *args]
        return super().parse_args(ctx, args)


program = Forkmaster("forkmaster", add_help_option=False)

"""`forkmaster completion SHELL`: what a shell must read to complete our command lines."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from forkmaster.cli.commands import program

SHELLS = ("bash", "zsh", "fish")


def command() -> click.Command:
    return click.Command(
        "completion",
        params=[click.Argument(["shell"], type=click.Choice(SHELLS))],
        help=(
            "Print what completes options and commands in SHELL. "
            "For bash: forkmaster completion bash > ~/.local/share/bash-completion/completions/"
            "forkmaster"
        ),
        callback=run,
        context_settings={"help_option_names": ["-h", "--help"]},
    )


def run(shell: str) -> int:
    made = get_completion_class(shell)
    assert made is not None, shell
    print(made(program, {}, "forkmaster", "_FORKMASTER_COMPLETE").source())
    return 0

"""`forkmaster completion SHELL`: what a shell must read to complete our command lines."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from forkmaster.cli.commands import program

SHELLS = ("bash", "zsh", "fish")

HELP = """Print what completes commands, options and words in SHELL, to be kept where that looks:

\b
bash  ~/.local/share/bash-completion/completions/forkmaster
zsh   a file named _forkmaster in a folder of $fpath
fish  ~/.config/fish/completions/forkmaster.fish"""

# How click's script finds that zsh has loaded it from $fpath, and ours.  zsh loads it with the
# first tab only: with the second one click's took itself for sourced, and completed nothing.
_LOADED = ("$zsh_eval_context[-1] == loadautofunc", "$funcstack[1] == _forkmaster")


def command() -> click.Command:
    return click.Command(
        "completion",
        params=[click.Argument(["shell"], type=click.Choice(SHELLS))],
        help=HELP,
        callback=run,
        context_settings={"help_option_names": ["-h", "--help"]},
    )


def run(shell: str) -> int:
    made = get_completion_class(shell)
    assert made is not None, shell
    script = made(program, {}, "forkmaster", "_FORKMASTER_COMPLETE").source()
    print(script.replace(*_LOADED))
    return 0

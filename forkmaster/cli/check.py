"""`forkmaster check`: is the configuration right, and can the application be loaded?"""

from __future__ import annotations

import contextlib
import os
import sys
from typing import Any

import click

from forkmaster.cli.options import Command, given_by_everything
from forkmaster.cli.serve import refuse_slips, require_application
from forkmaster.config.sources import Loaded, load


def command() -> click.Command:
    return Command(
        "check",
        usage="check [OPTIONS] [APP]",
        help="Check the configuration, load the application, and exit: 0 if all is well.",
        callback=run,
    )


def run(**parameters: Any) -> int:
    refuse_slips(parameters["app"])
    loaded = load(given_by_everything(parameters))
    require_application(loaded)
    return check(loaded)


def check(loaded: Loaded) -> int:
    """Load the application as a worker does, in this process.  Returns the exit code.

    Raises AppError and BootError.
    """
    from forkmaster.worker import application
    from forkmaster.worker.child import worker_kind

    for warning in loaded.warnings:
        print(f"forkmaster: warning: {warning}", file=sys.stderr)
    config = loaded.config
    for pair in config.raw_env:
        name, _, value = pair.partition("=")
        os.environ[name] = value
    for folder in reversed(config.pythonpath):
        sys.path.insert(0, folder)
    with contextlib.chdir(config.chdir or loaded.folder):
        found = application.load(config.app)
    interface = application.kind_of(found)
    kind = worker_kind(config.kind, interface, config.threads)
    file = f", configured by {loaded.file}" if loaded.file is not None else ""
    print(f"{config.app} can be loaded: {interface.upper()}, for {kind} workers{file}")
    return 0

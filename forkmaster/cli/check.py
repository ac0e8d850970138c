"""`forkmaster check`: is the configuration right, and can the application be loaded?"""

from __future__ import annotations

import contextlib
import os
import sys
from typing import Any

import click

from forkmaster.cli import deploy
from forkmaster.cli.options import Command, given_by_everything
from forkmaster.cli.serve import refuse_slips, require_application
from forkmaster.config.sources import Loaded, load


def command() -> click.Command:
    return Command(
        "check",
        usage="check [OPTIONS] [APP]",
        help="Check the configuration, load the application, and exit: 0 if all is well.",
        callback=run,
        params=[
            click.Option(
                ["--deploy", "for_deploy"],
                is_flag=True,
                help="Look for what is likely to go wrong in production; for a Django project "
                "that includes what manage.py check --deploy says.",
            ),
            click.Option(
                ["--fail-level"],
                type=click.Choice(list(deploy.LEVELS), case_sensitive=False),
                default="ERROR",
                show_default=True,
                help="With --deploy: the least level that makes the exit code 1.",
            ),
        ],
    )


def run(for_deploy: bool, fail_level: str, **parameters: Any) -> int:
    refuse_slips(parameters["app"])
    loaded = load(given_by_everything(parameters))
    require_application(loaded)
    return check(loaded, fail_level if for_deploy else None)


def check(loaded: Loaded, fail_level: str | None = None) -> int:
    """Load the application as a worker does, in this process.  Returns the exit code.

    With a `fail_level`, look for what may go wrong in production, too.
    Raises AppError and BootError.
    """
    from forkmaster.worker import application
    from forkmaster.worker.assignment import check_encryption
    from forkmaster.worker.child import with_worker_class, worker_kind

    for warning in loaded.warnings:
        print(f"forkmaster: warning: {warning}", file=sys.stderr)
    config = loaded.config
    check_encryption(config)
    for pair in config.raw_env:
        name, _, value = pair.partition("=")
        os.environ[name] = value
    for folder in reversed(config.pythonpath):
        sys.path.insert(0, folder)
    with contextlib.chdir(config.chdir or loaded.folder):
        found = application.load(config.app)
        config = with_worker_class(config)
    if config.speaks_http2:
        import forkmaster.worker.http2  # noqa: F401 - which says so if hypercorn is missing
    interface = application.kind_of(found)
    kind = worker_kind(config, interface)
    file = f", configured by {loaded.file}" if loaded.file is not None else ""
    print(f"{config.app} can be loaded: {interface.upper()}, for {kind} workers{file}")
    return 0 if fail_level is None else deploy.report(config, kind, fail_level)

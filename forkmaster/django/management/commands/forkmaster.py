"""`manage.py forkmaster …`: everything that `forkmaster …` does, for this project.

The process becomes a fresh forkmaster, because a master never imports the application that its
workers serve, and this process has.
"""

from __future__ import annotations

import os
import sys

from django.conf import settings
from django.core.management.base import BaseCommand


class Command(BaseCommand):  # type: ignore[misc]  # Django has no types
    """Not run as others are: what follows the name is forkmaster's to understand."""

    help = (
        "Serves this project with forkmaster, whose options and commands it takes: "
        "manage.py forkmaster -w 4, manage.py forkmaster check --deploy. "
        "--asgi serves ASGI_APPLICATION in place of WSGI_APPLICATION."
    )

    def run_from_argv(self, argv: list[str]) -> None:
        asgi, arguments = split(argv[2:])
        application = served(asgi)
        if application:
            # The weakest way to say it on a command line: one that is named there wins.
            os.environ["FORKMASTER_APP"] = application
        make_importable(sys.path[0])
        sys.stdout.flush()
        os.execv(sys.executable, [sys.executable, "-m", "forkmaster", *arguments])


def split(arguments: list[str]) -> tuple[bool, list[str]]:
    """Whether --asgi is among the arguments, and those that are forkmaster's.

    --settings is Django's own, and has been heard when this command was found.
    """
    rest = iter(arguments)
    asgi, ours = False, []
    for each in rest:
        if each == "--asgi":
            asgi = True
        elif each == "--settings":
            next(rest, None)
        elif not each.startswith("--settings="):
            ours.append(each)
    return asgi, ours


def served(asgi: bool) -> str:
    """What the settings say is to be served, as MODULE:ATTRIBUTE; "" if they do not say."""
    name = "ASGI_APPLICATION" if asgi else "WSGI_APPLICATION"
    module, _, attribute = (getattr(settings, name, None) or "").rpartition(".")
    return f"{module}:{attribute}" if module else ""


def make_importable(folder: str) -> None:
    """Let the new process import from the folder of manage.py, wherever it is started."""
    if folder and os.path.abspath(folder) != os.getcwd():
        before = os.environ.get("PYTHONPATH")
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (folder, before)))

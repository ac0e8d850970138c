"""Stand-in for gunicorn.app.wsgiapp: gunicorn's command, which is ours then."""

from __future__ import annotations

import importlib

from gunicorn.app.base import Application


class WSGIApplication(Application):  # type: ignore[misc]
    """`gunicorn`, as a program that starts it by its name has it."""

    def run(self) -> None:
        """Serve what the command line of this process says.  Ends the process."""
        importlib.import_module("forkmaster.programs").run_command_line()


def run(prog: str | None = None) -> None:
    """What the command `gunicorn` calls."""
    WSGIApplication("%(prog)s [OPTIONS] [APP_MODULE]", prog=prog).run()

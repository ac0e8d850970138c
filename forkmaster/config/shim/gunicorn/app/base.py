"""Stand-in for gunicorn.app.base: for programs that embed gunicorn."""

from __future__ import annotations

import importlib
import sys
import traceback
from typing import Any

from gunicorn.config import Config


class BaseApplication:
    """A program that is its own server: a subclass says the settings and loads the callable."""

    def __init__(self, usage: str | None = None, prog: str | None = None) -> None:
        self.usage = usage
        self.prog = prog
        self.cfg = Config(usage, prog=prog)
        self.callable: Any = None
        self.do_load_config()

    def do_load_config(self) -> None:
        """Have the subclass set its settings; whatever that raises ends the process."""
        try:
            self.load_config()
        except Exception as exc:
            traceback.print_exc()
            print(f"forkmaster: {type(self).__name__}.load_config: {exc}", file=sys.stderr)
            sys.exit(5)

    def load_config(self) -> None:
        raise NotImplementedError

    def load(self) -> Any:
        raise NotImplementedError

    def wsgi(self) -> Any:
        if self.callable is None:
            self.callable = self.load()
        return self.callable

    def run(self) -> None:
        """Serve, with forkmaster.  Ends the process."""
        importlib.import_module("forkmaster.programs").run_embedded(self)


class Application(BaseApplication):
    def load_config(self) -> None:
        pass

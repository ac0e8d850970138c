"""Stand-in for gunicorn.app.base: for programs that embed gunicorn."""

from __future__ import annotations

from typing import Any

from gunicorn.config import Config


class BaseApplication:
    """A program that is its own server: a subclass says the settings and loads the callable."""

    def __init__(self, usage: str | None = None, prog: str | None = None) -> None:
        self.usage = usage
        self.prog = prog
        self.cfg = Config(usage, prog=prog)
        self.callable: Any = None
        self.load_config()

    def load_config(self) -> None:
        raise NotImplementedError

    def load(self) -> Any:
        raise NotImplementedError

    def wsgi(self) -> Any:
        if self.callable is None:
            self.callable = self.load()
        return self.callable


class Application(BaseApplication):
    def load_config(self) -> None:
        pass

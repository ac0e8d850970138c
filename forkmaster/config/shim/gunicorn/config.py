"""Stand-in for gunicorn.config: the object that programs which embed gunicorn fill in."""

from __future__ import annotations

from typing import Any

from forkmaster.config.table import SETTINGS


class Config:
    """Settings by name, as `BaseApplication.load_config` sets them."""

    def __init__(self, usage: str | None = None, prog: str | None = None) -> None:
        self.settings: dict[str, Any] = dict(SETTINGS)
        self.given: dict[str, Any] = {}
        self.usage = usage
        self.prog = prog

    def set(self, name: str, value: Any) -> None:
        name = name.lower()
        if name not in self.settings:
            raise AttributeError(f"No configuration setting for: {name}")
        self.given[name] = value

    def __getattr__(self, name: str) -> Any:
        given = self.__dict__.get("given", {})
        if name in given:
            return given[name]
        try:
            return self.__dict__["settings"][name].default
        except KeyError:
            raise AttributeError(f"No configuration setting for: {name}") from None

"""Where a value came from, in words that lead a person there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Source = Literal["default", "environment", "file", "command line", "call"]


@dataclass(frozen=True)
class Origin:
    """One place that sets a setting."""

    source: Source
    place: str
    """A file and line, an environment variable, a flag: what a person must look at."""

    def __str__(self) -> str:
        return self.place


DEFAULT = Origin("default", "default")


@dataclass(frozen=True)
class Given:
    """A value as one source gives it, before it is parsed."""

    name: str
    value: object
    origin: Origin

"""`forkmaster check --deploy`: what is likely to go wrong in production, though all can be loaded.

The findings look like those of Django's `check --deploy`, and those of a Django project are
among them.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from forkmaster.django import checks as django
from forkmaster.system.cpus import cpu_count

if TYPE_CHECKING:
    from collections.abc import Iterator

    from forkmaster.config.table import Config

# Django's words and numbers, which are those of logging.
LEVELS = {"CRITICAL": 50, "ERROR": 40, "WARNING": 30, "INFO": 20, "DEBUG": 10}
# More processes than that wait for the processors, not for clients.
MOST_PER_CPU = 4


@dataclass(frozen=True)
class Finding:
    """Something that is likely to go wrong."""

    level: int
    msg: str
    hint: str | None
    id: str | None

    def __str__(self) -> str:
        text = f"({self.id}) {self.msg}" if self.id else self.msg
        return f"{text}\n    HINT: {self.hint}" if self.hint else text


def report(config: Config, kind: str, fail_level: str) -> int:
    """Print what is found, the worst first.  Returns 1 if any is of `fail_level` or above."""
    found = [*of_server(config)]
    if django.is_set_up():
        found += [
            Finding(each.level, each.msg, each.hint, each.id)
            for each in django.findings(config, kind)
        ]
    for name, level in LEVELS.items():
        ours = [each for each in found if _level_name(each.level) == name]
        if ours:
            print(f"\n{name}S:" if level > LEVELS["INFO"] else f"\n{name}:", file=sys.stderr)
        for each in ours:
            print(each, file=sys.stderr)
    print(f"{len(found) or 'no'} issue{'' if len(found) == 1 else 's'} found")
    return int(any(each.level >= LEVELS[fail_level] for each in found))


def of_server(config: Config) -> Iterator[Finding]:
    """What is wrong whatever is served."""
    if os.geteuid() == 0 and config.user in (None, 0):
        yield Finding(
            LEVELS["WARNING"],
            "The workers run as root: an error in the application is one in the whole machine.",
            "Set user, or have systemd or the container run forkmaster as another user.",
            "forkmaster.W020",
        )
    cpus = cpu_count()
    if config.workers > MOST_PER_CPU * cpus:
        yield Finding(
            LEVELS["WARNING"],
            f"{config.workers} workers share {cpus} processor{'s' if cpus > 1 else ''}.",
            "Set workers to 2 to 4 for each, and threads for views that wait.",
            "forkmaster.W021",
        )


def _level_name(level: int) -> str:
    """The name of the highest level that is not above `level`."""
    return next((name for name, number in LEVELS.items() if level >= number), "DEBUG")

"""How many workers a configuration asks for, once the machine is known.  In the master."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING

from forkmaster.config.values import OnePerProcessor
from forkmaster.system.cpus import processors

if TYPE_CHECKING:
    from forkmaster.config.sources import Loaded
    from forkmaster.config.table import Config

log = logging.getLogger("forkmaster.error")


def sized(loaded: Loaded) -> Loaded:
    """The same, with a number in the place of `workers = "auto"`; says how it was found."""
    if not isinstance(loaded.config.workers, OnePerProcessor):
        return loaded
    found = processors()
    log.info("workers = auto: %d (%s)", found.usable, found)
    return replace(loaded, config=replace(loaded.config, workers=found.usable))


def bounds_of(config: Config) -> tuple[int, int, int]:
    """How many workers to start with, at the least and at the most; 0 at the most: no scaling."""
    if config.workers_max is None:
        return config.workers, 0, 0
    least = config.workers if config.workers_min is None else config.workers_min
    most = max(least, config.workers_max)
    return min(max(config.workers, least), most), least, most

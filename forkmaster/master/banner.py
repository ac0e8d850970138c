"""The first lines of the log: what is served, how, by which file; the last says that it is ready.

At most six lines, with a listener or two: a person at a terminal reads them all, and finds the
mistake of the day in them, which is another file or other settings than meant.
"""

from __future__ import annotations

import logging
import platform
from collections.abc import Iterator, Mapping, Sequence
from time import monotonic
from typing import TYPE_CHECKING

from forkmaster import __version__
from forkmaster.config.values import OnePerProcessor
from forkmaster.master.policy import State
from forkmaster.system import processes
from forkmaster.worker.child import worker_kind

if TYPE_CHECKING:
    from forkmaster.config.sources import Loaded
    from forkmaster.config.table import Config
    from forkmaster.master.actions import Action
    from forkmaster.master.events import Event
    from forkmaster.master.supervisor import Supervisor
    from forkmaster.worker.interface import Interface

log = logging.getLogger("forkmaster.error")

_DJANGO = "DJANGO_SETTINGS_MODULE"


def greeting(
    loaded: Loaded, environ: Mapping[str, str], interface: Interface | None = None
) -> Iterator[str]:
    """What can be said before anything is bound.  `interface` is the application's, if known."""
    python = f"{platform.python_implementation()} {platform.python_version()}"
    file = f"configured by {_file(loaded)}" if loaded.file else "without a configuration file"
    yield f"forkmaster {__version__} ({python}) serves {loaded.config.app}, {file}"
    yield _workers(loaded.config, interface)
    # One that is inherited beats the one in wsgi.py, and is forgotten easily.
    given = [
        pair.partition("=")[2] for pair in loaded.config.raw_env if pair.startswith(f"{_DJANGO}=")
    ]
    if given:
        yield f"{_DJANGO} is {given[-1]} (raw_env)"
    elif environ.get(_DJANGO):
        yield f"{_DJANGO} is {environ[_DJANGO]} (environment)"


def _file(loaded: Loaded) -> str:
    assert loaded.file is not None
    inside = loaded.file.is_relative_to(loaded.folder)
    return str(loaded.file.relative_to(loaded.folder) if inside else loaded.file)


def _workers(config: Config, interface: Interface | None) -> str:
    kind: str | None = config.kind
    if config.worker_class is None and interface is not None:
        kind = worker_kind(config, interface)
    # How many those are is said when the quota has been looked at.
    if isinstance(config.workers, OnePerProcessor):
        number, noun = "one", "worker per processor"
    else:
        number, noun = str(config.workers), "worker" if config.workers == 1 else "workers"
    loaded = ", preloaded" if config.preload_app else ""
    if kind is None and config.worker_class is not None:
        return f"{number} {noun}{loaded}, of {config.worker_class}"
    if kind is None:
        wsgi = f"threaded with {config.threads} threads" if config.threads > 1 else "sync"
        return f"{number} {noun}{loaded}: {wsgi} for WSGI, asgi for ASGI"
    threads = ""
    if kind == "threaded":
        threads = f" with {config.threads} {'thread' if config.threads == 1 else 'threads'}"
    if config.speaks_http2:
        threads = " with HTTP/2"
    return f"{number} {kind} {noun}{threads}{loaded}"


class ReadyLine:
    """Says once that all workers are ready.  An observer of the master."""

    def __init__(self, supervisor: Supervisor) -> None:
        self.supervisor = supervisor
        self.told = False
        # Now, because later there may be no descriptor left to read it from /proc, and another time
        # on the wall clock.
        self.born = monotonic() - processes.age()

    def observe(self, event: Event, done: Sequence[Action]) -> None:
        """Look whether this event has made the last worker ready."""
        supervisor = self.supervisor
        if self.told or supervisor.candidate is not None or supervisor.stopping:
            return
        ready = sum(child.state is State.READY for child in supervisor.workers())
        if ready >= supervisor.target > 0:
            self.told = True
            took = (monotonic() - self.born) * 1000
            log.info("ready in %.0f ms: %d %s", took, ready, "worker" if ready == 1 else "workers")

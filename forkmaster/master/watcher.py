"""The process that watches the code, for `reload`, and asks the master for a reload.

A process of its own, because it looks ten times a second, and the master sleeps until something
happens.  It asks as a person does, with SIGHUP, so all that a reload is careful about holds here:
code that cannot be loaded leaves the old workers serving.
"""

from __future__ import annotations

import logging
import os
import signal
from typing import TYPE_CHECKING

from forkmaster.board import layout
from forkmaster.system import changes, processes
from forkmaster.system.signals import unblock_signals
from forkmaster.worker.child import Child

if TYPE_CHECKING:
    from pathlib import Path

    from forkmaster.config.table import Config
    from forkmaster.worker.assignment import Assignment

log = logging.getLogger("forkmaster.error")

NAMED = 3  # changed files that the log names; of a switch of branches there are hundreds


class Watcher:
    """This process, in the watcher.

    It keeps the rights of the master, or it could not signal it, and runs nothing of the
    application's.
    """

    def __init__(self, assignment: Assignment, file: Path | None) -> None:
        self.child = Child(assignment)
        self.assignment = assignment
        self.file = file

    def run(self) -> int:
        """Returns the exit status."""
        return self.child.guard(self._run)

    def _run(self) -> None:
        config, assignment = self.assignment.config, self.assignment
        words = assignment.slot.words
        words[layout.PID] = os.getpid()
        words[layout.KIND] = layout.KINDS.index("watcher")
        for listener in assignment.listeners:
            listener.close()
        os.chdir(assignment.folder)
        watch = changes.Watch(places_of(config, assignment.folder, self.file), wait(config))

        def stop(*_: object) -> None:
            # Whoever watches from now on took the last change for granted.
            self._tell(watch.untold())
            os._exit(0)

        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
            signal.signal(number, stop)
        for number in (signal.SIGHUP, signal.SIGUSR1):
            signal.signal(number, signal.SIG_IGN)
        unblock_signals()
        if not processes.die_with_parent(signal.SIGKILL, assignment.master_pid):
            return
        processes.set_title(f"{config.proc_name or 'forkmaster'}: watcher {assignment.serial}")
        self.child.on_ready()
        for changed in watch:
            self._tell(changed)

    def _tell(self, changed: list[str]) -> None:
        if changed:
            log.info("%s changed", names_of(changed, self.assignment.folder))
            os.kill(self.assignment.master_pid, signal.SIGHUP)


def places_of(config: Config, folder: str, file: Path | None) -> changes.Places:
    """What is watched for a server that is started in `folder` and configured by `file`."""
    named = (str(file),) if file is not None else ()
    folders = dict.fromkeys((folder, *config.pythonpath))
    return changes.Places(tuple(folders), named + config.reload_extra_files)


def fingerprint_of(config: Config) -> tuple[str, ...]:
    """Differs between two configurations that want different watchers; empty if one wants none."""
    if not config.reload:
        return ()
    places = places_of(config, str(config.chdir), None)
    return (config.reload_engine, *places.folders, *places.patterns)


def wait(config: Config) -> changes.Wait:
    """How to wait for a change."""
    if config.reload_engine == "poll":
        return changes.poll
    if changes.has_watchfiles():
        return changes.Inotify()
    if config.reload_engine == "inotify":
        log.warning("reload_engine is inotify, but watchfiles is not installed; polling")
    return changes.poll


def names_of(paths: list[str], folder: str) -> str:
    """The paths as the log shows them: relative to `folder`, and not too many."""
    names = [path.removeprefix(f"{folder}{os.sep}") for path in paths]
    more = len(names) - NAMED
    return ", ".join(names[:NAMED]) + (f" and {more} more" if more > 0 else "")

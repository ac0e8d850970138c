"""The process that shows the server: our own application in a sync worker, on its own listeners.

A process of its own, because the workers may all be busy, and the master must not talk to
strangers.  The sync worker, because it is the one that no slow client holds up.  It reads the
board, and needs nobody's help for that; see monitor/.
"""

from __future__ import annotations

import logging
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from forkmaster.board.balance import Share
from forkmaster.config.table import Config
from forkmaster.worker.child import Child

if TYPE_CHECKING:
    from forkmaster.worker.assignment import Assignment

MOST_CLIENTS = 100


class MonitorChild(Child):
    """This process, in the monitor."""

    def __init__(self, assignment: Assignment) -> None:
        # Its connections are nobody else's: no sibling gives it one, or waits for it.
        alone = Share(memoryview(bytearray(16)).cast("Q"), 0)
        config = config_of(assignment.config)
        super().__init__(
            replace(assignment, config=config, handoff=None, balance=alone, encryption=None)
        )

    def _serve(self) -> None:
        folder = _opened(self.assignment.slot.path.parent)
        self.enter("monitor")
        # Imported here: prometheus_client takes longer than all the rest of this process.
        from forkmaster.monitor.application import Application
        from forkmaster.worker.sync import SyncWorker

        # What probes ask every second is not worth a line.
        logging.getLogger("forkmaster.access").handlers = []
        os.chdir("/")  # nothing in here is the application's
        application = Application(folder)
        self.worker = SyncWorker(self.assignment, application)
        self.worker.serve(self.on_ready)


def _opened(board: Path) -> Path:
    """A path to the board that works whoever may enter the folders above it."""
    if sys.platform != "linux":
        return board
    return Path(f"/proc/self/fd/{os.open(board, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)}")


def config_of(config: Config) -> Config:
    """The configuration of the monitor of a server: none of the application's hooks and limits."""
    return Config(
        user=config.user,
        group=config.group,
        initgroups=config.initgroups,
        proc_name=config.proc_name,
        forwarded_allow_ips=config.forwarded_allow_ips,
        worker_connections=MOST_CLIENTS,
        header_timeout=5.0,
        body_timeout=5.0,
        write_timeout=5.0,
        limit_request_line=2048,
        limit_request_body=4096,
    )

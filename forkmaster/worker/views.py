"""What hooks are given: the server and the worker, with the attributes gunicorn's hooks use.

They are views, not the machinery: a hook may read them, and put attributes of its own on a worker
(in `pre_fork` they survive into the child), but changing one changes nothing about the server.
"""

from __future__ import annotations

import logging
import os
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from forkmaster.board.slot import Slot
    from forkmaster.config.table import Config

log = logging.getLogger("forkmaster.error")


class HookLog:
    """gunicorn's `log`: the error log, with the configuration as `cfg` beside it."""

    def __init__(self, cfg: Config) -> None:
        self.cfg = cfg
        self.error_log = log
        self.access_log = logging.getLogger("forkmaster.access")

    def __getattr__(self, name: str) -> Any:
        return getattr(log, name)


class ServerView:
    """`server` of a hook.  Made in the master; a worker has a copy from the time of its fork."""

    def __init__(self, cfg: Config) -> None:
        self.cfg = cfg
        self.log = HookLog(cfg)
        self.pid = self.master_pid = os.getpid()
        self.WORKERS: dict[int, WorkerView] = {}
        self.LISTENERS: list[socket.socket] = []
        self.num_workers = cfg.workers

    @property
    def app(self) -> str:
        return self.cfg.app

    @property
    def address(self) -> list[str]:
        return [str(address) for address in self.cfg.bind]

    @property
    def timeout(self) -> float:
        return self.cfg.timeout

    @property
    def proc_name(self) -> str:
        return self.cfg.proc_name or "forkmaster"

    def __str__(self) -> str:
        return f"forkmaster master (pid {self.pid})"


class WorkerView:
    """`worker` of a hook.  Made in the master before the fork, alive in the worker after it."""

    def __init__(
        self,
        serial: int,
        cfg: Config,
        sockets: tuple[socket.socket, ...],
        slot: Slot,
        role: str = "worker",
    ) -> None:
        self.age = serial
        self.role = role
        self.cfg = cfg
        self.log = HookLog(cfg)
        self.sockets = list(sockets)
        self.pid: int | str = "[booting]"
        self.ppid = os.getpid()
        self.timeout = cfg.timeout
        self.max_requests = cfg.max_requests
        self.alive = True
        self.booted = False
        self.aborted = False
        self.app: str = cfg.app
        self.wsgi: Callable[..., Any] | None = None
        self.start_time = time.time()
        self.tmp = self
        self._slot = slot

    @property
    def nr(self) -> int:
        """Requests answered so far."""
        from forkmaster.board.counters import STATUSES, read_counters

        counters = read_counters(self._slot.words)
        return sum(counters[name] for name in STATUSES[1:])

    def notify(self) -> None:
        """Beat, on behalf of application code that knows it will take long."""
        self._slot.beat()

    def last_update(self) -> float:
        """The monotonic time of the last beat, in seconds; gunicorn's `worker.tmp` has it."""
        return self._slot.last_beat()

    def __str__(self) -> str:
        return f"{self.role} {self.age}"

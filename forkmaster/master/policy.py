"""The words that events, actions and decisions share: roles, states, and what is configured."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum, auto


class Role(Enum):
    """What a child is for."""

    WORKER = "worker"
    ZYGOTE = "zygote"
    """Has loaded the application of its generation, and forks its workers."""
    VALIDATOR = "validator"
    """Reads a new configuration and ends: whatever that does, it does to a throw-away process."""
    WATCHER = "watcher"
    """Watches the code and asks for a reload when it changes.  For development."""
    PREFLIGHT = "preflight"
    """Is the program of an upgrade, asked whether it could take over."""
    MONITOR = "monitor"
    """Shows the server to whoever watches it.  None of the workers that are counted."""


class State(Enum):
    """Where a child stands in its life, as the master sees it."""

    STARTING = auto()  # forked, not ready yet
    READY = auto()  # does what it is for
    STOPPING = auto()  # asked to finish its requests and exit
    ABORTING = auto()  # asked to exit now
    KILLED = auto()  # sent SIGKILL


@dataclass(frozen=True)
class Policy:
    """The part of a generation's configuration that decisions depend on.  Times in seconds.

    0 means "never" for every timeout.
    """

    workers: int = 1
    workers_min: int = 0
    workers_max: int = 0
    """How many there may be by the load; 0: their number is fixed."""
    timeout: float = 30.0
    request_timeout: float = 0.0
    slow_request: float = 0.0
    boot_timeout: float = 60.0
    graceful_timeout: float = 30.0
    kill_timeout: float = 5.0
    shutdown_delay: float = 0.0
    surge: int = 1
    preload: bool = False
    watch: tuple[str, ...] = ()
    """What is watched for changes of the code, if it is: then a failed boot waits for the next."""
    monitor: bool = False

    def patience(self, state: State) -> float:
        """How long a child may stay in `state`, or between two beats if READY; `inf` for ever."""
        return {
            State.STARTING: self.boot_timeout,
            State.READY: self.timeout,
            State.STOPPING: self.graceful_timeout,
            State.ABORTING: self.kill_timeout,
            State.KILLED: self.kill_timeout,
        }[state] or math.inf

"""What the service manager is told, and when.  `Announcer` is pure; `standing_of` looks.

The words are those of sd_notify(3):

    READY=1          once `ready_workers` are ready, and again at the end of a reload
    RELOADING=1      when a reload is asked for, with MONOTONIC_USEC in the same message
    STOPPING=1       when the server begins to stop
    STATUS=…         the line that `systemctl status` shows, when it changes
    WATCHDOG=1       at half the interval, and only while somebody serves or is about to
    EXTEND_TIMEOUT_USEC=…   while children boot or drain within their own deadlines

A master that hangs says nothing, so every promise here is short: the service manager restarts
a server within WATCHDOG_USEC, and gives up a start or a stop that stands still after
`EXTENSION`.  An idle server with no watchdog is never woken for any of this.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from forkmaster.master.policy import Role, State

if TYPE_CHECKING:
    from forkmaster.master.supervisor import Supervisor

# 1 s: a reload of 200 workers would change the status 400 times.
STATUS_EVERY = 1.0
# A start or stop that goes on is prolonged by 10 s, every 5.
EXTEND_EVERY = 5.0
EXTENSION = 10.0

Message = tuple[str, ...]


@dataclass(frozen=True)
class Standing:
    """How the server is at one moment, as far as a service manager cares."""

    ready: int
    """Workers that serve."""
    wanted: int
    needed: int
    """Workers that must be ready before the server says that it is."""
    generation: int
    reloading: bool = False
    stopping: str = ""
    """Why the server goes down; empty if it does not."""
    changing: bool = False
    """Children boot or drain, and will be ended by us if they take too long."""
    healthy: bool = True
    """Somebody serves or is about to."""
    complaint: str = ""
    """Why the last reload failed."""

    @property
    def status(self) -> str:
        """The server in one line."""
        if self.stopping:
            return f"stopping: {self.stopping}"
        text = f"{self.ready} of {self.wanted} workers ready, generation {self.generation}"
        if self.reloading:
            return f"reloading: {text}"
        return f"{text}; {self.complaint}" if self.complaint else text


def standing_of(supervisor: Supervisor, ready_workers: int | None, complaint: str) -> Standing:
    """How the server of this supervisor is.  `ready_workers` None is all of them."""
    children = supervisor.children.values()
    ready = sum(c.role is Role.WORKER and c.state is State.READY for c in children)
    wanted = supervisor.target
    moving = (State.STARTING, State.STOPPING, State.ABORTING)
    return Standing(
        ready=ready,
        wanted=wanted,
        needed=wanted if ready_workers is None else min(ready_workers, wanted),
        generation=supervisor.committed,
        reloading=supervisor.reloading,
        stopping=supervisor.halt.reason if supervisor.halt is not None else "",
        # A deadline of `inf` is a limit that somebody has turned off: systemd's counts then.
        changing=any(c.state in moving and math.isfinite(c.deadline) for c in children),
        # A worker that misses its deadline is READY no more; and of zero none can serve.
        healthy=bool(supervisor.workers()) or wanted == 0 or supervisor.stopping,
        complaint=complaint,
    )


class Announcer:
    """What to send next.  Told how the server is; remembers what it has said."""

    def __init__(self, watchdog: float | None, *, is_ready: bool = False) -> None:
        """`watchdog` is the interval of the service manager in seconds, None for none."""
        self.is_ready = is_ready
        """Whether READY=1 was said, by this program or the one before an upgrade."""
        self._ping_every = watchdog / 2 if watchdog else math.inf
        self._ping_at = 0.0  # when the next one is due
        self._extend_at = 0.0
        self._status_at = 0.0
        self._status = ""
        self._reload_asked = False
        self._reloading = False
        self._stopping = False
        self._next = math.inf

    def reload_asked(self) -> None:
        """Somebody wants a reload: the next `messages` say so, even during another one."""
        self._reload_asked = True

    def messages(self, now: float, standing: Standing) -> list[Message]:
        """The messages that are due, in order; each is one datagram."""
        steps = (self._on_reload(now, standing), self._on_stop(standing), self._on_ready(standing))
        due = [step for step in steps if step]
        if due:
            self._extend_at = now  # another timeout of the service manager runs
        changed = standing.status != self._status
        if changed and (due or now >= self._status_at):
            last = due.pop() if due else ()
            due.append((*last, f"STATUS={standing.status}"))
            self._status, self._status_at = standing.status, now + STATUS_EVERY
            changed = False
        # Only what somebody waits for can time out.
        waited_for = not self.is_ready or self._reloading or self._stopping
        extends = standing.changing and waited_for
        if extends and now >= self._extend_at:
            due.append((f"EXTEND_TIMEOUT_USEC={int(EXTENSION * 1e6)}",))
            self._extend_at = now + EXTEND_EVERY
        pings = standing.healthy and math.isfinite(self._ping_every)
        if pings and now >= self._ping_at:
            due.append(("WATCHDOG=1",))
            self._ping_at = now + self._ping_every
        self._next = min(
            self._status_at if changed else math.inf,
            self._extend_at if extends else math.inf,
            # While it is not healthy only an event can make it so.
            self._ping_at if pings else math.inf,
        )
        return due

    def next_deadline(self) -> float:
        """When `messages` is to be asked again, if nothing happens; `inf` for never."""
        return self._next

    def _on_reload(self, now: float, standing: Standing) -> Message:
        asked, self._reload_asked = self._reload_asked, False
        begins = standing.reloading and not self._reloading
        # Before READY=1 the service manager sees a start, whatever happens in it.
        if not self.is_ready or self._stopping or not (asked or begins):
            return ()
        self._reloading = True
        # Type=notify-reload waits for a RELOADING=1 that is younger than its own signal.
        return ("RELOADING=1", f"MONOTONIC_USEC={int(now * 1e6)}")

    def _on_stop(self, standing: Standing) -> Message:
        if not standing.stopping or self._stopping:
            return ()
        self._stopping = True
        return ("STOPPING=1",)

    def _on_ready(self, standing: Standing) -> Message:
        if self._stopping or standing.reloading:
            return ()
        booted = not self.is_ready and standing.ready >= standing.needed
        if not booted and not self._reloading:
            return ()
        self.is_ready, self._reloading = True, False
        return ("READY=1",)

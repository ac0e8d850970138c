"""What the supervisor is told: of a configuration, and of a slot.  Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from forkmaster.board import layout
from forkmaster.board.counters import starts_in_flight
from forkmaster.master import events
from forkmaster.master.policy import Policy
from forkmaster.master.sizing import bounds_of
from forkmaster.master.watcher import fingerprint_of

if TYPE_CHECKING:
    from forkmaster.board.slot import Slot
    from forkmaster.config.table import Config
    from forkmaster.master.spawn import Process

# The kinds of worker that serve several requests at once.
MANY_AT_ONCE = frozenset(map(layout.KINDS.index, ("threaded", "asgi")))


def policy_of(config: Config) -> Policy:
    """The part of a configuration that the supervisor decides by."""
    workers, least, most = bounds_of(config)
    return Policy(
        workers=workers,
        workers_min=least,
        workers_max=most,
        timeout=config.timeout,
        request_timeout=config.request_timeout,
        slow_request=config.slow_request,
        boot_timeout=config.boot_timeout,
        graceful_timeout=config.graceful_timeout,
        kill_timeout=config.kill_timeout,
        shutdown_delay=config.shutdown_delay,
        surge=config.workers if config.reload_mode == "all-at-once" else config.reload_surge,
        preload=config.preload_app,
        watch=fingerprint_of(config),
        monitor=bool(config.monitor_bind),
    )


def pulse_of(process: Process, requests: bool) -> events.Pulse:
    """What the slot of a child says, as far as deadlines go.

    Its records are looked through only if `requests`: that costs as much as all the rest.
    """
    words = process.slot.words
    return events.Pulse(
        beat=words[layout.BEAT] / 1e9,
        oldest=oldest_request(process.slot) if requests else 0.0,
        extended=words[layout.EXTENDED] / 1e9,
        cancels=words[layout.KIND] in MANY_AT_ONCE,
    )


def is_serving(process: Process) -> bool:
    """Whether its end loses a request."""
    words = process.slot.words
    return words[layout.IN_FLIGHT] > 0 or bool(starts_in_flight(words))


def oldest_request(slot: Slot) -> float:
    """The start of the oldest request in flight, monotonic seconds; 0.0 if there is none."""
    return min(starts_in_flight(slot.words), default=0) / 1e9

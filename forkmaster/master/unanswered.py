"""The access log's lines for requests that ended with their worker, which can write no more.

The board knows them: method, the first 200 bytes of the target, client and start.  So a request
that hung, and one that was served when its worker was killed, are in the log like all the others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from forkmaster.logs.access import CUT_OFF, TIMED_OUT, AccessEntry
from forkmaster.logs.setup import access_writer

if TYPE_CHECKING:
    from forkmaster.board.reader import SlotView
    from forkmaster.config.table import Config


def log_unanswered(worker: SlotView, config: Config, now: float, *, timed_out: bool) -> None:
    """Write a line for each request that a worker has taken with it.  In the master.

    `timed_out`: the worker was ended because it, or a request, took too long.
    """
    if not worker.in_flight:
        return
    write = access_writer(config)
    if write is None:
        return
    for request in worker.in_flight:
        entry = AccessEntry(
            request.client.rpartition(":")[0],
            request.method,
            request.target,
            request.protocol or "-",
            0,
            0,
            int(request.duration(now) * 1e9),
            ending=TIMED_OUT if timed_out else CUT_OFF,
            serial=worker.serial,
            generation=worker.generation,
        )
        write(entry)

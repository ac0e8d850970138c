"""What is counted and logged of the requests of one asgi worker, and the records of its board."""

from __future__ import annotations

from collections import deque
from time import monotonic_ns
from typing import TYPE_CHECKING, Any, Protocol

from forkmaster.board import layout
from forkmaster.logs.access import AccessEntry
from forkmaster.logs.setup import access_writer
from forkmaster.worker.limits import WorkerLimits
from forkmaster.worker.request_hooks import refused_entry

if TYPE_CHECKING:
    from collections.abc import MutableMapping

    from forkmaster.http.errors import Refused
    from forkmaster.worker.assignment import Assignment


class Served(Protocol):
    """A request that has been served, or a websocket that is closed."""

    head: bytes
    scope: MutableMapping[str, Any]
    start: MutableMapping[str, Any] | None
    """The message with the headers of the answer."""

    ending: str
    """As an AccessEntry has it."""

    @property
    def is_trusted(self) -> bool:
        """Whether its peer is a proxy that is trusted."""

    @property
    def status(self) -> int:
        """0 is none: cancelled before it was answered."""


class Ledger:
    """What is counted and logged of all requests of one worker."""

    def __init__(self, assignment: Assignment) -> None:
        config = assignment.config
        self.websockets = 0  # inside the application
        self._assignment = assignment
        self._words = assignment.slot.words
        self._octets = assignment.slot.octets
        self._free = deque(range(self._words[layout.RECORD_COUNT]))
        self.limits = WorkerLimits(assignment)
        self._write_access = access_writer(config)

    def begin(self, head: bytes, client: bytes, now: int) -> int:
        """The record that now shows this request in flight; -1 if all are taken."""
        words, free = self._words, self._free
        words[layout.IN_FLIGHT] += 1
        # The rest of the records is the history.
        if len(free) <= layout.HISTORY:
            return -1
        record = free.popleft()
        first = layout.RECORDS_FIRST_WORD + record * layout.RECORD_WORDS
        layout.BEGINNING.pack_into(self._octets, first * 8, client, head, now)
        return record

    def end(self, record: int, served: Served, sent: int, began: int) -> None:
        """Count a request that `begin` showed, and log it."""
        words = self._words
        now = monotonic_ns()
        duration = now - began
        status = served.status
        words[layout.IN_FLIGHT] -= 1
        if record >= 0:
            at = layout.RECORDS_OFFSET + record * layout.RECORD_SIZE
            layout.ENDING.pack_into(self._octets, at, status, sent, now)
            self._free.append(record)
        words[layout.BYTES_OUT] += sent
        words[layout.BUSY] += duration
        words[layout.HISTOGRAMS[status] + duration.bit_length()] += 1
        if self._write_access is not None:
            self.log_access(served, sent, duration)
        if self.limits.counts:
            self.limits.count()

    def log_access(self, served: Served, sent: int, duration: int) -> None:
        """Write the line of one request or websocket, if there is an access log."""
        if self._write_access is None:
            return
        scope, start = served.scope, served.start
        client = scope["client"]
        method, target, protocol = served.head.split(b"\r\n", 1)[0].decode("latin-1").split(" ", 2)
        entry = AccessEntry(
            client[0] if client else "",
            method,
            target,
            protocol,
            served.status,
            sent,
            duration,
            request_headers=scope["headers"],
            response_headers=(start.get("headers") or ()) if start is not None else (),
            trusted=served.is_trusted,
            ending=served.ending,
            serial=self._assignment.serial,
            generation=self._assignment.generation,
        )
        self._write_access(entry)

    def log_refused(self, head: bytes, client: str, refused: Refused) -> None:
        """Write the line of a request that no application has seen."""
        if self._write_access is not None:
            entry = refused_entry(head, client, refused)
            entry.serial = self._assignment.serial
            entry.generation = self._assignment.generation
            self._write_access(entry)

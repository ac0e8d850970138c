"""What the board costs the request path: the stores of `SyncWorker._dispatch`, and nothing else."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from itertools import cycle
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic_ns

from forkmaster.board import layout
from forkmaster.board.layout import BUSY, BYTES_IN, BYTES_OUT
from forkmaster.board.slot import Slot

HEAD = b"GET / HTTP/1.1\r\nHost: 127.0.0.1:50000\r\n\r\n"
CLIENT = b"127.0.0.1:40000"
RECORDS = 9
SOON = 3_900_000
WAKE_UP = 16  # requests, as with wrk's 16 connections


class Told:
    """The counts that a worker keeps itself."""

    __slots__ = (
        *("busy", "bytes_in", "bytes_out", "free_since", "run_since"),
        *("octets", "record", "records", "words"),
    )

    def __init__(self, slot: Slot) -> None:
        self.octets, self.words = slot.octets, slot.words
        first, size = layout.RECORDS_OFFSET, layout.RECORD_SIZE
        self.records = cycle(range(first, first + RECORDS * size, size))
        self.record = next(self.records)
        self.bytes_in = self.bytes_out = self.busy = self.free_since = self.run_since = 0


def microseconds() -> float:
    """The least of many short runs, for one request."""
    with TemporaryDirectory() as folder:
        slot = Slot.create(Path(folder) / "slot", serial=1, generation=0, records=RECORDS)
        told = Told(slot)
        count = 2000
        _nothing(count)
        with_stores = without = sys.maxsize
        for _ in range(400):
            with_stores = min(with_stores, _timed(lambda: _store(told, count)))
            without = min(without, _timed(lambda: _nothing(count)))
        slot.close()
    return (with_stores - without) / count / 1e3


def _timed(run: Callable[[], None]) -> int:
    began = time.perf_counter_ns()
    run()
    return time.perf_counter_ns() - began


def _nothing(count: int) -> None:
    """The loops alone, and the looks at the clock that deadlines and poll need anyway."""
    for _ in range(count // WAKE_UP):
        monotonic_ns()
        for _ in range(WAKE_UP):
            monotonic_ns()


def _store(self: Told, count: int) -> None:
    for _ in range(count // WAKE_UP):
        self.words[layout.BEAT] = self.run_since = self.free_since = monotonic_ns()
        _serve_some(self)
        _tell(self)


def _serve_some(self: Told) -> None:
    begin_record, end_record = layout.BEGINNING.pack_into, layout.ENDING.pack_into
    histograms = layout.HISTOGRAMS
    code, sent = 200, 150
    for _ in range(WAKE_UP):
        octets, record = self.octets, self.record
        began = self.free_since or monotonic_ns()
        begin_record(octets, record, CLIENT, HEAD, began)

        self.free_since = ended = monotonic_ns()
        duration = ended - began
        self.bytes_in += len(HEAD)
        self.bytes_out += sent
        end_record(octets, record, code, sent, ended)
        self.words[histograms[code] + duration.bit_length()] += 1
        if duration > SOON:
            self.words[layout.BEAT] = ended
            _tell(self)


def _tell(self: Told) -> None:
    if self.free_since > self.run_since:
        self.busy += self.free_since - self.run_since
        self.record = next(self.records)
    self.free_since = 0
    words = self.words
    words[BYTES_IN] += self.bytes_in
    words[BYTES_OUT] += self.bytes_out
    words[BUSY] += self.busy
    self.bytes_in = self.bytes_out = self.busy = 0

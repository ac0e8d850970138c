"""What the board costs the request path: the stores of `SyncWorker._dispatch`, and nothing else."""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import cycle
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic_ns

from forkmaster.board import layout
from forkmaster.board.slot import Slot

HEAD = b"GET / HTTP/1.1\r\nHost: 127.0.0.1:50000\r\n\r\n"
CLIENT = b"127.0.0.1:40000"
RECORDS = 9
SOON = 10_000_000
WAKE_UP = 16  # requests, as with wrk's 16 connections


class Told:
    """The counts that a worker keeps itself."""

    __slots__ = ("busy", "bytes_in", "bytes_out", "free_since", "octets", "records", "words")

    def __init__(self, slot: Slot) -> None:
        self.octets, self.words = slot.octets, slot.words
        first, size = layout.RECORDS_OFFSET, layout.RECORD_SIZE
        self.records = cycle(range(first, first + RECORDS * size, size))
        self.bytes_in = self.bytes_out = self.busy = self.free_since = 0


def microseconds() -> float:
    """The least of many short runs, for one request."""
    with TemporaryDirectory() as folder:
        slot = Slot.create(Path(folder) / "slot", serial=1, generation=0, records=RECORDS)
        told = Told(slot)
        count = 2000
        _nothing(count)
        with_stores = min(_timed(lambda: _store(told, count)) for _ in range(200))
        without = min(_timed(lambda: _nothing(count)) for _ in range(200))
        slot.close()
    return (with_stores - without) / count / 1e3


def _timed(run: Callable[[], None]) -> int:
    began = time.perf_counter_ns()
    run()
    return time.perf_counter_ns() - began


def _nothing(count: int) -> None:
    """The loop alone, and the one look at the clock that a kept connection needs anyway."""
    for _ in range(count):
        monotonic_ns()


def _store(self: Told, count: int) -> None:
    for _ in range(count // WAKE_UP):
        _serve_some(self)
        _add_up(self)


def _serve_some(self: Told) -> None:
    begin_record, end_record = layout.BEGINNING.pack_into, layout.ENDING.pack_into
    histograms, buckets = layout.HISTOGRAMS, layout.BUCKETS
    code, sent = 200, 150
    for _ in range(WAKE_UP):
        record = next(self.records)
        began = self.free_since or monotonic_ns()
        begin_record(self.octets, record, CLIENT, HEAD, began)
        self.words[layout.BEAT] = began

        self.free_since = ended = monotonic_ns()
        duration = ended - began
        self.bytes_in += len(HEAD)
        self.bytes_out += sent
        self.busy += duration
        end_record(self.octets, record, code, sent, ended)
        bucket = (duration // 1000).bit_length()
        self.words[histograms[code // 100] + (bucket if bucket < buckets else buckets - 1)] += 1
        if duration > SOON:
            _add_up(self)


def _add_up(self: Told) -> None:
    words = self.words
    words[layout.BYTES_IN] += self.bytes_in
    words[layout.BYTES_OUT] += self.bytes_out
    words[layout.BUSY] += self.busy
    self.bytes_in = self.bytes_out = self.busy = 0

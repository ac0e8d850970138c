"""What is counted, recorded and logged of an asgi worker's requests."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from forkmaster.board import layout
from forkmaster.board.counters import histograms, read_counters
from forkmaster.board.slot import Slot
from forkmaster.config.table import Config
from forkmaster.worker.ledger import Ledger
from tests.unit.worker.asgi_talk import RECORDS, assigned

HEAD = b"GET /a%20b?x=1 HTTP/1.1\r\nHost: a"
CLIENT = ("127.0.0.1", 50000)


class Served:
    """A request that was answered."""

    head = HEAD
    status = 201
    ending = ""
    is_trusted = False

    def __init__(self, *headers: tuple[bytes, bytes], client: Any = CLIENT) -> None:
        self.scope: dict[str, Any] = {"client": client, "headers": headers}
        self.start: dict[str, Any] | None = {"headers": None}


@pytest.fixture
def slot(tmp_path: Path) -> Iterator[Slot]:
    slot = Slot.create(tmp_path / "slot", serial=1, generation=0, records=RECORDS)
    yield slot
    slot.close()


def test_a_request_is_counted_and_kept_as_history(slot: Slot) -> None:
    ledger = Ledger(assigned(slot, Config()))

    record = ledger.begin(HEAD, b"127.0.0.1:50000", 1)
    in_flight = slot.words[layout.IN_FLIGHT]
    ledger.end(record, Served(), 5, 1)

    words = slot.words
    assert in_flight == 1
    assert read_counters(words)["status_2xx"] == 1
    assert words[layout.BYTES_OUT] == 5
    assert words[layout.IN_FLIGHT] == 0
    assert [sum(row) for row in histograms(words)] == [0, 0, 1, 0, 0, 0]
    at = layout.RECORDS_OFFSET
    assert bytes(slot.octets[at + layout.REQUEST_OFFSET :][:16]) == HEAD[:16]
    assert bytes(slot.octets[at + layout.CLIENT_OFFSET :][:16]) == b"127.0.0.1:50000\0"
    first = layout.RECORDS_FIRST_WORD
    assert words[first + layout.START] <= words[first + layout.END]
    assert words[first + layout.RESPONSE_STATUS] == 201


def test_more_requests_than_records_are_served_and_counted(slot: Slot) -> None:
    ledger = Ledger(assigned(slot, Config()))

    records = [ledger.begin(HEAD, b"", 1) for _ in range(4)]
    in_flight = slot.words[layout.IN_FLIGHT]
    for record in records:
        ledger.end(record, Served(), 0, 1)

    assert records == [0, 1, -1, -1]
    assert in_flight == 4
    assert read_counters(slot.words)["status_2xx"] == 4
    # The one finished longest ago is taken first, so the finished ones stay as history.
    assert ledger.begin(HEAD, b"", 1) == 2


def test_the_last_request_asks_for_a_replacement(slot: Slot) -> None:
    read_end, write_end = os.pipe()
    ledger = Ledger(assigned(slot, Config(max_requests=2), write_end))

    flags = []
    for _ in range(3):
        ledger.end(ledger.begin(HEAD, b"127.0.0.1:50000", 1), Served(), 0, 1)
        flags.append(slot.words[layout.FLAGS])

    assert flags[0] == 0
    assert flags[1] & layout.WANT_RECYCLE
    assert layout.RECYCLE_REASONS[flags[1] >> layout.WANT_RECYCLE_REASON_SHIFT] == "max_requests"
    assert flags[2] == flags[1]
    assert os.read(read_end, 10) == b"!"
    os.close(read_end)
    os.close(write_end)


@pytest.fixture
def access_lines() -> Iterator[list[str]]:
    """What the access log gets."""
    lines: list[str] = []

    class Keeping(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(record.getMessage())

    log, handler = logging.getLogger("forkmaster.access"), Keeping()
    level = log.level
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    yield lines
    log.removeHandler(handler)
    log.setLevel(level)


def test_a_request_is_a_line_in_the_access_log(slot: Slot, access_lines: list[str]) -> None:
    ledger = Ledger(assigned(slot, Config()))

    headers = [(b"referer", b"http://a/"), (b"user-agent", b'x"y')]
    ledger.end(ledger.begin(HEAD, b"127.0.0.1:50000", 1), Served(*headers), 5, 1)
    ledger.log_access(Served(client=None), 0, 1)

    assert access_lines[0].startswith("127.0.0.1 - - [")
    assert access_lines[0].endswith('] "GET /a%20b?x=1 HTTP/1.1" 201 5 "http://a/" "x\\"y"')
    assert access_lines[1].startswith("- - - [")

"""What is counted of an ASGI application, and whom a proxy may speak for."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from forkmaster.board import layout
from forkmaster.board.slot import Slot
from forkmaster.config.table import Config
from forkmaster.worker.observed import (
    Forwarding,
    Ledger,
    ObservedApplication,
    request_line,
    split_host,
)

START = {"type": "http.response.start", "status": 200, "headers": []}
RECORDS = layout.HISTORY + 2


class FakeOwner:
    """A worker of which only the flags are of interest."""

    def __init__(self) -> None:
        self.is_draining = False
        self.date_expires = 0
        self.looks = 0

    def renew_date(self) -> None:
        self.date_expires = 2**63

    def look_whether_drained(self) -> None:
        self.looks += 1


def assigned(slot: Slot, **settings: Any) -> Any:
    """The part of an assignment that is of interest here."""
    return SimpleNamespace(
        slot=slot, config=Config(**settings), serial=7, generation=2, announce_fd=-1
    )


def ledger_of(slot: Slot, **settings: Any) -> Ledger:
    return Ledger(assigned(slot, **settings))


@pytest.fixture
def slot(tmp_path: Path) -> Iterator[Slot]:
    slot = Slot.create(tmp_path / "slot", serial=1, generation=0, records=RECORDS)
    yield slot
    slot.close()


def http_scope(**other: Any) -> dict[str, Any]:
    return {
        "type": "http",
        "method": "GET",
        "scheme": "http",
        "path": "/a b",
        "http_version": "1.1",
        "raw_path": b"/a%20b",
        "query_string": b"",
        "headers": [],
        "client": ("127.0.0.1", 50000),
        **other,
    }


async def hello(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 201, "headers": []})
    await send({"type": "http.response.body", "body": b"12", "more_body": True})
    await send({"type": "http.response.body", "body": b"345"})


def serve(application: Any, slot: Slot, scope: dict[str, Any], owner: Any = None) -> list[Any]:
    """The messages that the application sends for one scope."""
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "websocket.connect"}

    owner = owner or FakeOwner()
    assignment = assigned(slot)
    observed = ObservedApplication(application, assignment, Ledger(assignment), owner, None)
    asyncio.run(observed(scope, receive, send))
    return sent


def test_a_request_is_counted_and_kept_as_history(slot: Slot) -> None:
    sent = serve(hello, slot, http_scope(query_string=b"x=1"))

    words = slot.words
    assert len(sent) == 3
    assert words[layout.STATUS + 2] == 1
    assert words[layout.BYTES_OUT] == 5
    assert words[layout.IN_FLIGHT] == 0
    assert sum(words[layout.HISTOGRAM : layout.HISTOGRAM + layout.BUCKETS]) == 1
    at = layout.RECORDS_OFFSET
    assert bytes(slot.octets[at + layout.REQUEST_OFFSET :][:16]) == b"GET /a%20b?x=1\0\0"
    assert bytes(slot.octets[at + layout.CLIENT_OFFSET :][:16]) == b"127.0.0.1:50000\0"
    first = layout.RECORDS_FIRST_WORD
    assert words[first + layout.START] <= words[first + layout.END]
    assert words[first + layout.RESPONSE_STATUS] == 201


def test_an_application_that_raises_is_named_by_its_request(slot: Slot) -> None:
    async def broken(scope: Any, receive: Any, send: Any) -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no") as caught:
        serve(broken, slot, http_scope())

    assert caught.value.__notes__ == ["while serving GET /a%20b"]
    assert slot.words[layout.ERRORS] == 1
    assert slot.words[layout.STATUS + 5] == 1


def test_a_cancelled_request_counts_as_unanswered(slot: Slot) -> None:
    async def cancelled(scope: Any, receive: Any, send: Any) -> None:
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        serve(cancelled, slot, http_scope())

    assert slot.words[layout.ERRORS] == 0
    assert sum(slot.words[layout.STATUS + 1 : layout.STATUS + 6]) == 0
    assert slot.words[layout.IN_FLIGHT] == 0


def test_more_requests_than_records_are_served_and_counted(slot: Slot) -> None:
    ledger = ledger_of(slot)

    records = [ledger.begin(http_scope(), 1) for _ in range(4)]
    in_flight = slot.words[layout.IN_FLIGHT]
    for record in records:
        ledger.end(record, http_scope(), START, 0, 1)

    assert records == [0, 1, -1, -1]
    assert in_flight == 4
    assert slot.words[layout.IN_FLIGHT] == 0
    assert slot.words[layout.STATUS + 2] == 4
    # The one finished longest ago is taken first, so the finished ones stay as history.
    assert ledger.begin(http_scope(), 1) == 2


def test_the_last_request_asks_for_a_replacement(slot: Slot) -> None:
    read_end, write_end = os.pipe()
    assignment = assigned(slot, max_requests=2)
    assignment.announce_fd = write_end
    ledger = Ledger(assignment)

    flags = []
    for _ in range(3):
        ledger.end(ledger.begin(http_scope(), 1), http_scope(), START, 0, 1)
        flags.append(slot.words[layout.FLAGS])

    assert flags[0] == 0
    assert flags[1] & layout.WANT_RECYCLE
    assert layout.RECYCLE_REASONS[flags[1] >> layout.WANT_RECYCLE_REASON_SHIFT] == "max_requests"
    assert flags[2] == flags[1]
    assert os.read(read_end, 10) == b"!"
    os.close(read_end)
    os.close(write_end)


def test_a_websocket_counts_when_it_is_accepted(slot: Slot) -> None:
    async def echo(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "websocket.accept"})

    serve(echo, slot, http_scope(type="websocket"))

    assert slot.words[layout.WEBSOCKETS] == 1
    assert slot.words[layout.STATUS + 1] == 1


def test_the_end_of_a_request_is_told_while_draining(slot: Slot) -> None:
    owner = FakeOwner()
    owner.is_draining = True

    serve(hello, slot, http_scope(), owner)

    assert owner.looks == 1


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
    headers = [(b"referer", b"http://a/"), (b"user-agent", b'x"y')]

    serve(hello, slot, http_scope(query_string=b"x=1", headers=headers))

    (line,) = access_lines
    assert line.startswith("127.0.0.1 - - [")
    assert line.endswith('] "GET /a%20b?x=1 HTTP/1.1" 201 5 "http://a/" "x\\"y"')


def test_a_websocket_is_a_line_when_it_ends(slot: Slot, access_lines: list[str]) -> None:
    async def echo(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "websocket.accept"})

    async def refusing(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "websocket.close"})

    serve(echo, slot, http_scope(type="websocket"))
    serve(refusing, slot, http_scope(type="websocket", client=None))

    assert '"GET /a%20b HTTP/1.1" 101 0' in access_lines[0]
    assert access_lines[1].startswith("- - - [")
    assert '"GET /a%20b HTTP/1.1" 403 0' in access_lines[1]


def test_a_request_line_without_a_raw_path_is_shown() -> None:
    assert request_line({"method": "GET", "query_string": b""}) == b"GET "


@pytest.mark.parametrize(
    ("client", "trusted"),
    [(("127.0.0.1", 1), True), (("::1", 1), True), (("10.0.0.1", 1), False), (None, True)],
)
def test_who_is_a_trusted_proxy(client: tuple[str, int] | None, trusted: bool) -> None:
    assert Forwarding(Config()).trusts(client) is trusted


@pytest.mark.parametrize(
    ("forwarded_for", "client"),
    [
        (["203.0.113.9"], ("203.0.113.9", 0)),
        (["203.0.113.9:4711"], ("203.0.113.9", 4711)),
        (["[2001:db8::1]:4711"], ("2001:db8::1", 4711)),
        (["1.1.1.1, 203.0.113.9"], ("203.0.113.9", 0)),
        (["1.1.1.1", "203.0.113.9, 10.1.2.3"], ("203.0.113.9", 0)),
        (["10.9.9.9, 10.1.2.3"], ("10.9.9.9", 0)),
        ([""], ("127.0.0.1", 50000)),
        (["unknown"], ("unknown", 0)),
    ],
)
def test_the_client_behind_the_proxies(forwarded_for: list[str], client: tuple[str, int]) -> None:
    forwarding = Forwarding(Config(forwarded_allow_ips=("127.0.0.1", "10.0.0.0/8")))
    scope = http_scope(headers=[(b"x-forwarded-for", each.encode()) for each in forwarded_for])

    forwarding.apply(scope)

    assert scope["client"] == client


@pytest.mark.parametrize(
    ("kind", "headers", "scheme"),
    [
        ("http", [], "http"),
        ("http", [(b"x-forwarded-proto", b"https")], "https"),
        ("http", [(b"x-forwarded-ssl", b"on")], "https"),
        ("http", [(b"x-forwarded-proto", b"http")], "http"),
        ("http", [(b"x-forwarded-proto", b"https"), (b"x-forwarded-ssl", b"off")], "http"),
        ("http", [(b"x-forwarded-ssl", b"off"), (b"x-forwarded-proto", b"https")], "http"),
        ("websocket", [(b"x-forwarded-proto", b"https")], "wss"),
    ],
)
def test_the_scheme_that_a_proxy_tells(
    kind: str, headers: list[tuple[bytes, bytes]], scheme: str
) -> None:
    scope = http_scope(type=kind, scheme="http" if kind == "http" else "ws", headers=headers)

    Forwarding(Config()).apply(scope)

    assert scope["scheme"] == scheme


@pytest.mark.parametrize(
    ("text", "host"),
    [("", None), ("[::1", ("::1", 0)), ("a:99999999", ("a", 0)), ("::1", ("::1", 0))],
)
def test_a_malformed_entry_has_no_port(text: str, host: tuple[str, int] | None) -> None:
    assert split_host(text) == host

"""The lines of the control socket, as bytes in and requests out."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forkmaster.master import protocol
from forkmaster.master.protocol import Incoming, MalformedError, line_of, request_of

REQUESTS = [
    protocol.Status(),
    protocol.Reload(),
    protocol.Rollback(),
    protocol.Upgrade(),
    protocol.Scale(0),
    protocol.Scale(500),
    protocol.Recycle(None),
    protocol.Recycle(3),
    protocol.Stacks(None),
    protocol.Stacks(12),
    protocol.Reopen(),
    protocol.LogLevel("debug"),
    protocol.Stop(quick=True),
    protocol.Stop(quick=False),
]


@pytest.mark.parametrize("request_", REQUESTS, ids=str)
def test_a_request_is_read_as_it_was_written(request_: protocol.Request) -> None:
    line = line_of(request_)

    assert line.endswith(b"\n")
    assert request_of(line) == request_


def test_every_request_there_is_was_tried() -> None:
    assert {type(each) for each in REQUESTS} == set(protocol.Request.__args__)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"", "a request is one line of JSON"),
        (b"reload", "a request is one line of JSON"),
        (b"[" * 4000, "a request is one line of JSON"),
        (b"\xff", "a request is one line of JSON"),
        (b'"reload"', 'a request is an object with a "command"'),
        (b"{}", 'a request is an object with a "command"'),
        (b'{"command": 3}', 'a request is an object with a "command"'),
        (b'{"command": "explode"}', 'there is no command "explode"'),
        (b'{"command": "scale"}', 'scale takes "workers", a number from 0 to 500'),
        (b'{"command": "scale", "workers": -1}', "scale takes"),
        (b'{"command": "scale", "workers": 501}', "scale takes"),
        (b'{"command": "scale", "workers": true}', "scale takes"),
        (b'{"command": "scale", "workers": "3"}', "scale takes"),
        (b'{"command": "recycle"}', 'recycle takes "serial", the number of a worker or null'),
        (b'{"command": "recycle", "serial": 0}', "recycle takes"),
        (b'{"command": "stacks", "serial": "all"}', "stacks takes"),
        (b'{"command": "loglevel", "level": "loud"}', 'loglevel takes "level", one of debug, info'),
        (b'{"command": "loglevel", "level": []}', "loglevel takes"),
        (b'{"command": "stop", "quick": "yes"}', 'stop takes "quick", true or false'),
    ],
)
def test_what_is_no_request_is_refused_with_the_reason(line: bytes, reason: str) -> None:
    with pytest.raises(MalformedError) as refused:
        request_of(line)

    assert str(refused.value).startswith(reason)


@given(st.binary(max_size=200) | st.builds(lambda each: json.dumps(each).encode(), st.text()))
def test_no_bytes_make_it_fail_in_another_way(line: bytes) -> None:
    try:
        request_of(line)
    except MalformedError:
        pass


@given(st.lists(st.integers(0, 40), max_size=6))
def test_a_line_may_come_in_any_pieces(cuts: list[int]) -> None:
    line, incoming, found = b'{"command": "reload"}\nand more', Incoming(), []

    for start, end in zip([0, *sorted(cuts)], [*sorted(cuts), len(line)], strict=True):
        found.append(incoming.feed(line[start:end]))

    assert found[-1] == b'{"command": "reload"}'


def test_a_line_without_an_end_is_refused_when_it_is_too_long() -> None:
    incoming = Incoming()

    assert incoming.feed(b"x" * protocol.LONGEST_REQUEST) is None
    with pytest.raises(MalformedError):
        incoming.feed(b"x")

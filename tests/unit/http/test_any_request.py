"""Properties of all requests: however they are cut into pieces, and however they are broken."""

from __future__ import annotations

import contextlib
from typing import Any

import h11
from hypothesis import given
from hypothesis import strategies as st

from forkmaster.http.body import ChunkedBody
from forkmaster.http.errors import Refused
from forkmaster.http.head import Limits, check_unfinished
from tests.unit.http.reading import Read, body_of, origin, read

TOKENS = st.text("abcXYZ019-!#$%&'*+.^`|~", min_size=1, max_size=12).map(str.encode)
VALUES = st.binary(max_size=20).map(
    lambda data: bytes(b for b in data if b == 9 or 32 <= b != 127).strip(b" \t")
)
FRAMING = {b"content-length", b"transfer-encoding"}  # h11 changes their spelling
PATHS = st.text("abz/%2F?&=", max_size=20).map(lambda text: b"/" + text.encode())
BODIES = st.one_of(st.none(), st.binary(max_size=200), st.lists(st.binary(min_size=1, max_size=50)))


@st.composite
def requests(draw: Any) -> bytes:
    """A valid request, its body framed by a length, by chunks or not there."""
    lines = [draw(TOKENS) + b" " + draw(PATHS) + b" HTTP/1.1"]
    for name, value in draw(st.lists(st.tuples(TOKENS, VALUES), max_size=6)):
        lines.append(name + b":" + draw(st.sampled_from([b"", b" ", b"\t "])) + value)
    lines.append(b"Host: example.com:8000")
    body: bytes | list[bytes] | None = draw(BODIES)
    data = b""
    if isinstance(body, bytes):
        lines.append(b"Content-Length: %d" % len(body))
        data = body
    elif body is not None:
        lines.append(b"transfer-encoding: Chunked")
        data = b"".join(b"%x;ext\r\n%b\r\n" % (len(part), part) for part in body)
        data += b"0\r\nTrailer-One: x\r\n\r\n"
    return b"\r\n".join(lines) + b"\r\n\r\n" + data


@given(st.lists(requests(), min_size=1, max_size=3))
def test_pipelined_requests_are_read_as_if_each_came_alone(several: list[bytes]) -> None:
    alone = [read(request) for request in several]

    data, together = b"".join(several), []
    reader = origin()
    while data:
        one = read(data, reader)
        together.append(one)
        data = one.rest

    assert [without_rest(one) for one in together] == [without_rest(one) for one in alone]


@given(requests(), st.lists(st.integers(1, 20), min_size=1))
def test_a_body_may_be_cut_anywhere(request: bytes, steps: list[int]) -> None:
    head, _, data = request.partition(b"\r\n\r\n")
    _, _, fields = origin().read(head)
    body = body_of(fields, Limits())
    if body is None:
        return

    rest, turn = None, 0
    while data and rest is None:
        step = steps[turn % len(steps)]
        rest = body.feed(data[:step])
        data, turn = data[step:], turn + 1

    assert rest == b""
    assert data == b""
    assert body.stream().read() == read(request).body


@given(requests())
def test_no_start_of_a_valid_request_is_refused_early(request: bytes) -> None:
    head = request.partition(b"\r\n\r\n")[0] + b"\r\n\r"
    for end in range(len(head)):
        check_unfinished(head[:end], Limits())


@given(requests())
def test_h11_reads_the_same(request: bytes) -> None:
    server = h11.Connection(h11.SERVER)
    server.receive_data(request)
    event = server.next_event()
    assert isinstance(event, h11.Request)
    body = b""
    while not isinstance(part := server.next_event(), h11.EndOfMessage):
        assert isinstance(part, h11.Data)
        body += part.data

    ours = read(request)

    assert event.method.decode() == ours.environ["REQUEST_METHOD"]
    assert event.target.decode() == ours.environ["RAW_URI"]
    assert body == (ours.body or b"")
    for name in {name for name, _ in event.headers} - FRAMING:
        theirs = b",".join(value for other, value in event.headers if other == name)
        key = "HTTP_" + name.decode().upper().replace("-", "_")
        assert ours.environ[key].encode("latin-1") == theirs


@given(requests(), st.data())
def test_a_damaged_request_is_read_or_refused_and_nothing_else(request: bytes, data: Any) -> None:
    at = data.draw(st.integers(0, len(request) - 1))
    damaged = request[:at] + data.draw(st.binary(max_size=3)) + request[at + 1 :]
    head, _, rest = damaged.partition(b"\r\n\r\n")
    try:
        environ, _, fields = origin().read(head)
        if fields.chunked:
            ChunkedBody(Limits()).feed(rest)
    except Refused:
        return

    values = [value for key, value in environ.items() if key.startswith("HTTP_")]
    assert not set("".join(values)) & set("\r\n\0")


@given(st.binary(max_size=100))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    with contextlib.suppress(Refused):
        origin().read(data)


def without_rest(one: Read) -> Read:
    return one._replace(rest=b"")

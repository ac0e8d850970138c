"""Every rule about the body of a request, and where its bytes go."""

from __future__ import annotations

import io
import os
import sys

import pytest

from forkmaster.http.body import SPOOL_AT, ChunkedBody, LengthBody
from forkmaster.http.errors import Refused
from forkmaster.http.head import Limits

LIMITS = Limits(fields=3)

# Sections of RFC 9112.
REFUSED: dict[str, tuple[int, bytes]] = {
    # 7.1: the size
    "a sign": (400, b"+3\r\nabc\r\n0\r\n\r\n"),
    "a minus": (400, b"-3\r\nabc\r\n0\r\n\r\n"),
    "0x": (400, b"0x3\r\nabc\r\n0\r\n\r\n"),
    "an underscore": (400, b"0_3\r\nabc\r\n0\r\n\r\n"),
    "a space before": (400, b" 3\r\nabc\r\n0\r\n\r\n"),
    "a space after": (400, b"3 \r\nabc\r\n0\r\n\r\n"),
    "a tab after": (400, b"3\t\r\nabc\r\n0\r\n\r\n"),
    "no size": (400, b"\r\nabc\r\n0\r\n\r\n"),
    "not hexadecimal": (400, b"g\r\nabc\r\n0\r\n\r\n"),
    "too many digits": (400, b"0000000000000003\r\nabc\r\n0\r\n\r\n"),
    "an overflow": (400, b"ffffffffffffffffff\r\nabc"),
    "a bare LF after the size": (400, b"3\nabc\r\n0\r\n\r\n"),
    "a bare CR after the size": (400, b"3\rabc\r\n0\r\n\r\n"),
    # 7.1: the end of the data (CVE-2025-43859)
    "LF after the data": (400, b"3\r\nabc\n0\r\n\r\n"),
    "CR after the data": (400, b"3\r\nabc\rx0\r\n\r\n"),
    "any two bytes after the data": (400, b"3\r\nabcXX0\r\n\r\n"),
    "nothing after the data": (400, b"3\r\nabc0\r\n\r\n"),
    "too much data": (400, b"3\r\nabcd\r\n0\r\n\r\n"),
    # 7.1.1: extensions
    "a space before an extension": (400, b"3 ;a\r\nabc\r\n0\r\n\r\n"),
    "a space in an extension": (400, b"3;a =b\r\nabc\r\n0\r\n\r\n"),
    "an extension without name": (400, b"3;\r\nabc\r\n0\r\n\r\n"),
    "a bare CR in an extension": (400, b"3;a\rb\r\nabc\r\n0\r\n\r\n"),
    "NUL in an extension": (400, b"3;a=\0\r\nabc\r\n0\r\n\r\n"),
    "LF in a quoted extension": (400, b'3;a="\n"\r\nabc\r\n0\r\n\r\n'),
    "an open quote": (400, b'3;a="b\r\nabc\r\n0\r\n\r\n'),
    "a long extension": (400, b"3;" + b"a" * 2000 + b"\r\nabc\r\n0\r\n\r\n"),
    "a long extension without end": (400, b"3;" + b"a" * 2000),
    "many extensions": (400, (b"1;" + b"a" * 1000 + b"\r\nx\r\n") * 20),
    # 7.1.2: trailers
    "a trailer without colon": (400, b"0\r\nabc\r\n\r\n"),
    "a folded trailer": (400, b"0\r\nA: b\r\n c\r\n\r\n"),
    "a space before the colon": (400, b"0\r\nA : b\r\n\r\n"),
    "a bare LF": (400, b"0\r\nA: b\n\r\n"),
    "only LF": (400, b"0\r\n\n"),
    "Host (9110 6.5.1)": (400, b"0\r\nHost: b\r\n\r\n"),
    "Content-Length (9110 6.5.1)": (400, b"0\r\nContent-Length: 0\r\n\r\n"),
    "Transfer-Encoding (9110 6.5.1)": (400, b"0\r\ntransfer-encoding: chunked\r\n\r\n"),
    "many trailers": (431, b"0\r\n" + b"A: b\r\n" * 4 + b"\r\n"),
    "large trailers": (431, b"0\r\n" + (b"A: " + b"b" * 8000 + b"\r\n") * 3 + b"\r\n"),
    "a trailer without end": (400, b"0\r\nA: " + b"b" * 10_000),
}


def chunked(data: bytes, *, step: int = 0, limit: int = 0) -> tuple[bytes, bytes]:
    """The body in `data` and what follows it, fed in pieces of `step` bytes."""
    body = ChunkedBody(LIMITS, limit)
    step = step or len(data)
    for start in range(0, len(data), step):
        rest = body.feed(data[start : start + step])
        if rest is not None:
            with body.stream() as stream:
                return stream.read(), rest + data[start + step :]
    raise EOFError


@pytest.mark.parametrize("step", [0, 1, 2, 3])
@pytest.mark.parametrize("case", REFUSED)
def test_a_chunked_body_that_two_could_read_differently_is_refused(case: str, step: int) -> None:
    status, data = REFUSED[case]

    with pytest.raises(Refused) as caught:
        chunked(data, step=step)

    assert caught.value.status == status


ACCEPTED: dict[bytes, bytes] = {
    b"0\r\n\r\n": b"",
    b"000\r\n\r\n": b"",
    b"3\r\nabc\r\n0\r\n\r\n": b"abc",
    b"3\r\nabc\r\n2\r\n\r\n\r\n0\r\n\r\n": b"abc\r\n",
    b"A\r\n0123456789\r\na\r\n0123456789\r\n0\r\n\r\n": b"0123456789" * 2,
    b'3;a;b=c;d="e;\\" f"\r\nabc\r\n0\r\n\r\n': b"abc",
    b"3;a=b\r\nabc\r\n0;z\r\n\r\n": b"abc",
    b"1\r\nx\r\n0\r\nA: b\r\nC: d\r\n\r\n": b"x",
}


@pytest.mark.parametrize("step", [0, 1, 2, 5])
@pytest.mark.parametrize("data", ACCEPTED)
def test_a_chunked_body_is_decoded_to_its_end_and_no_further(data: bytes, step: int) -> None:
    assert chunked(data + b"GET /next", step=step) == (ACCEPTED[data], b"GET /next")


def test_a_chunked_body_above_the_limit_is_refused_before_it_comes() -> None:
    assert chunked(b"3\r\nabc\r\n0\r\n\r\n", limit=3) == (b"abc", b"")
    with pytest.raises(Refused) as caught:
        ChunkedBody(LIMITS, 3).feed(b"2\r\nab\r\n2\r\n")

    assert caught.value.status == 413


def test_a_body_with_a_length_ends_there() -> None:
    body = LengthBody(5)

    assert body.feed(b"ab") is None
    assert body.feed(b"cdeGET") == b"GET"
    assert body.stream().read() == b"abcde"


def test_a_length_above_the_limit_is_refused_at_once() -> None:
    with pytest.raises(Refused) as caught:
        LengthBody(4, limit=3)

    assert caught.value.status == 413


@pytest.mark.parametrize("size", [SPOOL_AT, SPOOL_AT + 1])
def test_a_large_body_goes_to_a_file(size: int) -> None:
    body = LengthBody(size)
    half = bytes(size // 2)

    assert body.feed(half) is None
    assert body.feed(bytes(size - len(half))) == b""

    assert body.is_spooled == (size > SPOOL_AT)
    with body.stream() as stream:
        assert len(stream.read()) == size


@pytest.mark.parametrize("step", [1, 100, 4095, 4096, 5000, 1 << 20])
def test_a_body_in_pieces_of_any_size_takes_little_more_memory_than_its_bytes(step: int) -> None:
    data = os.urandom(100_000)
    body = LengthBody(len(data))

    for at in range(0, len(data), step):
        body.feed(data[at : at + step])

    held = sum(sys.getsizeof(piece) for piece in body._pieces)
    assert held < len(data) * 1.2 + 1000
    assert body.stream().read() == data


def test_a_body_that_came_at_once_is_not_copied() -> None:
    data = os.urandom(100_000)
    body = LengthBody(len(data))
    body.feed(data)

    assert body.stream().read() is data


@pytest.mark.parametrize("size", [10, SPOOL_AT + 10])
def test_the_stream_can_be_wrapped_as_text(size: int) -> None:
    body = LengthBody(size)
    body.feed(b"line\nnext\n" * (size // 10 + 1))

    with io.TextIOWrapper(body.stream()) as text:
        assert text.readline() == "line\n"


def test_a_body_given_up_closes_its_file() -> None:
    body = LengthBody(SPOOL_AT + 2)
    body.feed(bytes(SPOOL_AT + 1))
    stream = body.stream()

    body.discard()

    assert stream.closed

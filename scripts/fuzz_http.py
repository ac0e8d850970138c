"""Feeds the readers of bytes with damaged input for a given time, and looks at what comes out.

    python scripts/fuzz_http.py 60                  # seconds; prints the seed it used
    python scripts/fuzz_http.py 60 --seed 12345     # the same again

The inputs are valid requests, PROXY headers and bodies, damaged by cutting, doubling, swapping and
overwriting pieces, with the bytes that matter to a parser more often than others.  What has to hold
for all of them, else the input is printed and the exit status is 1:

1. a reader returns or raises Refused, and nothing else;
2. cut into pieces at random, an input gives what it gives whole;
3. no CR, LF or NUL gets into an environ;
4. what is accepted is accepted by h11 too, with the same body;
5. no input takes more of the processor than 50 ms for each 64 KiB.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from typing import Any

import h11

from forkmaster.http import proxy
from forkmaster.http.body import Body, ChunkedBody, LengthBody
from forkmaster.http.environ import Origin
from forkmaster.http.errors import Refused
from forkmaster.http.head import HEAD_END, Limits, check_unfinished

LIMITS = Limits()
TEMPLATE = {"SERVER_NAME": "x", "SERVER_PORT": "80", "wsgi.url_scheme": "http"}

SEEDS = [
    b"GET / HTTP/1.1\r\nHost: example.com\r\n\r\n",
    b"GET /a/%20b?c=d HTTP/1.1\r\nHost: [::1]:8000\r\nAccept: */*\r\nCookie: a=b; c=d\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello",
    b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    b'5;a="b"\r\nhello\r\n0\r\nA: b\r\n\r\n',
    b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\na\r\n0123456789\r\n0\r\n\r\n",
    b"OPTIONS * HTTP/1.1\r\nHost: x\r\nConnection: keep-alive, close\r\n\r\n",
    b"GET http://y:81/a?b HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n\r\n",
    b"HEAD / HTTP/1.0\r\nX-Forwarded-Proto: https\r\nX_A: b\r\n\r\n",
]
PROXY_SEEDS = [
    b"PROXY TCP4 1.2.3.4 5.6.7.8 1000 80\r\n",
    b"PROXY TCP6 ::1 ::2 1000 80\r\n",
    b"PROXY TCP6 fe80::1 fe80::2 1000 80\r\n",
    b"PROXY UNKNOWN\r\n",
    b"\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c\x01\x02\x03\x04\x05\x06\x07\x08\x03\xe8\x00\x50",
]
ADDRESS = set("0123456789abcdef.:")
SPICES = [
    *(bytes([byte]) for byte in b'\r\n\0\t :;,="%_+-0x\x0b\x0c\x1c\x7f\x80\xa0\xff'),
    b"\r\n",
    b"\r\n\r\n",
    b"\n\n",
    b"Content-Length: 5\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Host: y\r\n",
    b"0\r\n\r\n",
    b"ffffffffffffffff",
    b" HTTP/1.1",
]


class Failure(Exception):  # noqa: N818 - of a property, not of this script
    """One of the five does not hold."""


def damaged(data: bytes, rng: random.Random) -> bytes:
    for _ in range(rng.choice((0, 1, 1, 2, 3, 8))):
        at = rng.randrange(len(data) + 1)
        end = min(len(data), at + rng.choice((0, 1, 2, 5, 20)))
        match rng.randrange(5):
            case 0:
                data = data[:at] + data[end:]
            case 1:
                data = data[:end] + data[at:end] * rng.choice((1, 2, 50)) + data[end:]
            case 2:
                data = data[:at] + rng.choice(SPICES) + data[at:]
            case 3:
                data = data[:at] + rng.choice(SPICES) + data[end:]
            case _:
                data = data[:at] + rng.randbytes(end - at) + data[end:]
    return data


def read_whole(data: bytes, origin: Origin) -> Any:
    """What the data means: the environ and the body, or a status."""
    if data.startswith(b"\r\n"):
        data = data[2:]
    head, end, rest = data.partition(HEAD_END)
    try:
        if not end:
            check_unfinished(head, LIMITS)
            return "incomplete"
        environ, _, fields = origin.read(head)
        body: Body | None = None
        if fields.chunked:
            body = ChunkedBody(LIMITS, 1 << 20)
        elif fields.length:
            body = LengthBody(fields.length, 1 << 20)
        if body is None:
            return environ, b"", rest
        left = body.feed(rest)
        if left is None:
            body.discard()
            return "incomplete"
        with body.stream() as stream:
            return environ, stream.read(), left
    except Refused as refused:
        return refused.status


def body_in_pieces(data: bytes, rng: random.Random) -> Any:
    """The same for a chunked body fed in pieces."""
    body = ChunkedBody(LIMITS, 1 << 20)
    try:
        while data:
            step = rng.randrange(1, 8)
            left = body.feed(data[:step])
            data = data[step:]
            if left is not None:
                with body.stream() as stream:
                    return stream.read(), left + data
    except Refused:
        return "refused"
    return "incomplete"


def body_whole(data: bytes) -> Any:
    body = ChunkedBody(LIMITS, 1 << 20)
    try:
        left = body.feed(data)
    except Refused:
        return "refused"
    if left is None:
        return "incomplete"
    with body.stream() as stream:
        return stream.read(), left


def try_one(data: bytes, rng: random.Random, origin: Origin) -> bool:
    """Whether the input was accepted.  Raises Failure."""
    began = time.process_time()
    result = read_whole(data, origin)
    again = read_whole(data, Origin(TEMPLATE))
    if time.process_time() - began > 0.1 * (1 + len(data) / 65536):
        raise Failure("too slow")
    if result != again:
        raise Failure(f"another answer with warm caches: {result} and {again}")
    if isinstance(result, tuple):
        values = "".join(v for k, v in result[0].items() if k.startswith("HTTP_"))
        if set(values) & set("\r\n\0"):
            raise Failure("a control character in the environ")
        agree_with_h11(data, result)
    _, _, rest = data.partition(HEAD_END)
    if body_whole(rest) != body_in_pieces(rest, rng):
        raise Failure("a body in pieces is another body")
    return isinstance(result, tuple)


def agree_with_h11(data: bytes, result: Any) -> None:
    _, body, left = result
    server = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
    consumed = data[: len(data) - len(left)] if left else data
    server.receive_data(consumed.removeprefix(b"\r\n"))
    theirs = b""
    try:
        event = server.next_event()
        if not isinstance(event, h11.Request):
            raise Failure(f"h11 sees no request: {event}")
        while not isinstance(event := server.next_event(), h11.EndOfMessage):
            if not isinstance(event, h11.Data):
                raise Failure(f"h11 sees no end: {event}")
            theirs += event.data
    except h11.RemoteProtocolError as exc:
        raise Failure(f"h11 refuses: {exc}") from None
    if theirs != body:
        raise Failure(f"h11 reads another body: {theirs!r}")


def try_proxy(data: bytes) -> None:
    for mode in ("v1", "v2", "auto"):
        try:
            parsed = proxy.parse(data, mode)
        except Refused:
            continue
        if parsed is None and len(data) > 5000:
            raise Failure("a PROXY header is waited for without bound")
        if parsed is not None and not set(parsed[0].client + parsed[0].server) <= ADDRESS:
            raise Failure(f"no addresses: {parsed[0]}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("seconds", type=float)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    options = parser.parse_args()
    rng = random.Random(options.seed)
    origin = Origin(TEMPLATE)
    print(f"seed {options.seed}", flush=True)
    count, accepted, end = 0, 0, time.monotonic() + options.seconds
    while time.monotonic() < end:
        if rng.randrange(8):
            data = damaged(b"".join(rng.choices(SEEDS, k=rng.choice((1, 1, 2)))), rng)
        else:
            data = damaged(rng.choice(PROXY_SEEDS), rng)
        count += 1
        try:
            try_proxy(data)
            accepted += try_one(data, rng, origin)
        except Exception as exc:
            print(f"input {data!r}\n{type(exc).__name__}: {exc}", file=sys.stderr)
            return 1
    print(f"{count} inputs, {accepted} of them accepted, nothing found")
    return 0


if __name__ == "__main__":
    sys.exit(main())

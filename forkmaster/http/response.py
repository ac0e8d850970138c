"""From what an application said to the bytes of an answer.

A status line and a header line are each checked once and then looked up: applications answer
with the same few over and over.  What was never seen goes through the expressions below, and a
name or a value that would change the framing, or start another line, is the application's error:
ValueError, raised into its `start_response`.
"""

from __future__ import annotations

import re
from email.utils import formatdate
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

SERVER = b"forkmaster"

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
LAST_CHUNK = b"0\r\n\r\n"

# RFC 9112 4; PEP 3333 wants one space after the code.  1xx is no final answer.
_STATUS = re.compile(r"[2-9][0-9]{2}(?: [\t\x20-\x7e\x80-\xff]*)?")
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")

# RFC 9110 7.6.1: these are between us and the client, and PEP 3333 forbids them to applications.
_HOP_BY_HOP = frozenset(
    (
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "trailers",
        "transfer-encoding",
        "upgrade",
    )
)
# Different in every answer, so that they would only push others out of the cache.
_UNCACHED = frozenset(("etag", "last-modified", "location", "set-cookie"))
_ENTRIES, _LONGEST = 1024, 256

REASONS = {
    400: "Bad Request",
    408: "Request Timeout",
    413: "Content Too Large",
    414: "URI Too Long",
    417: "Expectation Failed",
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
    501: "Not Implemented",
    503: "Service Unavailable",
    505: "HTTP Version Not Supported",
}

# Why a header is more than its line.
PLAIN, DROPPED, LENGTH, DATE, SERVER_LINE, CLOSE = range(6)

_statuses: dict[str, tuple[int, bytes]] = {}
# The line, what kind of header it is, and the number that a Content-Length says.
_headers: dict[object, tuple[bytes, int, int]] = {}

OWN_DATE, OWN_SERVER, WANTS_CLOSE = 1, 2, 4
BITS = {DATE: OWN_DATE, SERVER_LINE: OWN_SERVER, CLOSE: WANTS_CLOSE}


def read_head(status: str, headers: Sequence[tuple[str, str]]) -> tuple[int, list[bytes], int, int]:
    """The code, the lines, the Content-Length or -1, and the the bits OWN_DATE ….

    What an application gave to start_response, checked.  The bits say which headers of ours it
    set itself, and whether it wants the connection closed.  Raises TypeError or ValueError for
    what PEP 3333 or HTTP does not allow.
    """
    known = _statuses.get(status)
    if known is None:
        known = _read_status(status)
    code, line = known
    lines = [line]
    length = -1
    own = 0
    get = _headers.get
    for pair in headers:
        try:
            entry = get(pair)
        except TypeError:  # not hashable, so not a tuple of strings
            entry = None
        if entry is None:
            entry = read_header(pair)
        line, kind, number = entry
        if not kind:
            lines.append(line)
        elif kind == LENGTH:
            if length >= 0:
                raise ValueError("there are two Content-Length headers")
            length = number
            # RFC 9110 8.6: never in an answer that cannot have a body.
            if code != 204:
                lines.append(line)
        else:
            own |= BITS.get(kind, 0)
            if kind != CLOSE and kind != DROPPED:
                lines.append(line)
    return code, lines, length, own


def _read_status(status: str) -> tuple[int, bytes]:
    if not isinstance(status, str):
        raise TypeError(f"the status must be a str, not {type(status).__name__}")
    if _STATUS.fullmatch(status) is None:
        raise ValueError(f"the status must be three digits and a reason, not {status!r}")
    known = (
        int(status[:3]),
        f"HTTP/1.1 {status if status[3:] else status + ' '}\r\n".encode("latin-1"),
    )
    if len(_statuses) < _ENTRIES:
        _statuses[status] = known
    return known


def read_header(pair: Any) -> tuple[bytes, int, int]:
    """An entry of `_headers`.  Raises TypeError or ValueError."""
    try:
        name, value = pair
    except (TypeError, ValueError):
        raise TypeError("a response header must be a tuple of two strings") from None
    if not isinstance(name, str) or not isinstance(value, str):
        raise TypeError(
            f"a response header must be two strings, not {type(name).__name__}"
            f" and {type(value).__name__}"
        )
    if _NAME.fullmatch(name) is None:
        raise ValueError(f"the name of a response header is not a token: {name!r}")
    if _VALUE.fullmatch(value) is None:
        # The name only: the value may be a secret, and this is logged.
        raise ValueError(
            f"the response header {name} has a line break, a control character"
            " or a character outside latin-1 in its value"
        )
    lower = name.lower()
    value = value.strip(" \t")
    kind, number = PLAIN, -1
    if lower in _HOP_BY_HOP:
        closes = lower == "connection" and "close" in value.lower()
        kind = CLOSE if closes else DROPPED
    elif lower == "content-length":
        if not (value.isascii() and value.isdigit()) or len(value) > 18:
            raise ValueError("the response header Content-Length is not a number")
        name, kind, number = "Content-Length", LENGTH, int(value)
    elif lower == "date":
        kind = DATE
    elif lower == "server":
        kind = SERVER_LINE
    entry = f"{name}: {value}\r\n".encode("latin-1"), kind, number
    if lower not in _UNCACHED and len(entry[0]) <= _LONGEST and type(pair) is tuple:
        if len(_headers) >= _ENTRIES:
            _headers.clear()
        _headers[pair] = entry
    return entry


def has_no_body(code: int) -> bool:
    """Whether an answer with this status never has a body (RFC 9110 6.4.1)."""
    return code == 204 or code == 304


class Tails:
    """The end of every answer's head: Server, Date, Connection and the empty line.

    Made anew once a second by whoever knows the time.  The four kinds are attributes, because
    the request path reads one of them with every answer.
    """

    __slots__ = ("close", "date", "http10", "open")

    def __init__(self, now: float) -> None:
        self.renew(now)

    def renew(self, now: float) -> None:
        """`now` is the wall clock in seconds."""
        self.date = b"Date: " + formatdate(now, usegmt=True).encode("ascii") + b"\r\n"
        ours = b"Server: " + SERVER + b"\r\n" + self.date
        self.open = ours + b"\r\n"  # HTTP/1.1 stays open without a word
        self.http10 = ours + b"Connection: keep-alive\r\n\r\n"
        self.close = ours + b"Connection: close\r\n\r\n"

    def made(self, own: int, *, close: bool, http10: bool) -> bytes:
        """The tail when the application set Date or Server itself."""
        parts = []
        if not own & OWN_SERVER:
            parts.append(b"Server: " + SERVER + b"\r\n")
        if not own & OWN_DATE:
            parts.append(self.date)
        if close:
            parts.append(b"Connection: close\r\n")
        elif http10:
            parts.append(b"Connection: keep-alive\r\n")
        parts.append(b"\r\n")
        return b"".join(parts)


def refusal(status: int, reason: str, date: bytes, *, with_body: bool = True) -> bytes:
    """A whole answer of the server itself, after which the connection is closed."""
    body = refusal_body(status, reason)
    head = (
        f"HTTP/1.1 {status} {REASONS.get(status, 'Error')}\r\n"
        f"Content-Type: text/html; charset=utf-8\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n"
    ).encode("ascii")
    return head + b"Server: " + SERVER + b"\r\n" + date + b"\r\n" + (body if with_body else b"")


def refusal_body(status: int, reason: str) -> bytes:
    """What a refusal shows to people."""
    phrase = REASONS.get(status, "Error")
    return (
        f"<html><head><title>{status} {phrase}</title></head>\n"
        f"<body><h1>{status} {phrase}</h1>\n<p>{reason}</p></body></html>\n"
    ).encode("ascii")


def early_hints(headers: Sequence[tuple[str | bytes, str | bytes]]) -> bytes:
    """A 103 answer (RFC 8297).  Raises as `read_head`."""
    lines = [b"HTTP/1.1 103 Early Hints\r\n"]
    for name, value in headers:
        pair = (
            name.decode("latin-1") if isinstance(name, bytes) else name,
            value.decode("latin-1") if isinstance(value, bytes) else value,
        )
        line, kind, _ = read_header(pair)
        if kind == PLAIN:
            lines.append(line)
    lines.append(b"\r\n")
    return b"".join(lines)

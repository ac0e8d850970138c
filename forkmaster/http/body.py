"""The body of a request, decoded as it comes: by Content-Length, or chunked.

A body is fed bytes and says when it is complete and what was left over, which is the start of
the next request.  It holds at most `SPOOL_AT` bytes in memory; what is beyond goes to a nameless
temporary file.  Nothing of it reaches the application before it is whole, so an application
never sees a truncated body as a short one, and a slow client never holds an application.

Chunk sizes, extensions and trailers are bounded and checked to the letter: disagreement over
where a chunk ends is how requests are smuggled.  Trailers are checked like headers and dropped.
"""

from __future__ import annotations

import io
import re
import tempfile
from enum import Enum
from typing import IO, TYPE_CHECKING

from forkmaster.http.errors import Refused
from forkmaster.http.head import TOKEN, split_field

if TYPE_CHECKING:
    from forkmaster.http.head import Limits

# 1 MiB: above nearly all forms and API calls, and 1000 clients that send so much fit in memory.
SPOOL_AT = 1 << 20

# 4 KiB: what is shorter is put together at once.
_PIECE = 4 << 10

# A size line longer than this has no honest purpose; extensions are never used in practice.
_SIZE_LINE = 1024
# All extensions of one body: each chunk of one byte with 1 KiB of extension would be 1000 times
# the traffic that the application's limit sees (Go and llhttp bound it likewise).
_EXTENSIONS = 16 << 10
_TRAILERS = 8 << 10

_QUOTED = rb'"(?:[\t \x21\x23-\x5b\x5d-\x7e\x80-\xff]|\\[\t \x21-\x7e\x80-\xff])*"'
# RFC 9112 7.1: at most 15 digits, which is more than any file system holds.  The grammar has "bad
# whitespace" around ; and =, which nobody sends and others do not take: a size followed by a space
# has been read in two ways too often.
_CHUNK_HEAD = re.compile(rb"([0-9A-Fa-f]{1,15})((?:;%s(?:=(?:%s|%s))?)*)" % (TOKEN, TOKEN, _QUOTED))


class Body:
    """What both kinds share: where the bytes go."""

    __slots__ = ("_file", "_pieces", "limit", "received")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.received = 0
        self._pieces: list[bytes | bytearray] = []
        self._file: IO[bytes] | None = None

    def feed(self, data: bytes) -> bytes | None:
        """Take `data`; return what follows the body, or None while the body is not complete.

        Raises Refused 400 or 413, and OSError if the temporary file cannot be written.
        """
        raise NotImplementedError

    @property
    def is_spooled(self) -> bool:
        """Whether `stream` is a file, which the caller closes."""
        return self._file is not None

    def stream(self) -> IO[bytes]:
        """The complete body as `wsgi.input`."""
        if self._file is not None:
            self._file.seek(0)
            return self._file
        # Which shares the bytes that it is made from: a body is copied once, or not at all.
        return io.BytesIO(b"".join(self._pieces))

    def discard(self) -> None:
        """Give up what was received."""
        if self._file is not None:
            self._file.close()
        self._pieces = []

    def _keep(self, data: bytes | memoryview) -> None:
        self.received += len(data)
        if 0 < self.limit < self.received:
            raise Refused(413, "the body is too large (limit_request_body)")
        if self._file is None:
            if self.received <= SPOOL_AT:
                self._add(data)
                return
            # Not SpooledTemporaryFile: in Python 3.11 it has no readable(), so that
            # io.TextIOWrapper refuses it.
            self._file = tempfile.TemporaryFile()  # noqa: SIM115 - closed by the owner
            self._file.writelines(self._pieces)
            self._pieces = []
        self._file.write(data)

    def _add(self, data: bytes | memoryview) -> None:
        """Keep it in memory, which one that sends a byte at a time must not make many times it."""
        pieces = self._pieces
        if len(data) >= _PIECE:
            pieces.append(bytes(data))  # itself, unless it is a view of more
        elif pieces and type(pieces[-1]) is bytearray:
            pieces[-1] += data
        else:
            pieces.append(bytearray(data))


class LengthBody(Body):
    """A body of `length` bytes, as its Content-Length said."""

    __slots__ = ("_missing",)

    def __init__(self, length: int, limit: int = 0) -> None:
        super().__init__(limit)
        if 0 < limit < length:
            raise Refused(413, "the body is too large (limit_request_body)")
        self._missing = length

    def feed(self, data: bytes) -> bytes | None:
        missing = self._missing
        if len(data) < missing:
            self._keep(data)
            self._missing = missing - len(data)
            return None
        self._missing = 0
        if len(data) == missing:
            self._keep(data)
            return b""
        self._keep(data[:missing])
        return data[missing:]


class _Expect(Enum):
    SIZE = 1  # a line with the size of the next chunk
    DATA = 2  # `_missing` bytes of a chunk
    DATA_END = 3  # the CRLF after a chunk
    TRAILER = 4  # trailer lines up to an empty one


class ChunkedBody(Body):
    """A body in chunks (RFC 9112 7.1)."""

    __slots__ = ("_buffer", "_expect", "_extensions", "_limits", "_missing", "_trailers")

    def __init__(self, limits: Limits, limit: int = 0) -> None:
        super().__init__(limit)
        self._limits = limits
        self._buffer = b""  # the start of a line, never more than `_SIZE_LINE` or `_TRAILERS`
        self._expect = _Expect.SIZE
        self._missing = 0
        self._extensions = 0
        self._trailers = 0  # fields; their bytes are bounded together with them

    def feed(self, data: bytes) -> bytes | None:
        if self._buffer:
            data = self._buffer + data
            self._buffer = b""
        at = 0
        while True:
            match self._expect:
                case _Expect.DATA:
                    end = at + self._missing
                    if end > len(data):
                        self._keep(memoryview(data)[at:])
                        self._missing = end - len(data)
                        return None
                    self._keep(memoryview(data)[at:end])
                    at = end
                    self._missing = 0
                    self._expect = _Expect.DATA_END
                case _Expect.DATA_END:
                    # RFC 9112 7.1: exactly CRLF.  Skipping any two bytes is CVE-2025-43859.
                    if not b"\r\n".startswith(data[at : at + 2]):
                        raise Refused(400, "a chunk does not end with CRLF (RFC 9112 7.1)")
                    if len(data) - at < 2:
                        self._buffer = data[at:]
                        return None
                    at += 2
                    self._expect = _Expect.SIZE
                case _Expect.SIZE:
                    line, at = self._line(data, at, _SIZE_LINE)
                    if line is None:
                        return None
                    self._missing = self._size(line)
                    self._expect = _Expect.DATA if self._missing else _Expect.TRAILER
                case _Expect.TRAILER:
                    line, at = self._line(data, at, _TRAILERS)
                    if line is None:
                        return None
                    if not line:
                        return data[at:]
                    self._trailer(line)

    def _line(self, data: bytes, at: int, most: int) -> tuple[bytes | None, int]:
        """The line at `at` without its CRLF, and where the next begins; None if not complete."""
        end = data.find(b"\n", at, at + most + 2)
        if end < 0:
            if len(data) - at > most:
                raise Refused(400, "a line of the chunked body is too long (RFC 9112 7.1.1)")
            self._buffer = data[at:]
            return None, at
        if end == at or data[end - 1] != 13:
            raise Refused(400, "a line of the chunked body ends without CR (RFC 9112 2.2)")
        return data[at : end - 1], end + 1

    def _size(self, line: bytes) -> int:
        match = _CHUNK_HEAD.fullmatch(line)
        if match is None:
            raise Refused(400, "malformed chunk size or extension (RFC 9112 7.1)")
        self._extensions += len(match.group(2))
        if self._extensions > _EXTENSIONS:
            raise Refused(400, "too many chunk extensions (RFC 9112 7.1.1)")
        size = int(match.group(1), 16)
        if 0 < self.limit < self.received + size:
            raise Refused(413, "the body is too large (limit_request_body)")
        return size

    def _trailer(self, line: bytes) -> None:
        self._trailers += 1
        # One budget of bytes for all of them: _TRAILERS per line times the fields allowed
        # would be a second head without its limit.
        self._extensions += len(line)
        if self._trailers > self._limits.fields > 0 or self._extensions > _EXTENSIONS:
            raise Refused(431, "too many trailers (RFC 9112 7.1.2)")
        name, _ = split_field(line)
        if name in _NOT_IN_TRAILERS:
            raise Refused(400, "a trailer has no place after the body (RFC 9110 6.5.1)")


# RFC 9110 6.5.1: framing, routing and authentication have to come before the body.
_NOT_IN_TRAILERS = frozenset(
    ("authorization", "content-length", "host", "te", "trailer", "transfer-encoding")
)

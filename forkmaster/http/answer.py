"""From what an ASGI application said to the bytes of an answer, by the rules of response.py."""

from __future__ import annotations

from collections.abc import Iterable
from http import HTTPStatus

from forkmaster.http import response

Header = tuple[bytes, bytes]

_PHRASES = {status.value: status.phrase for status in HTTPStatus}
# Different in every answer, so that they would only push others out of the cache.
_UNCACHED = frozenset((b"etag", b"last-modified", b"location", b"set-cookie"))
_ENTRIES, _LONGEST = 1024, 256

_status_lines: dict[int, bytes] = {}
_headers: dict[Header, tuple[bytes, int, int]] = {}


def read_head(status: int, headers: Iterable[Iterable[bytes]]) -> tuple[list[bytes], int, int]:
    """The lines, the Content-Length or -1, and the bits response.OWN_DATE ….

    What an application gave with http.response.start, checked.  Raises TypeError or ValueError
    for what ASGI or HTTP does not allow.
    """
    line = _status_lines.get(status)
    if line is None:
        line = _read_status(status)
    lines = [line]
    length = -1
    own = 0
    get = _headers.get
    for name, value in headers:
        entry = get((name, value))
        if entry is None:
            entry = _read_header(name, value)
        line, kind, number = entry
        if not kind:
            lines.append(line)
        elif kind == response.LENGTH:
            if length >= 0:
                raise ValueError("there are two Content-Length headers")
            length = number
            if status != 204:  # RFC 9110 8.6
                lines.append(line)
        else:
            own |= response.BITS.get(kind, 0)
            if kind != response.CLOSE and kind != response.DROPPED:
                lines.append(line)
    return lines, length, own


def _read_status(status: int) -> bytes:
    if not isinstance(status, int):
        raise TypeError(f"the status must be an int, not {type(status).__name__}")
    if not 200 <= status <= 999:
        raise ValueError(f"the status must be of three digits and final, not {status!r}")
    line = f"HTTP/1.1 {int(status)} {_PHRASES.get(status, '')}\r\n".encode("ascii")
    _status_lines[status] = line
    return line


def _read_header(name: bytes, value: bytes) -> tuple[bytes, int, int]:
    if not isinstance(name, (bytes, bytearray)) or not isinstance(value, (bytes, bytearray)):
        raise TypeError(
            f"a response header must be two byte strings, not {type(name).__name__}"
            f" and {type(value).__name__}"
        )
    name, value = bytes(name), bytes(value)
    entry = response.read_header((name.decode("latin-1"), value.decode("latin-1")))
    if name.lower() not in _UNCACHED and len(entry[0]) <= _LONGEST:
        if len(_headers) >= _ENTRIES:
            _headers.clear()
        _headers[name, value] = entry
    return entry

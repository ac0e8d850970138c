"""The head of a request: bytes in, checked facts out.

What goes in is everything before the first empty line.  What comes out are strings for an
environ and the few facts that decide how the message goes on.  Nothing here knows a socket, a
clock or who the peer is; who may say what is decided in trust.py.

**Own parser.**  In CPython a C tokenizer that calls back once per header costs more than `split`
and a dict: 2 headers take 0.4 µs here and 1.3 µs with httptools, 12 headers 0.7 and 4.4 µs
(scripts/bench_head.py), and llhttp lets much through that has to be looked for again afterwards
(HTTP/0.9 and 2.0, any Host, heads without limit).  h11 is right and takes 60 µs.

**Cached lines.**  Clients send the same lines over and over.  So a line is looked up whole in a
bounded dict, and only one never seen goes through the expressions below.  What is in the dict
passed them, hence a hit is valid by construction, and a line that is refused never gets in.

**Closed by default.**  The expressions say what is allowed; everything else is refused with the
section that forbids it.  Lines are split at CRLF and neither CR nor LF is allowed inside one,
so there is one reading of where a line ends.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import AddressValueError, IPv6Address
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

from forkmaster.http.errors import Refused

HEAD_END = b"\r\n\r\n"

TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
# RFC 9112 3: one space, no other whitespace; RFC 3986: printable ASCII, and no fragment (3.2).
_REQUEST_LINE = re.compile(rb"(%s) ([\x21\x22\x24-\x7e]+) HTTP/(\d\.\d)" % TOKEN)
_VERSION = re.compile(rb"[^\r\n]* HTTP/\d\.\d")
# RFC 9110 5.5: VCHAR, obs-text, SP and HTAB; no other control character.
FIELD_VALUE = re.compile(rb"[\t\x20-\x7e\x80-\xff]*")
FIELD_LINE = re.compile(rb"(%s):([\t\x20-\x7e\x80-\xff]*)" % TOKEN)
_ABSOLUTE_FORM = re.compile(r"(?i:https?)://([^/?]*)([^?]*)(?:\?(.*))?")
_AUTHORITY_FORM = re.compile(r"(.+):\d{1,5}")
# RFC 3986 3.2.2 and 3.2.3.  Without the comma, which no host name has: it is what a proxy
# makes of two Host lines.
_REG_NAME = r"(?:[A-Za-z0-9._~!$&'()*+;=-]|%[0-9A-Fa-f]{2})*"
_HOST = re.compile(rf"({_REG_NAME}|\[[0-9A-Fa-f:.]+\])(?::(\d{{0,5}}))?")

# RFC 9110 5.3: these have one value, and a second line makes a message that two readers read
# differently.
SINGLE = frozenset(("content-length", "content-type", "host", "transfer-encoding"))

_TCHAR = frozenset(b"!#$%&'*+.^_`|~-0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")


@dataclass(frozen=True, slots=True)
class Limits:
    """What one head may cost.  Bytes, and a count of header fields; 0 is no limit of its own."""

    line: int = 8190
    fields: int = 100
    field_size: int = 8190
    # Not lines times their size, which is 800 KB with the defaults and would be held for every
    # slow client.
    head: int = 64 * 1024


class RequestLine(NamedTuple):
    """The first line, checked and taken apart."""

    method: str
    target: str  # as sent
    path: str  # percent-decoded, one character per byte, as PEP 3333 wants it
    query: str
    protocol: str  # "HTTP/1.0" or "HTTP/1.1"
    authority: str | None  # of an absolute-form target; overrides Host
    text: str  # the whole line, for logs


def parse_request_line(line: bytes, limits: Limits) -> RequestLine:
    """The parts of `line`, which has no CRLF.  Raises Refused 400, 414, 501 or 505."""
    if 0 < limits.line < len(line):
        raise Refused(414, "the request line is too long (limit_request_line)")
    match = _REQUEST_LINE.fullmatch(line)
    if match is None:
        if line.endswith((b" HTTP/1.0", b" HTTP/1.1")) or not _VERSION.fullmatch(line):
            raise Refused(400, "malformed request line (RFC 9112 3)")
        raise Refused(505, "only HTTP/1.0 and HTTP/1.1 are served here (RFC 9110 15.6.6)")
    method, target, version = (part.decode("ascii") for part in match.groups())
    if version not in ("1.0", "1.1"):
        # The preface of HTTP/2, "PRI * HTTP/2.0", ends here too.
        raise Refused(505, "only HTTP/1.0 and HTTP/1.1 are served here (RFC 9110 15.6.6)")
    authority = None
    if method == "CONNECT":
        match_authority = _AUTHORITY_FORM.fullmatch(target)
        if match_authority is None or not is_host(target):
            raise Refused(400, "CONNECT wants a host and a port (RFC 9112 3.2.3)")
        raise Refused(501, "CONNECT is not served here (RFC 9110 9.3.6)")
    if target[0] == "/":
        path, _, query = target.partition("?")
    elif target == "*":
        if method != "OPTIONS":
            raise Refused(400, "the target * is for OPTIONS only (RFC 9112 3.2.4)")
        # PATH_INFO is empty or starts with a slash (PEP 3333); RAW_URI tells the two apart.
        path, query = "", ""
    elif absolute := _ABSOLUTE_FORM.fullmatch(target):
        authority, path, query = absolute.group(1), absolute.group(2) or "/", absolute.group(3)
        query = query or ""
        # An empty host and user information are errors here (RFC 9110 4.2.1, 4.2.4).
        if not authority or authority[0] == ":" or not is_host(authority):
            raise Refused(400, "malformed authority in the target (RFC 9112 3.2.2)")
    else:
        raise Refused(400, "malformed target (RFC 9112 3.2)")
    if "%" in path:
        path = unquote_to_bytes(path).decode("latin-1")
    protocol = f"HTTP/{version}"
    return RequestLine(method, target, path, query, protocol, authority, line.decode("ascii"))


def split_field(line: bytes) -> tuple[str, str]:
    """The name, in lower case, and the value of a header line without CRLF.  Raises Refused."""
    match = FIELD_LINE.fullmatch(line)
    if match is None:
        raise Refused(400, _why_field_is_wrong(line))
    name, value = match.groups()
    # RFC 9112 5.1: SP and HTAB only; bytes.strip() without argument would take \x0b as well.
    return name.lower().decode("ascii"), value.strip(b" \t").decode("latin-1")


def field_value(value: bytes) -> str:
    """What stands behind the colon of a header line, as a value.  Raises Refused."""
    if FIELD_VALUE.fullmatch(value) is None:
        raise Refused(400, "a control character in a header's value (RFC 9110 5.5)")
    return value.strip(b" \t").decode("latin-1")


def _why_field_is_wrong(line: bytes) -> str:
    if line[:1] in (b" ", b"\t"):
        return "a header line is folded (RFC 9112 5.2)"
    name, colon, _ = line.partition(b":")
    if not colon or not name:
        return "a header line has no name (RFC 9112 5)"
    if name[-1:] in (b" ", b"\t"):
        return "whitespace between a header's name and the colon (RFC 9112 5.1)"
    if re.fullmatch(TOKEN, name) is None:
        return "a header's name is not a token (RFC 9110 5.6.2)"
    return "a control character in a header's value (RFC 9110 5.5)"


def below(script_name: str, path: str) -> str:
    """The part of `path` that follows `script_name`.  Raises Refused if it does not begin so."""
    rest = path[len(script_name) :]
    # gunicorn lets "/app" match "/application", whose PATH_INFO would be "lication".
    if not path.startswith(script_name) or (rest and rest[0] != "/" and script_name[-1:] != "/"):
        raise Refused(500, "the path does not start with SCRIPT_NAME")
    return rest


def field_lines(block: bytes, limits: Limits) -> list[bytes]:
    """The header lines of a head.  Raises Refused 431."""
    if 0 < limits.head < len(block):
        raise Refused(431, "the head is too large (limit_request_head)")
    lines = block.split(b"\r\n") if block else []
    if 0 < limits.fields < len(lines):
        raise Refused(431, "too many header fields (limit_request_fields)")
    return lines


def twice(name: str) -> Refused:
    """There is a second line of one of SINGLE."""
    return Refused(400, f"there are two {name.title()} headers (RFC 9110 5.3)")


def check_host(value: str) -> None:
    """Raises Refused if `value` is nothing that a Host header can have."""
    if not is_host(value):
        raise Refused(400, "malformed Host header (RFC 9112 3.2)")


def is_host(value: str) -> bool:
    """Whether `value` is a host with an optional port (RFC 9110 7.2), or empty, which is legal."""
    match = _HOST.fullmatch(value)
    if match is None:
        return False
    host, port = match.groups()
    if port and int(port) > 65535:
        return False
    if host.startswith("["):
        try:
            IPv6Address(host[1:-1])
        except AddressValueError:
            return False
    return True


def content_length(value: str) -> int:
    """The number that a Content-Length says.  Raises Refused 400 or 413.

    Not `int()`, which takes signs, underscores, spaces and other alphabets' digits.
    """
    if not value.isascii() or not value.isdigit():
        raise Refused(400, "Content-Length is not one number (RFC 9110 8.6)")
    if len(value) > 18:
        raise Refused(413, "Content-Length is beyond all limits (RFC 9110 8.6)")
    return int(value)


def check_transfer_encoding(value: str) -> None:
    """Returns if the coding is exactly "chunked".  Raises Refused 400 or 501 otherwise."""
    codings = [coding.strip(" \t").lower() for coding in value.split(",")]
    if codings == ["chunked"]:
        return
    if codings[-1] == "chunked" and "chunked" not in codings[:-1] and all(codings):
        raise Refused(501, "a transfer coding is not known here (RFC 9112 6.1)")
    raise Refused(400, "Transfer-Encoding is not chunked (RFC 9112 6.3)")


@lru_cache(maxsize=64)  # clients say one of a few things
def connection_options(value: str) -> frozenset[str]:
    """The options that a Connection header lists, in lower case (RFC 9110 7.6.1)."""
    return frozenset(option.strip(" \t").lower() for option in value.split(","))


def check_unfinished(data: bytes | bytearray, limits: Limits) -> None:
    """Refuse early what no further byte can mend.  Raises Refused 400, 414 or 431.

    `data` is the start of a head whose end has not come.  Without this a client that ends its
    lines with LF, or speaks TLS, would be waited for until the head times out.
    """
    if data and data[0] not in _TCHAR and data[:2] not in (b"\r\n", b"\r"):
        raise Refused(400, "this is not HTTP/1.1 (RFC 9112 3)")
    start = 2 if data[:2] == b"\r\n" else 0
    end = data.find(b"\n", start)
    if end < 0:
        if 0 < limits.line < len(data) - start:
            raise Refused(414, "the request line is too long (RFC 9112 3)")
    elif data[end - 1] != 13:
        raise Refused(400, "a line ends without CR (RFC 9112 2.2)")
    elif 0 < limits.line < end - 1 - start:
        raise Refused(414, "the request line is too long (RFC 9112 3)")
    if b"\n\n" in data:
        raise Refused(400, "a line ends without CR (RFC 9112 2.2)")
    if 0 < limits.head < len(data):
        raise Refused(431, "the head is too large (RFC 6585 5)")

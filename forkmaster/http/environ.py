"""From the head of a request to the environ of PEP 3333.

An `Origin` stands for where requests come from: one listener, one scheme, peers that are trusted
to tell of the client before them or peers that are not.  All its requests share a template, and
a memory of what it has read.

**Two caches.**  A header line is remembered with its environ key and value; a whole block of header
lines with the environ it makes and the framing it asks for.  A client, or a proxy, sends the same
block with request after request, so most requests cost one dict look-up and one `dict.copy`
whatever the number of their headers: 0.4 µs with 2 headers and 0.7 with 12, where 12 with another
cookie each time cost 5.0, nearly what httptools takes for all (scripts/bench_head.py).  Both are
bounded (caches.py).  Credentials are kept out of the cache of lines; in that of blocks they are
forgotten with the rest, and live no longer than in the sessions of an application.

`Proxy` is never mapped: it would become HTTP_PROXY, which libraries take for their configuration
(CVE-2016-5385).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from forkmaster.http.caches import keep_block, keep_line
from forkmaster.http.errors import Refused
from forkmaster.http.head import (
    HEAD_END,
    SINGLE,
    Limits,
    RequestLine,
    below,
    check_host,
    check_transfer_encoding,
    connection_options,
    content_length,
    field_lines,
    field_value,
    parse_request_line,
    split_field,
    twice,
)
from forkmaster.http.trust import Peers, Trust

if TYPE_CHECKING:
    from collections.abc import Mapping

# Hashes of what was seen once, 32 bytes each.
_SEEN = 1024

_NAMES, _LONGEST_NAME = 512, 64

# Unique to each client, and nothing to keep copies of.
_UNCACHED = frozenset(("authorization", "cookie", "proxy-authorization"))

# What `Origin` must look at beyond storing it, as bits.
_LENGTH, _CODING, _CONNECTION, _EXPECT, _SCHEME, _SCRIPT_NAME, _DROPPED = (1 << n for n in range(7))
_SPECIAL = {
    "connection": _CONNECTION,
    "content-length": _LENGTH,
    "expect": _EXPECT,
    "transfer-encoding": _CODING,
}


_NOT_PLAIN = _LENGTH | _CODING | _EXPECT


class Fields(NamedTuple):
    """What one block of header lines means."""

    environ: dict[str, Any]  # the template and the headers; copied for each request
    plain: bool  # a Host and no body, and nothing that needs a second look
    length: int | None  # Content-Length
    chunked: bool
    expects_continue: bool
    keep_alive: bool  # whether the connection stays open after HTTP/1.1
    keep_alive_http10: bool  # and after HTTP/1.0
    script_name: str


_Entry = tuple[str, str, int]  # environ key, value, and a bit if the header is special


class _Name(NamedTuple):
    """What one spelling of a header's name means."""

    key: str  # in the environ
    special: int
    lower: str
    is_cached: bool  # whether lines with it are


class Origin:
    """Reads the heads of requests that come from one kind of place."""

    def __init__(
        self,
        template: Mapping[str, Any],
        *,
        trusted: bool = False,
        limits: Limits | None = None,
        trust: Trust | None = None,
        script_name: str = "",
        server_from_host: bool = False,
    ) -> None:
        """`template` has every environ key that no request changes, wsgi.url_scheme included.

        `server_from_host`: a unix socket has neither name nor port, so SERVER_NAME and
        SERVER_PORT are those that the client asked for.
        """
        self.limits = limits or Limits()
        self.trusted = trusted
        self._peers = Peers(trust or Trust(), trusted=trusted)
        self._scheme_values = {
            "HTTP_" + name.upper().replace("-", "_"): value
            for name, value in self._peers.trust.secure_scheme_headers.items()
        }
        self._template = {
            "REQUEST_METHOD": "",
            "RAW_URI": "",
            "PATH_INFO": "",
            "QUERY_STRING": "",
            "SERVER_PROTOCOL": "",
            "SCRIPT_NAME": script_name,
            **template,
        }
        self._script_name = script_name
        self._server_from_host = server_from_host
        self._requests: dict[bytes, RequestLine] = {}
        self._names: dict[bytes, _Name] = {}
        self._lines: dict[bytes, _Entry] = {}
        self._blocks: dict[bytes, Fields] = {}
        self._whole: dict[bytes, tuple[dict[str, Any], RequestLine, bool]] = {}
        self._seen: set[int] = set()

    def whole(self, data: bytes) -> tuple[dict[str, Any], RequestLine, bool] | None:
        """The environ and the first line of the request that `data` is, and whether the connection
        stays open; None if `data` is not exactly one request without a body.

        A request whose every byte was there before is that request again.  Then all of this is
        one look into a dict and a copy.  The environ is as that of `read`.  Raises Refused.
        """
        known = self._whole.get(data)
        if known is None:
            return self._read_whole(data)
        environ, line, keep_alive = known
        return environ.copy(), line, keep_alive

    def _read_whole(self, data: bytes) -> tuple[dict[str, Any], RequestLine, bool] | None:
        end = data.find(HEAD_END)
        if end <= 0 or end + 4 != len(data):
            return None
        environ, line, fields = self.read(data[:end])
        if not fields.plain:
            return None
        keep_alive = fields.keep_alive if line.protocol == "HTTP/1.1" else fields.keep_alive_http10
        # Kept at the second sight: most that never come again would only push others out.
        seen = hash(data)
        if seen in self._seen:
            keep_block(self._whole, data, (environ.copy(), line, keep_alive))
        else:
            if len(self._seen) >= _SEEN:
                self._seen.clear()
            self._seen.add(seen)
        return environ, line, keep_alive

    def read(self, head: bytes) -> tuple[dict[str, Any], RequestLine, Fields]:
        """The environ of the request whose head is `head`, without the empty line that ends it.

        The environ is the caller's own and lacks REMOTE_ADDR, REMOTE_PORT and wsgi.input.
        Raises Refused.
        """
        first, _, block = head.partition(b"\r\n")
        line = self._requests.get(first)
        if line is None:
            line = self._read_line(first)
        fields = self._blocks.get(block)
        if fields is None:
            fields = self._read_block(block)
        environ = fields[0].copy()
        (
            environ["REQUEST_METHOD"],
            environ["RAW_URI"],
            path,
            environ["QUERY_STRING"],
            environ["SERVER_PROTOCOL"],
            authority,
            _,
        ) = line
        environ["PATH_INFO"] = path
        if authority is None and fields[1]:
            return environ, line, fields
        self._check(environ, line, fields)
        return environ, line, fields

    def _check(self, environ: dict[str, Any], line: RequestLine, fields: Fields) -> None:
        """What neither the first line nor the others can tell alone."""
        if line.protocol == "HTTP/1.0":
            if fields.chunked:
                raise Refused(400, "Transfer-Encoding in HTTP/1.0 (RFC 9112 6.1)")
        elif "HTTP_HOST" not in environ:
            raise Refused(400, "there is no Host header (RFC 9112 3.2)")
        if line.authority is not None:
            environ["HTTP_HOST"] = line.authority  # RFC 9112 3.2.2: whatever Host said
            if self._server_from_host:
                self._name_server(environ)
        if fields.script_name:
            environ["PATH_INFO"] = below(fields.script_name, line.path)

    def _read_line(self, first: bytes) -> RequestLine:
        line = parse_request_line(first, self.limits)
        keep_line(self._requests, first, line)
        return line

    def _read_block(self, block: bytes) -> Fields:
        environ = self._template.copy()
        known = self._lines
        bits = 0
        schemes = None
        for text in field_lines(block, self.limits):
            entry = known.get(text)
            if entry is None:
                entry = self._read_field(text)
            key, value, special = entry
            if special:
                if special == _DROPPED:
                    continue
                bits |= special
                if special == _SCHEME:
                    schemes = self._peers.scheme(value, self._scheme_values[key], schemes)
            if key in environ:
                value = self._join(key, environ[key], value)
            environ[key] = value
        if schemes:
            environ["wsgi.url_scheme"] = schemes
        fields = self._interpret(environ, bits)
        keep_block(self._blocks, block, fields)
        return fields

    def _read_field(self, text: bytes) -> _Entry:
        """One header line never seen, or not to be remembered."""
        if 0 < self.limits.field_size < len(text):
            raise Refused(431, "a header field is too large (limit_request_field_size)")
        before, colon, after = text.partition(b":")
        name = self._names.get(before) if colon else None
        if name is None:
            name = self._read_name(text)
        value = field_value(after)
        if name.lower == "host":
            check_host(value)
        entry = (name.key, value, name.special)
        if name.is_cached:
            keep_line(self._lines, text, entry)
        return entry

    def _read_name(self, text: bytes) -> _Name:
        """What the name in a header line means.  Raises Refused."""
        lower, _ = split_field(text)
        upper = lower.upper()
        special = _SPECIAL.get(lower, 0)
        key = "HTTP_" + upper.replace("-", "_")
        if lower in ("content-type", "content-length"):
            key = key.removeprefix("HTTP_")
        if self._peers.tells_scheme(upper):
            special = _SCHEME
        if "_" in lower:
            if self._peers.forwards(upper):
                if upper == "SCRIPT_NAME":
                    special = _SCRIPT_NAME
            elif not self._peers.keeps_underscores():
                special = _DROPPED
        if key == "HTTP_PROXY":
            special = _DROPPED
        name = _Name(key, special, lower, lower not in _UNCACHED)
        if len(lower) <= _LONGEST_NAME:
            if len(self._names) >= _NAMES:
                self._names.clear()
            self._names[text[: len(lower)]] = name
        return name

    def _join(self, key: str, before: str, value: str) -> str:
        name = key.removeprefix("HTTP_").replace("_", "-").lower()
        if name in SINGLE:
            raise twice(name)
        # RFC 9113 8.2.3: cookie pairs are not a comma-separated list.
        return f"{before}; {value}" if name == "cookie" else f"{before},{value}"

    def _interpret(self, environ: dict[str, Any], bits: int) -> Fields:
        """What the headers with these bits ask for."""
        length: int | None = None
        keep_alive, keep_alive_http10 = True, False
        script_name = self._script_name
        if bits & _LENGTH:
            length = content_length(environ["CONTENT_LENGTH"])
        if bits & _CODING:
            check_transfer_encoding(environ["HTTP_TRANSFER_ENCODING"])
            if length is not None:
                raise Refused(400, "both Content-Length and Transfer-Encoding (RFC 9112 6.1)")
        if bits & _CONNECTION:
            options = connection_options(environ["HTTP_CONNECTION"])
            keep_alive = "close" not in options
            keep_alive_http10 = keep_alive and "keep-alive" in options
        if bits & _EXPECT and environ["HTTP_EXPECT"].lower() != "100-continue":
            raise Refused(417, "an expectation is not known here (RFC 9110 10.1.1)")
        if bits & _SCRIPT_NAME:
            environ["SCRIPT_NAME"] = script_name = environ["HTTP_SCRIPT_NAME"]
        if self._server_from_host:
            self._name_server(environ)
        return Fields(
            environ,
            "HTTP_HOST" in environ and not (bits & _NOT_PLAIN or script_name),
            length,
            bits & _CODING != 0,
            bits & _EXPECT != 0,
            keep_alive,
            keep_alive_http10,
            script_name,
        )

    def _name_server(self, environ: dict[str, Any]) -> None:
        host = environ.get("HTTP_HOST", "")
        name, colon, port = host.rpartition(":")
        if not colon or not (port.isdigit() or not port):
            name, port = host, ""  # no port, or the colons of an IPv6 address
        if host and not port:
            port = "443" if environ["wsgi.url_scheme"] == "https" else "80"
        # PEP 3333: neither may be empty.
        environ["SERVER_NAME"] = name or "localhost"
        environ["SERVER_PORT"] = port or "80"

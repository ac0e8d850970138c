"""From the head of a request to the scope of ASGI, by the rules of environ.py.

A `ScopeReader` stands for where requests come from: peers that are trusted to tell of the client
before them, or peers that are not.  It shares the rules for lines with head.py; what it does by
itself is what ASGI does otherwise than WSGI: headers stay a list of bytes, so nothing is joined,
and there is no environ key that two names could share.

The names with an underscore are treated by the rules of trust.py all the same: Django and others
make environ keys of the list.  `Proxy` stays in the list for the same reason that it is kept out of
an environ: nobody reads it from here but who asks for it by name.

**Caches**, as in environ.py and for its reasons: of request lines, of header lines and of whole
blocks of headers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import unquote_to_bytes

from forkmaster.http.caches import keep_block, keep_line
from forkmaster.http.errors import Refused
from forkmaster.http.head import (
    SINGLE,
    Limits,
    below,
    check_host,
    check_transfer_encoding,
    connection_options,
    content_length,
    field_lines,
    parse_request_line,
    split_field,
    twice,
)
from forkmaster.http.trust import AllowList, Peers, Trust

if TYPE_CHECKING:
    from collections.abc import MutableMapping

# Unique to each client, and nothing to keep copies of.
_UNCACHED = frozenset((b"authorization", b"cookie", b"proxy-authorization"))

_SPECIAL = frozenset(
    (
        "connection",
        "content-length",
        "content-type",
        "expect",
        "host",
        "transfer-encoding",
        "upgrade",
        "x-forwarded-for",
    )
)


class Target(NamedTuple):
    """The first line of a request, as a scope shows it."""

    method: str
    path: str
    raw_path: bytes
    query: bytes
    version: str  # "1.0" or "1.1"
    authority: str | None  # of an absolute-form target; overrides Host


class Fields(NamedTuple):
    """What one block of header lines means."""

    headers: list[tuple[bytes, bytes]]  # copied for each request
    plain: bool  # a Host and no body, and nothing that needs a second look
    length: int | None  # Content-Length
    chunked: bool
    expects_continue: bool
    keep_alive: bool  # whether the connection stays open after HTTP/1.1
    keep_alive_http10: bool  # and after HTTP/1.0
    upgrade: bool  # to a websocket
    has_host: bool
    scheme: str | None  # as a trusted proxy says
    client: tuple[str, int] | None  # likewise
    root_path: str | None  # likewise


_Entry = tuple[bytes, bytes, str]  # name, value, and the name again if it is special; b"" drops it


class ScopeReader:
    """Reads the heads of requests that come from one kind of place."""

    def __init__(
        self,
        *,
        root_path: str = "",
        trusted: bool = False,
        limits: Limits | None = None,
        trust: Trust | None = None,
        proxies: AllowList | None = None,
    ) -> None:
        """`proxies` are the trusted ones, of which a list of forwarders is cleared."""
        self.trusted = trusted
        self.limits = limits or Limits()
        self._peers = Peers(trust or Trust(), trusted=trusted)
        self._proxies = proxies or AllowList(())
        self._root_path = root_path
        self._raw_root_path = root_path.encode()
        self._targets: dict[bytes, Target] = {}
        self._lines: dict[bytes, _Entry] = {}
        self._blocks: dict[bytes, Fields] = {}

    def read(self, head: bytes) -> tuple[dict[str, Any], Fields]:
        """The scope of the request whose head is `head`, without the empty line that ends it.

        The scope is the caller's own; server, client, scheme and state are to be set, the middle
        two unless `Fields` has them.  Raises Refused.
        """
        first, _, block = head.partition(b"\r\n")
        target = self._targets.get(first)
        if target is None:
            target = self._read_target(first)
        fields = self._blocks.get(block)
        if fields is None:
            fields = self._read_block(block)
        scope = {
            "type": "http",
            # Applications that take care of a client that is gone do it by this version: from
            # 2.4 on they would wait for an OSError from send, as of uvicorn.
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": target[4],
            "method": target[0],
            "root_path": self._root_path,
            "path": target[1],
            "raw_path": target[2],
            "query_string": target[3],
            "headers": fields[0].copy(),
        }
        if not fields[1] or target[5] is not None:
            self._check(scope, target, fields)
        return scope, fields

    def _check(self, scope: dict[str, Any], target: Target, fields: Fields) -> None:
        """What neither the first line nor the others can tell alone."""
        if target.version == "1.0":
            if fields.chunked:
                raise Refused(400, "Transfer-Encoding in HTTP/1.0 (RFC 9112 6.1)")
        elif not fields.has_host:
            raise Refused(400, "there is no Host header (RFC 9112 3.2)")
        if target.authority is not None:
            # RFC 9112 3.2.2: whatever Host said.
            authority = target.authority.encode("ascii")
            headers = [pair for pair in fields.headers if pair[0] != b"host"]
            scope["headers"] = [(b"host", authority), *headers]
        if fields.root_path is not None:
            below(fields.root_path, target.path)  # or it is refused; a scope has the whole path
            scope["root_path"] = fields.root_path

    def _read_target(self, first: bytes) -> Target:
        line = parse_request_line(first, self.limits)
        raw = line.target.partition("?")[0]
        if line.authority is not None:
            raw = "/" + raw.partition("://")[2].partition("/")[2]
        path = raw
        if "%" in path:
            # Not what parse_request_line decoded, which has one character per byte.
            path = unquote_to_bytes(path).decode("utf-8", "replace")
        target = Target(
            line.method,
            self._root_path + path,
            self._raw_root_path + raw.encode("ascii"),
            line.query.encode("ascii"),
            line.protocol[5:],
            line.authority,
        )
        keep_line(self._targets, first, target)
        return target

    def _read_block(self, block: bytes) -> Fields:
        known = self._lines
        headers = []
        specials = []
        for text in field_lines(block, self.limits):
            entry = known.get(text)
            if entry is None:
                entry = self._read_field(text)
            name, value, special = entry
            if special:
                specials.append((special, value))
            if name:
                headers.append((name, value))
        fields = self._interpret(headers, specials)
        keep_block(self._blocks, block, fields)
        return fields

    def _read_field(self, text: bytes) -> _Entry:
        """One header line never seen, or not to be remembered."""
        if 0 < self.limits.field_size < len(text):
            raise Refused(431, "a header field is too large (limit_request_field_size)")
        name, value = split_field(text)
        special = name if name in _SPECIAL else ""
        upper = name.upper()
        raw = name.encode("ascii")
        if self._peers.tells_scheme(upper):
            special = upper
        if "_" in name:
            if self._peers.forwards(upper):
                if upper == "SCRIPT_NAME":
                    special = upper
            elif not self._peers.keeps_underscores():
                raw, special = b"", ""
        if name == "host":
            check_host(value)
        entry = (raw, value.encode("latin-1"), special)
        if raw not in _UNCACHED:
            keep_line(self._lines, text, entry)
        return entry

    def _interpret(
        self, headers: list[tuple[bytes, bytes]], specials: list[tuple[str, bytes]]
    ) -> Fields:
        length: int | None = None
        chunked = expects_continue = upgrades = False
        options: frozenset[str] = frozenset()
        root_path = None
        scheme: str | None = None
        forwarded_for = []
        seen = set()
        for name, raw in specials:
            value = raw.decode("latin-1")
            if name in SINGLE and name in seen:
                raise twice(name)
            seen.add(name)
            match name:
                case "content-length":
                    length = content_length(value)
                case "transfer-encoding":
                    check_transfer_encoding(value)
                    chunked = True
                case "connection":
                    options |= connection_options(value)
                case "expect":
                    if value.lower() != "100-continue":
                        raise Refused(417, "an expectation is not known here (RFC 9110 10.1.1)")
                    expects_continue = True
                case "upgrade":
                    upgrades = upgrades or value.lower() == "websocket"
                case "x-forwarded-for":
                    forwarded_for.append(value)
                case "host" | "content-type":
                    pass
                case "SCRIPT_NAME":
                    root_path = value
                case _:
                    secure = self._peers.trust.secure_scheme_headers[name]
                    scheme = self._peers.scheme(value, secure, scheme)
        if chunked and length is not None:
            raise Refused(400, "both Content-Length and Transfer-Encoding (RFC 9112 6.1)")
        client = None
        if forwarded_for and self.trusted:
            client = original_client(",".join(forwarded_for), self._proxies)
        upgrade = upgrades and "upgrade" in options
        has_body_or_more = chunked or length or expects_continue or upgrade or root_path is not None
        return Fields(
            headers,
            "host" in seen and not has_body_or_more,
            length,
            chunked,
            expects_continue,
            "close" not in options,
            "close" not in options and "keep-alive" in options,
            upgrade,
            "host" in seen,
            scheme,
            client,
            root_path,
        )


def original_client(forwarded_for: str, proxies: AllowList) -> tuple[str, int] | None:
    """The last address in the list that is not a trusted proxy's; the first if all are.

    Each proxy appends the address it saw; what stands left of that is the client's word.
    """
    client = None
    for entry in reversed(forwarded_for.split(",")):
        client = split_host(entry.strip()) or client
        if client is None or client[0] not in proxies:
            break
    return client


def split_host(text: str) -> tuple[str, int] | None:
    """Host and port of an entry of X-Forwarded-For; the port is 0 without one, as uvicorn's is."""
    host, port = text, ""
    if text.startswith("["):
        host, _, rest = text[1:].partition("]")
        port = rest.removeprefix(":")
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
    if not host:
        return None
    return host, int(port) if port.isascii() and port.isdigit() and len(port) < 6 else 0


def wire_head(scope: MutableMapping[str, Any], raw_target: bytes) -> bytes:
    """A head that says what `scope` does, for a parser that wants bytes."""
    lines = [scope["method"].encode("ascii"), b" ", raw_target, b" HTTP/1.1\r\n"]
    for name, value in scope["headers"]:
        lines += (name, b": ", value, b"\r\n")
    lines.append(b"\r\n")
    return b"".join(lines)

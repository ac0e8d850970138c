"""Reads whole requests without a socket, as the reactor does."""

from __future__ import annotations

from typing import Any, NamedTuple

from forkmaster.http.body import Body, ChunkedBody, LengthBody
from forkmaster.http.environ import Fields, Origin
from forkmaster.http.head import HEAD_END, Limits

TEMPLATE = {
    "SERVER_NAME": "127.0.0.1",
    "SERVER_PORT": "8000",
    "wsgi.url_scheme": "http",
}


class Read(NamedTuple):
    environ: dict[str, Any]
    keep_alive: bool
    body: bytes | None
    rest: bytes


def origin(**options: Any) -> Origin:
    return Origin(TEMPLATE, **options)


def body_of(fields: Fields, limits: Limits) -> Body | None:
    """The reader of the body that the fields promise."""
    if fields.chunked:
        return ChunkedBody(limits)
    return LengthBody(fields.length) if fields.length else None


def read(data: bytes, reader: Origin | None = None) -> Read:
    """The first request in `data`, which has all of it.  Raises Refused."""
    reader = reader or origin()
    head, end, rest = data.partition(HEAD_END)
    assert end
    environ, line, fields = reader.read(head)
    http11 = line.protocol == "HTTP/1.1"
    keep_alive = fields.keep_alive if http11 else fields.keep_alive_http10
    body = body_of(fields, reader.limits)
    if body is None:
        return Read(environ, keep_alive, None, rest)
    after = body.feed(rest)
    assert after is not None
    with body.stream() as stream:
        return Read(environ, keep_alive, stream.read(), after)

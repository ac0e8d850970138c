"""The body of a request for an application that takes it piece by piece.

The same decoders as in body.py; what has come is held in memory until it is taken, and who feeds
them stops reading from the client while that is much.
"""

from __future__ import annotations

from forkmaster.http.body import Body, ChunkedBody, LengthBody
from forkmaster.http.errors import Refused


class StreamedBody(Body):
    """A body that is not kept whole."""

    __slots__ = ()

    @property
    def waiting(self) -> int:
        """How many bytes have come and are not taken."""
        return sum(map(len, self._pieces))

    def take(self) -> bytes:
        """What has come since the last time."""
        data = b"".join(self._pieces)
        self._pieces.clear()
        return data

    def _keep(self, data: bytes | memoryview) -> None:
        self.received += len(data)
        if 0 < self.limit < self.received:
            raise Refused(413, "the body is too large (limit_request_body)")
        self._add(data)


class StreamedLength(StreamedBody, LengthBody):
    """One with a Content-Length."""

    __slots__ = ()


class StreamedChunks(StreamedBody, ChunkedBody):
    """One in chunks."""

    __slots__ = ()


class StreamedFrames(StreamedBody):
    """One of HTTP/2, whose frames tell its end."""

    __slots__ = ()

    def feed(self, data: bytes) -> None:
        """Take `data`.  Raises Refused 413."""
        self._keep(data)

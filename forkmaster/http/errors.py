"""Why a request is refused: the status it is answered with, and a reason for the log."""

from __future__ import annotations

SPEAKS_TLS = "this port speaks TLS; write https:// before the address"


class Refused(Exception):  # noqa: N818 - an outcome of reading, not a fault of ours
    """A request that the server answers itself, after which it closes the connection.

    `status` is the HTTP status of the answer.  The reason says what was wrong and is shown to
    the client as well as logged, so it never quotes what the client sent.
    """

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


class BodyEndedError(Refused):
    """The client stopped sending, or left, before its body was complete."""

    def __init__(self) -> None:
        super().__init__(400, "the body ended before it was complete (RFC 9112 8)")

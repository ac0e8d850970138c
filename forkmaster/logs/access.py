"""What the access log tells of one request; access_format.py makes a line of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

Header = tuple[str, str] | tuple[bytes, bytes]

# How a request ended that was not answered as it should be; an AccessEntry has one of them.
CLIENT_LEFT = "client_left"
TIMED_OUT = "timed_out"
REFUSED = "refused"
CUT_OFF = "cut_off"  # its worker was ended, or died

# What is logged where no status was sent: nginx's number for the first, and what a proxy in front
# answers in place of the others.
UNSENT = {CLIENT_LEFT: 499, TIMED_OUT: 504, CUT_OFF: 502}

LONGEST_LINE = 2048  # of what nobody could read


class AccessEntry:
    """One request, as a worker of any kind tells it."""

    __slots__ = (
        "client",
        "duration",
        "ending",
        "environ",
        "generation",
        "method",
        "protocol",
        "request_headers",
        "response_headers",
        "sent",
        "serial",
        "status",
        "target",
        "text",
        "trusted",
    )

    def __init__(
        self,
        client: str,
        method: str,
        target: str,
        protocol: str,
        status: int,
        sent: int,
        duration: int,
        *,
        environ: Mapping[str, Any] | None = None,
        request_headers: Iterable[Header] = (),
        response_headers: Iterable[Header] = (),
        trusted: bool = False,
        ending: str = "",
        serial: int = 0,
        generation: int = 0,
    ) -> None:
        self.client = client
        """The peer's address without its port; empty on a unix socket."""
        self.text = f"{method} {target} {protocol}"
        """The first line of the request."""
        self.method = method
        self.target = target
        """As it was sent, with the query."""
        self.protocol = protocol
        """"HTTP/1.1"."""
        self.status = status or UNSENT.get(ending, 0)
        self.sent = sent
        """Bytes of the body."""
        self.duration = duration
        """Nanoseconds from the first byte of the request to the last of the answer."""
        self.environ = environ
        """Of a WSGI application; its HTTP_ variables are then the request's headers."""
        self.request_headers = request_headers
        self.response_headers = response_headers
        self.trusted = trusted
        """Whether the peer is a proxy whose X-Request-Start is believed."""
        self.ending = ending
        """One of the words above; empty if the whole answer was given to the socket."""
        self.serial = serial
        """Of the worker, as is its generation."""
        self.generation = generation


def first_line(head: bytes) -> tuple[str, str, str]:
    """The method, target and protocol of a request, whatever a client made of them."""
    line = head.lstrip(b"\r\n").partition(b"\r\n")[0][:LONGEST_LINE].decode("latin-1")
    words = [*line.split(" ", 2), "", ""]
    return words[0] or "-", words[1] or "-", words[2] or "-"

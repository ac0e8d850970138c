"""Stand-in for gunicorn.util: the few functions that configuration files call."""

from __future__ import annotations

import os
from email.utils import formatdate


def getcwd() -> str:
    """The current folder, by the name in PWD if that is the same folder."""
    named, current = os.environ.get("PWD", ""), os.getcwd()
    try:
        return named if os.path.samefile(named, current) else current
    except OSError:
        return current


def http_date(timestamp: float | None = None) -> str:
    """A date as HTTP writes it."""
    return formatdate(timestamp, usegmt=True)


def to_bytestring(value: str | bytes, encoding: str = "utf8") -> bytes:
    """`value` as bytes."""
    return value if isinstance(value, bytes) else value.encode(encoding)


def is_ipv6(address: str) -> bool:
    """Whether `address` is written in IPv6's way."""
    return ":" in address

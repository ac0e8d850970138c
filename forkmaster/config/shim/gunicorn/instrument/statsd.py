"""Stand-in for gunicorn.instrument.statsd."""

from __future__ import annotations

from gunicorn.glogging import Logger


class Statsd(Logger):  # type: ignore[misc]
    pass

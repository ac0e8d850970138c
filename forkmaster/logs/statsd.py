"""statsd and dogstatsd: gunicorn's metrics, under gunicorn's names, from every kind of worker.

    gunicorn.requests                 one more, counted in the process that served it
    gunicorn.request.duration         how long it took, milliseconds
    gunicorn.request.status.<code>    one more of that status
    gunicorn.log.<level>              one more warning, error, exception or critical message
    gunicorn.workers                  how many there are, told by the master when it changes
    gunicorn.backlog                  how many connections wait, with enable_backlog_metric

gunicorn's is a logger, so that its uvicorn workers, which log by themselves, send nothing.  The
metrics of a request go out in one datagram, with a newline between them, as every statsd takes it.

A datagram that cannot be sent is dropped, never waited for: that is what statsd is made for.
"""

from __future__ import annotations

import logging
import socket
from typing import TYPE_CHECKING, Any

from forkmaster.addresses import TCPAddress, UnixAddress

if TYPE_CHECKING:
    from forkmaster.logs.access import AccessEntry

log = logging.getLogger("forkmaster.error")


class Statsd:
    """Where metrics go.  Made in the master; every child sends through the same socket."""

    def __init__(self, address: TCPAddress | UnixAddress, prefix: str, tags: str) -> None:
        """Resolves the name of the host, which may block.  Raises OSError if it has no address."""
        self._prefix = f"{prefix.rstrip('.')}." if prefix.rstrip(".") else ""
        self._end = f"|#{tags}" if tags else ""
        self._place: Any
        if isinstance(address, UnixAddress):
            family, self._place = socket.AF_UNIX, address.path
        else:
            found = _addresses(address)
            family, _, _, _, self._place = found[0]
        self._shown = str(address)
        self._socket = socket.socket(family, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._has_complained = False

    def request(self, entry: AccessEntry) -> None:
        """Tell of one request.  In the worker that served it."""
        self._send(
            f"gunicorn.request.duration:{entry.duration / 1e6:.3f}|ms",
            "gunicorn.requests:1|c|@1.0",
            f"gunicorn.request.status.{entry.status}:1|c|@1.0",
        )

    def increment(self, name: str) -> None:
        """One more of what is called `name`."""
        self._send(f"{name}:1|c|@1.0")

    def gauge(self, name: str, value: int) -> None:
        """What is called `name` is `value` now."""
        self._send(f"{name}:{value}|g")

    def histogram(self, name: str, value: int) -> None:
        """What is called `name` was `value`, once."""
        self._send(f"{name}:{value}|h")

    def close(self) -> None:
        self._socket.close()

    def _send(self, *metrics: str) -> None:
        lines = [f"{self._prefix}{metric}{self._end}" for metric in metrics]
        try:
            # By its address each time, so that a server that starts anew is found again.
            self._socket.sendto("\n".join(lines).encode("utf-8", "replace"), self._place)
        except BlockingIOError:
            pass  # it does not keep up
        except OSError as exc:
            if not self._has_complained:
                self._has_complained = True  # first: the line below is counted here, too
                log.warning("cannot send to statsd at %s: %s", self._shown, exc.strerror)


def _addresses(address: TCPAddress) -> list[Any]:
    try:
        return socket.getaddrinfo(address.host, address.port, type=socket.SOCK_DGRAM)
    except UnicodeError as exc:  # what cannot be the name of a host
        raise OSError(0, str(exc)) from exc


class StatsdHandler(logging.Handler):
    """Counts what goes into the error log, by its level."""

    def __init__(self, statsd: Statsd) -> None:
        super().__init__(logging.WARNING)
        self._statsd = statsd

    def emit(self, record: logging.LogRecord) -> None:
        kind = "exception" if record.exc_info else record.levelname.lower()
        self._statsd.increment(f"gunicorn.log.{kind}")

"""The way to syslog, over UDP, TCP or a unix socket, with gunicorn's settings."""

from __future__ import annotations

import logging
import socket
from logging.handlers import SysLogHandler
from typing import TYPE_CHECKING

from forkmaster.addresses import TCPAddress, parse_address
from forkmaster.errors import ConfigError, ForkmasterError
from forkmaster.logs import losses

if TYPE_CHECKING:
    from forkmaster.config.table import Config

DEFAULT_PORT = 514
# None: SysLogHandler tries datagrams, then a stream.
UNIX_KINDS = {"": None, "dgram": socket.SOCK_DGRAM, "stream": socket.SOCK_STREAM}
SCHEMES = {"udp": socket.SOCK_DGRAM, "tcp": socket.SOCK_STREAM}


class SyslogHandler(SysLogHandler):
    """Sends records to syslog, and counts those that it could not send."""

    append_nul = False
    lost = 0

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 (logging's name)
        # Not to standard error: that may be the log which is full.
        self.lost += 1
        losses.count(1)


def syslog_handler(config: Config, log: str) -> logging.Handler:
    """A handler for the log of that name, "error" or "access".

    Raises ConfigError if the address or the facility is wrong, and ForkmasterError if nobody
    answers over TCP.  The others do not notice, or try again with each line.
    """
    address, kind = parse_syslog_address(config.syslog_addr)
    facility = SysLogHandler.facility_names.get(config.syslog_facility.lower())
    if facility is None:
        raise ConfigError(f'syslog_facility: "{config.syslog_facility}" is no syslog facility')
    try:
        handler = SyslogHandler(address, facility, kind)
    except OSError as exc:
        raise ForkmasterError(f"cannot log to {config.syslog_addr}: {exc.strerror or exc}") from exc
    # Without colons: the first one ends the name of the program.
    name = config.syslog_prefix or (config.proc_name or config.app or "").replace(":", ".")
    tag = ".".join(part for part in ("forkmaster", name, log) if part)
    # RFC 6587 3.4.2: on a stream, a newline ends the message.
    end = "\n" if kind == socket.SOCK_STREAM else ""
    handler.setFormatter(logging.Formatter(f"{tag}: [%(process)d] %(message)s{end}"))
    return handler


def parse_syslog_address(
    text: str,
) -> tuple[str | tuple[str, int], socket.SocketKind | None]:
    """A path or a host and port, and the kind of socket; None is "whichever answers"."""
    scheme, separator, rest = text.partition("://")
    if scheme == "unix" and separator and rest:
        path, _, kind = rest.partition("#")
        if kind in UNIX_KINDS:
            return path, UNIX_KINDS[kind]
    elif scheme in SCHEMES and separator:
        has_port = rest.rpartition(":")[2].isdigit()  # the last of [::1] ends with a bracket
        try:
            address = parse_address(rest if has_port else f"{rest}:{DEFAULT_PORT}")
        except ValueError as exc:
            raise ConfigError(f"syslog_addr: {exc}") from exc
        if isinstance(address, TCPAddress):
            return (address.host, address.port), SCHEMES[scheme]
    raise ConfigError(
        f'syslog_addr: "{text}" is not udp://HOST:PORT, tcp://HOST:PORT or unix://PATH#dgram'
    )

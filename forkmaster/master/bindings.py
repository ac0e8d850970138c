"""The listeners of the server, by address, and the files that go with some of them.  In the master.

The master holds every listener open until the last worker is gone: closing the last descriptor of
a listening socket resets whatever is queued on it, and a worker that dies must cost its own
requests only.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from forkmaster.system.listeners import (
    SocketFile,
    address_of,
    backlog_limit,
    open_listener,
    socket_file,
)

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterable

    from forkmaster.addresses import Address
    from forkmaster.config.table import Config

log = logging.getLogger("forkmaster.error")


@dataclass(frozen=True)
class Binding:
    """One listener."""

    socket: socket.socket
    file: SocketFile | None
    """Of a unix socket that we made; it goes when the listener does."""

    def close(self) -> None:
        if self.file is not None:
            self.file.remove()
        self.socket.close()


class Bindings:
    """Every listener of the server."""

    def __init__(self) -> None:
        self._bindings: dict[Address, Binding] = {}

    @classmethod
    def open(cls, config: Config) -> Bindings:
        """Bind what `config` names.  Raises BindError, with nothing left bound."""
        bindings = cls()
        bindings.add(config)
        limit = backlog_limit()
        if limit is not None and config.backlog > limit:
            log.warning(
                "backlog %d is more than the kernel grants; it grants %d (net.core.somaxconn)",
                config.backlog,
                limit,
            )
        return bindings

    def add(self, config: Config) -> list[Address]:
        """Bind the addresses of `config` that are not bound yet, all or none; returns them."""
        added: list[Address] = []
        try:
            for address in config.bind:
                if address not in self._bindings:
                    self._bindings[address] = _bind(address, config)
                    added.append(address)
        except BaseException:
            self.drop(added)
            raise
        return added

    def drop(self, addresses: Iterable[Address]) -> None:
        """Close the listeners of these addresses.  What is queued on them is reset."""
        for address in addresses:
            self._bindings.pop(address).close()
            log.info("no longer listening on %s", address)

    def keep(self, config: Config) -> None:
        """Close every listener that `config` does not name."""
        self.drop([address for address in self._bindings if address not in config.bind])

    def of(self, config: Config) -> tuple[socket.socket, ...]:
        """The sockets that the workers of `config` serve."""
        return tuple(self._bindings[address].socket for address in config.bind)

    def close(self) -> None:
        """Close them all: the server has ended."""
        for binding in self._bindings.values():
            binding.close()
        self._bindings.clear()


def _bind(address: Address, config: Config) -> Binding:
    owner = None
    if config.socket_user is not None or config.socket_group is not None:
        owner = (
            -1 if config.socket_user is None else config.socket_user,
            -1 if config.socket_group is None else config.socket_group,
        )
    mode = config.socket_mode
    if mode is None and config.umask is not None:
        mode = 0o777 & ~config.umask
    listener = open_listener(
        address, backlog=config.backlog, reuse_port=config.reuse_port, mode=mode, owner=owner
    )
    log.info("listening on %s (fd %d)", address_of(listener), listener.fileno())
    return Binding(listener, socket_file(listener) if str(address).startswith("unix:") else None)

"""The listeners of the server, by address, and the files that go with some of them.  In the master.

The master holds every listener open until the last worker is gone: closing the last descriptor of
a listening socket resets whatever is queued on it, and a worker that dies must cost its own
requests only.

Sockets that systemd has opened are served instead of what `bind` names.  They are its own: they
outlive this server, so their files are never unlinked, and a reload neither adds nor drops one.
"""

from __future__ import annotations

import logging
import os
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from forkmaster.addresses import DescriptorAddress, UnixAddress, parse_address
from forkmaster.config.table import SETTINGS
from forkmaster.errors import BindError
from forkmaster.master.upgrade import ListenerState
from forkmaster.system.listeners import (
    SocketFile,
    address_of,
    backlog_limit,
    is_stream,
    open_listener,
    socket_file,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from forkmaster.addresses import Address
    from forkmaster.config.table import Config
    from forkmaster.system.systemd import InheritedSocket

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
        self._inherited: tuple[Address, ...] = ()

    @classmethod
    def open(cls, config: Config, inherited: Sequence[InheritedSocket] = ()) -> Bindings:
        """Take the inherited sockets, or bind what `config` names.

        Raises BindError, with nothing left bound.
        """
        bindings = cls()
        bindings._adopt(inherited, config)
        bindings.add(config)
        limit = backlog_limit()
        if limit is not None and config.backlog > limit:
            log.warning(
                "backlog %d is more than the kernel grants; it grants %d (net.core.somaxconn)",
                config.backlog,
                limit,
            )
        return bindings

    @classmethod
    def adopt(cls, listeners: Iterable[ListenerState]) -> Bindings:
        """The listeners that the program before this one has left open."""
        bindings = cls()
        for left in listeners:
            file = left.file and SocketFile(Path(left.file[0]), left.file[1], left.file[2])
            adopted = socket.socket(fileno=left.fd)
            adopted.setblocking(False)
            address = parse_address(left.address)
            bindings._bindings[address] = Binding(adopted, file)
            if left.inherited:
                bindings._inherited += (address,)
        return bindings

    def state(self) -> tuple[ListenerState, ...]:
        """What `adopt` takes."""
        states = []
        for address, binding in self._bindings.items():
            file = None
            if binding.file is not None:
                file = (str(binding.file.path), binding.file.device, binding.file.inode)
            fd, is_inherited = binding.socket.fileno(), address in self._inherited
            states.append(ListenerState(str(address), fd, file, is_inherited))
        return tuple(states)

    def add(self, config: Config) -> list[Address]:
        """Bind the addresses of `config` that are not bound yet, all or none; returns them."""
        added: list[Address] = []
        for address in config.monitor_bind:
            if address in self._addresses(config):
                raise BindError(f"monitor_bind: {address} is an address of the application's")
        try:
            for address in (*self._addresses(config), *config.monitor_bind):
                if address not in self._bindings:
                    self._bindings[address] = _bind(address, config)
                    added.append(address)
        except BaseException:
            self.drop(added)
            raise
        if added:
            log.info("listening on %s", ", ".join(map(self._told, added)))
        return added

    def drop(self, addresses: Iterable[Address]) -> None:
        """Close the listeners of these addresses.  What is queued on them is reset."""
        for address in addresses:
            self._bindings.pop(address).close()
            log.info("no longer listening on %s", address)

    def keep(self, config: Config) -> None:
        """Close every listener that `config` does not name."""
        kept = (*self._addresses(config), *config.monitor_bind)
        self.drop([address for address in self._bindings if address not in kept])

    def of(self, config: Config) -> tuple[socket.socket, ...]:
        """The sockets that the workers of `config` serve."""
        return tuple(self._bindings[address].socket for address in self._addresses(config))

    def of_monitor(self, config: Config) -> tuple[socket.socket, ...]:
        """The sockets that the monitor serves."""
        return tuple(self._bindings[address].socket for address in config.monitor_bind)

    def others(self, served: Sequence[socket.socket]) -> tuple[socket.socket, ...]:
        """Every socket that is not among these."""
        return tuple(b.socket for b in self._bindings.values() if b.socket not in served)

    def close(self) -> None:
        """Close them all: the server has ended."""
        for binding in self._bindings.values():
            binding.close()
        self._bindings.clear()

    def _told(self, address: Address) -> str:
        listener = self._bindings[address].socket
        return f"{address_of(listener)} (fd {listener.fileno()})"

    def _addresses(self, config: Config) -> tuple[Address, ...]:
        return self._inherited or config.bind

    def _adopt(self, inherited: Sequence[InheritedSocket], config: Config) -> None:
        for each in inherited:
            if not is_stream(each.fd):
                # OpenFile= and the file descriptor store pass theirs in the same list.
                log.info("fd %d from systemd (%s) is no stream socket; ignored", each.fd, each.name)
                continue
            address = DescriptorAddress(each.fd)
            listener = open_listener(address, backlog=config.backlog)
            self._bindings[address] = Binding(listener, None)
            self._inherited += (address,)
            log.info(
                "listening on %s (fd %d, opened by systemd for %s)",
                *(address_of(listener), each.fd, each.name),
            )
        passed = [address_of(binding.socket) for binding in self._bindings.values()]
        named = set(config.bind) - {*passed, *self._inherited}
        if passed and named and config.bind != SETTINGS["bind"].default:
            log.info(
                "bind %s is ignored: systemd has opened %s",
                ", ".join(map(str, config.bind)),
                ", ".join(map(str, passed)),
            )


def _bind(address: Address, config: Config) -> Binding:
    mode = config.socket_mode
    if mode is None and config.umask is not None:
        mode = 0o777 & ~config.umask
    listener = open_listener(
        address,
        backlog=config.backlog,
        reuse_port=config.reuse_port,
        mode=mode,
        owner=_owner(config),
    )
    made = isinstance(address, UnixAddress)
    return Binding(listener, socket_file(listener) if made else None)


def _owner(config: Config) -> tuple[int, int] | None:
    """Whose a unix socket is to be; None leaves it to whoever starts the server."""
    user, group = config.socket_user, config.socket_group
    if os.geteuid() == 0:
        # Only root can become another user, so only then the workers run as one.
        user = config.user if user is None else user
        group = config.group if group is None else group
    if user is None and group is None:
        return None
    return -1 if user is None else user, -1 if group is None else group

"""Listening sockets: opened, adopted from whoever started us, and their files taken away again.

What comes out is non-blocking, listening, and closed by exec.  Every failure is a BindError whose
message is the whole line for the log: "cannot bind 0.0.0.0:80: Permission denied".
"""

from __future__ import annotations

import errno
import os
import socket
import stat
from dataclasses import dataclass
from pathlib import Path

from forkmaster.addresses import Address, DescriptorAddress, TCPAddress, UnixAddress
from forkmaster.errors import BindError
from forkmaster.system.processes import Holder, listener_at, listener_on


@dataclass(frozen=True)
class SocketFile:
    """The file of a unix socket that we bound, known by its inode."""

    path: Path
    device: int
    inode: int

    def remove(self) -> bool:
        """Unlink it, unless somebody has put another one there; whether it did."""
        try:
            status = self.path.lstat()
            if (status.st_dev, status.st_ino) != (self.device, self.inode):
                return False
            self.path.unlink()
        except OSError:
            return False  # gone, or its folder is not ours any more
        return True


def open_listener(
    address: Address,
    *,
    backlog: int,
    reuse_port: bool = False,
    mode: int | None = None,
    owner: tuple[int, int] | None = None,
) -> socket.socket:
    """A socket that listens on `address`.

    `mode` and `owner` (uid, gid) are those of a unix socket's file; without `mode` the umask of
    the process counts.  Blocks only to look up a host name.  Raises BindError.
    """
    match address:
        case TCPAddress():
            listener = _bind_tcp(address, reuse_port)
        case UnixAddress():
            listener = _bind_unix(address, mode, owner)
        case DescriptorAddress():
            return _adopt(address, backlog)
    try:
        listener.listen(backlog)
    except OSError as exc:
        listener.close()
        raise _cannot_bind(address, exc) from exc
    return listener


def is_stream(fd: int) -> bool:
    """Whether the descriptor is a socket of the kind that an HTTP server can listen on."""
    try:
        with socket.socket(fileno=os.dup(fd)) as sock:
            return sock.type == socket.SOCK_STREAM
    except OSError:
        return False  # closed, or something else


def socket_file(listener: socket.socket) -> SocketFile | None:
    """The file of a listener that was just bound by this process; None if it has none.

    To be asked at once: later the path may be somebody else's.
    """
    if listener.family != socket.AF_UNIX:
        return None
    name = listener.getsockname()
    if isinstance(name, bytes) or not name:
        return None  # abstract, or without a name
    path = Path(name).absolute()  # the server may change its folder before it stops
    status = path.lstat()
    return SocketFile(path, status.st_dev, status.st_ino)


def address_of(listener: socket.socket) -> Address:
    """The address that a listener has in fact: port 0 has become a number."""
    name = listener.getsockname()
    if listener.family == socket.AF_UNIX:
        return UnixAddress(os.fsdecode(name))
    return TCPAddress(name[0], name[1])


def backlog_limit() -> int | None:
    """The longest accept queue that the kernel grants, whatever `backlog` asks; None if unknown."""
    try:
        return int(Path("/proc/sys/net/core/somaxconn").read_text())
    except OSError:
        return None


def _bind_tcp(address: TCPAddress, reuse_port: bool) -> socket.socket:
    family, sockaddr = _look_up(address)
    try:
        listener = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    except OSError as exc:  # a kernel without IPv6; no descriptor left
        raise _cannot_bind(address, exc) from exc
    try:
        # Otherwise a restart has to wait for the connections in TIME_WAIT.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Inherited by every connection accepted, which saves each a system call.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if reuse_port:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind(sockaddr)
    except OSError as exc:
        listener.close()
        raise _cannot_bind(address, exc) from exc
    return listener


def _look_up(address: TCPAddress) -> tuple[socket.AddressFamily, tuple[object, ...]]:
    # IPv4 first, as gunicorn does: clients that are told "localhost" try 127.0.0.1 at the latest
    # as their second choice, while a server on ::1 alone surprises proxies.
    families = (socket.AF_INET6,) if ":" in address.host else (socket.AF_INET, socket.AF_INET6)
    for family in families:
        try:
            found = socket.getaddrinfo(
                address.host, address.port, family, socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )
        except socket.gaierror as exc:
            failure = exc
            continue
        return found[0][0], found[0][4]
    raise BindError(f"cannot bind {address}: {failure.strerror}") from failure


def _bind_unix(
    address: UnixAddress, mode: int | None, owner: tuple[int, int] | None
) -> socket.socket:
    if not address.abstract:
        _make_way(address)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    # By the umask and not by chmod: there is no moment in which others may connect.
    umask = os.umask(0o777 & ~mode) if mode is not None else None
    try:
        listener.bind(address.path)
    except OSError as exc:
        listener.close()
        raise _cannot_bind(address, exc) from exc
    finally:
        if umask is not None:
            os.umask(umask)
    if owner is not None and not address.abstract:
        try:
            os.chown(address.path, *owner)
        except OSError as exc:
            os.unlink(address.path)
            listener.close()
            raise _cannot_bind(address, exc) from exc
    return listener


def _make_way(address: UnixAddress) -> None:
    """Remove the socket file of a server that died; refuse anything else at that path."""
    try:
        status = os.lstat(address.path)
    except OSError:
        return  # nothing there, or bind will say what is wrong
    if not stat.S_ISSOCK(status.st_mode):
        raise BindError(f"cannot bind {address}: a file that is not a socket is there")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
        problem = probe.connect_ex(address.path)
    if problem == errno.ECONNREFUSED:
        try:
            os.unlink(address.path)
        except OSError as exc:
            raise _cannot_bind(address, exc) from exc
    elif problem in (0, errno.EAGAIN):  # EAGAIN: its queue is full, so it is very much in use
        raise _in_use(address, listener_at(address.path))
    elif problem != errno.ENOENT:
        raise _cannot_bind(address, OSError(problem, os.strerror(problem)))


def _adopt(address: DescriptorAddress, backlog: int) -> socket.socket:
    """The socket that a supervisor, a test or our former self has opened for us."""
    try:
        listener = socket.socket(fileno=address.fd)
    except OSError as exc:
        raise BindError(f"cannot use {address}: {exc.strerror}") from exc
    try:
        if listener.type != socket.SOCK_STREAM:
            raise BindError(f"cannot use {address}: not a stream socket")
        # Not listened to again: under SELinux that needs a right which the creator had.
        if not listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            listener.listen(backlog)
        if listener.family != socket.AF_UNIX:
            # As for those we bind; whoever opened it rarely thought of it.
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        listener.setblocking(False)
        listener.set_inheritable(False)
    except OSError as exc:
        listener.detach()  # it was not ours to close
        raise BindError(f"cannot use {address}: {exc.strerror}") from exc
    except BindError:
        listener.detach()
        raise
    return listener


def _cannot_bind(address: Address, exc: OSError) -> BindError:
    if exc.errno == errno.EADDRINUSE:
        holder = listener_on(address.port) if isinstance(address, TCPAddress) else None
        return _in_use(address, holder)
    # A path longer than the 107 bytes of sockaddr_un has a text of its own and no number.
    return BindError(f"cannot bind {address}: {exc.strerror or exc}", exc.errno)


def _in_use(address: Address, holder: Holder | None) -> BindError:
    by = f" by {holder}" if holder else ""
    message = f"cannot bind {address}: {os.strerror(errno.EADDRINUSE)}{by}"
    return BindError(message, errno.EADDRINUSE)

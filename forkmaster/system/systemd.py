"""What systemd hands a service and wants to hear from it: sd_listen_fds(3) and sd_notify(3).

Both are a few variables of the environment.  They are taken out of it, so that neither a worker
nor a program that the application starts can believe they were meant for it.
"""

from __future__ import annotations

import socket
from collections.abc import MutableMapping, Sequence
from dataclasses import dataclass

FIRST_FD = 3


@dataclass(frozen=True)
class InheritedSocket:
    fd: int
    name: str
    """FileDescriptorName= of the socket unit; "unknown" if it has none."""


def take_inherited_sockets(environ: MutableMapping[str, str], pid: int) -> list[InheritedSocket]:
    """The sockets that systemd opened for the process `pid`, which is this one."""
    for_whom, count, names = (
        environ.pop(name, "") for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")
    )
    if for_whom != str(pid) or not count.isdigit():
        return []  # for the shell that started us, or for nobody
    fds = range(FIRST_FD, FIRST_FD + int(count))
    given = names.split(":") if names else []
    return [
        InheritedSocket(fd, given[i] if i < len(given) and given[i] else "unknown")
        for i, fd in enumerate(fds)
    ]


class Notifier:
    """The way to tell the service manager how we are.  Silent where there is none."""

    def __init__(self, address: str | None, watchdog: float | None) -> None:
        self.address = address
        """As in NOTIFY_SOCKET; a master that replaces itself by exec puts it back there."""
        self.watchdog = watchdog
        """Seconds after which systemd kills a master that sent no WATCHDOG=1; None for never."""

    @classmethod
    def take(cls, environ: MutableMapping[str, str], pid: int) -> Notifier:
        """The notifier that the environment describes, for the process `pid`, which is this one."""
        address, interval, for_whom = (
            environ.pop(name, "") for name in ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")
        )
        watched = interval.isdigit() and int(interval) > 0 and for_whom in ("", str(pid))
        # Paths and Linux's abstract names; anything else is for a machine that we are not.
        is_local = address.startswith(("/", "@"))
        return cls(address if is_local else None, int(interval) / 1e6 if watched else None)

    def variables(self) -> dict[str, str]:
        """What `take` took, for a program that this process becomes by exec."""
        found = {"NOTIFY_SOCKET": self.address} if self.address else {}
        if self.watchdog is not None:
            found["WATCHDOG_USEC"] = str(round(self.watchdog * 1e6))
        return found

    def send(self, *assignments: str, fds: Sequence[int] = ()) -> bool:
        """Send assignments as "READY=1" or "STATUS=4 workers" in one message; whether it went.

        Never blocks and never fails: a service must not stop because nobody listens.  Those that
        belong together, RELOADING=1 and MONOTONIC_USEC, must be in one call.
        """
        if self.address is None:
            return False
        message = "\n".join(line.replace("\n", " ") for line in assignments).encode()
        name = "\0" + self.address[1:] if self.address.startswith("@") else self.address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sender:
                sender.connect(name)
                if fds:
                    socket.send_fds(sender, [message], fds)
                else:
                    sender.send(message)
        except OSError:
            return False
        return True

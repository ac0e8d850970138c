"""What systemd does for a service with a socket unit, as a program that executes the service.

    socket_unit.py NAME=ADDRESS … -- COMMAND …

An address is the path of a unix socket to bind, or the number of a descriptor that listens.  They
are handed over as descriptors 3 and up; this becomes COMMAND, so that LISTEN_PID is right.
"""

from __future__ import annotations

import fcntl
import os
import socket
import sys

FIRST_FD = 3


def listener(address: str) -> socket.socket:
    if address.isdigit():
        return socket.socket(fileno=int(address))
    made = socket.socket(socket.AF_UNIX)
    made.bind(address)
    made.listen(128)
    return made


def main() -> None:
    separator = sys.argv.index("--")
    units, command = sys.argv[1:separator], sys.argv[separator + 1 :]
    names, addresses = zip(*(unit.split("=") for unit in units), strict=True)
    listeners = [listener(address) for address in addresses]
    # Out of the way first, so that no dup2 below closes one that is still needed.
    high = [fcntl.fcntl(each, fcntl.F_DUPFD, FIRST_FD + len(listeners)) for each in listeners]
    for number, fd in enumerate(high, FIRST_FD):
        os.dup2(fd, number)
        os.close(fd)
    os.environ["LISTEN_PID"] = str(os.getpid())
    os.environ["LISTEN_FDS"] = str(len(listeners))
    os.environ["LISTEN_FDNAMES"] = ":".join(names)
    os.execvp(command[0], command)


main()

"""How many connections wait in the accept queue of a listener.

The kernel tells it in two ways: for TCP in the TCP_INFO of the listening socket, for unix sockets
over netlink, sock_diag(7).  Neither needs a privilege, and both answer for the moment of the call;
a burst between two calls is not seen.
"""

from __future__ import annotations

import os
import socket
import struct
from dataclasses import dataclass

# struct tcp_info of linux/tcp.h: eight bytes, four words, tcpi_unacked, tcpi_sacked.  For a socket
# that listens, the last two are the length of the queue and its limit.
TCP_INFO_SIZE = 32
TCP_INFO_QUEUE = struct.Struct("=24x II")

# linux/netlink.h, linux/sock_diag.h, linux/unix_diag.h.
NETLINK_SOCK_DIAG = 4
SOCK_DIAG_BY_FAMILY = 20
NLM_F_REQUEST = 1
UDIAG_SHOW_RQLEN = 0x10
UNIX_DIAG_RQLEN = 4
NETLINK_HEADER = struct.Struct("=IHHII")
UNIX_DIAG_REQUEST = struct.Struct("=BBHIIIII")
UNIX_DIAG_ANSWER_SIZE = 16
ATTRIBUTE = struct.Struct("=HH")
ANY_STATE = ANY_COOKIE = 0xFFFFFFFF


@dataclass(frozen=True)
class AcceptQueue:
    waiting: int
    """Connections that nobody has accepted yet."""
    limit: int
    """How many there can be: the least of `backlog` and somaxconn.  The next ones are refused,
    or, for TCP, wait without an answer."""


def accept_queue(listener: socket.socket) -> AcceptQueue | None:
    """The queue of a listener now; None where the kernel does not tell."""
    try:
        return _of_unix(listener) if listener.family == socket.AF_UNIX else _of_tcp(listener)
    except OSError:
        return None  # another system, or a sandbox without netlink


def _of_tcp(listener: socket.socket) -> AcceptQueue:
    info = listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, TCP_INFO_SIZE)
    return AcceptQueue(*TCP_INFO_QUEUE.unpack(info))


def _of_unix(listener: socket.socket) -> AcceptQueue | None:
    inode = os.fstat(listener.fileno()).st_ino
    request = UNIX_DIAG_REQUEST.pack(
        socket.AF_UNIX, 0, 0, ANY_STATE, inode, UDIAG_SHOW_RQLEN, ANY_COOKIE, ANY_COOKIE
    )
    header = NETLINK_HEADER.pack(
        NETLINK_HEADER.size + len(request), SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST, 0, 0
    )
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_SOCK_DIAG) as kernel:
        kernel.send(header + request)
        return parse_answer(kernel.recv(4096))


def parse_answer(answer: bytes) -> AcceptQueue | None:
    """The queue in a message of netlink; None if it is an error or lacks it."""
    _, type_, *_ = NETLINK_HEADER.unpack_from(answer)
    if type_ != SOCK_DIAG_BY_FAMILY:
        return None
    at = NETLINK_HEADER.size + UNIX_DIAG_ANSWER_SIZE
    while at + ATTRIBUTE.size <= len(answer):
        length, kind = ATTRIBUTE.unpack_from(answer, at)
        if kind == UNIX_DIAG_RQLEN:
            return AcceptQueue(*struct.unpack_from("=II", answer, at + ATTRIBUTE.size))
        at += max(ATTRIBUTE.size, (length + 3) & ~3)  # attributes begin at multiples of four
    return None

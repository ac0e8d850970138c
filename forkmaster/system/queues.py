"""How many connections wait in the accept queue of a listener.

The kernel tells it in two ways: for TCP in the TCP_INFO of the listening socket, for unix sockets
over netlink, sock_diag(7).  Neither needs a privilege, and both answer for the moment of the call;
a burst between two calls is not seen.

Whoever watches from outside has no descriptor of the listener, and must not: one that it held
would keep the listener open when the server closes it.  Netlink knows all by their inodes.
"""

from __future__ import annotations

import os
import socket
import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass

# struct tcp_info of linux/tcp.h: eight bytes, four words, tcpi_unacked, tcpi_sacked.  For a socket
# that listens, the last two are the length of the queue and its limit.
TCP_INFO_SIZE = 32
TCP_INFO_QUEUE = struct.Struct("=24x II")

# linux/netlink.h, linux/sock_diag.h, linux/unix_diag.h.
NETLINK_SOCK_DIAG = 4
SOCK_DIAG_BY_FAMILY = 20
NLM_F_REQUEST = 1
NLM_F_DUMP = 0x300
NLMSG_ERROR, NLMSG_DONE = 2, 3
LISTENING = 1 << 10  # TCP_LISTEN, which is what a unix listener is in as well
UDIAG_SHOW_RQLEN = 0x10
UNIX_DIAG_RQLEN = 4
NETLINK_HEADER = struct.Struct("=IHHII")
UNIX_DIAG_REQUEST = struct.Struct("=BBHIIIII")
UNIX_DIAG_ANSWER_SIZE = 16
INET_DIAG_REQUEST = struct.Struct("=BBBxI48x")
INET_DIAG_QUEUE = struct.Struct("=56x IIII")  # waiting, limit, uid, inode at the end of the answer
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


def accept_queues() -> dict[int, AcceptQueue]:
    """The queue of every listener of this network namespace, by the inode of its socket.

    Empty where the kernel does not tell.
    """
    if sys.platform != "linux":
        return {}
    queues: dict[int, AcceptQueue] = {}
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_SOCK_DIAG) as kernel:
            for family in (socket.AF_INET, socket.AF_INET6):
                tcp = INET_DIAG_REQUEST.pack(family, socket.IPPROTO_TCP, 0, LISTENING)
                for answer in _dump(kernel, tcp):
                    waiting, limit, _, inode = INET_DIAG_QUEUE.unpack_from(
                        answer, NETLINK_HEADER.size
                    )
                    queues[inode] = AcceptQueue(waiting, limit)
            unix = UNIX_DIAG_REQUEST.pack(
                socket.AF_UNIX, 0, 0, LISTENING, 0, UDIAG_SHOW_RQLEN, ANY_COOKIE, ANY_COOKIE
            )
            for answer in _dump(kernel, unix):
                queue = parse_answer(answer)
                if queue is not None:
                    (inode,) = struct.unpack_from("=I", answer, NETLINK_HEADER.size + 4)
                    queues[inode] = queue
    except OSError:
        pass  # a sandbox that forbids it: what was told until then is true
    return queues


def inode_of(listener: socket.socket) -> int:
    """What the kernel calls the socket."""
    return os.fstat(listener.fileno()).st_ino


def _dump(kernel: socket.socket, request: bytes) -> Iterator[bytes]:
    """The messages that answer a request for many.  Raises OSError."""
    size = NETLINK_HEADER.size + len(request)
    flags = NLM_F_REQUEST | NLM_F_DUMP
    kernel.send(NETLINK_HEADER.pack(size, SOCK_DIAG_BY_FAMILY, flags, 0, 0) + request)
    while True:
        data = kernel.recv(1 << 16)
        while data:
            size, type_, *_ = NETLINK_HEADER.unpack_from(data)
            if type_ == NLMSG_DONE:
                return
            if type_ == NLMSG_ERROR:
                (number,) = struct.unpack_from("=i", data, NETLINK_HEADER.size)
                raise OSError(-number, os.strerror(-number))
            yield data[:size]
            data = data[(size + 3) & ~3 :]


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

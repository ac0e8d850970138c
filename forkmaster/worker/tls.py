"""A socket whose bytes are encrypted, for a loop that never waits.

OpenSSL works on two buffers in memory here and knows no socket.  So every byte goes through the
hands of this module: what a client has sent is taken from the socket once and decrypted
to its end, so that nothing waits in a place that the poller cannot see, and an answer is sent in
pieces of four records by one system call, where ssl.SSLSocket makes one for each record.  What
follows a PROXY header in the same segment, and what is no TLS at all, can be looked at.

**Sending** keeps the promise of a socket: `send` returns how many bytes are in the hands of the
kernel.  If a piece was encrypted and the kernel takes only a part of it, that cannot be taken back,
so `send` raises BlockingIOError and has to be called again with the same bytes, as
OpenSSL itself wants it.  Other bytes break the connection instead of being mixed up.

**Ending.**  close() and shutdown() say so in TLS too (close_notify), so that a client can tell an
answer that is complete from one that somebody cut off.

Rejected: ssl.SSLSocket, for the above; and OpenSSL in threads, because what takes time in a
handshake, 0.5 ms with an RSA key of 2048 bits and half as much with an elliptic curve, is work and
not waiting.
"""

from __future__ import annotations

import errno
import socket
import ssl
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

HANDSHAKE_RECORD = 22  # RFC 8446 5.1: the first byte of every TLS connection
_RECORD = 16 << 10
# What is encrypted at once.
_PIECE = 4 * _RECORD
_RECEIVE = 16 << 10  # of a handshake; the longest message is a client's certificates
# Answers to a client that updates its keys and reads nothing; nobody needs so many.
_MOST_UNSENT = 128 << 10


class NotTLSError(Exception):
    """The client does not speak TLS; the argument is what it said."""


class TLSSocket:
    """See the module.  Has the methods of a non-blocking socket that the workers use."""

    __slots__ = (
        "_bytes_in",
        "_bytes_out",
        "_has_ended",
        "_is_fresh",
        "_object",
        "_promised",
        "_said_farewell",
        "_unsent",
        "bare",
    )

    def __init__(
        self, bare: socket.SocketType, context: ssl.SSLContext, received: bytes = b""
    ) -> None:
        """`bare` is non-blocking; `received` is what was read from it already."""
        self.bare = bare
        self._bytes_in, self._bytes_out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._object = context.wrap_bio(self._bytes_in, self._bytes_out, server_side=True)
        self._bytes_in.write(received)
        self._is_fresh = True
        self._has_ended = False  # the client said that it sends nothing more
        self._said_farewell = False  # and so did we
        self._unsent = b""  # encrypted, and not taken by the kernel
        self._promised = b""  # what of the application's bytes that was

    def shake_hands(self) -> bool:
        """Go on with the handshake; whether it is complete.

        Raises BlockingIOError if nothing has come, NotTLSError, and OSError (of which
        ssl.SSLError is one) if there will be no connection.
        """
        data = self._bytes_in.read() or self.bare.recv(_RECEIVE)
        if not data:
            raise ConnectionResetError(errno.ECONNRESET, "the client left in the handshake")
        if self._is_fresh and data[0] != HANDSHAKE_RECORD:
            raise NotTLSError(data)
        self._is_fresh = False
        self._bytes_in.write(data)
        try:
            self._object.do_handshake()
        except ssl.SSLWantReadError:
            return False
        finally:
            self._push()  # the next flight, or why there is none
        return True

    def recv(self, size: int) -> bytes:
        """What the client has sent, `size` bytes or a record more; empty at its end."""
        if self._said_farewell:
            return self.bare.recv(size)  # to throw it away
        if self._has_ended:
            return b""
        if not self._bytes_in.pending:  # it has, right after the handshake
            data = self.bare.recv(size)
            if not data:
                self._has_ended = True
                return b""
            self._bytes_in.write(data)
        parts = self._decrypted()
        if self._bytes_out.pending:
            self._push()
        if parts or self._has_ended:
            return parts[0] if len(parts) == 1 else b"".join(parts)
        raise BlockingIOError(errno.EAGAIN, "half a record")

    def _decrypted(self) -> list[bytes]:
        """All that has come.  Raises ssl.SSLError for a record that cannot be read."""
        read = self._object.read
        parts = []
        try:
            while part := read(_RECORD):
                parts.append(part)
            self._has_ended = True
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            self._has_ended = True
        except ssl.SSLError:
            self._has_ended = True
            if not parts:
                self._push()  # the alert that tells the client
                raise
        return parts

    def send(self, data: bytes | memoryview) -> int:
        """How many bytes of `data` went out.  BlockingIOError: call again with the same."""
        if self._promised:
            if data[: len(self._promised)] != self._promised:
                raise ConnectionAbortedError(errno.EPROTO, "half a record of other bytes was sent")
            piece: bytes | memoryview = self._promised
        else:
            piece = data[:_PIECE]
            self._object.write(piece)
        if self._push():
            self._promised = b""
            return len(piece)
        self._promised = bytes(piece)
        raise BlockingIOError(errno.EAGAIN, "the client reads slowly")

    def sendmsg(self, buffers: Iterable[bytes | memoryview]) -> int:
        """`send` for the beginning of `buffers`."""
        parts = []
        room = _PIECE
        for buffer in buffers:
            parts.append(buffer[:room])
            room -= len(parts[-1])
            if not room:
                break
        return self.send(b"".join(parts))

    def _push(self) -> bool:
        """Give the kernel what is encrypted; whether it took all."""
        data = self._unsent + self._bytes_out.read() if self._unsent else self._bytes_out.read()
        if not data:
            return True
        try:
            sent = self.bare.send(data)
        except BlockingIOError:
            sent = 0
        self._unsent = data[sent:]
        if len(self._unsent) > _MOST_UNSENT:
            raise ConnectionAbortedError(errno.EPROTO, "the client reads nothing")
        return not self._unsent

    def shutdown(self, how: int) -> None:
        """As of a socket; SHUT_WR says so in TLS before, SHUT_RDWR cuts off."""
        if how == socket.SHUT_WR:
            self._say_farewell()
        self.bare.shutdown(how)

    def close(self) -> None:
        self._say_farewell()
        self.bare.close()

    def _say_farewell(self) -> None:
        if self._said_farewell:
            return
        self._said_farewell = True
        try:
            self._object.unwrap()
        except (OSError, ValueError):
            pass  # the client's own farewell will come, or the handshake never ended
        try:
            self._push()
        except OSError:
            pass  # it is gone

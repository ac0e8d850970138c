"""One request and its answer: the callables that PEP 3333 gives to an application, and framing.

An answer goes out in one of two ways.  *Whole*: the application returned a list, so the length
is known, or its first piece is as long as its Content-Length; head and body are one `send`.
*Streamed*: anything else is put into `_unsent` piece by piece and flushed; when the socket takes
no more, the answer is suspended and the reactor resumes it when the client has read.  An iterator
is asked for its next piece only when the last one has left, so it runs no faster than the client
drinks.

An exchange is made for every request and not reused: an application may keep `write` or
`start_response` beyond its request, and must then harm nobody else's.
"""

from __future__ import annotations

import errno
import io
import logging
import math
import os
import select
import stat
from collections import deque
from io import BytesIO
from itertools import chain
from typing import IO, TYPE_CHECKING, Any

from forkmaster.http.response import LAST_CHUNK, WANTS_CLOSE, has_no_body, read_head

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextvars import Context
    from types import TracebackType

    from forkmaster.http.body import Body
    from forkmaster.http.head import RequestLine
    from forkmaster.worker.connection import Connection
    from forkmaster.worker.connections import Connections
    from forkmaster.worker.request_hooks import RequestView

    ExcInfo = tuple[type[BaseException], BaseException, TracebackType | None]

_log = logging.getLogger("forkmaster.error")

# Above it a body is not copied behind its head: 64 KiB cost 4 µs to copy, a second send 3 µs.
_COPY_UP_TO = 64 << 10
# What one write() may leave unsent before it waits for the client.
_WRITE_AHEAD = 1 << 20
_NO_BODY = -1
_BEATS = 1.0  # seconds, while write() waits; as often as the loop
# What an answer may send before others have their turn, if its client reads so fast.
_TURN = 8 << 20


class ClientGoneError(Exception):
    """The client closed the connection, or it broke."""


class FileWrapper:
    """`wsgi.file_wrapper`: an iterable over a file, and a mark for `os.sendfile`."""

    def __init__(self, filelike: Any, block_size: int = 64 << 10) -> None:
        self.filelike = filelike
        self.block_size = block_size
        if hasattr(filelike, "close"):
            self.close = filelike.close

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        data: bytes = self.filelike.read(self.block_size)
        if not data:
            raise StopIteration
        return data


class Exchange:
    """See the module.  `code` is 0 until start_response was called."""

    __slots__ = (
        "_chunked",
        "_file",
        "_file_left",
        "_iterator",
        "_left",
        "_lines",
        "_own",
        "_result",
        "_unsent",
        "began",
        "body_sent",
        "client_left",
        "client_stays",
        "code",
        "connection",
        "context",
        "declared",
        "environ",
        "head",
        "keep_alive",
        "line",
        "request_view",
        "response_headers",
        "sent",
        "spool",
        "status",
        "streaming",
        "thread",
        "worker",
    )

    began: int  # when the application was called
    thread: Any  # of the pool, for a threaded worker
    # Set by start_response.
    status: str
    response_headers: list[tuple[str, str]]
    declared: int  # the Content-Length the application set, or -1
    _lines: list[bytes]
    _own: int
    # Set when the answer is streamed or does not fit into one send.
    _unsent: deque[bytes | memoryview]
    _iterator: Iterator[Any] | None
    _left: int | None  # bytes of body that may still come; None: any number
    _chunked: bool
    _file: tuple[int, int] | None  # descriptor and offset
    _file_left: int

    def __init__(
        self,
        connection: Connection,
        environ: dict[str, Any],
        line: RequestLine,
        head: bytes,
        keep_alive: bool,
        worker: Connections,
    ) -> None:
        """`environ` is completed with what the connection knows, and an empty body."""
        environ["wsgi.input"] = BytesIO()
        environ["wsgi.early_hints"] = connection.early_hints
        port = connection.port
        if port:
            environ["REMOTE_ADDR"] = connection.host
            environ["REMOTE_PORT"] = port
            if connection.proxied is not None:
                environ.update(connection.proxied)
        self.connection = connection
        self.environ = environ
        self.line = line
        self.head = head
        self.client_stays = keep_alive
        self.keep_alive = keep_alive and worker.keeps_alive
        self.worker = worker
        self.code = 0
        self.streaming = False  # whether the head has been queued or sent
        self.sent = 0  # bytes of the answer given to the socket, or queued for it
        self.body_sent = 0  # and those of its body, without framing
        self._result: Any = None
        self.context: Context | None = None  # kept while the answer is suspended
        self.spool: IO[bytes] | None = None  # a file that holds the request's body
        self.client_left = False  # before it had the whole answer, or it reads no more
        self.request_view: RequestView | None = None  # what pre_request was given

    def take_body(self, body: Body) -> None:
        """The body has come."""
        environ = self.environ
        environ["wsgi.input"] = stream = body.stream()
        if body.is_spooled:
            self.spool = stream
        if environ.pop("HTTP_TRANSFER_ENCODING", None) is not None:
            # RFC 9112 7.1.3: decoded, it is a body with a length.  Django reads no other.
            environ["CONTENT_LENGTH"] = str(body.received)

    # --- What the application calls ---------------------------------------------------------

    def start_response(
        self,
        status: str,
        headers: list[tuple[str, str]],
        exc_info: ExcInfo | None = None,
    ) -> Callable[[bytes], None]:
        """PEP 3333's callable.  Raises TypeError or ValueError for what cannot be sent."""
        if self.code:
            if exc_info is None:
                raise AssertionError("start_response was called a second time without exc_info")
            if self.streaming:
                try:
                    raise exc_info[1].with_traceback(exc_info[2])
                finally:
                    exc_info = None  # it refers to this frame
        self.code, self._lines, self.declared, self._own = read_head(status, headers)
        self.status = status
        self.response_headers = headers
        if self.worker.draining:  # asked to while the application ran
            self.keep_alive = False
        return self.write

    def write(self, data: bytes) -> None:
        """What start_response returns.  Waits for the client only when it is 1 MiB behind."""
        self._put(data)
        if not self._flush() and sum(map(len, self._unsent)) > _WRITE_AHEAD:
            self._wait()

    # --- Whole answers ----------------------------------------------------------------------

    def send_whole(self, body: bytes) -> bool:
        """Send an answer whose body is complete.  False if a part of it waits for the client."""
        lines, declared = self._lines, self.declared
        line, code = self.line, self.code
        if self._own or line[0] == "HEAD" or code == 204 or code == 304:
            return self._send_special(body)
        if declared < 0:
            lines.append(b"Content-Length: %d\r\n" % len(body))
        elif declared != len(body):
            return self._send_special(body)
        if not self.keep_alive:
            lines.append(self.worker.tails.close)
        elif line[4] == "HTTP/1.1":
            lines.append(self.worker.tails.open)
        else:
            lines.append(self.worker.tails.http10)
        self.streaming = True
        self.connection.takes_hints = False
        self.body_sent = len(body)
        if len(body) > _COPY_UP_TO:
            return self._queue(b"".join(lines), body)
        lines.append(body)
        data = b"".join(lines)
        try:
            sent = self.connection.sock.send(data)
        except BlockingIOError:
            sent = 0
        except OSError as exc:
            raise ClientGoneError from exc
        if sent == len(data):
            self.sent = sent
            return True
        return self._queue(data[sent:], already=sent)

    def _queue(self, *parts: bytes, already: int = 0) -> bool:
        """Send the rest of a whole answer as the client reads it."""
        self._unsent = deque(parts)
        self._iterator = None
        self._file = None
        self.sent = already + sum(map(len, parts))
        return self._flush()

    def _send_special(self, body: bytes) -> bool:
        """The same by the longer way: HEAD, an own Date, a length that is not the body's."""
        self._iterator = None
        if not self.streaming:
            self._begin(len(body))
        self._put(body)
        return self._end()

    # --- Streamed answers -------------------------------------------------------------------

    def answer(self, result: Any) -> bool:
        """Send what the application returned.  False if it is suspended; then see `resume`.

        Runs in the context of the request, as everything that asks the iterator does.
        """
        self._result = result
        if type(result) is list or type(result) is tuple:
            if not self.streaming and self.code and all(type(part) is bytes for part in result):
                self._iterator = None
                return self.send_whole(b"".join(result))
        elif isinstance(result, FileWrapper) and self._takes_file(result):
            return self.resume()
        elif isinstance(result, (str, bytes)):
            raise self._not_bytes("returned", result)
        self._iterator = iterator = iter(result)
        for part in iterator:
            if type(part) is bytes and self._is_plain() and len(part) == self.declared:
                return self._send_first(part, iterator)
            self._iterator = chain((part,), iterator)
            break
        return self.resume()

    def _is_plain(self) -> bool:
        """Whether a head is there, unsent, and `send_whole` has only its length to look at."""
        if not self.code or self.streaming or self._own:
            return False
        return self.line[0] != "HEAD" and self.code != 204 and self.code != 304

    def _send_first(self, body: bytes, rest: Iterator[Any]) -> bool:
        """Send an answer whose first piece is as long as its Content-Length.

        As frameworks answer: with one piece in an object that has a close().
        """
        self._left, self._chunked = 0, False
        if not self.send_whole(body):
            self._iterator = rest
            return False
        for part in rest:
            self._put(part)  # which goes nowhere, but may be of the wrong type
        self._iterator = None
        return True

    def resume(self) -> bool:
        """Go on until the socket is full or a turn is over (False), or all is sent (True)."""
        if self.streaming and not self._flush():
            return False
        if self.streaming and self._file is not None and not self._send_file():
            return False
        iterator = self._iterator
        if iterator is not None:
            end_of_turn = self.body_sent + _TURN
            for part in iterator:
                self._put(part)
                if self.streaming and not self._flush():
                    return False
                if self.body_sent >= end_of_turn:
                    return False
            self._iterator = None
            return self._end()
        return True

    @property
    def needs_application(self) -> bool:
        """Whether the suspended answer will ask the application for more."""
        return self._iterator is not None

    def _end(self) -> bool:
        """The iterator is exhausted: complete the framing."""
        if not self.streaming:
            self._begin(0)
        if self._chunked:
            self._unsent.append(LAST_CHUNK)
            self.sent += len(LAST_CHUNK)
        if self._left is not None and self._left > 0:
            self.keep_alive = False
            _log.error(
                "%s: the body is %d bytes shorter than its Content-Length; closing the connection",
                self,
                self._left,
            )
        return self._flush()

    def _begin(self, whole: int | None) -> None:
        """Decide the framing and queue the head.  `whole`: the length of the body if known.

        RFC 9112 6.3, in its order.
        """
        if not self.code:
            raise AssertionError("the application sent a body before it called start_response")
        lines, declared = self._lines, self.declared
        http10 = self.line.protocol == "HTTP/1.0"
        self._chunked = False
        self._file = None
        if self._own & WANTS_CLOSE:
            self.keep_alive = False
        if self.line.method == "HEAD" or has_no_body(self.code):
            # Without a Content-Length: an empty body for HEAD does not mean that GET's is empty.
            self._left = _NO_BODY
        elif declared >= 0:
            self._left = declared
        elif whole is not None:
            lines.append(b"Content-Length: %d\r\n" % whole)
            self._left = whole
        elif http10:
            self._left = None
            self.keep_alive = False
        else:
            lines.append(b"Transfer-Encoding: chunked\r\n")
            self._chunked = True
            self._left = None
        lines.append(self.worker.tails.made(self._own, close=not self.keep_alive, http10=http10))
        head = b"".join(lines)
        self._unsent = deque([head])
        self.sent = len(head)
        self.streaming = True
        self.connection.takes_hints = False

    def _not_bytes(self, did: str, data: object) -> TypeError:
        # By its name: the frames of the application have ended, and there may be a middleware.
        return TypeError(
            f"{self.worker.config.app or 'the application'} {did} a {type(data).__name__}; the"
            " body must be an iterable of bytes, such as [b'...'] (PEP 3333)"
        )

    def _put(self, data: Any) -> None:
        """Queue a piece of the body, framed, and cut where its Content-Length ends."""
        if not isinstance(data, bytes):
            raise self._not_bytes("sent", data)
        if not self.streaming:
            if not data:
                return  # PEP 3333: the head goes out with the first byte
            self._begin(None)
        if not data:
            return  # an empty chunk would end the body
        if self._chunked:
            self.body_sent += len(data)
            head = b"%x\r\n" % len(data)
            self.sent += len(head) + len(data) + 2
            if len(data) <= _COPY_UP_TO:
                self._unsent.append(b"%b%b\r\n" % (head, data))
            else:
                self._unsent.extend((head, data, b"\r\n"))
            return
        left = self._left
        if left is not None:
            if left < len(data):
                if left == _NO_BODY:
                    return
                if left or self.declared == 0:
                    _log.warning("%s: the body is longer than its Content-Length; cut", self)
                data = data[:left]
            self._left = left - len(data)
        if data:
            self.sent += len(data)
            self.body_sent += len(data)
            self._unsent.append(data)

    def _flush(self) -> bool:
        """Give the socket what it takes; whether that was all."""
        unsent = self._unsent
        sock = self.connection.sock
        while unsent:
            try:
                if len(unsent) == 1:
                    sent = sock.send(unsent[0])
                else:
                    # Together, so that a short head does not wait for an acknowledgement.
                    sent = sock.sendmsg([unsent[i] for i in range(min(len(unsent), 64))])
            except BlockingIOError:
                return False
            except OSError as exc:
                raise ClientGoneError from exc
            while unsent and sent >= len(unsent[0]):
                sent -= len(unsent.popleft())
            if sent:
                unsent[0] = memoryview(unsent[0])[sent:]
        return True

    def _wait(self) -> None:
        """Wait until the client has read all.  Blocks, as write() has to."""
        worker = self.worker
        patience = worker.config.write_timeout or math.inf
        step = min(_BEATS, worker.config.timeout / 4 or _BEATS, patience)
        poller = select.poll()
        poller.register(self.connection.fd, select.POLLOUT)
        while not self._flush():
            waited = 0.0
            while not poller.poll(step * 1000):
                waited += step
                if waited >= patience:
                    raise ClientGoneError
                if not worker.multithread:
                    worker.assignment.slot.beat()  # it is the client that is slow

    # --- Files ------------------------------------------------------------------------------

    def _takes_file(self, wrapper: FileWrapper) -> bool:
        return self.worker.config.sendfile and self._take_file(wrapper)

    def _take_file(self, wrapper: FileWrapper) -> bool:
        """Prepare to send a regular file by the kernel; False if it is to be read instead."""
        if self.streaming or not self.code:
            return False
        file = wrapper.filelike
        try:
            fd = file.fileno()
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode):
                return False
            # tell() and not lseek(): a buffered file has read ahead of where its reader stands.
            start = file.tell()
        except (AttributeError, OSError, io.UnsupportedOperation, TypeError):
            return False
        size = max(0, status.st_size - start)
        # After the last byte of the file there is nothing to iterate over, but framing to end.
        self._iterator = iter(())
        self._begin(size)
        promised = self._left
        if promised == _NO_BODY or promised is None:
            return True
        self._file = (fd, start)
        self._file_left = min(size, promised)
        self._left = promised - self._file_left
        self.sent += self._file_left
        self.body_sent += self._file_left
        return True

    def _send_file(self) -> bool:
        assert self._file is not None
        fd, at = self._file
        out = self.connection.fd
        # What the kernel sends by itself is not encrypted.
        copies = self.worker.encryption is not None
        end_of_turn = at + _TURN
        while self._file_left:
            if not copies:
                try:
                    sent = os.sendfile(out, fd, at, min(self._file_left, _TURN))
                except BlockingIOError:
                    self._file = (fd, at)
                    return False
                except OSError as exc:
                    if exc.errno not in (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
                        raise ClientGoneError from exc
                    copies = True  # a file system that cannot
            if copies:
                sent = self._copy_piece(fd, at)
            if not sent:
                # It was cut off while we sent it: the length is promised, so the rest is a lie.
                self.keep_alive = False
                _log.error("%s: the file became shorter while it was sent", self)
                break
            at += sent
            self._file_left -= sent
            if (copies and not self._flush()) or (self._file_left and at >= end_of_turn):
                self._file = (fd, at)
                return False
        self._file = None
        return True

    def _copy_piece(self, fd: int, at: int) -> int:
        data = os.pread(fd, min(self._file_left, 64 << 10), at)
        if data:
            self._unsent.append(data)
        return len(data)

    # --- The end ----------------------------------------------------------------------------

    def close_result(self) -> None:
        """Call the result's close(), once, and give up the request's body."""
        if self.spool is not None:
            self.spool.close()
            self.spool = None
        result, self._result = self._result, None
        if result is None:
            return
        close = getattr(result, "close", None)
        if close is not None:
            close()

    def __str__(self) -> str:
        """For the log: what was asked and by whom."""
        client = self.connection.client.decode("ascii", "replace") or "a unix socket"
        return f"{self.line.method} {self.line.target[:200]} from {client}"

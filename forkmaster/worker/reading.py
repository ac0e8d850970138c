"""From bytes to requests: what a client has sent is read until a request is whole.

What a client may take its time over never holds an application.
"""

from __future__ import annotations

import logging
import socket
from collections import deque
from time import monotonic_ns
from typing import TYPE_CHECKING

from forkmaster.board import layout
from forkmaster.http import proxy, response
from forkmaster.http.body import ChunkedBody, LengthBody
from forkmaster.http.errors import SPEAKS_TLS, BodyEndedError, Refused
from forkmaster.http.head import HEAD_END, check_unfinished
from forkmaster.http.trust import AllowList
from forkmaster.system.poller import READ
from forkmaster.worker.accepting import Acceptor
from forkmaster.worker.connection import (
    BODY,
    BUSY,
    HANDSHAKE,
    HEAD,
    IDLE,
    LINGERING,
    PROXY,
    WRITING,
    Connection,
)
from forkmaster.worker.connections import RECEIVE
from forkmaster.worker.exchange import Exchange
from forkmaster.worker.request_hooks import RequestHooks

if TYPE_CHECKING:
    from forkmaster.http.body import Body
    from forkmaster.worker.assignment import Assignment

log = logging.getLogger("forkmaster.error")

# What one recv takes of a body, of which more will come: with 64 KiB an upload of 1 MiB is 16
# polls.  The turns bound what one fast client takes before the others are looked after.
_RECEIVE_BODY = 256 << 10
_BODY_TURNS = 8


class Reader(Acceptor):
    """See the module.  The layer of a `Reactor` that makes exchanges; its kinds answer them."""

    def __init__(self, assignment: Assignment) -> None:
        super().__init__(assignment)
        self._proxies = AllowList(self.config.proxy_allow_ips)
        self._hooks = RequestHooks(assignment, multithread=self.multithread)
        # Those on which more requests have come than the one just answered: 64 KiB can be a
        # thousand, which must not hold up everybody else.
        self._queued: deque[Connection] = deque()
        # A *run* is what a wake-up has for connections that were idle: request after request, each
        # of which begins when the one before ended, without a look at the clock.
        self._run_since = 0
        self._free_since = 0  # when the last one ended; 0: there is no run

    def _greet(self, connection: Connection) -> None:
        if self.config.proxy_protocol != "off":
            if connection.host and connection.host not in self._proxies:
                log.warning("%s is not in proxy_allow_ips; closing the connection", connection.host)
                self._linger(connection)
                return
            connection.state = PROXY
        elif self.encryption is not None:
            self._encrypt(connection)
            return
        # Before it is registered: of a connection for one request the poller never hears.
        self._ready(connection)

    def _readable(self, connection: Connection) -> None:
        """An idle connection has something to say.  It is in nobody's `_idle` now."""
        try:
            data = connection.sock.recv(RECEIVE)
        except BlockingIOError:
            self._wait_for_more(connection)
            self._idle[connection.fd] = connection
            return
        except OSError:
            data = b""
        # The usual case, in as few steps as can be: one recv is exactly one request without body.
        try:
            whole = connection.origin.whole(data)
        except Refused as refused:
            self._refuse(connection, refused, data)
            return
        if whole is not None:
            environ, line, keep_alive = whole
            self._dispatch(connection, Exchange(connection, environ, line, data, keep_alive, self))
        else:
            self._feed(connection, data)

    def _ready(self, connection: Connection) -> None:
        """A connection that is not idle can be read or written."""
        state = connection.state
        if state == IDLE:  # a new one
            self._end_run()
            self._readable(connection)
        elif state == WRITING:
            self._writable(connection)
        elif state == LINGERING:
            self._linger_on(connection)
        elif state == BODY:
            self._read_body(connection)
        elif state == HANDSHAKE:
            self._shake_hands(connection)
        elif state != BUSY:
            try:
                data = connection.sock.recv(RECEIVE)
            except BlockingIOError:
                self._wait_for_more(connection)
                return
            except OSError:
                data = b""
            self._feed(connection, data)

    def _read_body(self, connection: Connection) -> None:
        """Read on while the body comes faster than it is read, but not for ever."""
        for _ in range(_BODY_TURNS):
            try:
                data = connection.sock.recv(_RECEIVE_BODY)
            except BlockingIOError:
                self._wait_for(connection, READ)
                return
            except OSError:
                data = b""
            self._feed(connection, data)
            if connection.state != BODY or len(data) < RECEIVE:
                return

    def _feed(self, connection: Connection, data: bytes) -> None:
        """Go on with what has come: `data` follows `connection.buffer`.  Empty: nothing will."""
        ended = not data
        try:
            while True:
                state = connection.state
                if state == BODY:
                    rest = self._feed_body(connection, data, ended)
                elif state == PROXY:
                    rest = self._feed_proxy(connection, data, ended)
                else:
                    rest = self._feed_head(connection, data, ended)
                if rest is None:
                    return
                data, ended = rest, False
        except Refused as refused:
            self._refuse(connection, refused, connection.buffer or data)

    # --- PROXY and TLS ----------------------------------------------------------------------

    def _feed_proxy(self, connection: Connection, data: bytes, ended: bool) -> bytes | None:
        data = connection.buffer + data
        parsed = proxy.parse(data, self.config.proxy_protocol)
        if parsed is None:
            if ended:
                self._close(connection)
                return None
            connection.buffer = data
            self._wait_for_more(connection)
            return None
        said, rest = parsed
        connection.buffer = b""
        connection.state = IDLE
        self._learn(connection, said)
        if self.encryption is not None:
            self._encrypt(connection, rest)
            return None
        return self._or_wait(connection, rest)

    def _learn(self, connection: Connection, said: proxy.Proxied) -> None:
        """Take over the client's address from a PROXY header, for the life of the connection."""
        if not said.names_a_client:
            return
        connection.host, connection.port = said.client, str(said.client_port)
        connection.client = f"{said.client}:{said.client_port}".encode("ascii")
        connection.proxied = {
            "PROXY_PROTOCOL": said.protocol,
            "PROXY_ADDR": said.server,
            "PROXY_PORT": str(said.server_port),
        }

    def _encrypt(self, connection: Connection, received: bytes = b"") -> None:
        """From the next byte on, `received` included, the client speaks TLS."""
        # Imported here for those who do without, as in assignment.py.
        from forkmaster.worker.tls import TLSSocket

        assert self.encryption is not None
        assert isinstance(connection.sock, socket.SocketType)
        connection.sock = TLSSocket(connection.sock, self.encryption.context, received)
        connection.state = HANDSHAKE
        self._shake_hands(connection)

    def _shake_hands(self, connection: Connection) -> None:
        from forkmaster.worker.tls import NotTLSError, TLSSocket

        sock = connection.sock
        assert isinstance(sock, TLSSocket)
        try:
            is_complete = sock.shake_hands()
        except BlockingIOError:
            is_complete = False
        except NotTLSError as exc:
            connection.sock = sock.bare
            said = exc.args[0]
            if said[:1].isalpha():
                self._refuse(connection, Refused(400, SPEAKS_TLS), said)
            else:
                self._close(connection)
            return
        except OSError as exc:
            log.debug("no TLS with %s: %s", connection.client.decode("ascii", "replace"), exc)
            self._linger(connection)  # until the client has read why
            return
        if is_complete:
            connection.state = IDLE
            self._readable(connection)
        else:
            self._wait_for_more(connection)

    def _or_wait(self, connection: Connection, rest: bytes) -> bytes | None:
        """`rest` if there is any; otherwise the connection is idle."""
        if rest:
            return rest
        self._idle[connection.fd] = connection
        self._wait_for_more(connection)
        return None

    # --- Heads and bodies -------------------------------------------------------------------

    def _feed_head(self, connection: Connection, data: bytes, ended: bool) -> bytes | None:
        before = connection.buffer
        if ended:
            # Half a head and then the end: nobody is there to answer.
            self._close(connection)
            return None
        if before:
            # From the last three bytes on, so that a head in many pieces is searched once.
            start = max(0, len(before) - 3)
            data = before + data
        else:
            start = 0
        if data.startswith(b"\r\n"):
            # RFC 9112 2.2: an empty line before the request is skipped, but only one.
            if len(data) == 2:
                self._wait_for_head(connection, data)
                return None
            data = data[2:]
            start = 0
        end = data.find(HEAD_END, start)
        if end < 0:
            self._wait_for_head(connection, data)
            return None
        head, rest = data[:end], data[end + 4 :]
        connection.buffer = b""
        environ, line, fields = connection.origin.read(head)
        http11 = line.protocol == "HTTP/1.1"
        keep_alive = fields.keep_alive if http11 else fields.keep_alive_http10
        exchange = Exchange(connection, environ, line, head, keep_alive, self)
        body: Body
        if fields.chunked:
            body = ChunkedBody(self._limits, self.config.limit_request_body)
        elif fields.length:
            body = LengthBody(fields.length, self.config.limit_request_body)
        else:
            connection.buffer = rest
            self._dispatched(connection, exchange)
            return None
        connection.body = body
        connection.exchange = exchange
        connection.state = BODY
        if fields.expects_continue and not rest and http11:
            self._send_continue(connection)
        return self._feed_body(connection, rest, False)

    def _send_continue(self, connection: Connection) -> None:
        try:
            connection.sock.send(response.CONTINUE)
        except OSError:
            pass  # gone, which the next recv tells; or full, and then it does not wait for this

    def _wait_for_head(self, connection: Connection, data: bytes) -> None:
        connection.buffer = data
        check_unfinished(data, self._limits)
        if connection.state == IDLE:
            connection.state = HEAD
            if connection.served:
                self._watch(connection, monotonic_ns() + self._header_timeout)
        self._wait_for_more(connection)

    def _feed_body(self, connection: Connection, data: bytes, ended: bool) -> bytes | None:
        if ended:
            raise BodyEndedError
        body, exchange = connection.body, connection.exchange
        assert body is not None
        assert exchange is not None
        try:
            rest = body.feed(data)
        except OSError as exc:
            log.error("cannot keep the body of %s: %s", exchange, exc.strerror)
            raise Refused(503, "the body cannot be stored") from None
        if rest is None:
            self._wait_for(connection, READ)
            self._watch(connection, monotonic_ns() + self._body_timeout)
            return None
        connection.body = connection.exchange = None
        exchange.take_body(body)
        connection.buffer = rest
        self._dispatched(connection, exchange)
        return None

    def _dispatched(self, connection: Connection, exchange: Exchange) -> None:
        """Dispatch; what was pipelined behind the request gets its turn after the others."""
        self._end_run()
        self._dispatch(connection, exchange)
        if connection.state == IDLE and connection.buffer:
            self._queued.append(connection)
            self._due = 0

    def _end_run(self) -> None:
        """Something else came in between: the next request begins at a time of its own."""
        self._free_since = 0

    def _take_turns(self) -> None:
        """Answer one more request of each connection on which several came at once."""
        for _ in range(len(self._queued)):
            connection = self._queued.popleft()
            if connection.state == IDLE:  # else it was closed meanwhile
                rest, connection.buffer = connection.buffer, b""
                self._feed(connection, rest)

    def _dispatch(self, connection: Connection, exchange: Exchange) -> None:
        """A request is complete: have it answered."""
        raise NotImplementedError

    def _writable(self, connection: Connection) -> None:
        """A suspended answer can go on."""
        raise NotImplementedError

    def _refuse(self, connection: Connection, refused: Refused, request: bytes) -> None:
        """Answer with the status of the refusal, and read nothing more from this client."""
        self._words[layout.REFUSED] += 1
        if 400 <= refused.status < 600:
            self._words[layout.STATUS + refused.status // 100] += 1
        log.info(
            "refused a request from %s with %d: %s",
            connection.client.decode("ascii", "replace") or "a unix socket",
            refused.status,
            refused.reason,
        )
        request = request or connection.buffer
        if connection.body is not None:
            assert connection.exchange is not None
            request = connection.exchange.head
            connection.body.discard()
            connection.body = connection.exchange = None
        connection.buffer = b""
        if self._hooks.wants_refused:
            self._hooks.refused(connection, request, refused)
        with_body = not request.startswith(b"HEAD ")
        answer = response.refusal(
            refused.status, refused.reason, self.tails.date, with_body=with_body
        )
        try:
            # Less than 1 KB on a socket with nothing queued: it fits, or the client is hostile.
            connection.sock.send(answer)
        except OSError:
            self._close(connection)
            return
        self._words[layout.BYTES_OUT] += len(answer)
        self._linger(connection)

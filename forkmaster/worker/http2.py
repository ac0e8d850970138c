"""HTTP/2 beside HTTP/1.1 and websockets: the asgi worker of the class hypercorn.  In the worker.

A client says which it speaks: over TLS by ALPN, in clear text by the preface of HTTP/2, which no
request of HTTP/1.1 begins with (RFC 9113 3.3).  Who begins otherwise is served by asgi_http.py as
in every asgi worker.  An upgrade to h2c is answered in HTTP/1.1; RFC 9113 3.1 has given it up.

**hypercorn's part** is what turns frames into streams and back: its `H2Protocol`, with h2, the
priorities and, with wsproto, the websockets over HTTP/2 (RFC 8441).  Not its server: accepting,
the beat, the drain, limits, logs and the lifespan are those of asgi.py.  And what a request and an
answer may be is said once: http2_exchange.py writes the fields of a request as lines, and asks
the reader that HTTP/1.1 is read with.

Supported is hypercorn from 0.18 on.  What is not as hypercorn has it, each for a reason:

1. A body is acknowledged when the application has taken it.  hypercorn does that at once, behind
   a queue of ten pieces; a full one holds up the whole connection, and for ever if the
   application answers without reading.
2. What comes for a stream that is answered already is thrown away, and the stream reset without
   an error (RFC 9113 8.1).  hypercorn raises a KeyError, which ends the connection.
3. A stream that the client has reset gives up its buffer; there it stays, and the thousandth is
   the end of the connection.
4. An answer that the application does not finish is reset; there its client waits for the rest.
5. A websocket whose client breaks the protocol is closed with the code that says so, and the
   application is told the code that a client closed with; there it is 1006 for all.
6. A worker that stops says so by a GOAWAY that allows every stream (RFC 9113 6.8), and serves
   what comes until the connection is idle.  hypercorn resets new streams, whose requests are lost.
"""

from __future__ import annotations

import asyncio
import logging
from time import monotonic
from typing import TYPE_CHECKING, Any

from forkmaster.board import layout
from forkmaster.errors import BootError
from forkmaster.worker.asgi import APART, AsgiWorker
from forkmaster.worker.asgi_http import HIGH_WATER, LAST_WORDS, HTTPConnection
from forkmaster.worker.http2_exchange import HTTP2Stream, Stream, WebSocketStream

try:
    import hypercorn
    import wsproto.connection
    import wsproto.events
    from h2.connection import ConnectionState
    from h2.errors import ErrorCodes
    from h2.exceptions import ProtocolError
    from h2.settings import SettingCodes, Settings
    from hypercorn.asyncio.worker_context import WorkerContext
    from hypercorn.events import Closed, RawData
    from hypercorn.protocol.events import InformationalResponse, StreamClosed
    from hypercorn.protocol.h2 import H2Protocol
    from hyperframe.frame import GoAwayFrame
    from priority.priority import MissingStreamError
except ImportError as exc:
    raise BootError(
        f"worker_class is hypercorn, which needs {exc.name}: pip install 'forkmaster[http2]'"
    ) from None

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator, Iterator

    from hypercorn.events import Event
    from hypercorn.protocol.events import Event as StreamEvent

    from forkmaster.worker.assignment import Assignment

log = logging.getLogger("forkmaster.error")

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
# 1 MiB: so much of all bodies may wait for the application; one that takes nothing has a stream's
# window of it, and the others the rest.
CONNECTION_WINDOW = 1 << 20
EVERY_STREAM = 2**31 - 1
FRAME_HEAD = 9


class HypercornWorker(AsgiWorker):
    """An asgi worker that speaks HTTP/2 with those who ask for it."""

    def __init__(self, assignment: Assignment, application: Callable[..., Any]) -> None:
        super().__init__(assignment, application)
        self.protocol = NegotiatedConnection
        self.hypercorn = HypercornConfig(self)

    def say_goodbye(self) -> None:
        super().say_goodbye()
        sessions: list[WebSocketStream] = []
        for connection in list(self.connections):
            if isinstance(connection, HTTP2Connection):
                connection.say_goodbye()
                sessions += connection.sessions()
        within = self.config.graceful_timeout / 2
        apart = min(APART, within / len(sessions)) if sessions else 0.0
        for number, session in enumerate(sessions):
            self.loop.call_later(apart * number, session.restart)


class HypercornConfig(hypercorn.Config):
    """hypercorn's configuration from ours."""

    def __init__(self, worker: AsgiWorker) -> None:
        super().__init__()
        config = worker.config
        self.h2_max_concurrent_streams = config.http2_max_concurrent_streams
        self.h2_max_header_list_size = config.http2_max_header_list_size
        self.h2_max_inbound_frame_size = config.http2_max_frame_size
        self.initial_window_size = config.http2_initial_window_size
        self.websocket_max_message_size = config.websocket_max_message_size
        # uvicorn's default, as for the other websockets of this worker.
        self.websocket_ping_interval = worker.options.websocket.get("ws_ping_interval", 20.0)
        self.keep_alive_max_requests = EVERY_STREAM
        self.errorlog = log
        self.accesslog = None

    def response_headers(self, protocol: str) -> list[tuple[bytes, bytes]]:
        return []  # http2_exchange.py has written them already


class NegotiatedConnection(HTTPConnection):
    """A connection that speaks HTTP/1.1, unless its client turns out to speak HTTP/2."""

    __slots__ = ()

    owner: HypercornWorker

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        encrypted = transport.get_extra_info("ssl_object")
        if encrypted is not None and encrypted.selected_alpn_protocol() == "h2":
            self._become_http2(b"")

    def data_received(self, data: bytes) -> None:
        if self.is_fresh and self._exchange is None and not self._finishing:
            start = self._buffer + data
            if start.startswith(PREFACE):
                self._become_http2(start)
                return
            if PREFACE.startswith(start):
                self._words[layout.BYTES_IN] += len(data)
                self._buffer = start
                return
        super().data_received(data)

    def _become_http2(self, received: bytes) -> None:
        connection = HTTP2Connection(self)
        self.owner.connections.discard(self)
        self.owner.connections.add(connection)
        self.transport.set_protocol(connection)
        connection.data_received(received)


class HTTP2Connection(asyncio.Protocol):
    """One client's connection, and the streams on it."""

    def __init__(self, before: NegotiatedConnection) -> None:
        """Takes the place of `before`, which has found out what the client speaks."""
        self.owner = owner = before.owner
        self.client, self.server, self.shown = before.client, before.server, before.shown
        self.scheme = before.scheme
        self.transport: asyncio.Transport = before.transport
        self.reader = before.reader
        self.streams: dict[int, Stream] = {}
        """Those whose application has not returned."""
        self._received = bytearray()
        self._paused_reading = False
        self._changed = asyncio.Event()  # something was received, or it ended
        self._writable = asyncio.Event()
        self._writable.set()
        self._is_lost = False
        self._finishing = False
        self._was_used = False
        self._idle_since = monotonic()
        self._unsent = 0
        self._heard = 0.0  # when the client last took something of what the transport holds
        self._tasks: set[asyncio.Task[None]] = set()
        self.protocol = _Protocol(self, owner.hypercorn)
        self.spawn(self._run)

    # --- Called by the transport --------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        if self._finishing:
            return
        self.owner.words[layout.BYTES_IN] += len(data)
        self._received += data
        self._changed.set()
        if len(self._received) > HIGH_WATER and not self._paused_reading:
            self._paused_reading = True
            self.transport.pause_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        self._is_lost = self._finishing = True
        self._changed.set()
        self._writable.set()
        for stream in list(self.streams.values()):
            stream.lose()
        self.owner.connections.discard(self)
        self.owner.connection_closed()

    def pause_writing(self) -> None:
        self._writable.clear()
        self._heard = monotonic()
        self._unsent = self.transport.get_write_buffer_size()

    def resume_writing(self) -> None:
        self._writable.set()

    # --- What hypercorn calls: its TaskGroup, and where its events go ---------------------------

    def spawn(self, function: Callable[..., Awaitable[None]], *arguments: Any) -> None:
        """Run it for this connection, which does not outlive a failure."""
        task = self.owner.loop.create_task(self._guarded(function(*arguments)))
        self._tasks.add(task)  # the loop alone holds it weakly
        task.add_done_callback(self._tasks.discard)

    async def spawn_app(self, app: Any, config: Any, scope: Any, send: Any) -> Any:
        """Start the application for a new stream; returns what takes the stream's events."""
        number: int = send.__self__.stream_id
        kind = WebSocketStream if scope["type"] == "websocket" else HTTP2Stream
        self.streams[number] = stream = kind(self, number, scope, send)
        self._was_used = True
        if len(self.streams) > 2 * self.owner.config.http2_max_concurrent_streams:
            # As many again as may be open have been reset by the client and still run.
            log.info("a client opens and resets too many streams (CVE-2023-44487)")
            self.finish(ErrorCodes.ENHANCE_YOUR_CALM)
        stream.begin()
        return stream.put

    async def send_event(self, event: Event) -> None:
        """Write what the protocol has for the client."""
        if isinstance(event, RawData):
            self._write(event.data)
            await self._writable.wait()
        elif isinstance(event, Closed):
            self.finish()

    async def _guarded(self, running: Awaitable[None]) -> None:
        try:
            await running
        except asyncio.CancelledError:
            raise
        except Exception:
            log.exception("an HTTP/2 connection failed")
            self.transport.abort()

    # --- What the streams ask for -------------------------------------------------------------

    def ended(self, stream: Stream) -> None:
        """The application has returned, and what it sent is on its way."""
        del self.streams[stream.number]
        if stream.unacknowledged:
            # What it comes to send then is thrown away.
            self.acknowledge(stream.unacknowledged, stream.number)
        self._idle_since = monotonic()
        if self.is_idle and self.owner.closes and not self.owner.is_draining:
            self.finish()  # keepalive is 0

    async def reset(self, number: int, code: ErrorCodes = ErrorCodes.INTERNAL_ERROR) -> None:
        """Break a stream off; the client must see that it is not whole."""
        try:
            self.protocol.connection.reset_stream(number, code)
        except ProtocolError:
            return  # it has ended, or the connection has
        self._flush()
        await self.protocol.close_stream(number)

    async def inform(self, number: int) -> None:
        """Tell a client that waits for it to send the body."""
        await self.protocol.stream_send(InformationalResponse(number, [], 100))

    def acknowledge(self, size: int, number: int) -> None:
        """Let the client send as much again."""
        try:
            self.protocol.acknowledge(size, number)
        except ProtocolError:
            return  # likewise
        self._flush()

    def heed_close(self, stream: WebSocketStream) -> None:
        """Look at how the client closes a websocket that has just been accepted."""
        connection: wsproto.connection.Connection = stream.protocol.connection
        events = connection.events

        def heeded() -> Generator[wsproto.events.Event, None, None]:
            for event in events():
                if isinstance(event, wsproto.events.CloseConnection):
                    if connection.state is wsproto.connection.ConnectionState.OPEN:
                        stream.fail(int(event.code))  # found by wsproto, not said by the client
                        return
                    stream.close_code = int(event.code)
                yield event

        connection.events = heeded  # type: ignore[method-assign]

    def unsent(self, number: int) -> int:
        """How much of an answer waits for the client's window."""
        buffer = self.protocol.stream_buffers.get(number)
        return len(buffer.buffer) if buffer is not None else 0

    # --- Its life -----------------------------------------------------------------------------

    async def _run(self) -> None:
        protocol = self.protocol
        try:
            await protocol.initiate()
            protocol.connection.increment_flow_control_window(CONNECTION_WINDOW)
            self._flush()
            if self.owner.is_draining:
                self.say_goodbye()
            while not self._finishing:
                if self._received:
                    await protocol.handle(RawData(self._take()))
                    if protocol.holds_too_much:
                        self.finish(ErrorCodes.FRAME_SIZE_ERROR)
                else:
                    self._changed.clear()
                    await self._changed.wait()
        finally:
            await protocol.handle(Closed())  # which lets go of all that waits for the client

    def _take(self) -> bytes:
        data, self._received = bytes(self._received), bytearray()
        if self._paused_reading and not self.transport.is_closing():
            self._paused_reading = False
            self.transport.resume_reading()
        return data

    def say_goodbye(self) -> None:
        """Tell the client to open no more streams here; those on their way are served."""
        frame = GoAwayFrame(0, last_stream_id=EVERY_STREAM, error_code=ErrorCodes.NO_ERROR)
        # By hand: for h2 nothing may follow a GOAWAY.
        self._write(frame.serialize())

    def finish(self, code: ErrorCodes = ErrorCodes.NO_ERROR) -> None:
        """Close the connection for writing, and read it to its end, for a second at most."""
        if self._finishing:
            return
        self._finishing = True
        self._received.clear()
        self._changed.set()
        connection = self.protocol.connection
        # Else the client was first, or broke the protocol, which h2 has said.
        if connection.state_machine.state is not ConnectionState.CLOSED:
            connection.close_connection(code)
        self._flush()
        transport = self.transport
        if transport.is_closing():
            return
        if not transport.can_write_eof():
            transport.close()
            return
        self._heard = monotonic()
        self._unsent = transport.get_write_buffer_size()
        transport.write_eof()
        if self._paused_reading:
            self._paused_reading = False
            transport.resume_reading()
        self.owner.loop.call_later(LAST_WORDS, transport.close)

    @property
    def is_idle(self) -> bool:
        # What is in a buffer has its end still to be sent.
        waits = self.streams or self.protocol.stream_buffers or self._received
        return not waits and not self._finishing

    def check_patience(self, now: float) -> None:
        config = self.owner.config
        unsent = self.transport.get_write_buffer_size()
        if unsent and (self._finishing or not self._writable.is_set()):
            if unsent != self._unsent:
                self._unsent, self._heard = unsent, now
            elif 0 < config.write_timeout < now - self._heard:
                log.info("a client stopped reading (write_timeout)")
                self.transport.abort()
        elif self._finishing:
            return
        elif not self.streams:
            patience = config.keepalive if self._was_used else config.header_timeout
            if self._was_used and self.owner.closes:
                patience = LAST_WORDS
            if 0 < patience < now - self._idle_since:
                self.finish()
        else:
            for stream in list(self.streams.values()):
                stream.check_patience(now)

    def sessions(self) -> Iterator[WebSocketStream]:
        """The websockets among the streams."""
        return (each for each in self.streams.values() if isinstance(each, WebSocketStream))

    def _flush(self) -> None:
        self._write(self.protocol.connection.data_to_send())

    def _write(self, data: bytes) -> None:
        if data and not self._is_lost and not self.transport.is_closing():
            self.transport.write(data)


class _Protocol(H2Protocol):
    """hypercorn's protocol, as the list at the top of this module has it."""

    def __init__(self, connection: HTTP2Connection, config: HypercornConfig) -> None:
        super().__init__(
            None,  # type: ignore[arg-type]  # the application; `connection` starts it
            config,
            WorkerContext(None),
            connection,  # type: ignore[arg-type]  # nobody enters it
            connection.owner.app_state.copy(),  # type: ignore[arg-type]
            connection.scheme == "https",
            connection.client,
            connection.server,  # type: ignore[arg-type]  # of a unix socket its path and None
            connection.send_event,
        )
        self._inside = connection.streams
        self._ending: set[int] = set()
        self.streams = _Streams()
        settings: dict[Any, int] = {
            **self.connection.local_settings,
            SettingCodes.INITIAL_WINDOW_SIZE: config.initial_window_size,
            SettingCodes.MAX_FRAME_SIZE: config.h2_max_inbound_frame_size,
        }
        self.connection.local_settings = Settings(client=False, initial_values=settings)
        self.connection.max_inbound_frame_size = config.h2_max_inbound_frame_size
        self.acknowledge = self.connection.acknowledge_received_data
        self.connection.acknowledge_received_data = self._received  # type: ignore[method-assign, assignment]

    @property
    def holds_too_much(self) -> bool:
        """Whether a frame is longer than allowed, which h2 finds out when it is complete."""
        held = len(self.connection.incoming_buffer._data)
        return held > self.config.h2_max_inbound_frame_size + FRAME_HEAD

    def _received(self, size: int, number: int) -> None:
        stream = self._inside.get(number)
        if stream is not None and stream.is_full:
            stream.unacknowledged += size
            return
        self.acknowledge(size, number)
        if number not in self.streams and number not in self.stream_buffers:
            try:
                self.connection.reset_stream(number, ErrorCodes.NO_ERROR)
            except ProtocolError:
                pass  # this was the end of what the client had to send

    async def stream_send(self, event: StreamEvent) -> None:
        if not isinstance(event, StreamClosed):
            await super().stream_send(event)
            return
        number = event.stream_id
        buffer = self.stream_buffers.get(number)
        if buffer is not None:
            buffer.set_complete()  # what is in it is still sent
            await self._wake(number)
        self._ending.add(number)
        try:
            await super().stream_send(event)
        finally:
            self._ending.discard(number)

    async def _close_stream(self, stream_id: int) -> None:
        await super()._close_stream(stream_id)
        buffer = self.stream_buffers.get(stream_id)
        if buffer is not None and stream_id not in self._ending:
            await buffer.close()
            await self._wake(stream_id)

    close_stream = _close_stream

    async def _wake(self, number: int) -> None:
        """Have send_task look at a stream; one that has nothing to send it removes."""
        try:
            self.priority.unblock(number)
        except MissingStreamError:
            pass
        await self.has_data.set()


class _Streams(dict[int, Any]):
    """The streams of a connection; one that is over takes what still comes."""

    def __missing__(self, number: int) -> _Over:
        return _Over()


class _Over:
    async def handle(self, event: object) -> None:
        pass

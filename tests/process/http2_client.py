"""A client that speaks HTTP/2 with prior knowledge, or over TLS, and heeds a GOAWAY."""

from __future__ import annotations

import socket
from typing import Any

import h2.events
from h2.config import H2Configuration
from h2.connection import H2Connection

from tests.process.harness import Response

# What h2 takes nothing after: a connection of HTTP/2 goes on after it.
GOAWAY = 7
FRAME_HEAD = 9


class HTTP2Client:
    """One connection, with any number of requests on it."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.is_told_to_go = False
        """Whether the server wants no new streams here."""
        self._h2 = H2Connection(H2Configuration(client_side=True, header_encoding="utf-8"))
        self._events: list[h2.events.Event] = []
        self._unread = b""
        self._h2.initiate_connection()
        self.flush()

    def begin(self, path: str, method: str = "GET", *, ends: bool = True, **headers: str) -> int:
        """Send the head of a request; returns its stream."""
        stream = self._h2.get_next_available_stream_id()
        pseudo = {
            ":method": method,
            ":scheme": "http",
            ":path": path,
            ":authority": "localhost",
        }
        self._h2.send_headers(stream, [*pseudo.items(), *headers.items()], end_stream=ends)
        self.flush()
        return stream

    def open_websocket(self, path: str = "/ws") -> int:
        """Open one (RFC 8441); returns its stream."""
        self.read_until(lambda: bool(self._h2.remote_settings.enable_connect_protocol))
        stream = self._h2.get_next_available_stream_id()
        head = {
            ":method": "CONNECT",
            ":protocol": "websocket",
            ":scheme": "http",
            ":path": path,
            ":authority": "localhost",
            "sec-websocket-version": "13",
        }
        self._h2.send_headers(stream, list(head.items()))
        self.flush()
        self.read_until(lambda: bool(self._of(stream)))
        assert isinstance(self._of(stream)[0], h2.events.ResponseReceived)
        return stream

    def send(self, stream: int, data: bytes, *, ends: bool = False) -> None:
        """Send some of a body."""
        self._h2.send_data(stream, data, end_stream=ends)
        self.flush()

    def ask(self, path: str) -> Response:
        """The answer to a GET."""
        return self.answer(self.begin(path))

    def answer(self, stream: int) -> Response:
        """The whole answer on this stream.  Raises ConnectionError if it does not come."""
        self.read_until(lambda: self._has_ended(stream))
        headers: dict[str, str] = {}
        body = self.body(stream)
        for event in self._of(stream):
            if isinstance(event, h2.events.ResponseReceived):
                headers = {str(name): str(value) for name, value in event.headers}
            elif isinstance(event, h2.events.StreamReset):
                raise ConnectionError(f"the stream was reset with {event.error_code}")
        return Response(int(headers[":status"]), headers, body)

    def body(self, stream: int, size: int = 0) -> bytes:
        """What has come on this stream, at least `size` bytes."""

        def received() -> bytes:
            data = [
                event.data
                for event in self._of(stream)
                if isinstance(event, h2.events.DataReceived) and event.data is not None
            ]
            return b"".join(data)

        self.read_until(lambda: len(received()) >= size)
        return received()

    def read_until(self, is_so: Any) -> None:
        """Read until it is so.  Raises ConnectionError at the end of the connection."""
        while not is_so():
            received = self.sock.recv(65536)
            if not received:
                raise ConnectionError("the server closed the connection")
            self._feed(received)

    def flush(self) -> None:
        data = self._h2.data_to_send()
        if data:
            self.sock.sendall(data)

    def _feed(self, received: bytes) -> None:
        """Pass on whole frames, but none of those that end an h2 connection."""
        self._unread += received
        while len(self._unread) >= FRAME_HEAD:
            size = FRAME_HEAD + int.from_bytes(self._unread[:3], "big")
            if len(self._unread) < size:
                break
            frame, self._unread = self._unread[:size], self._unread[size:]
            if frame[3] == GOAWAY:
                self.is_told_to_go = True
                continue
            events = self._h2.receive_data(frame)
            for event in events:
                if isinstance(event, h2.events.DataReceived):
                    assert event.stream_id is not None
                    self._h2.acknowledge_received_data(
                        event.flow_controlled_length or 0, event.stream_id
                    )
            self._events += events
            self.flush()

    def _of(self, stream: int) -> list[Any]:
        return [each for each in self._events if getattr(each, "stream_id", None) == stream]

    def _has_ended(self, stream: int) -> bool:
        ends = (h2.events.StreamEnded, h2.events.StreamReset)
        return any(isinstance(each, ends) for each in self._of(stream))

"""TLSSocket over a socket whose buffers the test holds in its hands."""

from __future__ import annotations

import socket
import ssl
from typing import cast

import pytest

from forkmaster.config.table import Config
from forkmaster.worker.certificates import Encryption
from forkmaster.worker.tls import NotTLSError, TLSSocket
from tests.certificates import Certificates


class Wire:
    """A non-blocking socket that gives what it was given, and takes as much as it may."""

    def __init__(self) -> None:
        self.incoming = b""
        self.outgoing = b""
        self.room = 1 << 30
        self.has_ended = False
        self.calls: list[str] = []

    def recv(self, size: int) -> bytes:
        if not self.incoming and not self.has_ended:
            raise BlockingIOError
        data, self.incoming = self.incoming[:size], self.incoming[size:]
        return data

    def send(self, data: bytes) -> int:
        if not self.room:
            raise BlockingIOError
        taken = min(len(data), self.room)
        self.room -= taken
        self.outgoing += data[:taken]
        return taken

    def shutdown(self, how: int) -> None:
        self.calls.append(f"shutdown {how}")

    def close(self) -> None:
        self.calls.append("close")


class Talk:
    """A client and a TLSSocket with a wire between them."""

    def __init__(self, certificates: Certificates) -> None:
        encryption = Encryption(Config(certfile=certificates.cert, keyfile=certificates.key))
        encryption.load()
        self.wire = Wire()
        self.server = TLSSocket(cast("socket.socket", self.wire), encryption.context)
        self.to_client, self.to_wire = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.client = certificates.client_context.wrap_bio(
            self.to_client, self.to_wire, server_hostname="localhost"
        )

    def carry(self) -> None:
        """What both have said reaches the other."""
        self.wire.incoming += self.to_wire.read()
        self.to_client.write(self.wire.outgoing)
        self.wire.outgoing = b""

    def shake_hands(self) -> None:
        for _ in range(2):
            try:
                self.client.do_handshake()
            except ssl.SSLWantReadError:
                self.carry()
                self.server.shake_hands()
                self.carry()
        self.carry()
        assert self.server.shake_hands()
        self.carry()

    def says(self, data: bytes) -> None:
        self.client.write(data)
        self.carry()

    def hears(self) -> bytes:
        self.carry()
        heard = b""
        try:
            while data := self.client.read(65536):
                heard += data
        except ssl.SSLWantReadError:
            pass
        return heard


@pytest.fixture
def talk(certificates: Certificates) -> Talk:
    talk = Talk(certificates)
    talk.shake_hands()
    return talk


def test_all_records_that_have_come_are_received_at_once(talk: Talk) -> None:
    # One left inside would wait for ever: the poller sees the socket alone.
    for n in range(5):
        talk.says(bytes([n]) * 16384)

    received = talk.server.recv(1 << 20)

    assert received == b"".join(bytes([n]) * 16384 for n in range(5))
    with pytest.raises(BlockingIOError):
        talk.server.recv(65536)


def test_half_a_record_is_waited_for(talk: Talk) -> None:
    talk.says(b"hello")
    whole, talk.wire.incoming = talk.wire.incoming, b""

    for byte in whole[:-1]:
        talk.wire.incoming = bytes([byte])
        with pytest.raises(BlockingIOError):
            talk.server.recv(65536)
    talk.wire.incoming = whole[-1:]

    assert talk.server.recv(65536) == b"hello"


def test_a_farewell_is_an_end(talk: Talk) -> None:
    talk.says(b"last")
    with pytest.raises(ssl.SSLWantReadError):
        talk.client.unwrap()
    talk.carry()

    assert talk.server.recv(65536) == b"last"
    assert talk.server.recv(65536) == b""
    assert talk.server.recv(65536) == b""


def test_an_end_without_farewell_is_one_too(talk: Talk) -> None:
    talk.wire.has_ended = True

    assert talk.server.recv(65536) == b""


def test_what_came_before_a_broken_record_is_received(talk: Talk) -> None:
    talk.says(b"fine")
    talk.wire.incoming += b"\x17\x03\x03\x00\x14" + bytes(20)

    assert talk.server.recv(65536) == b"fine"
    assert talk.server.recv(65536) == b""


def test_a_broken_record_is_an_error(talk: Talk) -> None:
    talk.wire.incoming = b"\x17\x03\x03\x00\x14" + bytes(20)

    with pytest.raises(ssl.SSLError):
        talk.server.recv(65536)


def test_what_is_sent_in_bits_arrives_whole(talk: Talk) -> None:
    data = bytes(range(256)) * 1024
    left = memoryview(data)
    heard = b""

    while left:
        talk.wire.room = 5000
        try:
            left = left[talk.server.send(left) :]
        except BlockingIOError:
            heard += talk.hears()

    assert heard + talk.hears() == data


def test_sendmsg_sends_the_beginning_of_all(talk: Talk) -> None:
    sent = talk.server.sendmsg([b"head", b"x" * 100_000, b"tail"])

    assert talk.hears() == (b"head" + b"x" * 100_000 + b"tail")[:sent]
    assert sent == 65536


def test_a_retry_may_have_more_behind_it(talk: Talk) -> None:
    talk.wire.room = 10
    with pytest.raises(BlockingIOError):
        talk.server.send(b"first")
    talk.wire.room = 1 << 20

    assert talk.server.sendmsg([b"first", b"second"]) == 5
    assert talk.server.send(b"second") == 6
    assert talk.hears() == b"firstsecond"


def test_other_bytes_after_half_a_record_break_the_connection(talk: Talk) -> None:
    talk.wire.room = 10
    with pytest.raises(BlockingIOError):
        talk.server.send(b"HTTP/1.1 100 Continue\r\n\r\n")
    talk.wire.room = 1 << 20

    with pytest.raises(ConnectionAbortedError):
        talk.server.send(b"HTTP/1.1 413 Content Too Large\r\n\r\n")


def test_the_end_is_said_once(talk: Talk) -> None:
    talk.server.shutdown(socket.SHUT_WR)
    talk.carry()
    talk.client.unwrap()  # returns when both have said it
    talk.server.close()

    assert talk.wire.calls == [f"shutdown {socket.SHUT_WR}", "close"]
    assert talk.wire.outgoing == b""


def test_what_comes_after_our_end_is_read_to_be_thrown_away(talk: Talk) -> None:
    talk.server.shutdown(socket.SHUT_WR)
    talk.wire.incoming = b"anything"

    assert talk.server.recv(65536) == b"anything"


def test_to_be_cut_off_nothing_is_said(talk: Talk) -> None:
    talk.server.shutdown(socket.SHUT_RDWR)

    assert talk.wire.outgoing == b""


@pytest.mark.parametrize("received", [True, False])
def test_what_is_not_tls_is_given_back(certificates: Certificates, received: bool) -> None:
    encryption = Encryption(Config(certfile=certificates.cert, keyfile=certificates.key))
    encryption.load()
    wire = Wire()
    before, wire.incoming = (b"GET / ", b"") if received else (b"", b"GET / ")
    sock = TLSSocket(cast("socket.socket", wire), encryption.context, before)

    with pytest.raises(NotTLSError) as caught:
        sock.shake_hands()

    assert caught.value.args == (b"GET / ",)


def test_who_leaves_in_the_handshake_is_gone(certificates: Certificates) -> None:
    talk = Talk(certificates)
    talk.wire.has_ended = True

    with pytest.raises(ConnectionResetError):
        talk.server.shake_hands()


def test_a_client_that_cannot_be_understood_is_told_why(certificates: Certificates) -> None:
    talk = Talk(certificates)
    talk.wire.incoming = b"\x16\x03\x01\x00\x05" + bytes(5)

    with pytest.raises(ssl.SSLError):
        talk.server.shake_hands()

    assert talk.wire.outgoing[:1] == b"\x15"  # an alert

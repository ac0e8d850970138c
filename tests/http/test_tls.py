"""TLS in the sync and the threaded worker: the same server, encrypted, and never held up by it."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from forkmaster.board import layout
from tests.certificates import Certificates
from tests.http.running import Running, read_to_end, running, several
from tests.http.test_answers import ask, hello, read_answer
from tests.http.test_sharing import Holding, held
from tests.process.harness import wait_for

HELLO = b"hello, world\n"
GET = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
LAST = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


@contextmanager
def encrypted(
    application: Callable[..., Any], kind: str, certificates: Certificates, **settings: Any
) -> Iterator[Running]:
    """A worker whose clients speak TLS."""
    settings = {"certfile": certificates.cert, "keyfile": certificates.key, **settings}
    with running(application, kind, **settings) as worker:
        worker.client_context = certificates.client_context
        yield worker


def bare(worker: Running) -> socket.socket:
    """A connection that nothing was said on."""
    return socket.create_connection(worker.address, 5)


def test_requests_are_answered_as_https(kind: str, certificates: Certificates) -> None:
    def application(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        start_response("200 OK", [])
        return [environ["wsgi.url_scheme"].encode()]

    with encrypted(application, kind, certificates) as worker, worker.connect() as sock:
        first = ask(sock, GET)
        second = ask(sock, GET)

    assert first[1] == second[1] == b"https"


def test_http_1_1_is_negotiated(kind: str, certificates: Certificates) -> None:
    context = certificates.new_client_context()
    context.set_alpn_protocols(["h2", "http/1.1"])
    with encrypted(hello, kind, certificates) as worker:
        worker.client_context = context
        with worker.connect() as sock:
            assert isinstance(sock, ssl.SSLSocket)
            assert sock.selected_alpn_protocol() == "http/1.1"


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_large_body_goes_both_ways(
    kind: str, certificates: Certificates, version: ssl.TLSVersion
) -> None:
    def application(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        start_response("200 OK", [])
        return [environ["wsgi.input"].read()]

    body = bytes(range(256)) * 12_000  # 3 MiB: more than any buffer between the two
    context = certificates.new_client_context()
    context.minimum_version = context.maximum_version = version
    with encrypted(application, kind, certificates) as worker:
        worker.client_context = context
        answer = worker.ask(
            b"POST / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
            b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
        )

    assert answer.partition(b"\r\n\r\n")[2] == body


def test_a_slow_reader_gets_all_of_a_generator(kind: str, certificates: Certificates) -> None:
    parts = [bytes([n]) * 100_000 for n in range(200)]
    begun = []

    def application(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [("Content-Length", "20000000")])
        if environ["REQUEST_METHOD"] == "GET":
            for part in parts:
                begun.append(part)
                yield part

    with encrypted(application, kind, certificates) as worker, worker.connect() as sock:
        sock.sendall(LAST)
        wait_for(lambda: begun)
        other = worker.ask(LAST.replace(b"GET", b"HEAD"))
        pulled = len(begun)
        answer = read_to_end(sock)

    assert other.startswith(b"HTTP/1.1 200 ")
    assert pulled < 200
    assert answer.partition(b"\r\n\r\n")[2] == b"".join(parts)


def test_a_file_is_sent_encrypted(kind: str, certificates: Certificates, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"0123456789" * 50_000)

    def application(environ: dict[str, Any], start_response: Any) -> Any:
        start_response("200 OK", [("Content-Length", "500000")])
        return environ["wsgi.file_wrapper"](path.open("rb"))

    with encrypted(application, kind, certificates) as worker:
        answer = worker.ask(LAST)

    assert answer.partition(b"\r\n\r\n")[2] == path.read_bytes()


def test_the_end_of_an_answer_is_said_in_tls(kind: str, certificates: Certificates) -> None:
    # A client that does not forgive a connection that just ends.
    with (
        encrypted(hello, kind, certificates) as worker,
        certificates.client_context.wrap_socket(
            bare(worker), server_hostname="localhost", suppress_ragged_eofs=False
        ) as sock,
    ):
        sock.sendall(LAST)
        answer = read_to_end(sock)

    assert answer.endswith(HELLO)


def test_plain_http_is_told_so(kind: str, certificates: Certificates) -> None:
    with encrypted(hello, kind, certificates) as worker, bare(worker) as sock:
        sock.sendall(GET)
        answer = read_to_end(sock)

    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"this port speaks TLS; write https://" in answer


def test_what_is_neither_is_closed_without_a_word(kind: str, certificates: Certificates) -> None:
    with encrypted(hello, kind, certificates) as worker, bare(worker) as sock:
        sock.sendall(b"\x80\x2e\x01\x03\x01")
        assert read_to_end(sock) == b""


def test_who_does_not_shake_hands_holds_nobody_up(kind: str, certificates: Certificates) -> None:
    with encrypted(hello, kind, certificates, header_timeout=1.0) as worker:
        silent = [bare(worker) for _ in range(10)]
        halfway = [bare(worker) for _ in range(10)]
        for sock in halfway:
            sock.sendall(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")  # of a ClientHello
        began = time.monotonic()
        answer = worker.ask(LAST)
        # All of them are given up after header_timeout.
        ends = [read_to_end(sock) for sock in silent + halfway]
        took = time.monotonic() - began
        for sock in silent + halfway:
            sock.close()

    assert answer.endswith(HELLO)
    assert ends == [b""] * 20
    assert took >= 0.9


def test_a_handshake_may_come_in_any_pieces(kind: str, certificates: Certificates) -> None:
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = certificates.client_context.wrap_bio(incoming, outgoing, server_hostname="localhost")
    with encrypted(hello, kind, certificates) as worker, bare(worker) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while True:
            try:
                client.do_handshake()
                break
            except ssl.SSLWantReadError:
                for byte in outgoing.read():
                    sock.send(bytes([byte]))
                incoming.write(sock.recv(65536))
        # The end of the handshake, and the request, in the same segment.
        client.write(LAST)
        sock.sendall(outgoing.read())
        incoming.write(read_to_end(sock))
        answer = client.read(65536)

    assert answer.startswith(b"HTTP/1.1 200 ")


def test_pipelined_requests_in_one_segment_are_all_seen(
    kind: str, certificates: Certificates
) -> None:
    # Records that OpenSSL holds and the poller cannot see would wait for ever.
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = certificates.client_context.wrap_bio(incoming, outgoing, server_hostname="localhost")
    with encrypted(hello, kind, certificates) as worker, bare(worker) as sock:
        while True:
            try:
                client.do_handshake()
                break
            except ssl.SSLWantReadError:
                sock.sendall(outgoing.read())
                incoming.write(sock.recv(65536))
        for request in (GET, GET, LAST):
            client.write(request)
        sock.sendall(outgoing.read())
        incoming.write(read_to_end(sock))
        answers = b""
        while incoming.pending:
            answers += client.read(65536)

    assert answers.count(b"HTTP/1.1 200 ") == 3


def test_a_client_may_have_to_show_a_certificate(kind: str, certificates: Certificates) -> None:
    context = certificates.new_client_context()
    context.load_cert_chain(certificates.client_cert, certificates.client_key)
    asks = {"ca_certs": certificates.ca, "cert_reqs": int(ssl.CERT_REQUIRED)}
    with encrypted(hello, kind, certificates, **asks) as worker:
        with pytest.raises(ssl.SSLError, match=r"CERTIFICATE_REQUIRED|certificate required"):
            worker.ask(LAST)
        worker.client_context = context
        answer = worker.ask(LAST)

    assert answer.endswith(HELLO)


def test_the_proxy_header_comes_before_tls(kind: str, certificates: Certificates) -> None:
    def application(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        start_response("200 OK", [])
        return [environ["REMOTE_ADDR"].encode()]

    header = b"PROXY TCP4 192.0.2.7 192.0.2.8 1234 443\r\n"
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = certificates.client_context.wrap_bio(incoming, outgoing, server_hostname="localhost")
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    with (
        encrypted(application, kind, certificates, proxy_protocol="auto") as worker,
        bare(worker) as sock,
    ):
        sock.sendall(header + outgoing.read())  # in one segment
        incoming.write(sock.recv(65536))
        client.do_handshake()
        client.write(LAST)
        sock.sendall(outgoing.read())
        incoming.write(read_to_end(sock))
        answer = client.read(65536)

    assert answer.endswith(b"192.0.2.7")


def test_draining_answers_once_more_and_ends(kind: str, certificates: Certificates) -> None:
    with (
        encrypted(hello, kind, certificates) as worker,
        worker.connect() as kept,
        worker.connect() as idle,
    ):
        ask(kept, GET)
        ask(idle, GET)
        worker.worker.drain()
        last, _ = ask(kept, GET)

        assert dict(last.headers)[b"connection"] == b"close"
        assert kept.recv(1) == idle.recv(1) == b""
        kept.close()
        idle.close()
        worker.thread.join(10)
        assert not worker.thread.is_alive()


def test_connections_stay_with_a_busy_worker(kind: str, certificates: Certificates) -> None:
    # Their state is in OpenSSL's hands, so they wait instead of being passed on.
    application = Holding()
    threads = 1 if kind == "sync" else 2
    with ExitStack() as stack:
        workers = stack.enter_context(
            several(application, f"{kind} over TLS", 2, keepalive=30, threads=threads)
        )
        kept = [stack.enter_context(workers[0].connect()) for _ in range(6)]
        for sock in kept:
            ask(sock, GET)
        with held(workers[0], application, 2 * threads):
            for sock in kept:
                sock.sendall(GET)
            time.sleep(0.05)  # five times as long as an idle connection waits
        answers = [read_answer(sock)[0].status_code for sock in kept]
        passed = [worker.slot.words[layout.HANDED_OFF] for worker in workers]

    assert answers == [200] * 6
    assert passed == [0, 0]


def test_new_connections_get_a_renewed_certificate(
    kind: str, certificates: Certificates, tmp_path: Path, quiet_log: pytest.LogCaptureFixture
) -> None:
    def serial_number() -> object:
        with worker.connect() as sock:
            assert isinstance(sock, ssl.SSLSocket)
            shown = sock.getpeercert()
            assert shown is not None
            return shown["serialNumber"]

    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    cert.write_bytes(certificates.cert.read_bytes())
    key.write_bytes(certificates.key.read_bytes())
    with encrypted(hello, kind, certificates, certfile=cert, keyfile=key) as worker:
        before = serial_number()
        with worker.connect() as kept:
            ask(kept, GET)
            for path, new in zip((cert, key), certificates.issue("localhost", "new"), strict=True):
                new.replace(path)
            wait_for(lambda: serial_number() != before, timeout=10)
            answer = ask(kept, GET)

    assert answer[1] == HELLO
    assert any("read the certificate anew" in each for each in quiet_log.messages)

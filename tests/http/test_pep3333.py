"""Everything an application may do under PEP 3333, and what becomes of it on the wire."""

from __future__ import annotations

import errno
import io
import os
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Any
from wsgiref.validate import validator

import pytest

from forkmaster.board import layout
from forkmaster.worker import accepting, exchange
from tests.http.running import read_to_end, running
from tests.http.test_answers import Application, ask, echo, hello
from tests.process.harness import wait_for

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
LAST = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
HTTP10 = b"GET / HTTP/1.0\r\n\r\n"

StartResponse = Callable[..., Callable[[bytes], None]]


def body_of(answer: bytes) -> bytes:
    return answer.partition(b"\r\n\r\n")[2]


class Body:
    """An iterable that counts its close() calls."""

    def __init__(self, *parts: bytes, fails: bool = False) -> None:
        self.parts = parts
        self.fails = fails
        self.closed = 0
        self.asked = 0

    def __iter__(self) -> Iterator[bytes]:
        for part in self.parts:
            self.asked += 1
            yield part
        if self.fails:
            raise RuntimeError("boom")

    def close(self) -> None:
        self.closed += 1


def answering(body: Any, *headers: tuple[str, str]) -> Application:
    def application(environ: dict[str, Any], start_response: StartResponse) -> Any:
        start_response("200 OK", list(headers))
        return body() if callable(body) else body

    return application


def test_the_environ_is_what_the_validator_wants(kind: str) -> None:
    seen: dict[str, Any] = {}

    def application(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        seen.update(environ)
        environ["wsgi.errors"].flush()
        return hello(environ, start_response)

    with running(validator(application), kind) as worker, worker.connect() as sock:
        sock.sendall(
            b"GET /caf%C3%A9?q=1 HTTP/1.1\r\nHost: h:81\r\nX-A: b\r\nConnection: close\r\n\r\n"
        )
        assert body_of(read_to_end(sock)).endswith(b"hello, world\n\r\n0\r\n\r\n")
        client = worker.address[0]

    assert seen["PATH_INFO"] == "/caf\xc3\xa9"
    assert seen["QUERY_STRING"] == "q=1"
    assert seen["RAW_URI"] == "/caf%C3%A9?q=1"
    assert seen["HTTP_X_A"] == "b"
    assert (seen["SERVER_NAME"], seen["SERVER_PORT"]) == (client, str(worker.address[1]))
    assert seen["REMOTE_ADDR"] == client
    assert seen["REMOTE_PORT"].isdigit()
    assert seen["wsgi.multithread"] is (kind == "threaded")
    assert seen["wsgi.multiprocess"] is False
    assert seen["wsgi.input_terminated"] is True
    assert seen["wsgi.url_scheme"] == "http"


def test_a_server_that_may_scale_up_is_multiprocess(kind: str) -> None:
    def application(environ: dict[str, Any], start_response: StartResponse) -> list[bytes]:
        start_response("200 OK", [])
        return [str(environ["wsgi.multiprocess"]).encode()]

    with running(application, kind, workers_min=1, workers_max=2) as worker:
        answer = worker.ask(LAST)

    assert body_of(answer) == b"True"


def test_a_generator_is_sent_in_chunks_as_it_comes(kind: str) -> None:
    let_go = threading.Event()

    def parts() -> Iterator[bytes]:
        yield b"one"
        yield b""
        assert let_go.wait(5)
        yield b"two"

    with running(answering(parts), kind) as worker, worker.connect() as sock:
        sock.sendall(GET)
        first = b""
        while not first.endswith(b"3\r\none\r\n"):
            first += sock.recv(100)
        let_go.set()
        rest = b""
        while not rest.endswith(b"0\r\n\r\n"):
            rest += sock.recv(100)

        assert b"\r\nTransfer-Encoding: chunked\r\n" in first
        assert rest == b"3\r\ntwo\r\n0\r\n\r\n"
        assert ask(sock, GET)[1] == b"onetwo"


def test_http10_gets_a_generator_until_the_connection_ends(kind: str) -> None:
    with running(answering(lambda: Body(b"one", b"two")), kind) as worker:
        answer = worker.ask(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")

    assert b"chunked" not in answer
    assert body_of(answer) == b"onetwo"


@pytest.mark.parametrize("body", [[], [b""], [b"a", b"", b"b"], (b"ab",), [b"x" * 100_000]])
def test_a_list_has_a_length(kind: str, body: Any) -> None:
    with running(answering(body), kind) as worker:
        answer = worker.ask(LAST)

    assert b"\r\nContent-Length: %d\r\n" % len(b"".join(body)) in answer
    assert body_of(answer) == b"".join(body)


def test_the_body_never_exceeds_its_content_length(
    kind: str, quiet_log: pytest.LogCaptureFixture
) -> None:
    for body in ([b"abcdef"], Body(b"ab", b"cdef", b"gh")):
        with running(answering(body, ("Content-Length", "3")), kind) as worker:
            with worker.connect() as sock:
                assert ask(sock, GET)[1] == b"abc"
            assert "longer than its Content-Length" in quiet_log.text
            quiet_log.clear()


@pytest.mark.parametrize("size", [3, 20 << 20])
def test_an_iterable_of_one_piece_leaves_whole_and_is_asked_to_its_end(
    kind: str, size: int
) -> None:
    ended = []

    def parts() -> Iterator[bytes]:
        yield b"x" * size
        ended.append(size)

    with running(answering(parts, ("Content-Length", str(size))), kind) as worker:
        assert body_of(worker.ask(LAST)) == b"x" * size
        assert body_of(worker.ask(LAST.replace(b"GET", b"HEAD"))) == b""

    assert ended == [size, size]


def test_what_follows_the_piece_that_is_the_whole_body_is_not_sent(kind: str) -> None:
    body = Body(b"abc", b"def")
    application = answering(body, ("Content-Length", "3"))
    with running(application, kind) as worker, worker.connect() as sock:
        assert ask(sock, GET)[1] == b"abc"
        assert ask(sock, GET)[1] == b"abc"

    assert (body.asked, body.closed) == (4, 2)


def test_a_short_body_closes_the_connection(kind: str, quiet_log: pytest.LogCaptureFixture) -> None:
    for body in ([b"ab"], Body(b"a", b"b")):
        with running(answering(body, ("Content-Length", "3")), kind) as worker:
            assert body_of(worker.ask(GET)) == b"ab"
            assert "1 bytes shorter than its Content-Length" in quiet_log.text
            quiet_log.clear()


def test_close_is_called_once_after_the_end(kind: str) -> None:
    body = Body(b"one")
    with running(answering(body), kind) as worker:
        worker.ask(LAST)

    assert body.closed == 1


def test_close_is_called_once_after_a_failure(
    kind: str, quiet_log: pytest.LogCaptureFixture
) -> None:
    body = Body(b"one", fails=True)
    with running(answering(body), kind) as worker:
        assert body_of(worker.ask(GET)) == b"3\r\none\r\n"

    assert body.closed == 1
    quiet_log.clear()


def test_a_close_that_raises_is_logged(kind: str, quiet_log: pytest.LogCaptureFixture) -> None:
    class Raises(Body):
        def close(self) -> None:
            super().close()
            raise RuntimeError("boom")

    body = Raises(b"one")
    with running(answering(body), kind) as worker:
        worker.ask(GET)

    assert body.closed == 1
    assert "boom" in quiet_log.text
    quiet_log.clear()


def test_a_slow_reader_pulls_the_generator_and_holds_nobody_up(kind: str) -> None:
    endless = Body(*[b"x" * 65536] * 1000)

    def application(environ: dict[str, Any], start_response: StartResponse) -> Any:
        start_response("200 OK", [])
        return endless if environ["PATH_INFO"] == "/large" else [b"small"]

    settings: Any = {"threads": 1} if kind == "threaded" else {}
    with running(application, kind, **settings) as worker, worker.connect() as slow:
        slow.sendall(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n")
        wait_for(lambda: endless.asked > 0)
        with worker.connect() as sock:
            assert ask(sock, GET)[1] == b"small"
        assert endless.asked < 1000
        # Everything comes, when it is asked for.
        assert drain_chunks(slow) == 1000 * 65536
        wait_for(lambda: endless.closed == 1)
        assert ask(slow, GET)[1] == b"small"


def drain_chunks(sock: socket.socket) -> int:
    """The bytes in all chunks of an answer of chunks of 64 KiB."""
    data = bytearray()
    while not data.endswith(b"\r\n0\r\n\r\n"):
        data += sock.recv(1 << 20)
    return data.count(b"x")


def test_a_client_that_leaves_closes_the_generator(kind: str) -> None:
    endless = Body(*[b"x" * 65536] * 1000)
    with running(answering(endless), kind) as worker:
        with worker.connect() as sock:
            sock.sendall(GET)
            sock.recv(10)
        wait_for(lambda: endless.closed == 1)

        assert endless.asked < 1000
        assert body_of(worker.ask(LAST))


def test_a_client_that_stops_reading_is_given_up(kind: str) -> None:
    endless = Body(*[b"x" * 65536] * 1000)
    with running(answering(endless), kind, write_timeout=0.1) as worker, worker.connect() as sock:
        sock.sendall(GET)
        wait_for(lambda: endless.closed == 1)

    assert endless.asked < 1000


def test_a_large_list_is_finished_by_the_reactor(kind: str) -> None:
    body = [os.urandom(20 << 20)]
    with running(answering(body), kind) as worker, worker.connect() as sock:
        sock.sendall(LAST)
        with worker.connect() as other:
            other.sendall(b"HEAD / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            assert read_to_end(other)

        assert body_of(read_to_end(sock)) == body[0]


def test_suspended_generators_keep_their_context_to_themselves(kind: str) -> None:
    variable: ContextVar[str] = ContextVar("variable", default="")
    problems = []

    def large(name: str) -> Iterator[bytes]:
        token = variable.set(name)
        for _ in range(100):
            yield b"x" * 65536
            if variable.get() != name:
                problems.append(variable.get())
        variable.reset(token)  # ValueError in another context

    def application(environ: dict[str, Any], start_response: StartResponse) -> Any:
        start_response("200 OK", [])
        if environ["PATH_INFO"] == "/":
            return [variable.get().encode()]
        return large(environ["PATH_INFO"])

    settings: Any = {"threads": 2} if kind == "threaded" else {}
    with running(application, kind, **settings) as worker:
        socks = [worker.connect() for _ in range(6)]
        for number, sock in enumerate(socks):
            sock.sendall(b"GET /%d HTTP/1.1\r\nHost: x\r\n\r\n" % number)
        assert body_of(worker.ask(LAST)) == b""
        for sock in socks:
            assert drain_chunks(sock) == 100 * 65536
            sock.close()

    assert not problems


def test_a_suspended_generator_stays_with_its_thread() -> None:
    threads: dict[str, set[int]] = {}

    def application(environ: dict[str, Any], start_response: StartResponse) -> Any:
        start_response("200 OK", [])
        mine = threads.setdefault(environ["PATH_INFO"], set())
        for _ in range(200):
            mine.add(threading.get_ident())
            yield b"x" * 65536

    with running(application, "threaded", threads=3) as worker:
        socks = [worker.connect() for _ in range(3)]
        for number, sock in enumerate(socks):
            sock.sendall(b"GET /%d HTTP/1.1\r\nHost: x\r\n\r\n" % number)
        for sock in socks:
            assert drain_chunks(sock) == 200 * 65536
            sock.close()

    assert [len(idents) for idents in threads.values()] == [1, 1, 1]


def test_write_sends_at_once(kind: str) -> None:
    let_go = threading.Event()

    def application(environ: dict[str, Any], start_response: StartResponse) -> list[bytes]:
        write = start_response("200 OK", [("Content-Type", "text/plain")])
        write(b"one")
        assert let_go.wait(5)
        write(b"two")
        return [b"three"]

    with running(application, kind) as worker, worker.connect() as sock:
        sock.sendall(GET)
        seen = b""
        while b"one" not in seen:
            seen += sock.recv(100)
        let_go.set()
        while not seen.endswith(b"0\r\n\r\n"):
            seen += sock.recv(100)

        assert body_of(seen) == b"3\r\none\r\n3\r\ntwo\r\n5\r\nthree\r\n0\r\n\r\n"


def test_write_far_ahead_of_the_client_waits_for_it(kind: str) -> None:
    def application(environ: dict[str, Any], start_response: StartResponse) -> list[bytes]:
        write = start_response("200 OK", [("Content-Length", str(64 << 20))])
        for _ in range(64):
            write(b"x" * (1 << 20))
        return []

    with running(application, kind) as worker, worker.connect() as sock:
        sock.sendall(LAST)

        assert len(body_of(read_to_end(sock))) == 64 << 20


def writes_far_ahead(environ: dict[str, Any], start_response: StartResponse) -> list[bytes]:
    write = start_response("200 OK", [("Content-Length", str(20 << 20))])
    for _ in range(20):
        write(b"x" * (1 << 20))
    return []


def test_a_worker_that_waits_in_write_does_not_hang() -> None:
    # It is the client that takes its time; the master must not kill the worker for it.
    with running(writes_far_ahead, "sync") as worker, worker.connect() as sock:
        sock.sendall(LAST)
        sock.recv(1)
        words = worker.slot.words
        for _ in range(2):
            before = words[layout.BEAT]
            wait_for(lambda before=before: words[layout.BEAT] != before)

        assert len(body_of(b"H" + read_to_end(sock))) == 20 << 20


def test_without_write_timeout_write_waits_for_ever(kind: str) -> None:
    with running(writes_far_ahead, kind, write_timeout=0) as worker, worker.connect() as sock:
        sock.sendall(LAST)

        assert len(body_of(read_to_end(sock))) == 20 << 20


def test_who_does_not_read_what_write_sends_is_given_up(kind: str) -> None:
    failures = []

    def application(environ: dict[str, Any], start_response: StartResponse) -> list[bytes]:
        try:
            return writes_far_ahead(environ, start_response)
        except BaseException as exc:
            failures.append(type(exc).__name__)
            raise

    with running(application, kind, write_timeout=0.2) as worker, worker.connect() as sock:
        sock.sendall(LAST)
        wait_for(lambda: failures)

    assert failures == ["ClientGoneError"]


def test_a_fast_reader_of_a_long_answer_lets_others_have_their_turn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # As many parts as the kernel takes at once, so that nothing but the turn ends a turn.
    monkeypatch.setattr(exchange, "_TURN", 4 * 16384)
    beats = []

    def parts() -> Iterator[bytes]:
        for _ in range(40):
            beats.append(worker.slot.words[layout.BEAT])
            yield b"x" * 16384

    def application(environ: dict[str, Any], start_response: StartResponse) -> Iterator[bytes]:
        start_response("200 OK", [("Content-Length", str(40 * 16384))])
        return parts()

    with running(application, "sync") as worker:
        answer = worker.ask(LAST)

    assert len(body_of(answer)) == 40 * 16384
    assert max(map(beats.count, beats)) <= 4


def test_a_large_file_is_sent_in_turns(
    kind: str, file: FileCase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exchange, "_TURN", 10_000)

    with running(sending(file.path), kind) as worker:
        answer = worker.ask(LAST)

    assert body_of(answer) == file.data


def test_exc_info_replaces_the_head_that_was_not_sent(kind: str) -> None:
    def application(environ: dict[str, Any], start_response: StartResponse) -> list[bytes]:
        start_response("200 OK", [("X-First", "a"), ("Content-Length", "99")])
        try:
            raise RuntimeError
        except RuntimeError:
            start_response("503 Busy", [("X-Second", "b")], sys.exc_info())
        return [b"sorry"]

    with running(application, kind) as worker, worker.connect() as sock:
        response, body = ask(sock, GET)

    names = [name for name, _ in response.headers]
    assert (response.status_code, body) == (503, b"sorry")
    assert b"x-second" in names
    assert b"x-first" not in names
    assert names.count(b"content-length") == 1


def test_exc_info_after_the_head_was_sent_is_raised(
    kind: str, quiet_log: pytest.LogCaptureFixture
) -> None:
    def application(environ: dict[str, Any], start_response: StartResponse) -> Any:
        start_response("200 OK", [])(b"begun")
        try:
            raise RuntimeError("boom")
        except RuntimeError:
            start_response("500 Error", [], sys.exc_info())
        return [b"not reached"]

    with running(application, kind) as worker:
        assert body_of(worker.ask(GET)) == b"5\r\nbegun\r\n"

    assert "RuntimeError: boom" in quiet_log.text
    quiet_log.clear()


def test_early_hints_come_before_the_answer(kind: str) -> None:
    def application(environ: dict[str, Any], start_response: StartResponse) -> list[bytes]:
        environ["wsgi.early_hints"]([("Link", "</a.css>; rel=preload")])
        return hello(environ, start_response)

    with running(application, kind) as worker:
        answer = worker.ask(LAST)
        old = worker.ask(HTTP10)

    assert answer.startswith(b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n")
    assert b"\r\n\r\nHTTP/1.1 200 OK\r\n" in answer
    assert old.startswith(b"HTTP/1.1 200 OK\r\n")


@pytest.mark.parametrize("framing", ["length", "chunks", "none"])
def test_every_way_to_read_the_input_ends_at_its_end(kind: str, framing: str) -> None:
    data = b"" if framing == "none" else b"one\ntwo\nthree"
    seen: list[Any] = []

    def application(environ: dict[str, Any], start_response: StartResponse) -> list[bytes]:
        stream = environ["wsgi.input"]
        seen.append(stream.read())
        seen.append(stream.read(10) + stream.readline() + b"".join(stream.readlines()))
        stream.seek(0)
        seen.append(list(stream))
        stream.seek(0)
        seen.append([stream.readline(), stream.read(2), stream.readlines(), stream.read(-1)])
        seen.append(environ.get("CONTENT_LENGTH"))
        return hello(environ, start_response)

    request = {
        "none": LAST,
        "length": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 13\r\n\r\n" + data + LAST,
        "chunks": b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"4\r\none\n\r\n9\r\ntwo\nthree\r\n0\r\n\r\n" + LAST,
    }[framing]
    with running(application, kind) as worker:
        worker.ask(request)

    lines = io.BytesIO(data).readlines()
    assert seen[:3] == [data, b"", lines]
    if data:
        assert seen[3] == [b"one\n", b"tw", [b"o\n", b"three"], b""]
    assert seen[4] == (str(len(data)) if data else None)


class FileCase:
    """A file of 256 KiB, sent from an offset."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.data = os.urandom(256 << 10)
        path.write_bytes(self.data)


@pytest.fixture
def file(tmp_path: Path) -> FileCase:
    return FileCase(tmp_path / "file")


def sending(path: Path, *headers: tuple[str, str], skip: int = 0, raw: bool = False) -> Application:
    def application(environ: dict[str, Any], start_response: StartResponse) -> Any:
        opened = open(path, "rb", buffering=0) if raw else open(path, "rb")  # noqa: SIM115
        opened.read(skip)
        start_response("200 OK", list(headers))
        return environ["wsgi.file_wrapper"](opened, 8192)

    return application


@pytest.mark.parametrize("raw", [True, False])
@pytest.mark.parametrize("skip", [0, 1000])
def test_a_file_is_sent_from_where_it_stands(
    kind: str, file: FileCase, skip: int, raw: bool
) -> None:
    with running(sending(file.path, skip=skip, raw=raw), kind) as worker:
        answer = worker.ask(LAST)
        head = worker.ask(LAST.replace(b"GET", b"HEAD"))

    assert b"\r\nContent-Length: %d\r\n" % (len(file.data) - skip) in answer
    assert body_of(answer) == file.data[skip:]
    assert body_of(head) == b""


def test_a_file_is_cut_at_its_content_length(kind: str, file: FileCase) -> None:
    application = sending(file.path, ("Content-Length", "1000"))
    with running(application, kind) as worker, worker.connect() as sock:
        assert ask(sock, GET)[1] == file.data[:1000]
        assert ask(sock, GET)[1] == file.data[:1000]


def test_a_file_shorter_than_its_content_length_closes(
    kind: str, file: FileCase, quiet_log: pytest.LogCaptureFixture
) -> None:
    length = len(file.data) + 1
    with running(sending(file.path, ("Content-Length", str(length))), kind) as worker:
        assert body_of(worker.ask(GET)) == file.data

    assert "1 bytes shorter" in quiet_log.text
    quiet_log.clear()


def test_something_like_a_file_is_read(kind: str) -> None:
    def application(environ: dict[str, Any], start_response: Any) -> Any:
        start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "5")])
        return environ["wsgi.file_wrapper"](io.BytesIO(b"hello"), 2)

    with running(validator(application), kind) as worker, worker.connect() as sock:
        assert ask(sock, GET)[1] == b"hello"


def test_the_file_is_closed_after_the_last_byte(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * (30 << 20))
    opened = []

    def application(environ: dict[str, Any], start_response: StartResponse) -> Any:
        file = open(path, "rb")  # noqa: SIM115
        opened.append(file)
        start_response("200 OK", [])
        return environ["wsgi.file_wrapper"](file)

    with running(application, kind) as worker, worker.connect() as sock:
        sock.sendall(LAST)
        wait_for(lambda: opened)
        assert not opened[0].closed
        assert len(body_of(read_to_end(sock))) == 30 << 20
        wait_for(lambda: opened[0].closed)


def test_own_date_and_server_replace_ours(kind: str) -> None:
    application = answering([b"x"], ("Date", "today"), ("Server", "mine"))
    with running(application, kind) as worker, worker.connect() as sock:
        headers = ask(sock, GET)[0].headers

    assert [value for name, value in headers if name in (b"date", b"server")] == [b"today", b"mine"]


def test_an_application_may_close_the_connection(kind: str) -> None:
    with running(answering([b"x"], ("Connection", "close")), kind) as worker:
        assert b"\r\nConnection: close\r\n" in worker.ask(GET)


def expects(sock: socket.socket, head: bytes) -> bytes:
    sock.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n" + head + b"\r\n")
    return sock.recv(1000)


def test_100_continue_comes_when_the_body_is_wanted(kind: str) -> None:
    with running(echo, kind) as worker, worker.connect() as sock:
        assert expects(sock, b"Content-Length: 3\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        assert ask(sock, b"abc")[1] == b"POST abc"
        # Nothing is wanted of an empty body.
        assert expects(sock, b"Content-Length: 0\r\n").startswith(b"HTTP/1.1 200 OK")


def test_no_100_continue_when_it_is_refused_or_old(kind: str) -> None:
    with running(echo, kind, limit_request_body=2) as worker:
        with worker.connect() as sock:
            assert expects(sock, b"Content-Length: 3\r\n").startswith(b"HTTP/1.1 413 ")
        old = b"POST / HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n"
        with worker.connect() as sock:
            sock.sendall(old)
            sock.sendall(b"ab")
            assert sock.recv(1000).startswith(b"HTTP/1.1 200 OK")


def test_the_proxy_protocol_tells_the_client_for_all_requests(kind: str) -> None:
    def application(environ: dict[str, Any], start_response: StartResponse) -> list[bytes]:
        start_response("200 OK", [])
        return [f"{environ['REMOTE_ADDR']} {environ['PROXY_ADDR']}".encode()]

    with running(application, kind, proxy_protocol="auto") as worker, worker.connect() as sock:
        sock.sendall(b"PROXY TCP4 1.2.3.4 5.6.7.8 ")
        sock.sendall(b"1000 80\r\n")

        assert ask(sock, GET)[1] == b"1.2.3.4 5.6.7.8"
        assert ask(sock, GET)[1] == b"1.2.3.4 5.6.7.8"
        # Once per connection: a second one is a malformed request.
        sock.sendall(b"PROXY TCP4 9.9.9.9 5.6.7.8 1 2\r\n\r\n")
        assert sock.recv(100).startswith(b"HTTP/1.1 400 ")


def test_a_second_proxy_header_is_no_request(kind: str) -> None:
    # Puma CVE-2026-47737.
    header = b"PROXY TCP4 192.0.2.7 192.0.2.8 1 2\r\n"
    with running(hello, kind, proxy_protocol="v1") as worker, worker.connect() as sock:
        sock.sendall(header + b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" + header + LAST)
        answers = read_to_end(sock)

    assert answers.count(b"HTTP/1.1 200 ") == 1
    assert answers.count(b"HTTP/1.1 400 ") == 1


def test_the_proxy_protocol_from_others_is_closed(
    kind: str, quiet_log: pytest.LogCaptureFixture
) -> None:
    settings: Any = {"proxy_protocol": "v1", "proxy_allow_ips": ("10.0.0.1",)}
    with running(hello, kind, **settings) as worker:
        assert worker.ask(b"PROXY UNKNOWN\r\n" + GET) == b""

    assert "proxy_allow_ips" in quiet_log.text
    quiet_log.clear()


def test_the_hooks_of_a_request(kind: str, quiet_log: pytest.LogCaptureFixture) -> None:
    seen: list[Any] = []

    def pre_request(worker: Any, req: Any) -> None:
        seen.append((worker.age, req.method, req.path, req.query))
        req.headers.append(("X-ADDED", "yes"))
        req.scheme = "https"

    def post_request(worker: Any, req: Any, environ: Any, resp: Any) -> None:
        seen.append((req.path, environ["HTTP_X_ADDED"], resp.status_code, resp.sent))
        raise RuntimeError("is swallowed")

    def application(environ: dict[str, Any], start_response: StartResponse) -> list[bytes]:
        start_response("200 OK", [])
        return [environ["wsgi.url_scheme"].encode(), environ["HTTP_X_ADDED"].encode()]

    with running(application, kind, pre_request=pre_request, post_request=post_request) as worker:
        answer = worker.ask(b"GET /a?b HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        wait_for(lambda: len(seen) == 2)

    assert body_of(answer) == b"httpsyes"
    assert seen == [(1, "GET", "/a", "b"), ("/a", "yes", 200, 8)]
    assert "is swallowed" in quiet_log.text
    quiet_log.clear()


def test_running_out_of_descriptors_is_survived(
    kind: str, quiet_log: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full:
        """A listener whose accept fails as with no descriptor left, for a while."""

        left = 3

        def __init__(self, sock: socket.socket) -> None:
            self.sock = sock

        def _accept(self) -> Any:
            if Full.left:
                Full.left -= 1
                raise OSError(errno.EMFILE, "Too many open files")
            return self.sock._accept()  # type: ignore[attr-defined]

    monkeypatch.setattr(accepting, "_OUT_OF_FILES", 10_000_000)
    with running(hello, kind) as worker:
        (listener,) = worker.worker._listeners
        listener.sock = Full(listener.sock)  # type: ignore[assignment]
        assert body_of(worker.ask(LAST)) == b"hello, world\n"

    assert quiet_log.text.count("Too many open files") == 1
    quiet_log.clear()

"""One request that takes too long, in each kind of worker."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import Serve
from tests.process.harness import Kind, ask, read_all, request_bytes

LIMIT = ("--request-timeout", "1")


def test_a_sync_worker_is_ended_with_its_request(serve: Serve) -> None:
    server = serve(*LIMIT, "wsgi_echo").wait_until_ready()
    server.expect(r"worker 1 .*served one request for 1\.\d s \(request_timeout 1 s\).*/slow\?30")

    raw = server.send(request_bytes("/slow?30"))
    received = read_all(raw)
    server.wait_until_ready(2)

    assert received == b""
    assert "wsgi_echo.py" in server.log
    server.wait_for_line(r"worker 1 \(pid \d+\) exited with status 1")


def test_an_asgi_worker_cancels_it_and_goes_on(serve: Serve) -> None:
    server = serve(*LIMIT, "asgi_echo").wait_until_ready()
    server.expect(r"/slow\?30.*took longer than request_timeout, 1 s; cancelled")
    before = server.pid_of_worker()

    answer = server.get("/slow?30")

    assert answer.status == 504
    assert server.pid_of_worker() == before


def test_a_worker_that_cannot_give_it_up_is_replaced_and_the_others_finish(serve: Serve) -> None:
    limits = ("--kill-timeout", "1", "--graceful-timeout", "3")
    server = serve(*LIMIT, *limits, "asgi_echo").wait_until_ready()
    server.expect(
        "took longer than request_timeout|took too long",
        r"worker 1 .*served one request .* and cannot give it up.*GET /stubborn",
        r"worker 1 .*did not stop within 3 s .*GET /stubborn.*SIGKILL",
    )
    kept = server.connect()
    ask(kept, "GET", "/pid")

    raw = server.send(request_bytes("/stubborn"))
    server.wait_for_line("worker 1: served one request .*sending SIGTERM")
    other = ask(kept, "GET", "/pid")

    assert other.status == 200
    assert read_all(raw) == b""
    kept.close()


def test_a_view_that_blocks_the_loop_is_ended_with_its_worker(serve: Serve) -> None:
    server = serve(*LIMIT, "--kill-timeout", "1", "asgi_echo").wait_until_ready()
    server.expect(r"worker 1 .*served one request .*GET /block.*sending SIGABRT")

    raw = server.send(request_bytes("/block?60"))
    received = read_all(raw)
    server.wait_until_ready(2)

    assert received == b""


def test_a_threaded_worker_gives_its_thread_up_and_the_others_finish(serve: Serve) -> None:
    server = serve(*LIMIT, "--threads", "2", "wsgi_echo").wait_until_ready()
    server.expect(r"\[WARNING\] GET /slow\?30 from .* longer than request_timeout, 1 s")
    kept = server.connect()
    first = ask(kept, "GET", "/pid")

    stuck = server.get("/slow?30")
    server.wait_for_line("worker 1: stuck thread; sending SIGTERM")
    last = ask(kept, "GET", "/pid")
    server.wait_for_line("worker 1 exited with status 0")

    assert stuck.status == 504
    assert stuck.closes
    assert server.lines(r'stands here:\n +File ".*wsgi_echo\.py", line \d+, in application')
    assert first.body == last.body
    assert server.get("/pid").body != first.body
    kept.close()


STREAM_THAT_HANGS = """
import time
def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    yield b"begun"
    time.sleep(30)
"""


def test_an_answer_that_has_begun_is_broken_off(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "hangs.py").write_text(STREAM_THAT_HANGS)
    server = serve(*LIMIT, "--threads", "2", "--pythonpath", str(tmp_path), "hangs")
    server.wait_until_ready()
    server.expect("longer than request_timeout, 1 s; its thread is given up")

    received = read_all(server.send(request_bytes("/")))
    server.wait_for_line("worker 1 exited with status 0")

    assert b"5\r\nbegun\r\n" in received
    assert not received.endswith(b"0\r\n\r\n")


def test_a_thread_that_returns_after_all_harms_nobody(serve: Serve) -> None:
    server = serve(*LIMIT, "--threads", "2", "wsgi_echo").wait_until_ready()
    server.expect("its thread is given up")
    slow = server.send(request_bytes("/slow?2.5"))
    stayer = server.connect()

    received = read_all(slow)
    while not server.lines("worker 1 exited"):
        answer = ask(stayer, "GET", "/slow?0.2")
        if answer.closes:
            stayer.close()
            stayer = server.connect()
        assert answer.status == 200

    assert received.startswith(b"HTTP/1.1 504 ")
    assert received.count(b"HTTP/1.1") == 1
    stayer.close()


@pytest.mark.parametrize("limit", ["--timeout", "--request-timeout"])
def test_the_application_can_ask_for_more_time(serve: Serve, kind: Kind, limit: str) -> None:
    server = serve(*kind.arguments, limit, "1", "--kill-timeout", "0.5", kind.app)
    server.wait_until_ready()

    answer = server.get("/extend?3")

    assert answer.status == 200
    assert server.pid_of_worker() == server.workers()[0]

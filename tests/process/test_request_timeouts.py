"""One request that takes too long, in each kind of worker."""

from __future__ import annotations

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


@pytest.mark.parametrize("limit", ["--timeout", "--request-timeout"])
def test_the_application_can_ask_for_more_time(serve: Serve, kind: Kind, limit: str) -> None:
    server = serve(*kind.arguments, limit, "1", "--kill-timeout", "0.5", kind.app)
    server.wait_until_ready()

    answer = server.get("/extend?3")

    assert answer.status == 200
    assert server.pid_of_worker() == server.workers()[0]

"""Workers that are replaced because they reached a limit: nobody notices."""

from __future__ import annotations

from tests.conftest import Serve
from tests.process.harness import Kind, Load, wait_for


def test_max_requests_under_load_loses_nothing(serve: Serve, kind: Kind) -> None:
    server = serve(*kind.arguments, "-w", "2", "--max-requests", "40", kind.app)
    server.wait_until_ready(2)

    with Load(server) as load:
        server.wait_for_line("max_requests; sending SIGTERM", count=5)
        load.wait_for_answers(100)

    assert load.lost == []
    assert len(load.bodies) >= 6  # so many workers have answered


def test_one_worker_is_replaced_at_a_time(serve: Serve, kind: Kind) -> None:
    server = serve(*kind.arguments, "-w", "3", "--max-requests", "10", kind.app)
    server.wait_until_ready(3)

    with Load(server) as load:
        server.wait_for_line("max_requests; sending SIGTERM", count=4)

    assert load.lost == []
    standing = most = 3
    for event in server.lines(r"worker \d+(?: (started)|: .*; sending SIGTERM)"):
        standing += 1 if event[1] == "started" else -1
        most = max(most, standing)
    assert most == 4  # the three and one replacement


def test_an_idle_worker_is_replaced_when_it_is_old(serve: Serve, kind: Kind) -> None:
    server = serve(
        *kind.arguments,
        *("--max-worker-lifetime", "1", "--max-worker-lifetime-jitter", "0.5"),
        kind.app,
    )
    server.wait_until_ready()
    first = server.pid_of_worker()

    with Load(server, clients=1) as load:
        wait_for(lambda: server.lines("max_worker_lifetime; sending SIGTERM"), 15)
        load.wait_for_answers(20)

    assert load.lost == []
    assert server.pid_of_worker() != first


def test_with_preload_the_replacement_is_forked_by_the_zygote(serve: Serve, kind: Kind) -> None:
    server = serve(*kind.arguments, "--preload", "-w", "2", "--max-requests", "40", kind.app)
    server.wait_until_ready(2)

    with Load(server) as load:
        server.wait_for_line("max_requests; sending SIGTERM", count=5)

    assert load.lost == []


def test_a_worker_that_still_imports_can_be_told_to_stop(serve: Serve) -> None:
    server = serve("-w", "2", "slow_boot")
    server.wait_for_workers(2)

    code = server.stop()

    assert code == 0
    assert "cannot boot" not in server.log

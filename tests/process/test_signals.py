"""What each signal does to the master and its workers."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from tests.conftest import Serve
from tests.process.harness import (
    Kind,
    Load,
    all_gone,
    ask,
    is_gone,
    read_all,
    request_bytes,
    wait_for,
)


def test_term_finishes_what_runs(serve: Serve, kind: Kind) -> None:
    server = serve(*kind.arguments, kind.app).wait_until_ready()
    raw = server.send(request_bytes("/slow?0.5"))
    server.wait_until_running()

    server.send_signal(signal.SIGTERM)
    received = read_all(raw)
    code = server.wait()

    assert received.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"connection: close" in received.lower()
    assert code == 0
    assert "received SIGTERM; stopping gracefully" in server.log


def test_term_answers_an_idle_connection_once_more(serve: Serve, kind: Kind) -> None:
    server = serve(*kind.arguments, kind.app).wait_until_ready()
    connection = server.connect()
    first = ask(connection, "GET", "/pid")

    server.send_signal(signal.SIGTERM)
    server.wait_until_draining()
    second = ask(connection, "GET", "/pid")
    code = server.wait()

    assert not first.closes
    assert second.closes
    assert second.body == first.body
    assert code == 0


def test_term_serves_what_is_queued(serve: Serve, kind: Kind) -> None:
    server = serve(*kind.arguments, kind.app).wait_until_ready()
    (worker,) = server.workers()
    os.kill(worker, signal.SIGSTOP)
    queued = [server.send(request_bytes("/pid", "Connection: close")) for _ in range(5)]

    server.send_signal(signal.SIGTERM)
    server.wait_for_line("sending SIGTERM")
    os.kill(worker, signal.SIGCONT)
    received = [read_all(raw) for raw in queued]

    assert [each[:15] for each in received] == [b"HTTP/1.1 200 OK"] * 5
    assert server.wait() == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGQUIT])
def test_int_and_quit_stop_at_once(serve: Serve, kind: Kind, number: signal.Signals) -> None:
    server = serve(*kind.arguments, "-w", "2", kind.app).wait_until_ready(2)
    server.send(request_bytes("/slow?30"))
    server.wait_until_running()
    began = time.monotonic()

    code = server.stop(number)

    assert code == 0
    assert time.monotonic() - began < 5
    assert f"received {number.name}; stopping at once" in server.log


def test_a_second_signal_hurries_a_graceful_stop(serve: Serve, kind: Kind) -> None:
    server = serve(*kind.arguments, kind.app).wait_until_ready()
    server.send(request_bytes("/slow?30"))
    server.wait_until_running()
    server.send_signal(signal.SIGTERM)
    server.wait_for_line("sending SIGTERM")
    began = time.monotonic()

    code = server.stop(signal.SIGINT)

    assert code == 0
    assert time.monotonic() - began < 5


def test_what_outlives_the_grace_is_killed(serve: Serve, kind: Kind) -> None:
    server = serve(*kind.arguments, "--graceful-timeout", "1", kind.app).wait_until_ready()
    server.send(request_bytes("/slow?30"))
    server.wait_until_running()
    server.expect(r"\[(WARNING|ERROR)\] worker 1 ")

    code = server.stop()

    assert code == 0
    assert server.lines(r"worker 1 .*(did not stop|within|SIGKILL)")


def test_hup_replaces_every_worker_and_loses_nothing(serve: Serve, kind: Kind) -> None:
    server = serve(*kind.arguments, "-w", "2", kind.app).wait_until_ready(2)
    before = set(server.workers())

    with Load(server) as load:
        load.wait_for_answers(20)
        server.send_signal(signal.SIGHUP)
        server.wait_for_line("reload done: generation 1")
        wait_for(lambda: all_gone(before), what="the old workers are gone")
        load.wait_for_answers(20)

    assert load.lost == []
    assert len(set(server.workers()) - before) == 2


def test_hup_twice_ends_in_the_newest_generation(serve: Serve, kind: Kind) -> None:
    server = serve(*kind.arguments, "-w", "2", kind.app).wait_until_ready(2)
    server.tolerate("another reload was asked for")

    with Load(server) as load:
        server.send_signal(signal.SIGHUP)
        server.wait_for_line("reloading")
        server.send_signal(signal.SIGHUP)
        server.wait_for_line("reloading", count=2)
        server.wait_for_line(r"reload done: generation \d")
        load.wait_for_answers(20)

    assert load.lost == []
    server.wait_for_workers(2)


def test_hup_with_a_broken_application_keeps_the_old_workers(
    serve: Serve, kind: Kind, tmp_path: Path
) -> None:
    module = tmp_path / "changing.py"
    module.write_text(f"from {kind.app} import application\n")
    server = serve(
        *kind.arguments, "-w", "2", "--pythonpath", str(tmp_path), "changing"
    ).wait_until_ready(2)
    before = set(server.workers())
    server.expect("rolled back", "before it was ready", "cannot import changing")

    with Load(server) as load:
        module.write_text("raise ValueError('broken')\n")
        server.send_signal(signal.SIGHUP)
        server.wait_for_line("reload .*rolled back: .*generation 0 serves on")
        load.wait_for_answers(20)

    assert load.lost == []
    assert set(server.wait_for_workers(2)) == before
    assert "ValueError: broken" in server.log
    module.write_text(f"from {kind.app} import application\n")
    server.send_signal(signal.SIGHUP)
    server.wait_for_line(r"reload done: generation \d")
    assert server.get("/pid").status == 200


def test_hup_with_a_broken_configuration_is_refused(serve: Serve, tmp_path: Path) -> None:
    conf = tmp_path / "gunicorn.py"
    conf.write_text("workers = 2\n")
    server = serve("-c", str(conf), "wsgi_echo").wait_until_ready(2)
    before = set(server.workers())
    server.expect(r"gunicorn\.py")

    conf.write_text("workers = = 2\n")
    server.send_signal(signal.SIGHUP)
    server.wait_for_line(r"reload (refused|failed): .*gunicorn\.py")

    assert set(server.workers()) == before
    conf.write_text("workers = 1\n")
    server.send_signal(signal.SIGHUP)
    server.wait_for_line(r"reload done: generation \d")
    server.wait_for_workers(1)


def test_ttin_and_ttou_change_the_number_of_workers(serve: Serve, kind: Kind) -> None:
    server = serve(*kind.arguments, kind.app).wait_until_ready()

    with Load(server) as load:
        server.send_signal(signal.SIGTTIN)
        server.wait_for_line("received SIGTTIN")
        more = server.wait_for_workers(2)
        server.wait_until_ready(2)
        load.wait_for_answers(20)
        server.send_signal(signal.SIGTTOU)
        server.wait_for_line("received SIGTTOU")
        (left,) = server.wait_for_workers(1)
        load.wait_for_answers(20)

    assert load.lost == []
    assert left in more


def test_ttou_never_takes_the_last_worker(serve: Serve) -> None:
    server = serve("wsgi_echo").wait_until_ready()

    server.send_signal(signal.SIGTTOU)
    server.wait_for_line("received SIGTTOU")

    assert server.get("/pid").status == 200


def test_winch_stops_the_workers_but_not_the_master(serve: Serve, kind: Kind) -> None:
    server = serve(*kind.arguments, "-w", "2", kind.app).wait_until_ready(2)

    server.send_signal(signal.SIGWINCH)
    server.wait_for_workers(0)
    raw = server.send(request_bytes("/pid", "Connection: close"))  # waits in the backlog
    server.send_signal(signal.SIGTTIN)
    received = read_all(raw)

    assert received.startswith(b"HTTP/1.1 200 OK")
    assert server.process.poll() is None


def test_usr1_reopens_the_logs(serve: Serve, kind: Kind, tmp_path: Path) -> None:
    access, error = tmp_path / "access.log", tmp_path / "error.log"
    files = ("--access-logfile", str(access), "--error-logfile", str(error))
    server = serve(*kind.arguments, *files, kind.hello)
    server.get("/before")
    wait_for(lambda: access.exists() and "/before" in access.read_text(), what="the access line")

    access.rename(tmp_path / "access.old")
    error.rename(tmp_path / "error.old")
    server.send_signal(signal.SIGUSR1)
    wait_for(lambda: access.exists() and error.exists(), what="new files")
    # The master's file may be there before the worker has looked at its own signal.
    wait_for(lambda: server.get("/after").status and "/after" in access.read_text(), what="a line")

    assert "/after" not in (tmp_path / "access.old").read_text() or "/after" in access.read_text()
    assert "/before" in (tmp_path / "access.old").read_text()
    assert server.get("/").status == 200


def test_a_stopped_master_harms_nobody(serve: Serve, kind: Kind) -> None:
    server = serve(*kind.arguments, "--timeout", "1", kind.app).wait_until_ready()
    before = server.workers()

    server.send_signal(signal.SIGSTOP)
    answer = server.get("/slow?0.5")
    time.sleep(1.5)  # longer than the timeout: the master has missed a whole round
    server.send_signal(signal.SIGCONT)
    server.send_signal(signal.SIGUSR1)
    server.wait_for_line("received SIGUSR1")

    assert answer.status == 200
    assert server.workers() == before
    assert not is_gone(before[0])


def test_ctrl_c_in_a_terminal_reaches_the_workers_too_and_is_clean(
    serve: Serve, kind: Kind
) -> None:
    server = serve(*kind.arguments, "-w", "4", kind.hello, through=("setsid",))
    server.wait_until_ready(4)

    os.killpg(server.pid, signal.SIGINT)

    assert server.wait() == 0
    # None was replaced: a fifth worker would have ended too.
    assert len(server.lines(r"worker \d+ .*exited")) == 4

"""One zygote per generation loads the application, and every worker is forked from it."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.conftest import Serve
from tests.process.harness import Kind, Load, Server, wait_for

PRELOADED = {"sync": "preloaded", "threaded": "preloaded", "asgi": "asgi_preloaded"}


def told(server: Server, path: str = "/") -> dict[str, Any]:
    """What one worker says of itself."""
    answer: dict[str, Any] = json.loads(server.get(path).body)
    return answer


def zygotes(server: Server) -> list[int]:
    """The pids of the living zygotes, the oldest first."""
    children = psutil.Process(server.pid).children()
    return [child.pid for child in children if ": zygote" in " ".join(child.cmdline())]


def write_app(folder: Path, version: int) -> None:
    """The module `site_app`, which answers with its version."""
    (folder / "site_app.py").write_text(
        f"""
def application(environ, start_response):
    start_response("200 OK", [])
    return [b"{version}"]
"""
    )


def test_the_zygote_imports_and_the_master_is_the_parent(serve: Serve, kind: Kind) -> None:
    server = serve(*kind.arguments, "-w", "2", "--preload", PRELOADED[kind.name])
    server.wait_until_ready(2)

    answer = told(server)

    assert zygotes(server) == [answer["imported_by"]]
    assert answer["ppid"] == server.pid
    assert answer["pid"] in server.workers()


def test_a_worker_can_be_ready_before_its_zygote_tells_of_it(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "slow_fork.py").write_text(
        """
import os, sys, time
from pathlib import Path
from forkmaster.board.reader import find_boards, read_board
from hello import application

zygote = os.getpid()
boards = Path(sys.argv[sys.argv.index("--worker-tmp-dir") + 1])
workers = 0

def until_the_worker_is_ready():
    global workers
    if os.getpid() != zygote:
        return  # between the zygote and the worker, which waits for this process
    workers += 1
    (board,) = find_boards(boards)
    while sum(c.kind == "sync" and c.ready > 0 for c in read_board(board.path).children) < workers:
        time.sleep(0.01)

os.register_at_fork(after_in_parent=until_the_worker_is_ready)
"""
    )
    server = serve(
        *("-w", "2", "--preload", "--log-level", "debug"),
        *("--pythonpath", f"{tmp_path},{Path(__file__).parents[1] / 'apps'}", "slow_fork"),
    )
    server.wait_until_ready(2)

    for pid in server.workers():
        (started,) = server.lines(rf"worker \d started \(pid {pid},")
        (ready,) = server.lines(rf"worker \d ready after .* \(pid {pid}\)")
        assert started.start() < ready.start()


def test_a_worker_imports_nothing_after_the_fork(serve: Serve, kind: Kind, tmp_path: Path) -> None:
    config = tmp_path / "imports.py"
    config.write_text(
        """
import sys

def post_fork(server, worker):
    worker.before = set(sys.modules)

def worker_exit(server, worker):
    server.log.info("imported after the fork: %s", sorted(set(sys.modules) - worker.before))
"""
    )
    server = serve(*kind.arguments, "-c", str(config), "--preload", kind.app)

    assert server.get("/echo").status == 200
    assert server.stop() == 0
    server.wait_for_line(r"imported after the fork: \[\]")


def test_warm_up_requests_are_answered_before_the_fork(serve: Serve, kind: Kind) -> None:
    warmups = ("--warmup", "/", "--warmup", "/")
    server = serve(*kind.arguments, "--preload", *warmups, PRELOADED[kind.name])

    assert told(server)["asked"] == 3


def test_without_preload_each_worker_is_warmed_up(serve: Serve, kind: Kind) -> None:
    server = serve(*kind.arguments, "-w", "2", "--warmup", "/", PRELOADED[kind.name])
    server.wait_until_ready(2)

    assert told(server)["asked"] == 2


def test_a_warm_up_that_fails_ends_the_first_boot(serve: Serve) -> None:
    server = serve("--preload", "--warmup", "/?500+Oops", "preloaded")
    server.expect("cannot boot: warm-up request GET /.500.Oops was answered 500", "zygote 1")

    assert server.wait() == 3


def test_a_killed_worker_is_forked_anew_by_the_same_zygote(serve: Serve, kind: Kind) -> None:
    server = serve(*kind.arguments, "-w", "2", "--preload", PRELOADED[kind.name])
    server.wait_until_ready(2)
    before = zygotes(server)
    server.expect("was killed by SIGKILL")

    os.kill(server.workers()[0], signal.SIGKILL)
    server.wait_until_ready(3)

    assert zygotes(server) == before
    assert told(server)["imported_by"] == before[0]


def test_a_killed_zygote_is_replaced_and_its_workers_serve_on(serve: Serve, kind: Kind) -> None:
    server = serve(*kind.arguments, "-w", "2", "--preload", PRELOADED[kind.name])
    server.wait_until_ready(2)
    workers = server.workers()
    server.expect("zygote 1 .* was killed by SIGKILL")

    os.kill(zygotes(server)[0], signal.SIGKILL)
    server.wait_for_line("zygote 4 ready")

    assert server.workers() == workers
    assert told(server)["pid"] in workers


def test_a_reload_serves_the_new_code_and_loses_nothing(
    serve: Serve, kind: Kind, tmp_path: Path
) -> None:
    if kind.name == "asgi":
        pytest.skip("site_app is WSGI; the zygote does not differ")
    write_app(tmp_path, 1)
    server = serve(*kind.arguments, "-w", "2", "--preload", "site_app", cwd=tmp_path)
    server.wait_until_ready(2)

    with Load(server, "/") as load:
        load.wait_for_answers(20)
        write_app(tmp_path, 2)
        server.send_signal(signal.SIGHUP)
        server.wait_for_line("reload done: generation 1")
        load.wait_for_answers(20)

    assert load.lost == []
    assert load.bodies == {b"1", b"2"}
    assert server.get("/").body == b"2"


def test_a_broken_deploy_is_rolled_back_and_crashes_respawn_the_old_code(
    serve: Serve, tmp_path: Path
) -> None:
    write_app(tmp_path, 1)
    server = serve("-w", "2", "--preload", "site_app", cwd=tmp_path)
    server.wait_until_ready(2)
    server.expect("zygote 5", "reload of generation 1 rolled back", "SyntaxError", "SIGKILL")
    (tmp_path / "site_app.py").write_text("def application(")

    with Load(server, "/") as load:
        load.wait_for_answers(20)
        server.send_signal(signal.SIGHUP)
        server.wait_for_line("rolled back")
        load.wait_for_answers(20)
    os.kill(server.workers()[0], signal.SIGKILL)
    server.wait_until_ready(3)

    assert load.lost == []
    assert server.get("/").body == b"1"


def test_the_fork_safety_report_names_the_line(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "threaded_app.py").write_text(
        """import threading
threading.Thread(target=threading.Event().wait, name="metrics", daemon=True).start()

def application(environ, start_response):
    start_response("200 OK", [])
    return [b"served"]
"""
    )
    server = serve("--preload", "threaded_app", cwd=tmp_path)
    server.expect(r"1 thread\(s\) run .* \(metrics\); started at .*threaded_app.py:2")

    assert server.get("/").body == b"served"


def test_no_connection_of_django_crosses_the_fork(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "pooled").mkdir()
    # As the backend of PostgreSQL with a pool of psycopg's, which close() leaves alone.
    (tmp_path / "pooled" / "base.py").write_text(
        """
import os
from django.db.backends.sqlite3 import base

class DatabaseWrapper(base.DatabaseWrapper):
    pool_closed_in = None

    def close_pool(self):
        self.pool_closed_in = os.getpid()
"""
    )
    (tmp_path / "site_app.py").write_text(
        """
import os
from django.conf import settings
settings.configure(DATABASES={"default": {"ENGINE": "pooled", "NAME": "db.sqlite3"}})
from django.db import connection

IMPORTED_BY = os.getpid()
connection.ensure_connection()
assert connection.connection is not None

def application(environ, start_response):
    start_response("200 OK", [])
    return [repr((connection.connection, connection.pool_closed_in == IMPORTED_BY)).encode()]
"""
    )
    server = serve("--preload", "site_app", cwd=tmp_path)

    assert server.get("/").body == b"(None, True)"


def test_a_stop_leaves_no_zygote(serve: Serve) -> None:
    server = serve("-w", "2", "--preload", "preloaded")
    server.wait_until_ready(2)
    children = psutil.Process(server.pid).children()

    assert server.stop() == 0
    wait_for(lambda: not any(child.is_running() for child in children), what="all gone")


def test_pre_fork_attributes_survive_into_the_worker(serve: Serve, tmp_path: Path) -> None:
    config = tmp_path / "hooks.py"
    config.write_text(
        """
def pre_fork(server, worker):
    worker.mark = "made before the fork"

def post_fork(server, worker):
    server.log.info("worker %s: %s", worker.age, worker.mark)
"""
    )
    server = serve("-c", str(config), "--preload", "preloaded")

    server.wait_for_line("worker 2: made before the fork")

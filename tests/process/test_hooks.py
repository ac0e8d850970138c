"""Every hook: that it is called, where, when, and what it may do."""

from __future__ import annotations

import re
import signal
from pathlib import Path

import pytest

from tests.conftest import Serve
from tests.process.harness import Kind, Server, request_bytes

# Each hook writes a line with its name, the process it runs in, and what it was given.
HOOKS = """
import os

def tell(log, name, *facts):
    log.info("hook %s in %s: %s", name, os.getpid(), " ".join(map(str, facts)))

def on_starting(server):
    tell(server.log, "on_starting", server.pid, server.app, server.num_workers)
def when_ready(server):
    tell(server.log, "when_ready", len(server.LISTENERS), len(server.WORKERS))
def on_reload(server):
    tell(server.log, "on_reload", server.num_workers)
def on_exit(server):
    tell(server.log, "on_exit", len(server.WORKERS))
def nworkers_changed(server, new_value, old_value):
    tell(server.log, "nworkers_changed", new_value, old_value)
def pre_fork(server, worker):
    worker.from_pre_fork = "kept"
    tell(server.log, "pre_fork", worker.pid, worker.age)
def post_fork(server, worker):
    tell(server.log, "post_fork", worker.pid, worker.ppid, worker.from_pre_fork, worker.wsgi)
def post_worker_init(worker):
    tell(worker.log, "post_worker_init", callable(worker.wsgi), worker.booted, worker.timeout)
def worker_int(worker):
    tell(worker.log, "worker_int", worker.pid)
def worker_abort(worker):
    tell(worker.log, "worker_abort", worker.aborted)
def worker_exit(server, worker):
    tell(server.log, "worker_exit", worker.pid, worker.alive)
def child_exit(server, worker):
    kept = getattr(worker, "from_pre_fork", "in the zygote")
    tell(server.log, "child_exit", worker.pid, kept, worker.pid in server.WORKERS)
"""

REQUEST_HOOKS = """
def pre_request(worker, req):
    req.headers.append(("X-ADDED", "by the hook"))
    req.scheme = "https"
    worker.log.info("pre %s %s %s %s %s", req.method, req.path, req.query, req.uri, req.version)

def post_request(worker, req, environ, resp):
    length = dict((n.lower(), v) for n, v in resp.headers).get("content-length")
    worker.log.info("post %s %s %s %s %d", req.path, resp.status_code, length,
                    resp.sent > 0, worker.nr)
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "gunicorn.py"
    path.write_text(HOOKS)
    return path


class Calls:
    """The hooks that a server has called, in order, with the processes they ran in."""

    def __init__(self, server: Server) -> None:
        found = server.lines(r"hook (\w+) in (\d+): (.*)$")
        self.all = [(m[1], int(m[2]), m[3]) for m in found]
        self.names = [name for name, _, _ in self.all]

    def of(self, name: str) -> list[tuple[int, str]]:
        return [(pid, facts) for each, pid, facts in self.all if each == name]


def test_the_life_of_a_server_in_hooks(serve: Serve, kind: Kind, config: Path) -> None:
    server = serve("-c", str(config), *kind.arguments, kind.app).wait_until_ready()
    (worker,) = server.workers()
    master = server.pid

    server.stop()

    assert Calls(server).all == [
        ("nworkers_changed", master, "1 None"),
        ("on_starting", master, f"{master} {kind.app} 1"),
        ("when_ready", master, "1 0"),
        ("pre_fork", master, "[booting] 1"),
        ("post_fork", worker, f"{worker} {master} kept None"),
        ("post_worker_init", worker, "True False 30.0"),
        ("worker_exit", worker, f"{worker} False"),
        ("child_exit", master, f"{worker} kept False"),
        ("on_exit", master, "0"),
    ]


def test_with_preload_the_zygote_calls_pre_fork(serve: Serve, kind: Kind, config: Path) -> None:
    server = serve("-c", str(config), "--preload", *kind.arguments, kind.app).wait_until_ready()
    (worker,) = server.workers()

    server.stop()

    calls = Calls(server)
    assert calls.of("post_fork")[0][0] == worker
    assert " kept " in calls.of("post_fork")[0][1]
    assert [name for name in calls.names if name != "child_exit"] == [
        *("nworkers_changed", "on_starting", "when_ready", "pre_fork", "post_fork"),
        *("post_worker_init", "worker_exit", "on_exit"),
    ]
    assert [pid for pid, _ in calls.of("child_exit")] == [server.pid]


def test_hooks_of_a_reload_are_those_of_the_new_file(serve: Serve, config: Path) -> None:
    server = serve("-c", str(config), "hello").wait_until_ready()

    config.write_text(HOOKS.replace('"on_reload"', '"on_reload_2"') + "workers = 2\n")
    server.send_signal(signal.SIGHUP)
    server.wait_for_line("hook nworkers_changed", count=2)

    calls = Calls(server)
    assert calls.of("on_reload_2") == [(server.pid, "1")]
    assert [facts for _, facts in calls.of("nworkers_changed")] == ["1 None", "2 1"]
    assert calls.names.index("on_reload_2") < len(calls.names) - calls.names[::-1].index("pre_fork")


def test_ttin_changes_the_number_of_workers(serve: Serve, config: Path) -> None:
    server = serve("-c", str(config), "hello").wait_until_ready()

    server.send_signal(signal.SIGTTIN)
    server.wait_until_ready(2)

    assert Calls(server).of("nworkers_changed")[-1] == (server.pid, "2 1")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGQUIT])
def test_a_quick_stop_is_told_to_the_workers(
    serve: Serve, kind: Kind, config: Path, number: signal.Signals
) -> None:
    server = serve("-c", str(config), *kind.arguments, kind.app).wait_until_ready()
    (worker,) = server.workers()

    assert server.stop(number) == 0

    calls = Calls(server)
    assert calls.of("worker_int") == [(worker, str(worker))]
    assert len(calls.of("worker_exit")) == 1


def test_an_aborted_worker_calls_its_hooks(serve: Serve, kind: Kind, config: Path) -> None:
    if kind.name == "threaded":
        pytest.skip("its loop runs on while a thread hangs; request_timeout is for that")
    server = serve("-c", str(config), "--timeout", "1", *kind.arguments, kind.app)
    (worker,) = server.wait_until_ready().workers()
    server.expect("sent no heartbeat", "exited with status 1", "worker 1 stood here")

    server.send(request_bytes("/block"))
    server.wait_until_ready(2)
    server.wait_for_line("hook child_exit")

    calls = Calls(server)
    assert calls.of("worker_abort") == [(worker, "True")]
    assert [pid for pid, _ in calls.of("worker_exit")] == [worker]
    assert calls.of("child_exit")[0] == (server.pid, f"{worker} kept False")


# --- Hooks that fail --------------------------------------------------------------------------

IN_THE_MASTER = (
    *("on_starting", "when_ready", "pre_fork", "child_exit", "on_exit", "on_reload"),
    "nworkers_changed",
)
ARGUMENTS = {"pre_fork": 2, "child_exit": 2, "post_fork": 2, "nworkers_changed": 3}


def raising(name: str, what: str = "1 / 0") -> str:
    given = ", ".join("abc"[: ARGUMENTS.get(name, 1)])
    return f"import sys\ndef {name}({given}): {what}\n"


@pytest.mark.parametrize("name", IN_THE_MASTER)
def test_a_hook_that_raises_in_the_master_is_logged_and_nothing_else(
    serve: Serve, tmp_path: Path, name: str
) -> None:
    config = tmp_path / "gunicorn.py"
    config.write_text(raising(name))
    server = serve("-c", str(config), "hello").wait_until_ready()
    server.expect(rf"\[ERROR\] the hook {name} raised", "Traceback")

    server.send_signal(signal.SIGHUP)
    server.wait_for_line("reload done")
    status = server.get("/").status
    code = server.stop()

    assert (status, code) == (200, 0)
    assert "ZeroDivisionError" in server.log


@pytest.mark.parametrize("name", ["pre_fork", "child_exit", "on_reload"])
def test_a_hook_cannot_end_a_server_that_serves(serve: Serve, tmp_path: Path, name: str) -> None:
    config = tmp_path / "gunicorn.py"
    config.write_text(raising(name, "sys.exit(5)"))
    server = serve("-c", str(config), "hello").wait_until_ready()
    server.expect(rf"the hook {name} called sys.exit\(5\)")

    server.send_signal(signal.SIGHUP)
    server.wait_for_line("reload done")

    assert server.get("/").status == 200
    assert server.stop() == 0


@pytest.mark.parametrize("name", ["on_starting", "when_ready"])
def test_a_hook_may_refuse_the_start(serve: Serve, tmp_path: Path, name: str) -> None:
    config = tmp_path / "gunicorn.py"
    config.write_text(raising(name, "sys.exit(5)"))

    server = serve("-c", str(config), "hello")

    assert server.wait() == 5
    assert not list(server.board_folder.iterdir())


@pytest.mark.parametrize("name", ["post_fork", "post_worker_init"])
def test_a_hook_that_raises_in_a_worker_is_a_boot_failure(
    serve: Serve, kind: Kind, tmp_path: Path, name: str
) -> None:
    config = tmp_path / "gunicorn.py"
    config.write_text(raising(name))
    server = serve("-c", str(config), *kind.arguments, kind.app)
    server.expect("worker 1 cannot boot: ZeroDivisionError", "Traceback", "exited with status 3")

    assert server.wait() == 3


@pytest.mark.parametrize("name", ["post_fork", "post_worker_init"])
def test_a_reload_to_a_hook_that_raises_changes_nothing(
    serve: Serve, tmp_path: Path, name: str
) -> None:
    config = tmp_path / "gunicorn.py"
    config.write_text("")
    server = serve("-c", str(config), "hello").wait_until_ready()
    before = server.workers()
    server.expect("cannot boot: ZeroDivisionError", "Traceback", "status 3", "rolled back")

    config.write_text(raising(name))
    server.send_signal(signal.SIGHUP)
    server.wait_for_line("rolled back")

    assert server.get("/").status == 200
    assert server.workers() == before


# --- Hooks of requests ------------------------------------------------------------------------


def test_hooks_surround_every_request(serve: Serve, kind: Kind, tmp_path: Path) -> None:
    config = tmp_path / "gunicorn.py"
    config.write_text(REQUEST_HOOKS)
    server = serve("-c", str(config), *kind.arguments, kind.app).wait_until_ready()

    server.get("/pid?a=1")
    server.get("/stream?2")
    server.get("/big?3000000")
    server.wait_for_line("post /big")
    server.wait_for_line(r"post /", 3)

    assert server.lines(r"pre GET /pid a=1 /pid\?a=1 \(1, 1\)")
    told = [m[0] for m in server.lines(r"(pre GET|post) /\S+ \w*")]
    order = [re.split(r"[ ?]", line)[0] for line in told]
    if kind.name == "threaded":
        order = ["pre", "post"] * order.count("post")  # the client may ask again before the hook
        assert len(order) == len(told)
    assert order == ["pre", "post"] * 3
    assert server.lines(r"post /pid 200 \d+ True")
    assert server.lines(r"post /stream 200 None True")
    assert server.lines(r"post /big 200 3000000 True")


def test_the_application_sees_what_pre_request_changed(
    serve: Serve, kind: Kind, tmp_path: Path
) -> None:
    config = tmp_path / "gunicorn.py"
    config.write_text(REQUEST_HOOKS)
    server = serve("-c", str(config), *kind.arguments, kind.app)

    told = server.get("/request", **{"X-Sent": "by the client"}).body.decode()

    assert told == "https by the hook by the client"


def test_a_pre_request_that_raises_is_a_500_and_post_request_sees_it(
    serve: Serve, kind: Kind, tmp_path: Path
) -> None:
    config = tmp_path / "gunicorn.py"
    config.write_text(
        "def pre_request(worker, req): 1 / 0\n"
        "def post_request(worker, req): worker.log.info('post %s', req.path)\n"
    )
    server = serve("-c", str(config), *kind.arguments, kind.app)
    server.expect("ZeroDivisionError")
    server.tolerate("ERROR", "Traceback")

    assert server.get("/pid").status == 500
    server.wait_for_line("post /pid")


def test_a_post_request_that_raises_costs_nothing_but_a_line(
    serve: Serve, kind: Kind, tmp_path: Path
) -> None:
    config = tmp_path / "gunicorn.py"
    config.write_text("def post_request(worker, req, environ): 1 / 0\n")
    server = serve("-c", str(config), *kind.arguments, kind.app)
    server.expect("the hook post_request raised", "Traceback")

    assert [server.get("/pid").status for _ in range(3)] == [200] * 3
    assert server.stop() == 0


def test_post_request_is_called_for_an_application_that_raises(
    serve: Serve, kind: Kind, tmp_path: Path
) -> None:
    config = tmp_path / "gunicorn.py"
    config.write_text(REQUEST_HOOKS)
    server = serve("-c", str(config), *kind.arguments, kind.app)
    server.tolerate("ERROR", "Traceback")

    assert server.get("/raise").status == 500
    server.wait_for_line("post /raise")

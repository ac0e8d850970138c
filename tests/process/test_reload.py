"""Reloads: what is read anew, what is refused, and that nothing is lost either way."""

from __future__ import annotations

import signal
import socket
from pathlib import Path

import psutil

from tests.conftest import Serve
from tests.process.harness import Kind, Load, Server, wait_for


def answering(text: str, before: str = "") -> str:
    """The source of a WSGI module that answers with `text`."""
    return f"""{before}
def application(environ, start_response):
    start_response("200 OK", [])
    return [b"{text}"]
"""


def reload(server: Server, outcome: str = "reload done") -> None:
    """Ask for a reload, and wait for its outcome."""
    before = len(server.lines(outcome))
    server.send_signal(signal.SIGHUP)
    server.wait_for_line(outcome, before + 1)


def configured(folder: Path, text: str) -> Path:
    """A configuration file with that text."""
    path = folder / "server.conf.py"
    path.write_text(text)
    return path


def is_open(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except ConnectionRefusedError:
        return False
    return True


def test_new_code_and_new_settings_are_served(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "site_app.py").write_text(answering("old"))
    config = configured(tmp_path, "workers = 1")
    server = serve("-c", str(config), "site_app", cwd=tmp_path)
    server.wait_until_ready(1)
    (tmp_path / "site_app.py").write_text(answering("new"))
    configured(tmp_path, "workers = 3")

    reload(server)

    assert server.get("/").body == b"new"
    assert len(server.wait_for_workers(3)) == 3


def test_what_needs_a_restart_is_said_and_stays(serve: Serve, tmp_path: Path) -> None:
    config = configured(tmp_path, "proc_name = 'before'")
    server = serve("-c", str(config), "hello")
    server.wait_until_ready()
    server.expect('proc_name is "after" now .*, which needs a restart; it stays "before"')
    configured(tmp_path, "proc_name = 'after'")

    reload(server)

    (worker,) = server.wait_for_workers(1)
    assert psutil.Process(worker).cmdline()[0].startswith("before: worker")


def test_a_listener_is_added_and_another_dropped(serve: Serve, tmp_path: Path) -> None:
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    first, second = (each.getsockname()[1] for each in held)
    for each in held:
        each.close()
    config = configured(tmp_path, f"bind = '127.0.0.1:{first}'")
    server = serve("-c", str(config), "hello", binds=False)
    server.wait_until_ready(1)
    configured(tmp_path, f"bind = '127.0.0.1:{second}'")

    reload(server)

    assert is_open(second)
    wait_for(lambda: not is_open(first), what="the old listener closed")


def test_a_listener_that_cannot_be_bound_refuses_the_reload(serve: Serve, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as ours:
        port = ours.getsockname()[1]
    config = configured(tmp_path, f"bind = '127.0.0.1:{port}'")
    server = serve("-c", str(config), "hello", binds=False)
    server.wait_until_ready(1)
    server.expect("reload refused: cannot bind .*Address already in use")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        other = taken.getsockname()[1]
        configured(tmp_path, f"bind = ['127.0.0.1:{port}', '127.0.0.1:{other}']")

        reload(server, "reload refused")

    assert is_open(port)


def test_a_configuration_that_raises_is_refused(serve: Serve, tmp_path: Path) -> None:
    config = configured(tmp_path, "workers = 2")
    server = serve("-c", str(config), "hello")
    server.wait_until_ready(2)
    before = server.workers()
    server.expect("reload refused: .*ZeroDivisionError|reload refused: .*division by zero")
    server.tolerate("Traceback|ZeroDivisionError")
    configured(tmp_path, "workers = 1 / 0")

    reload(server, "reload refused")

    assert server.workers() == before
    assert server.get("/").status == 200


def test_a_configuration_that_exits_ends_only_its_reader(serve: Serve, tmp_path: Path) -> None:
    config = configured(tmp_path, "")
    server = serve("-c", str(config), "hello")
    server.wait_until_ready(1)
    server.expect("reload refused")
    configured(tmp_path, "import os; os._exit(0 if False else 9)")

    reload(server, "reload refused")

    assert server.get("/").status == 200


def test_a_hook_that_raises_in_the_new_workers_rolls_back(serve: Serve, tmp_path: Path) -> None:
    config = configured(tmp_path, "workers = 2")
    server = serve("-c", str(config), "hello")
    server.wait_until_ready(2)
    server.expect("cannot boot: RuntimeError", "before it was ready", "reload of generation 1")
    server.tolerate("Traceback")
    configured(
        tmp_path, "workers = 2\ndef post_fork(server, worker):\n    raise RuntimeError('hook')\n"
    )

    with Load(server, "/") as load:
        load.wait_for_answers(20)
        reload(server, "rolled back")
        load.wait_for_answers(20)

    assert load.lost == []


def test_a_lifespan_that_fails_rolls_back(serve: Serve, tmp_path: Path) -> None:
    source = """
async def application(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.%s"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
    else:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"served"})
"""
    (tmp_path / "spans.py").write_text(source % "complete")
    server = serve("-w", "2", "spans", cwd=tmp_path)
    server.wait_until_ready(2)
    server.expect("lifespan startup", "before it was ready", "reload of generation 1 rolled back")
    (tmp_path / "spans.py").write_text(source % "failed")

    with Load(server, "/") as load:
        load.wait_for_answers(20)
        reload(server, "rolled back")
        load.wait_for_answers(20)

    assert load.lost == []


def test_a_worker_that_never_becomes_ready_rolls_back(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "site_app.py").write_text(answering("old"))
    server = serve("-w", "2", "--boot-timeout", "1", "site_app", cwd=tmp_path)
    server.wait_until_ready(2)
    server.expect("was not ready after", "reload of generation 1 rolled back")
    server.tolerate("worker 4")
    hangs = answering("never", "import threading; threading.Event().wait()")
    (tmp_path / "site_app.py").write_text(hangs)

    reload(server, "rolled back")

    assert server.get("/").body == b"old"


def test_a_link_to_the_release_is_followed_anew(serve: Serve, tmp_path: Path, kind: Kind) -> None:
    for release in ("one", "two"):
        (tmp_path / release).mkdir()
        (tmp_path / release / "site_app.py").write_text(answering(release))
    current = tmp_path / "current"
    current.symlink_to("one")
    arguments = () if kind.name == "asgi" else kind.arguments
    server = serve(*arguments, "site_app", cwd=current, env={"PWD": str(current)})
    server.wait_until_ready(1)
    fresh = tmp_path / "fresh"
    fresh.symlink_to("two")
    fresh.rename(current)

    reload(server)

    assert server.get("/").body == b"two"


def test_all_at_once_starts_every_new_worker_before_the_last_old_one_goes(
    serve: Serve, tmp_path: Path
) -> None:
    server = serve("-w", "3", "--reload-mode", "all-at-once", "hello")
    server.wait_until_ready(3)

    with Load(server, "/") as load:
        load.wait_for_answers(20)
        reload(server)
        load.wait_for_answers(20)

    assert load.lost == []
    log = server.log
    # The gate alone, then the others together.
    assert log.index("worker 7 started") < log.index("worker 6 ready")


def test_a_stop_during_a_reload_wins(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "site_app.py").write_text(answering("old"))
    server = serve("-w", "2", "site_app", cwd=tmp_path)
    server.wait_until_ready(2)
    slow = answering("new", "import time; time.sleep(30)  # what the stop interrupts")
    (tmp_path / "site_app.py").write_text(slow)
    server.send_signal(signal.SIGHUP)
    server.wait_for_line("generation 1.: first of its generation")

    assert server.stop() == 0

"""With --reload the server follows the code, and code that is broken waits for the next change."""

from __future__ import annotations

import os
from pathlib import Path

import psutil
import pytest

from tests.conftest import Serve
from tests.process.harness import Kind, Server, ask, wait_for

WSGI = """
def application(environ, start_response):
    start_response("200 OK", [])
    return [b"{}"]
"""
ASGI = """
async def application(scope, receive, send):
    if scope["type"] == "http":
        await send({{"type": "http.response.start", "status": 200, "headers": []}})
        await send({{"type": "http.response.body", "body": b"{}"}})
"""
BROKEN = "def application(:\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder of a project."""
    made = tmp_path / "project"
    made.mkdir()
    return made


def answers(server: Server, body: bytes) -> None:
    """Returns when the server gives this answer."""
    wait_for(lambda: server.get().body == body, what=f"the answer {body!r}")


def watchers(server: Server) -> list[int]:
    """The pids of the processes that watch the code by now."""
    return [child.pid for child in psutil.Process(server.pid).children() if is_watcher(child)]


def is_watcher(child: psutil.Process) -> bool:
    try:
        return ": watcher" in " ".join(child.cmdline())
    except psutil.NoSuchProcess:
        return False


@pytest.mark.parametrize("engine", ["poll", "inotify"])
def test_a_change_of_the_code_is_served(
    serve: Serve, kind: Kind, engine: str, folder: Path
) -> None:
    source = ASGI if kind.name == "asgi" else WSGI
    (folder / "site_app.py").write_text(source.format("one"))
    arguments = (*kind.arguments, "--reload", "--reload-engine", engine)
    server = serve(*arguments, "site_app", cwd=folder).wait_until_ready()
    wait_for(lambda: watchers(server), what="a watcher")
    assert server.get().body == b"one"

    # All three are of one size, and written within one second.
    for word in ("two", "six", "ten"):
        (folder / "site_app.py").write_text(source.format(word))
        answers(server, word.encode())

    assert server.lines(r"site_app.py changed$")
    assert server.stop() == 0


def test_a_connection_that_is_kept_alive_gets_no_answer_of_the_old_code(
    serve: Serve, folder: Path
) -> None:
    (folder / "site_app.py").write_text(WSGI.format("one"))
    server = serve("--reload", "--keep-alive", "60", "site_app", cwd=folder).wait_until_ready()
    wait_for(lambda: watchers(server), what="a watcher")
    connection = server.connect()
    assert ask(connection, "GET", "/").body == b"one"

    (folder / "site_app.py").write_text(WSGI.format("two"))

    assert connection.sock.recv(1) == b""
    answers(server, b"two")


def test_a_broken_change_leaves_the_old_code_serving(serve: Serve, folder: Path) -> None:
    (folder / "site_app.py").write_text(WSGI.format("one"))
    server = serve("--reload", "site_app", cwd=folder).wait_until_ready()
    wait_for(lambda: watchers(server), what="a watcher")
    server.expect("cannot boot", "exited with status 3", "rolled back: .*; generation 0 serves on")

    (folder / "site_app.py").write_text(BROKEN)
    server.wait_for_line("rolled back")

    assert server.get().body == b"one"
    (folder / "site_app.py").write_text(WSGI.format("two"))
    answers(server, b"two")


@pytest.mark.parametrize("preload", [(), ("--preload",)], ids=["each", "preload"])
def test_code_that_is_broken_from_the_start_waits_to_be_mended(
    serve: Serve, folder: Path, preload: tuple[str, ...]
) -> None:
    (folder / "site_app.py").write_text(BROKEN)
    server = serve("--reload", *preload, "-w", "2", "site_app", cwd=folder)
    server.tolerate("cannot boot", "exited with status 3")
    server.expect("exited with status 3 before it was ready; waiting for the code to change")
    server.expect("rolled back: .*; waiting for the code to change")

    server.wait_for_line("; waiting for the code to change")
    wait_for(lambda: watchers(server), what="a watcher")
    (folder / "site_app.py").write_text(BROKEN + "# still\n")
    server.wait_for_line("rolled back")
    (folder / "site_app.py").write_text(WSGI.format("mended"))

    answers(server, b"mended")
    server.wait_for_line("reload done")
    assert server.stop() == 0


def test_other_files_are_watched_when_asked_for(serve: Serve, folder: Path) -> None:
    (folder / "site_app.py").write_text(WSGI.format("one"))
    (folder / "templates" / "blog").mkdir(parents=True)
    page = folder / "templates" / "blog" / "page.html"
    page.write_text("<p>")
    extra = ("--reload-extra-file", "templates/**/*.html")
    server = serve("--reload", *extra, "site_app", cwd=folder).wait_until_ready()
    wait_for(lambda: watchers(server), what="a watcher")

    page.write_text("<p>more")

    server.wait_for_line("templates/blog/page.html changed")
    server.wait_for_line("reload done: generation 1")


def test_a_reload_watches_what_the_new_configuration_says(serve: Serve, folder: Path) -> None:
    (folder / "site_app.py").write_text(WSGI.format("one"))
    (folder / "data.csv").write_text("1")
    config = folder / "gunicorn.conf.py"
    config.write_text("reload = True\n")
    server = serve("site_app", cwd=folder).wait_until_ready()
    (first,) = wait_for(lambda: watchers(server), what="a watcher")

    config.write_text("reload = True\nreload_extra_files = ['data.csv']\n")
    server.wait_for_line("reload done: generation 1")
    wait_for(lambda: first not in watchers(server) and watchers(server))
    (folder / "data.csv").write_text("22")

    server.wait_for_line("data.csv changed")
    server.wait_for_line("reload done: generation 2")


def test_a_watcher_that_dies_is_replaced(serve: Serve, folder: Path) -> None:
    (folder / "site_app.py").write_text(WSGI.format("one"))
    server = serve("--reload", "site_app", cwd=folder).wait_until_ready()
    (first,) = wait_for(lambda: watchers(server), what="a watcher")
    server.expect(rf"watcher \d+ \(pid {first}\) was killed by SIGKILL")

    os.kill(first, 9)

    wait_for(lambda: [w for w in watchers(server) if w != first], what="another watcher")
    (folder / "site_app.py").write_text(WSGI.format("two"))
    answers(server, b"two")

"""What a person or an application does wrong, and what they are told."""

from __future__ import annotations

import os
import re
import signal
import socket
import time
from pathlib import Path

import pytest

from tests.conftest import Serve
from tests.process.harness import APPS, ROOT, Kind, Server, ask, read_all, request_bytes

WITH_APPS = {"PYTHONPATH": os.pathsep.join(map(str, (ROOT, APPS)))}


def fails(server: Server, code: int) -> str:
    """The log of a server that ends with `code` by itself, within a few seconds."""
    assert server.wait(10) == code, server.log
    server.expect("")  # the test looks at the log itself
    return server.log


def test_an_application_that_raises_while_it_is_imported(serve: Serve, kind: Kind) -> None:
    log = fails(serve(*kind.arguments, "crash_on_boot"), 3)

    assert log.count("cannot import crash_on_boot") == 1
    assert "RuntimeError: the database is not configured" in log
    files = [line.split('"')[1] for line in log.splitlines() if line.strip().startswith("File")]
    assert [Path(file).name for file in files] == ["crash_on_boot.py"] * 2


def test_an_application_with_a_syntax_error(serve: Serve) -> None:
    log = fails(serve("syntax_error"), 3)

    assert 'syntax_error.py", line 3' in log
    assert "SyntaxError" in log


def test_a_module_that_does_not_exist(serve: Serve) -> None:
    log = fails(serve("hallo"), 3)

    assert 'no module named "hallo"' in log
    assert "did you mean hello?" in log
    assert "Traceback" not in log


def test_a_wrong_attribute(serve: Serve, kind: Kind) -> None:
    log = fails(serve(*kind.arguments, "simple_app"), 4)

    assert "Try forkmaster simple_app:simple_app" in log
    assert "Traceback" not in log


def test_an_application_that_cannot_be_called(serve: Serve) -> None:
    log = fails(serve("non_callable"), 4)

    assert "is a dict, not a callable application" in log


def test_several_workers_that_cannot_boot_end_the_server_once(serve: Serve) -> None:
    log = fails(serve("-w", "4", "crash_on_boot"), 3)

    assert log.count("stopped: ") <= 1


WSGI_INSTEAD = "but the application is WSGI; name its ASGI callable (Django: project.asgi)"
ASGI_INSTEAD = "but the application is ASGI; name its WSGI callable (Django: project.wsgi)"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("-k", "uvicorn", "hello"), f"uvicorn (asgi), {WSGI_INSTEAD}"),
        (("-k", "hypercorn", "hello"), f"hypercorn (asgi), {WSGI_INSTEAD}"),
        (("-k", "sync", "--threads", "4", "asgi_hello"), f"sync, {ASGI_INSTEAD}"),
        (("-k", "gevent", "--preload", "asgi_hello"), f"gevent (threaded), {ASGI_INSTEAD}"),
    ],
)
def test_a_worker_class_that_does_not_fit(
    serve: Serve, arguments: tuple[str, ...], told: str
) -> None:
    log = fails(serve(*arguments), 4)

    assert log == f"forkmaster: worker_class is {told}, or leave worker_class out\n"


@pytest.mark.parametrize(
    ("arguments", "who", "told"),
    [
        (("-k", "asgi", "shop:wsgi"), "worker", f"asgi, {WSGI_INSTEAD}"),
        (("-k", "hypercorn", "shop:wsgi"), "worker", f"hypercorn (asgi), {WSGI_INSTEAD}"),
        (("-k", "shop.Worker", "shop:wsgi"), "worker", f"shop.Worker (asgi), {WSGI_INSTEAD}"),
        (("-k", "sync", 'shop:make("asgi")'), "worker", f"sync, {ASGI_INSTEAD}"),
        (
            ("-k", "gthread", "--threads", "4", "shop:asgi"),
            "worker",
            f"gthread (threaded), {ASGI_INSTEAD}",
        ),
        (("-k", "sync", "-w", "3", "--preload", "shop:asgi"), "zygote", f"sync, {ASGI_INSTEAD}"),
    ],
)
def test_a_worker_class_that_does_not_fit_what_only_the_loaded_application_tells(
    serve: Serve, tmp_path: Path, arguments: tuple[str, ...], who: str, told: str
) -> None:
    (tmp_path / "shop.py").write_text(
        "import asgi_hello, hello, uvicorn.workers\n"
        "def make(interface):\n"
        "    return asgi_hello.application if interface == 'asgi' else hello.application\n"
        "asgi, wsgi = make('asgi'), make('wsgi')\n"
        "class Worker(uvicorn.workers.UvicornWorker): ...\n"
    )

    log = fails(serve("--log-level", "debug", *arguments, cwd=tmp_path, env=WITH_APPS), 4)

    assert re.findall(r"(\w+ \d+) started", log) == [f"{who} 1"]
    boots = re.findall(r"(\w+ \d+) cannot boot: (.*)", log)
    assert boots == [(f"{who} 1", f"worker_class is {told}, or leave worker_class out")]


def test_no_application_at_all(serve: Serve, tmp_path: Path) -> None:
    server = serve(cwd=tmp_path)

    assert server.wait() in (2, 5)
    assert "project.wsgi" in server.log or "application" in server.log


def test_an_unknown_option(serve: Serve) -> None:
    log = fails(serve("--wokers", "2", "hello"), 2)

    assert "--wokers" in log
    assert "--workers" in log


def test_a_value_that_is_wrong(serve: Serve) -> None:
    log = fails(serve("--workers", "many", "hello"), 5)

    assert "many" in log
    assert "--workers" in log


def test_a_configuration_file_with_a_syntax_error(serve: Serve, tmp_path: Path) -> None:
    conf = tmp_path / "gunicorn.py"
    conf.write_text("workers = 2\nbind = = 1\n")

    log = fails(serve("-c", str(conf), "hello"), 5)

    assert str(conf) in log
    assert "line 2" in log


def test_a_configuration_file_that_does_not_exist(serve: Serve, tmp_path: Path) -> None:
    log = fails(serve("-c", str(tmp_path / "nothing.py"), "hello"), 5)

    assert "nothing.py" in log


def test_a_port_in_use_is_told_at_once_with_its_owner(serve: Serve) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        began = time.monotonic()

        log = fails(serve("-b", f"127.0.0.1:{port}", "hello", binds=False), 1)

    assert time.monotonic() - began < 3
    assert f"cannot bind 127.0.0.1:{port}: Address already in use" in log
    assert "pid" in log


def test_a_body_of_str_is_explained(serve: Serve) -> None:
    server = serve("str_body").wait_until_ready()
    server.expect(r"\[ERROR\].*str")

    answer = server.get("/")

    assert answer.status == 500
    server.wait_for_line(
        r"GET / from .*: str_body sent a str; the body must be an iterable of bytes, "
        r"such as \[b'\.\.\.'\] \(PEP 3333\)$"
    )


def test_an_application_that_raises(serve: Serve, kind: Kind) -> None:
    server = serve(*kind.arguments, kind.app).wait_until_ready()
    server.expect(r"\[ERROR\]")

    answer = server.get("/raise")
    after = server.get("/pid")

    assert answer.status == 500
    assert b"ValueError" not in answer.body
    assert "ValueError: raised before" in server.log
    assert "GET /raise" in server.log
    assert after.status == 200
    assert server.lines("worker 2") == []


@pytest.mark.parametrize("code", [0, 3, 4])
def test_an_application_that_exits_in_a_view(serve: Serve, kind: Kind, code: int) -> None:
    server = serve(*kind.arguments, kind.app).wait_until_ready()
    before = server.pid_of_worker()
    server.expect(r"\[ERROR\]")

    answer = server.get(f"/exit?{code}")

    assert answer.status == 500
    assert "SystemExit" in server.log
    assert server.pid_of_worker() == before
    assert server.process.poll() is None


def test_an_application_that_raises_after_its_head_was_sent(serve: Serve) -> None:
    server = serve("raises").wait_until_ready()
    server.expect(r"\[ERROR\]")

    with server.send(request_bytes("/middle")) as raw:
        received = read_all(raw)

    # No clean last chunk: the client must be able to tell.
    assert b"the first part" in received
    assert not received.endswith(b"0\r\n\r\n")
    assert "ValueError: raised in the middle of the body" in server.log


def test_garbage_is_refused_and_the_next_client_served(serve: Serve, kind: Kind) -> None:
    server = serve(*kind.arguments, kind.hello).wait_until_ready()

    with server.send(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n") as raw:
        refused = read_all(raw)

    assert refused.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert server.get("/").status == 200


def test_clients_that_vanish_harm_nobody(serve: Serve, kind: Kind) -> None:
    server = serve(*kind.arguments, kind.app).wait_until_ready()

    for path in ("/big?5000000", "/stream?5", "/slow?0.05"):
        server.send(request_bytes(path)).close()
    connection = server.connect()
    answers = [ask(connection, "GET", "/pid").status for _ in range(3)]

    assert answers == [200, 200, 200]
    assert server.stop(signal.SIGTERM) == 0

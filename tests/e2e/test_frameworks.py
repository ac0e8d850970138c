"""The frameworks of the deployment notes, each with the same four views, served by their names."""

from __future__ import annotations

import os
import signal

import httpx
import pytest

from tests.conftest import Serve
from tests.process.harness import PATIENCE, Load, all_gone, wait_for

FRAMEWORKS = {
    "flask": ("flask_app:app", "sync"),
    "flask-threaded": ("flask_app:app", "threaded"),
    "pyramid": ("pyramid_app:main()", "sync"),
    "starlette": ("starlette_app:app", "asgi"),
}


@pytest.mark.parametrize(("app", "kind"), FRAMEWORKS.values(), ids=FRAMEWORKS)
def test_a_framework_end_to_end(serve: Serve, app: str, kind: str) -> None:
    threads = ("--threads", "4") if kind == "threaded" else ()
    server = serve("-w", "2", *threads, app).wait_until_ready(2)
    server.expect("Exception on /broken|raised ValueError|Exception in ASGI application")
    # Flask's own, and Pyramid's of a library of its.
    server.tolerate("^Traceback", "UserWarning: pkg_resources is deprecated")
    content = os.urandom(1_500_000)  # more than any of them keeps in memory

    with httpx.Client(base_url=server.url, timeout=PATIENCE) as browser:
        hello = browser.get("/", params={"name": "eñe"})
        upload = browser.post("/upload", data={"name": "a"}, files={"file": ("a.bin", content)})
        stream = browser.get("/stream")
        broken = browser.get("/broken")
        again = browser.get("/", params={"name": "again"})

    assert (hello.status_code, hello.text) == (200, "hello eñe\n")
    assert (upload.status_code, upload.text) == (200, "a 1500000\n")
    assert stream.text == "line 0\nline 1\nline 2\n"
    assert stream.headers["transfer-encoding"] == "chunked"
    assert broken.status_code == 500
    assert again.text == "hello again\n"
    assert {child.kind for child in server.board().children} == {kind}
    assert server.stop() == 0


@pytest.mark.lab
@pytest.mark.parametrize(("app", "kind"), FRAMEWORKS.values(), ids=FRAMEWORKS)
def test_a_framework_is_reloaded_under_load(serve: Serve, app: str, kind: str) -> None:
    threads = ("--threads", "4") if kind == "threaded" else ()
    server = serve("-w", "2", *threads, app).wait_until_ready(2)
    server.tolerate("UserWarning: pkg_resources is deprecated")
    before = server.workers()

    with Load(server, "/?name=load") as load:
        load.wait_for_answers(50)
        server.send_signal(signal.SIGHUP)
        wait_for(lambda: all_gone(before), what="the old workers are gone")
        load.wait_for_answers(50)

    assert load.lost == []
    assert load.bodies == {b"hello load\n"}

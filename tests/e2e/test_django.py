"""A Django project as its users see it: real HTTP and websocket clients."""

from __future__ import annotations

import http.client
import os
import signal
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from tests.conftest import Serve
from tests.e2e.conftest import PROJECT, Site
from tests.process.harness import PATIENCE, ROOT, Load, all_gone, wait_for


def test_a_page_from_the_database(shared_site: Site) -> None:
    page = shared_site.browser.get("/")

    assert page.status_code == 200
    assert "the first note" in page.text
    assert "&lt;markup&gt; &amp; more" in page.text
    assert "una nota con eñe" in page.text


def test_a_form_with_its_token_is_taken_and_one_without_is_not(site: Site) -> None:
    token = site.token("/")

    taken = site.browser.post("/", data={"text": "new ✓", "csrfmiddlewaretoken": token})
    refused = site.browser.post("/", data={"text": "forged"})
    page = site.browser.get("/")

    assert taken.status_code == 302
    assert refused.status_code == 403
    assert "new ✓" in page.text
    assert "forged" not in page.text


def test_the_admin_after_a_login(site: Site) -> None:
    before = site.browser.get("/admin/project/note/")

    site.log_in()
    after = site.browser.get("/admin/project/note/")

    assert before.status_code == 302
    assert after.status_code == 200
    assert "the first note" in after.text
    assert site.browser.get("/whoami").json()["user"] == "admin"


def test_a_file_goes_up_and_comes_down_unchanged(site: Site) -> None:
    content = os.urandom(3 * 1024 * 1024)  # more than Django keeps in memory
    site.log_in()
    token = site.token("/upload")

    sent = site.browser.post(
        "/upload",
        data={"text": "with a file", "csrfmiddlewaretoken": token},
        files={"attachment": ("data.bin", content)},
    )
    received = site.browser.get(sent.headers["location"])

    assert sent.status_code == 302
    assert received.content == content
    assert received.headers["content-disposition"].startswith("attachment")
    assert int(received.headers["content-length"]) == len(content)


def test_a_stream_arrives_piece_by_piece(shared_site: Site) -> None:
    with shared_site.browser.stream("GET", "/stream?lines=5&delay=0.05") as answer:
        pieces = list(answer.iter_raw())

    assert "content-length" not in answer.headers
    assert len(pieces) > 1
    assert b"".join(pieces) == b"".join(b"line %d\n" % number for number in range(5))


def test_an_async_view(shared_site: Site) -> None:
    assert shared_site.browser.get("/async").json() == {"notes": 3}


def test_static_files_by_their_hashed_names(shared_site: Site) -> None:
    page = shared_site.browser.get("/").text
    path = page.split('<link rel="stylesheet" href="')[1].split('"')[0]

    style = shared_site.browser.get(path)

    assert path.startswith("/static/project/style.")
    assert path != "/static/project/style.css"
    assert style.status_code == 200
    assert style.headers["content-type"].startswith("text/css")
    assert "font:" in style.text


def test_django_knows_the_client(shared_site: Site) -> None:
    answer = shared_site.browser.get("/whoami", params={"a": "ä b"}).json()

    assert answer == {
        "user": "",
        "address": "127.0.0.1",
        "scheme": "http",
        "host": f"127.0.0.1:{shared_site.server.port}",
        "path": "/whoami",
        "query": {"a": "ä b"},
    }


def test_head_and_conditional_requests_have_no_body(shared_site: Site) -> None:
    page = shared_site.browser.get("/")
    style = page.text.split('href="')[1].split('"')[0]
    modified = shared_site.browser.get(style).headers["last-modified"]

    head = shared_site.browser.head("/")
    unchanged = shared_site.browser.get(style, headers={"If-Modified-Since": modified})

    assert (head.status_code, head.content) == (200, b"")
    assert (unchanged.status_code, unchanged.content) == (304, b"")
    assert shared_site.browser.get("/whoami").status_code == 200  # on the same connection


def test_a_view_that_raises_is_a_500_and_django_logs_it(shared_site: Site) -> None:
    shared_site.server.tolerate("Internal Server Error", "Traceback")

    answer = shared_site.browser.get("/broken")

    assert answer.status_code == 500
    assert "RuntimeError" not in answer.text
    assert shared_site.browser.get("/").status_code == 200


def test_a_page_that_does_not_exist(shared_site: Site) -> None:
    assert shared_site.browser.get("/nowhere").status_code == 404


def test_a_reload_under_load_loses_nothing(site: Site) -> None:
    server = site.server.wait_until_ready(2)
    before = server.workers()

    with Load(server, "/async", clients=2) as load:
        load.wait_for_answers(5)
        server.send_signal(signal.SIGHUP)
        server.wait_for_line("reload done: generation 1")
        wait_for(lambda: all_gone(before), what="the old workers are gone")
        load.wait_for_answers(5)

    assert load.lost == []
    assert load.bodies == {b'{"notes": 3}'}


def test_a_websocket_through_channels(serve: Serve, data: Path) -> None:
    server = serve("project.asgi", cwd=PROJECT, env={"PROJECT_DATA": str(data)})
    server.wait_until_ready(1)
    url = f"ws://127.0.0.1:{server.port}/ws/echo"

    with connect(url, origin=server.url) as ws:  # type: ignore[arg-type]
        ws.send("héllo")
        ws.send(b"\x00\xff")
        received = [ws.recv(PATIENCE), ws.recv(PATIENCE)]
        server.send_signal(signal.SIGTERM)
        with pytest.raises(ConnectionClosed) as caught:
            ws.recv(PATIENCE)

    assert received == ["héllo", b"\x00\xff"]
    assert caught.value.rcvd is not None
    assert caught.value.rcvd.code == 1012
    assert server.wait() == 0


def test_a_websocket_from_another_origin_is_refused(serve: Serve, data: Path) -> None:
    server = serve("project.asgi", cwd=PROJECT, env={"PROJECT_DATA": str(data)})
    server.wait_until_ready(1)
    url = f"ws://127.0.0.1:{server.port}/ws/echo"

    with pytest.raises(InvalidStatus) as caught, connect(url, origin="https://evil.example"):  # type: ignore[arg-type]
        pass

    assert caught.value.response.status_code == 403


def test_the_configuration_of_the_demo(serve: Serve, data: Path, tmp_path: Path) -> None:
    conf = ROOT / "conf" / "gunicorn.py"
    server = serve(
        "-c",
        str(conf),
        "project.wsgi:application",
        cwd=tmp_path,
        env={"PROJECT_DATA": str(data)},
    )

    server.wait_until_ready(3)
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE)
    connection.request("GET", "/", headers={"Host": "localhost"})
    answer = connection.getresponse()
    page = answer.read()
    connection.close()

    assert answer.status == 200
    assert b"the first note" in page
    assert server.stop(signal.SIGINT) == 0

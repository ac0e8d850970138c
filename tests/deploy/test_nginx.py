"""The demo project behind a real nginx, with the site of conf/nginx."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from tests.deploy.conftest import WAYS, Deploy, Deployed
from tests.process.harness import PATIENCE, Load, all_gone, wait_for

# Each kind of worker, and each way from nginx to it, on a site of its own.
EACH_WAY = pytest.mark.parametrize(("kind", "transport"), WAYS)


def test_a_login_on_another_port(shared: Deployed) -> None:
    answer = shared.log_in()
    admin = shared.browser.get("/admin/project/note/")

    assert answer.status_code == 302, answer.text  # 403 would be the CSRF check
    assert "the first note" in admin.text


def test_a_form_from_elsewhere_is_refused(shared: Deployed) -> None:
    token = shared.token("/")

    answer = shared.browser.post(
        "/",
        data={"text": "forged", "csrfmiddlewaretoken": token},
        headers={"Origin": "https://evil.example"},
    )

    assert answer.status_code == 403


def test_static_files_come_from_nginx(shared: Deployed) -> None:
    path = shared.browser.get("/").text.split('<link rel="stylesheet" href="')[1].split('"')[0]

    style = shared.browser.get(path)
    missing = shared.browser.get("/static/missing.css")
    outside = shared.browser.get("/static/..%2fdb.sqlite3")

    assert style.status_code == 200
    assert "immutable" in style.headers["cache-control"]
    assert style.headers["content-type"] == "text/css"
    assert "font:" in style.text
    assert (missing.status_code, outside.status_code) == (404, 400)
    assert path not in (shared.nginx.prefix.parent / "access.log").read_text()


def test_a_file_of_20_mib_goes_up_and_comes_down(shared: Deployed) -> None:
    content = os.urandom(20 * 1024 * 1024)
    shared.log_in()

    sent = shared.post("/upload", {"text": "large"}, files={"attachment": ("data.bin", content)})
    received = shared.browser.get(sent.headers["location"])
    media = shared.browser.get("/media/attachments/data.bin")

    assert sent.status_code == 302, sent.text
    wanted = hashlib.sha256(content).hexdigest()
    assert hashlib.sha256(received.content).hexdigest() == wanted
    assert hashlib.sha256(media.content).hexdigest() == wanted
    assert media.headers["x-content-type-options"] == "nosniff"


def test_a_body_beyond_the_limit_of_nginx_is_refused(shared: Deployed) -> None:
    answer = shared.browser.post("/upload", content=b"x" * (25 * 1024 * 1024 + 1))

    assert answer.status_code == 413


def test_a_host_that_is_not_ours_gets_nothing(shared: Deployed) -> None:
    with pytest.raises(Exception, match="disconnected"):
        shared.browser.get("/", headers={"Host": "evil.example"})


def test_the_client_is_in_the_access_log(shared: Deployed) -> None:
    shared.browser.get("/whoami?a=1")

    log = shared.nginx.prefix.parent / "access.log"
    request = "GET /whoami?a=1 HTTP/1.1"
    wait_for(lambda: f'"{request}"' in log.read_text(), what="a line in the access log")
    client, rest = log.read_text().split(f'"{request}"')
    client = client.rpartition("\n")[2]
    assert client.strip() == "127.0.0.1"
    status, queued = rest.split()[:2]
    assert status == "200"
    if shared.kind != "asgi":  # which does not read X-Request-Start
        assert 0 <= float(queued) < 10


def test_the_application_knows_the_client_and_the_host(shared: Deployed) -> None:
    answer = shared.browser.get("/whoami").json()

    # A WSGI application behind a unix socket reads X-Forwarded-For itself, as under gunicorn.
    assert answer["address"] == ("" if shared.kind == "sync" else "127.0.0.1")
    assert answer["host"] == f"localhost:{shared.nginx.port}"


@pytest.mark.parametrize(
    ("kind", "transport"), [("sync", "unix"), pytest.param("asgi", "tcp", marks=pytest.mark.lab)]
)
def test_tls_and_http_2_end_at_nginx(deploy: Deploy, kind: str, transport: str) -> None:
    if shutil.which("curl") is None or shutil.which("openssl") is None:
        pytest.skip("curl or openssl is not installed")
    site = deploy(kind, transport=transport, site="project-tls.conf")
    url = f"https://localhost:{site.nginx.secure_port}/whoami"

    answer = subprocess.run(
        ["curl", "--silent", "--insecure", "--http2", "--write-out", "\n%{http_version}", url],
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    redirect = site.browser.get("/whoami?a=1")

    body, _, version = answer.stdout.rpartition("\n")
    assert version == "2"
    assert '"scheme": "https"' in body
    assert f'"host": "localhost:{site.nginx.secure_port}"' in body
    assert redirect.status_code == 301
    assert redirect.headers["location"].endswith("/whoami?a=1")


def test_a_websocket(deploy: Deploy) -> None:
    site = deploy("asgi")
    url = f"ws://localhost:{site.nginx.port}/ws/echo"

    with connect(url, origin=site.nginx.url) as ws:  # type: ignore[arg-type]
        ws.send("héllo")
        ws.send(b"\x00\xff")
        received = [ws.recv(PATIENCE), ws.recv(PATIENCE)]
        site.server.send_signal(signal.SIGTERM)
        with pytest.raises(ConnectionClosed) as caught:
            ws.recv(PATIENCE)

    assert received == ["héllo", b"\x00\xff"]
    assert caught.value.rcvd is not None
    assert caught.value.rcvd.code == 1012
    assert site.server.wait() == 0


def test_connections_to_forkmaster_are_kept(shared: Deployed) -> None:
    before = shared.server.board().totals.counters["accepted"]
    for _ in range(10):
        assert shared.browser.get("/whoami").status_code == 200

    # Two workers: nginx keeps one connection, wherever it ended up.
    assert shared.server.board().totals.counters["accepted"] <= before + 1


@pytest.mark.lab  # wrk sees the same in `make test`
@EACH_WAY
def test_a_reload_under_load_loses_nothing(deploy: Deploy, kind: str, transport: str) -> None:
    site = deploy(kind, transport=transport)
    before = site.server.workers()

    with Load(site, "/async", clients=4) as load:  # type: ignore[arg-type]
        load.wait_for_answers(20)
        site.server.send_signal(signal.SIGHUP)
        site.server.wait_for_line("reload done: generation 1")
        wait_for(lambda: all_gone(before), what="the old workers are gone")
        load.wait_for_answers(20)

    assert load.lost == []
    assert load.bodies == {b'{"notes": 3}'}


@EACH_WAY
def test_wrk_sees_nothing_of_a_reload(deploy: Deploy, kind: str, transport: str) -> None:
    if shutil.which("wrk") is None:
        pytest.skip("wrk is not installed")
    site = deploy(kind, transport=transport)
    before = site.server.workers()
    url = f"{site.nginx.url}/whoami"

    # It would run for a minute, but prints its figures when it is interrupted.
    wrk = subprocess.Popen(
        ["wrk", "--threads=1", "--connections=8", "--duration=60s", "--timeout=60s", url],
        stdout=subprocess.PIPE,
        text=True,
    )
    wait_for_answers(site, 100)
    site.server.send_signal(signal.SIGHUP)
    site.server.wait_for_line("reload done: generation 1", timeout=30)
    wait_for(lambda: all_gone(before), what="the old workers are gone")
    wait_for_answers(site, 100)
    wrk.send_signal(signal.SIGINT)
    figures, _ = wrk.communicate(timeout=30)

    assert "requests in" in figures
    assert "Non-2xx" not in figures
    assert "Socket errors" not in figures


def wait_for_answers(site: Deployed, count: int) -> None:
    """Returns when so many more requests have been answered well."""

    def answered() -> int:
        return site.server.board().totals.counters["status_2xx"]

    target = answered() + count
    wait_for(lambda: answered() >= target, what=f"{count} more answers")

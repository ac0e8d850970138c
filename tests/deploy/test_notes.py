"""What the deployment notes do, done with forkmaster; docs/notes.md says which test has which row.

Rows that other folders test are not repeated here.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from forkmaster.system.queues import accept_queue
from tests.conftest import Serve
from tests.deploy.conftest import Deploy
from tests.e2e.conftest import PROJECT
from tests.process.harness import OTHERS, ROOT, Server, read_all, request_bytes, wait_for

# Word for word, but for the folder of the project.
THE_FILE = """\
# location of gunicorn executable
command = '/usr/bin/gunicorn'
# Loaction of manage.py
pythonpath = '{project}'
# Path to port
bind = '0.0.0.0:8000'
# number of workers
workers = 3
"""


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder with the configuration file of the note, and nothing else."""
    path = tmp_path / "conf"
    path.mkdir()
    (path / "gunicorn.py").write_text(THE_FILE.format(project=PROJECT))
    return path


@pytest.mark.parametrize(
    ("flag", "where", "app"),
    [
        ("-c", "relative", "project.wsgi"),
        ("--config", "absolute", "project.wsgi:application"),
        ("-c", "file:", "project.wsgi"),
        ("--config", "python:", "project.wsgi"),
    ],
)
def test_row_1_the_command_of_the_note(
    serve: Serve, data: Path, folder: Path, flag: str, where: str, app: str
) -> None:
    spelt = {
        "relative": "gunicorn.py",
        "absolute": str(folder / "gunicorn.py"),
        "file:": "file:gunicorn.py",
        "python:": "python:gunicorn_settings",
    }[where]
    # A module cannot have the name of one that exists.
    (folder / "gunicorn_settings.py").write_bytes((folder / "gunicorn.py").read_bytes())

    server = serve(flag, spelt, app, cwd=folder, env={"PROJECT_DATA": str(data)})

    server.wait_until_ready(3)
    assert b"the first note" in server.get("/").body


def test_row_2_a_file_called_gunicorn_py_hides_nothing(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "gunicorn.py").write_text("workers = 1\n")
    (tmp_path / "app.py").write_text(
        "import gunicorn.glogging\n"
        "def application(environ, start_response):\n"
        "    start_response('200 OK', [])\n"
        "    return [gunicorn.glogging.Logger.__name__.encode()]\n"
    )

    server = serve("-c", "gunicorn.py", "app", cwd=tmp_path)

    assert server.get().body == b"Logger"


def test_row_5_the_script_of_a_platform_that_sets_port(data: Path, tmp_path: Path) -> None:
    program = tmp_path / "bin" / "forkmaster"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m forkmaster "$@"\n')
    program.chmod(0o755)
    with socket.create_server(("127.0.0.1", 0)) as found:
        port = found.getsockname()[1]
    script = ROOT / "conf" / "web.sh"
    log = tmp_path / "log"

    with log.open("wb") as written:
        server = subprocess.Popen(
            ["sh", script],
            cwd=PROJECT,
            env=environment(
                PATH=f"{program.parent}:{os.environ['PATH']}",
                PORT=str(port),
                WEB_CONCURRENCY="2",
                PROJECT_DATA=str(data),
            ),
            stdout=written,
            stderr=subprocess.STDOUT,
        )
    try:
        wait_for(lambda: answers(port), 30, "an answer")
        # The first worker may have answered before the second was ready.
        wait_for(lambda: "ready in" in log.read_text(), 30, "the last line of the start")
    finally:
        server.terminate()
        server.wait(30)

    output = log.read_text()
    assert server.returncode == 0, output
    assert f"listening on 0.0.0.0:{port}" in output
    assert "2 workers" in output
    assert '"GET / HTTP/1.1" 200' in output


def test_row_7_four_workers_of_eight_threads_run_32_requests_at_once(serve: Serve) -> None:
    server = serve("--workers=4", "--threads=8", "wsgi_echo:application").wait_until_ready(4)
    clients = []
    for count in range(1, 33):
        clients.append(server.send(request_bytes("/slow?600", "Connection: close")))
        server.wait_until_running(count)

    last = server.send(request_bytes("/pid", "Connection: close"))

    assert sum(len(child.in_flight) for child in server.board().children) == 32
    for client in (*clients, last):
        client.close()
    server.tolerate("the master is gone")
    server.process.kill()  # for a graceful stop the sleepers would have to wake up
    server.process.wait()


def test_row_9_what_the_application_prints_is_in_the_log(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(
        "import os, subprocess\n"
        "def application(environ, start_response):\n"
        "    print('printed')\n"
        "    os.write(1, b'written\\n')\n"
        "    subprocess.run(['echo', 'echoed'])\n"
        "    start_response('200 OK', [])\n"
        "    return [b'']\n"
    )
    log = tmp_path / "error.log"

    server = serve("--capture-output", "--error-logfile", str(log), "app", cwd=tmp_path)
    server.get()

    for word in ("printed", "written", "echoed"):
        wait_for(lambda word=word: word in log.read_text(), what=f"{word!r} in the log")


def test_row_11_a_space_after_a_backslash_is_explained(tmp_path: Path) -> None:
    script = tmp_path / "web.sh"
    script.write_text(
        f"{sys.executable} -m forkmaster config.wsgi:application \\\n"
        '    --bind 0.0.0.0:"$PORT" \\  # (1)\n'
        "    --workers=2 \\ # (2)\n"
        "    --capture-output\n"
    )

    done = subprocess.run(
        ["bash", script], env=environment(PORT="1"), capture_output=True, text=True, check=False
    )

    assert "a space after the backslash at the end of a line?" in done.stderr


def test_row_14_the_uvicorn_command_with_the_name_swapped(serve: Serve) -> None:
    with socket.create_server(("127.0.0.1", 0)) as found:
        port = found.getsockname()[1]

    server = serve("fastapi_app:app", "--host", "127.0.0.1", "--port", str(port), binds=False)

    server.wait_until_ready()
    with socket.create_connection(("127.0.0.1", port), 10) as client:
        client.sendall(request_bytes("/", "Connection: close"))
        assert read_all(client).startswith(b"HTTP/1.1 ")
    assert {child.kind for child in server.board().children} == {"asgi"}


def test_row_18_a_hundred_users_and_four_workers(serve: Serve) -> None:
    server = serve("-w", "4", "-k", "sync", "wsgi_echo").wait_until_ready(4)
    longest = 0
    answers: list[bytes] = []

    clients = [server.send(request_bytes("/slow?0.05", "Connection: close")) for _ in range(100)]
    threads = [threading.Thread(target=lambda c=c: answers.append(read_all(c))) for c in clients]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        longest = max(longest, queued(server))
        threads[0].join(0.005)
        threads = [thread for thread in threads if thread.is_alive()] or threads[:1]

    assert len(answers) == 100
    assert all(answer.startswith(b"HTTP/1.1 200 ") for answer in answers)
    assert longest > 4  # the queue was to be seen
    assert queued(server) == 0


def test_row_22_the_master_knows_no_client(serve: Serve) -> None:
    server = serve("-w", "2", "wsgi_echo").wait_until_ready(2)

    connections = [server.connect() for _ in range(4)]
    for connection in connections:
        connection.request("GET", "/pid")
        assert connection.getresponse().read()

    of_master = psutil.Process(server.pid).net_connections("tcp")
    of_workers = [
        each for pid in server.workers() for each in psutil.Process(pid).net_connections("tcp")
    ]
    assert {each.status for each in of_master} == {psutil.CONN_LISTEN}
    assert sum(each.status == psutil.CONN_ESTABLISHED for each in of_workers) == 4


def test_row_30_an_inherited_settings_module_is_outweighed_by_env(serve: Serve, data: Path) -> None:
    server = serve(
        *("-e", "DJANGO_SETTINGS_MODULE=project.settings", "project.wsgi"),
        cwd=PROJECT,
        env={"PROJECT_DATA": str(data), "DJANGO_SETTINGS_MODULE": "of.another.project"},
    )

    assert b"the first note" in server.get("/").body


# The server block of the note, with the paths and ports of this test.  In its nginx.conf
# proxy_params is Debian's.
THE_SITE = """\
server {{
    listen 127.0.0.1:{port};
    server_name localhost;

    location = /base.jpg {{ access_log off; log_not_found off; }}
    location /static/ {{
        root {data};
    }}

    location / {{
        include proxy_params;
        proxy_pass http://{upstream};
    }}
}}
"""


def test_row_40_the_nginx_site_of_the_note(deploy: Deploy, data: Path, tmp_path: Path) -> None:
    # `root` keeps /static/ in the path of the file, so the folder must be called that.
    (data / "static").symlink_to("staticfiles")
    site = deploy(transport="tcp", text=THE_SITE)

    page = site.browser.get("/")
    style = site.browser.get("/static/project/style.css")

    assert "the first note" in page.text
    assert "font:" in style.text
    assert page.headers["server"].startswith("nginx")


def answers(port: int) -> bool:
    """Whether a page of the demo project is served there."""
    try:
        return httpx.get(f"http://127.0.0.1:{port}/", timeout=20).status_code == 200
    except httpx.ConnectError:
        return False


def queued(server: Server) -> int:
    """How many connections wait for a worker."""
    assert server.listener is not None
    queue = accept_queue(server.listener)
    assert queue is not None
    return queue.waiting


def environment(**more: str) -> dict[str, str]:
    inherited = {key: value for key, value in os.environ.items() if not OTHERS.fullmatch(key)}
    return {**inherited, "PYTHONPATH": str(ROOT), **more}

"""Workers that are somebody else than who started the server, and the files that go with them."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.conftest import Serve
from tests.process.everybody import NOBODY, PYTHON
from tests.process.harness import Kind, Server, wait_for

pytestmark = pytest.mark.skipif(
    PYTHON is None, reason="needs root, and a Python that nobody may run"
)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that everybody gets to.

    Not below pytest's, which every session that starts makes private anew.
    """
    with tempfile.TemporaryDirectory(prefix="forkmaster-test-", dir="/tmp") as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder


def serve_as_nobody(serve: Serve, *arguments: str) -> Server:
    assert PYTHON is not None
    python, environ = PYTHON
    return serve("--user", "nobody", *arguments, python=python, env=environ)


@pytest.mark.parametrize("preload", [False, True], ids=["forked", "preloaded"])
def test_workers_run_as_the_user_and_in_its_group(serve: Serve, kind: Kind, preload: bool) -> None:
    arguments = ("--preload",) if preload else ()
    server = serve_as_nobody(serve, *arguments, *kind.arguments, "-w", "2", kind.app)
    server.wait_until_ready(2)

    workers = [psutil.Process(pid) for pid in server.workers()]

    assert {tuple(worker.uids()) for worker in workers} == {(NOBODY.pw_uid,) * 3}
    assert {tuple(worker.gids()) for worker in workers} == {(NOBODY.pw_gid,) * 3}
    assert {groups_of(worker.pid) for worker in workers} == {(NOBODY.pw_gid,)}
    assert psutil.Process(server.pid).uids().real == 0
    assert server.get("/pid").status == 200


def test_initgroups_gives_workers_all_groups_of_the_user(serve: Serve) -> None:
    server = serve_as_nobody(serve, "--initgroups", "hello").wait_until_ready()
    (worker,) = server.workers()

    wanted = os.getgrouplist("nobody", NOBODY.pw_gid)

    assert set(groups_of(worker)) == set(wanted)


def test_the_application_is_loaded_without_roots_rights(serve: Serve, open_folder: Path) -> None:
    (open_folder / "tells_user.py").write_text(
        "import os\n"
        "user = os.geteuid()\n"
        "def application(environ, start_response):\n"
        "    start_response('200 OK', [])\n"
        "    return [b'%d %d' % (user, os.geteuid())]\n"
    )

    server = serve_as_nobody(serve, "--pythonpath", str(open_folder), "tells_user")

    assert server.get("/").body == b"%d %d" % (NOBODY.pw_uid, NOBODY.pw_uid)


def test_logs_can_be_reopened_by_the_workers(serve: Serve, kind: Kind, open_folder: Path) -> None:
    log, rotated = open_folder / "error.log", open_folder / "error.1"
    server = serve_as_nobody(serve, "--error-logfile", str(log), *kind.arguments, kind.app)
    server.get("/raise")
    wait_for(lambda: "raised before" in log.read_text(), what="the worker's line")

    log.rename(rotated)
    server.send_signal(signal.SIGUSR1)
    wait_for(log.exists, what="a new log")
    wait_for(lambda: server.get("/raise") and "raised before" in log.read_text(), what="a new line")
    server.stop()

    assert log.stat().st_uid == NOBODY.pw_uid
    assert "cannot reopen" not in log.read_text() + rotated.read_text()


def test_a_hung_worker_of_another_user_is_heard_and_ended(serve: Serve) -> None:
    server = serve_as_nobody(serve, "--timeout", "1", "block")
    server.expect("sent no heartbeat", "exited with status 1", "worker 1 stood here")

    server.send(b"GET /block HTTP/1.1\r\nHost: x\r\n\r\n")
    server.wait_until_ready(2)

    assert server.get("/").status == 200
    server.wait_for_line("block.py")  # the replacement may be ready before that is told


def test_post_fork_still_has_roots_rights(serve: Serve, tmp_path: Path) -> None:
    config = tmp_path / "gunicorn.py"
    config.write_text(
        "import os\n"
        "def post_fork(server, worker): worker.log.info('post_fork as %d', os.geteuid())\n"
        "def post_worker_init(worker): worker.log.info('init as %d', os.geteuid())\n"
    )

    server = serve_as_nobody(serve, "-c", str(config), "hello").wait_until_ready()

    assert server.lines("post_fork as 0$")
    assert server.lines(f"init as {NOBODY.pw_uid}$")


@pytest.mark.skipif(shutil.which("setpriv") is None, reason="needs setpriv")
def test_who_is_not_root_cannot_run_workers_as_another(serve: Serve) -> None:
    assert PYTHON is not None
    python, environ = PYTHON
    server = serve(
        *("--user", "root", "--worker-tmp-dir", "/tmp", "hello"),
        python=python,
        env=environ,
        through=("setpriv", "--reuid", "nobody", "--regid", "nogroup", "--clear-groups"),
    )
    server.expect("cannot become root: Operation not permitted", "status 3 before it was ready")

    assert server.wait() == 3


# --- The file of a unix socket ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "mode", "owner"),
    [
        ((), 0o755, NOBODY.pw_uid),
        (("--umask", "007"), 0o770, NOBODY.pw_uid),
        (("--socket-mode", "0600"), 0o600, NOBODY.pw_uid),
        (("--socket-mode", "0660", "--socket-user", "root"), 0o660, 0),
    ],
)
def test_a_unix_socket_has_the_mode_and_owner_it_should(
    serve: Serve, tmp_path: Path, arguments: tuple[str, ...], mode: int, owner: int
) -> None:
    path = Path(f"/tmp/forkmaster-test-{os.getpid()}.sock")
    assert PYTHON is not None
    python, environ = PYTHON
    server = serve(
        *("--user", "nobody", "-b", f"unix:{path}", *arguments, "hello"),
        binds=False,
        python=python,
        env=environ,
        through=("/bin/sh", "-c", 'umask 022; exec "$@"', "sh"),
    ).wait_until_ready()

    status = path.stat()
    server.stop()

    assert (status.st_mode & 0o777, status.st_uid) == (mode, owner)
    assert not path.exists()


def test_a_unix_socket_that_somebody_replaced_is_left_alone(serve: Serve) -> None:
    path = Path(f"/tmp/forkmaster-test-{os.getpid()}-other.sock")
    server = serve("-b", f"unix:{path}", "hello", binds=False).wait_until_ready()
    path.unlink()
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))

        server.stop()

        assert path.is_socket()
    path.unlink()


def groups_of(pid: int) -> tuple[int, ...]:
    """The supplementary groups of a process."""
    status = Path(f"/proc/{pid}/status").read_text()
    (line,) = [line for line in status.splitlines() if line.startswith("Groups:")]
    return tuple(int(group) for group in line.split()[1:])

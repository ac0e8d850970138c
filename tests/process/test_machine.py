"""Faults of the machine, each made for real: no process, no descriptor, no room, a wrong clock."""

from __future__ import annotations

import email.utils
import os
import resource
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.conftest import Serve
from tests.process.everybody import PYTHON
from tests.process.harness import (
    Kind,
    Load,
    ask,
    is_gone,
    read_all,
    request_bytes,
    wait_for,
)

NOBODY_ELSE = 54_321  # a user without other processes, whose number is limited


# --- No process -------------------------------------------------------------------------------


def limit_processes(pids: list[int], number: int) -> None:
    """Let these processes, of our user without others, fork up to so many in all."""
    for pid in pids:
        subprocess.run(
            ["prlimit", f"--pid={pid}", f"--nproc={number}:"],
            user=NOBODY_ELSE,
            group=NOBODY_ELSE,
            extra_groups=[],
            check=True,
        )


@pytest.mark.skipif(PYTHON is None, reason="needs root, and a Python that everybody may run")
@pytest.mark.skipif(shutil.which("setpriv") is None, reason="needs util-linux")
@pytest.mark.parametrize("preload", [False, True], ids=["forked", "preloaded"])
def test_a_refused_fork_is_tried_again_while_the_others_serve(
    serve: Serve, kind: Kind, preload: bool
) -> None:
    assert PYTHON is not None
    python, environ = PYTHON
    user = str(NOBODY_ELSE)
    server = serve(
        *(("--preload",) if preload else ()),
        *(*kind.arguments, "-w", "2", "--worker-tmp-dir", "/dev/shm", kind.app),
        python=python,
        env=environ,
        through=("setpriv", "--reuid", user, "--regid", user, "--clear-groups"),
    ).wait_until_ready(2)
    server.expect(r"cannot fork worker \d+: .*next attempt")
    forkers = [server.pid, *(child.pid for child in psutil.Process(server.pid).children())]

    limit_processes(forkers, 1)
    server.send_signal(signal.SIGTTIN)
    server.wait_for_line("cannot fork .*temporarily unavailable; next attempt in 1.5 s")
    statuses = [server.get("/pid").status for _ in range(5)]
    limit_processes(forkers, 1000)
    server.wait_until_ready(3)

    assert statuses == [200] * 5


@pytest.mark.skipif(PYTHON is None, reason="needs root, and a Python that everybody may run")
@pytest.mark.skipif(shutil.which("setpriv") is None, reason="needs util-linux")
def test_a_reload_that_cannot_fork_is_refused(serve: Serve) -> None:
    assert PYTHON is not None
    python, environ = PYTHON
    user = str(NOBODY_ELSE)
    server = serve(
        *("--worker-tmp-dir", "/dev/shm", "hello"),
        python=python,
        env=environ,
        through=("setpriv", "--reuid", user, "--regid", user, "--clear-groups"),
    ).wait_until_ready()
    server.expect("reload refused: cannot fork validator")

    limit_processes([server.pid], 1)
    server.send_signal(signal.SIGHUP)
    server.wait_for_line("reload refused")
    limit_processes([server.pid], 1000)
    server.send_signal(signal.SIGHUP)
    server.wait_for_line("reload done")

    assert server.get("/").status == 200


# --- No descriptor ----------------------------------------------------------------------------


def test_a_master_without_descriptors_serves_on(serve: Serve, kind: Kind) -> None:
    server = serve(*kind.arguments, "-w", "2", kind.app).wait_until_ready(2)
    server.expect("SIGKILL", "cannot fork worker 3: Too many open files; next attempt")
    server.tolerate("cannot keep the incident", "cannot write the notice")
    allowed = resource.prlimit(server.pid, resource.RLIMIT_NOFILE)

    resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (3, allowed[1]))
    os.kill(server.workers()[0], signal.SIGKILL)
    server.wait_for_line("next attempt in")
    statuses = [server.get("/pid").status for _ in range(5)]
    resource.prlimit(server.pid, resource.RLIMIT_NOFILE, allowed)
    server.wait_until_ready(3)

    assert statuses == [200] * 5
    assert len(server.wait_for_workers(2)) == 2


def test_a_worker_without_descriptors_takes_connections_when_it_has_some(
    serve: Serve, kind: Kind
) -> None:
    server = serve(*kind.arguments, kind.app).wait_until_ready()
    server.tolerate("cannot accept")
    (worker,) = server.workers()
    kept = server.connect()
    assert ask(kept, "GET", "/pid").status == 200
    allowed = resource.prlimit(worker, resource.RLIMIT_NOFILE)

    resource.prlimit(worker, resource.RLIMIT_NOFILE, (3, allowed[1]))
    waiting = server.send(request_bytes("/pid", "Connection: close"))
    before = psutil.Process(worker).cpu_times()
    served = [ask(kept, "GET", "/pid").status for _ in range(20)]
    time.sleep(1)
    after = psutil.Process(worker).cpu_times()
    resource.prlimit(worker, resource.RLIMIT_NOFILE, allowed)
    answer = read_all(waiting)

    assert served == [200] * 20
    assert after.user + after.system - before.user - before.system < 0.5  # it does not spin
    assert answer.startswith(b"HTTP/1.1 200")


@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")
def test_a_machine_without_descriptors_is_waited_for(serve: Serve, kind: Kind) -> None:
    server = serve(*kind.arguments, kind.app).wait_until_ready()
    server.expect("cannot accept.*Too many open files in system")
    (worker,) = server.workers()

    tracing = subprocess.Popen(
        [
            *("strace", "-f", "-qq", "-o", "/dev/null", "-p", str(worker)),
            *("-e", "trace=accept4", "-e", "inject=accept4:error=ENFILE"),
        ]
    )
    try:
        wait_for(lambda: is_traced(worker) or tracing.poll() is not None)
        if tracing.poll() is not None:
            pytest.skip("strace may not trace here")
        waiting = server.send(request_bytes("/pid", "Connection: close"))
        server.wait_for_line("cannot accept")
    finally:
        tracing.terminate()
        tracing.wait()

    assert read_all(waiting).startswith(b"HTTP/1.1 200")
    assert len(server.lines("cannot accept")) < 20  # it does not spin


def is_traced(pid: int) -> bool:
    return "TracerPid:\t0" not in Path(f"/proc/{pid}/status").read_text()


# --- No room ----------------------------------------------------------------------------------


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB.  To be named before `serve`, so that it outlives the server."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("cannot mount a file system here")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(folder: Path) -> Path:
    """Leave no byte of room in the file system of `folder`; returns what takes it."""
    path = folder / "ballast"
    with path.open("wb", buffering=0) as ballast:
        for size in (65536, 4096, 1):
            try:
                while True:
                    ballast.write(b"x" * size)
            except OSError:
                continue
    return path


def test_a_full_dev_shm_stops_the_start_with_a_reason(small: Path, serve: Serve) -> None:
    fill(small)

    server = serve("--worker-tmp-dir", str(small), "hello")

    assert server.wait() == 1
    assert "forkmaster: cannot make the board in" in server.log
    assert "No space left on device" in server.log
    assert "Traceback" not in server.log
    assert [entry.name for entry in small.iterdir()] == ["ballast"]


def test_a_dev_shm_that_fills_up_delays_new_workers_only(
    small: Path, serve: Serve, kind: Kind
) -> None:
    server = serve("--worker-tmp-dir", str(small), *kind.arguments, "-w", "2", kind.app)
    server.wait_until_ready(2)
    server.expect("SIGKILL", "cannot fork worker 3: No space left on device; next attempt")
    server.tolerate("cannot keep the incident", "cannot write the notice")

    # The dead one's slot would make room for the next.
    ballast = fill(small)
    os.kill(server.workers()[0], signal.SIGSTOP)
    server.send_signal(signal.SIGTTIN)
    server.wait_for_line("next attempt in")
    ballast.unlink()
    server.wait_until_ready(3)
    os.kill(server.workers()[0], signal.SIGKILL)
    server.wait_until_ready(4)

    assert [server.get("/pid").status for _ in range(5)] == [200] * 5


def test_a_hang_is_told_though_there_is_no_room_for_its_stacks(small: Path, serve: Serve) -> None:
    server = serve("--worker-tmp-dir", str(small), "--timeout", "1", "-k", "sync", "block")
    server.wait_until_ready()
    server.expect("sent no heartbeat.*GET /block", "exited with status 1")
    server.tolerate(
        "cannot fork worker 2: No space left",
        "stood here",
        "cannot keep the incident",
        "cannot write the notice",
    )

    server.send(request_bytes("/block"))
    ballast = fill(small)
    server.wait_for_line("exited with status 1")
    ballast.unlink()
    server.wait_until_ready(2)

    assert server.get("/").status == 200


def test_a_full_disk_costs_log_lines_and_nothing_else(serve: Serve, kind: Kind) -> None:
    server = serve(
        *("--error-logfile", "/dev/full", "--access-logfile", "/dev/full"),
        *(*kind.arguments, "-w", "2", kind.app),
    )

    statuses = [server.get(path).status for path in ("/pid", "/raise", "/pid")]
    before = set(server.wait_for_workers(2))
    server.send_signal(signal.SIGHUP)
    wait_for(lambda: len(server.workers()) == 2 and not before & set(server.workers()), 15)

    assert statuses == [200, 500, 200]
    assert server.get("/pid").status == 200
    assert server.stop() == 0


def test_a_full_disk_stops_a_start_that_needs_a_pid_file(small: Path, serve: Serve) -> None:
    fill(small)

    server = serve("-p", str(small / "server.pid"), "hello")

    assert server.wait() == 1
    assert f"forkmaster: cannot write {small}/server.pid: No space left on device" in server.log
    assert [entry.name for entry in small.iterdir()] == ["ballast"]


# --- Nobody reads -----------------------------------------------------------------------------


def test_a_reader_of_stderr_that_is_gone_is_not_missed(serve: Serve, kind: Kind) -> None:
    # The shell's `cat` reads one line and is gone; the server writes into its pipe.
    reader = 'exec 3>&1; "$@" 2>&1 >&3 | head -1 >&3'
    server = serve(*kind.arguments, kind.app, through=("/bin/sh", "-c", reader, "sh"))
    server.wait_for_line("serves")

    statuses = [server.get(path).status for path in ("/pid", "/raise", "/pid")]

    assert statuses == [200, 500, 200]
    masters = [
        process
        for process in psutil.Process(server.pid).children(recursive=True)
        if ": master" in " ".join(process.cmdline())
    ]
    for each in masters:
        each.terminate()
    assert server.wait() == 0


# --- A wrong clock ----------------------------------------------------------------------------


@pytest.fixture(scope="session")
def clock(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library that makes the wall clock wrong."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("needs a C compiler")
    made = tmp_path_factory.mktemp("clock") / "clock.so"
    source = Path(__file__).with_name("clock.c")
    subprocess.run([compiler, "-shared", "-fPIC", "-o", str(made), str(source), "-ldl"], check=True)
    return made


@pytest.mark.parametrize("hours", [-5, 5], ids=["back", "forth"])
def test_a_clock_that_steps_by_hours_kills_nobody(
    serve: Serve, kind: Kind, clock: Path, tmp_path: Path, hours: int
) -> None:
    offset = tmp_path / "offset"
    offset.write_text("0\n")
    environ = {"LD_PRELOAD": str(clock), "FORKMASTER_TEST_CLOCK": str(offset)}
    server = serve("--timeout", "2", *kind.arguments, "-w", "2", kind.app, env=environ)
    before = server.wait_until_ready(2).workers()

    with Load(server, clients=2) as load:
        load.wait_for_answers(50)
        offset.write_text(f"{hours * 3600}\n")
        time.sleep(3)  # longer than the timeout
        load.wait_for_answers(50)
    date = email.utils.parsedate_to_datetime(server.get("/pid").headers["date"])

    assert load.lost == []
    assert server.workers() == before
    assert abs(date.timestamp() - time.time() - hours * 3600) < 60
    server.send_signal(signal.SIGHUP)
    server.wait_for_line("reload done")


# --- Processes that are stopped, and applications that exit -----------------------------------


def test_a_master_that_was_stopped_for_long_judges_nobody_by_it(serve: Serve, kind: Kind) -> None:
    server = serve("--timeout", "1", *kind.arguments, "-w", "2", kind.app).wait_until_ready(2)
    before = server.workers()

    os.kill(server.pid, signal.SIGSTOP)
    statuses = [server.get("/pid").status for _ in range(3)]
    time.sleep(6.5)
    os.kill(server.pid, signal.SIGCONT)
    server.send_signal(signal.SIGTTIN)
    server.wait_until_ready(3)

    assert statuses == [200] * 3
    assert set(before) < set(server.workers())


def test_a_stopped_worker_is_replaced(serve: Serve, kind: Kind) -> None:
    server = serve("--timeout", "2", *kind.arguments, "-w", "2", kind.app).wait_until_ready(2)
    stopped = server.workers()[0]
    server.expect("sent no heartbeat", "SIGKILL")

    os.kill(stopped, signal.SIGSTOP)
    server.wait_until_ready(3)
    # SIGABRT waits until it runs again; SIGKILL does not.
    wait_for(lambda: is_gone(stopped), what="the stopped worker is killed")

    assert server.get("/pid").status == 200


class Freezer:
    """A control group whose processes can be frozen, by either version of the kernel's files."""

    def __init__(self) -> None:
        name = f"forkmaster-test-{os.getpid()}"
        old, new = Path("/sys/fs/cgroup/freezer"), Path("/sys/fs/cgroup")
        self.is_old = old.is_dir()
        self.path = (old if self.is_old else new) / name
        self.path.mkdir()

    def freeze(self, pid: int) -> None:
        (self.path / "cgroup.procs").write_text(str(pid))
        self._set("FROZEN", "1")

    def thaw(self) -> None:
        self._set("THAWED", "0")

    def remove(self) -> None:
        self.thaw()
        wait_for(lambda: not (self.path / "cgroup.procs").read_text(), what="an empty group")
        self.path.rmdir()

    def _set(self, old: str, new: str) -> None:
        name = "freezer.state" if self.is_old else "cgroup.freeze"
        (self.path / name).write_text(old if self.is_old else new)


@pytest.fixture
def freezer() -> Iterator[Freezer]:
    try:
        made = Freezer()
    except OSError as exc:
        pytest.skip(f"cannot make a control group: {exc.strerror}")
    yield made
    made.remove()


def test_a_frozen_worker_is_replaced_and_insisted_on(
    freezer: Freezer, serve: Serve, kind: Kind
) -> None:
    server = serve(
        *("--timeout", "1", "--kill-timeout", "1", *kind.arguments, "-w", "2", kind.app)
    ).wait_until_ready(2)
    frozen = server.workers()[0]
    server.expect("sent no heartbeat", "is still there .* sending SIGKILL", "killed by SIGKILL")

    freezer.freeze(frozen)
    server.wait_until_ready(3)
    statuses = [server.get("/pid").status for _ in range(3)]
    server.wait_for_line("is still there .* sending SIGKILL")
    freezer.thaw()
    wait_for(lambda: is_gone(frozen), what="the frozen worker is killed")

    assert statuses == [200] * 3
    assert server.stop() == 0


@pytest.mark.parametrize("code", [3, 4])
def test_sys_exit_in_a_request_is_that_requests_error(serve: Serve, kind: Kind, code: int) -> None:
    server = serve(*kind.arguments, kind.app).wait_until_ready()
    server.tolerate("ERROR", "Traceback")

    server.send(request_bytes(f"/exit?{code}", "Connection: close"))
    time.sleep(0.2)
    statuses = [server.get("/pid").status for _ in range(3)]

    assert statuses == [200] * 3
    assert server.process.poll() is None


@pytest.mark.parametrize("code", [3, 4])
def test_os_exit_in_a_request_is_no_boot_failure(serve: Serve, kind: Kind, code: int) -> None:
    server = serve(*kind.arguments, kind.app).wait_until_ready()
    server.expect(rf"worker 1 .* exited with status {code}.*GET /os_exit\?{code}")

    lost = read_all(server.send(request_bytes(f"/os_exit?{code}")))
    server.wait_until_ready(2)

    assert lost == b""
    assert server.get("/pid").status == 200
    assert server.process.poll() is None


def test_an_idle_client_does_not_delay_a_stop(serve: Serve, kind: Kind) -> None:
    server = serve("--keep-alive", "60", *kind.arguments, kind.app).wait_until_ready()
    idle = server.connect()
    assert ask(idle, "GET", "/pid").status == 200
    began = time.monotonic()

    code = server.stop()

    assert code == 0
    assert time.monotonic() - began < 5  # the linger is 2 s


def test_a_preloaded_worker_that_dies_at_once_takes_nobody_along(
    serve: Serve, tmp_path: Path
) -> None:
    config = tmp_path / "gunicorn.py"
    config.write_text(
        "import os\ndef post_fork(server, worker):\n    if worker.age > 3: os._exit(9)\n"
    )
    server = serve("--preload", "-w", "2", "-c", str(config), "hello").wait_until_ready(2)
    server.expect("SIGKILL", "exited with status 9 before it was ready")

    os.kill(server.workers()[0], signal.SIGKILL)
    server.wait_for_line("exited with status 9 before it was ready; next attempt", count=2)

    assert server.get("/").status == 200
    assert server.process.poll() is None

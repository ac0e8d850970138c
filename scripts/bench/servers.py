"""The servers that are compared: how each is installed, started, pinned and stopped."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
APPS = ROOT / "tests" / "apps"
DJANGO = ROOT / "tests" / "django_project"
BENCH = ROOT / ".venv-bench"
SERVER_CPU, LOAD_CPU = "0", "1"

# Each on its own: one that does not build here must not cost the others.
OTHERS = ("gunicorn", "granian", "uvicorn[standard]", "uvicorn-worker", "bjoern", "uwsgi")


@dataclass(frozen=True)
class Server:
    """One way to serve an application.  `{port}` and `{app}` stand for both."""

    name: str
    command: tuple[str, ...]

    @property
    def is_here(self) -> bool:
        return self.command[0] == sys.executable or os.access(self.command[0], os.X_OK)


def _other(program: str, *arguments: str) -> tuple[str, ...]:
    return (str(BENCH / "bin" / program), *arguments)


def forkmaster(*arguments: str, name: str = "forkmaster") -> Server:
    """forkmaster as it is in this checkout."""
    command = (sys.executable, "-m", "forkmaster", "-b", "127.0.0.1:{port}", *arguments, "{app}")
    return Server(name, command)


def gunicorn(*arguments: str, name: str = "gunicorn") -> Server:
    return Server(name, _other("gunicorn", "-b", "127.0.0.1:{port}", *arguments, "{app}"))


GRANIAN = Server(
    "granian",
    _other("granian", "--interface", "wsgi", "--port", "{port}", "--workers", "1", "{app}"),
)
BJOERN = Server(
    "bjoern",
    _other(
        "python",
        "-c",
        "import sys, importlib, bjoern; sys.path.insert(0, '.'); m, _, a = '{app}'.partition(':');"
        " bjoern.run(getattr(importlib.import_module(m), a), '127.0.0.1', {port})",
    ),
)
UWSGI = Server(
    "uwsgi",
    _other(
        "uwsgi",
        "--http11-socket",
        "127.0.0.1:{port}",
        "--master",
        "--processes",
        "1",
        "--disable-logging",
        "--die-on-term",
        "--so-keepalive",
        "--add-header",
        "Connection: keep-alive",
        "--wsgi",
        "{app}",
    ),
)
UVICORN = Server("uvicorn", _other("uvicorn", "--port", "{port}", "--no-access-log", "{app}"))
UVICORN_WORKER = gunicorn("-k", "uvicorn_worker.UvicornWorker", name="gunicorn with uvicorn_worker")


def prepare() -> list[str]:
    """Install the other servers; returns a line for each that cannot be had here."""
    pip = BENCH / "bin" / "pip"
    if not pip.exists():
        subprocess.run([sys.executable, "-m", "venv", str(BENCH)], check=True)
    missing = []
    listed = subprocess.run(
        [pip, "list", "--format=freeze"], check=True, capture_output=True, text=True
    ).stdout.lower()
    wanted = [*OTHERS, "django", "channels"]
    for package in wanted:
        if f"{package.partition('[')[0]}==" in listed:
            continue
        done = subprocess.run([pip, "install", "-q", package], check=False, capture_output=True)
        if done.returncode != 0:
            missing.append(f"{package}: it cannot be installed here (does it need a C library?)")
    return missing


def _command(server: Server, app: str, port: int) -> list[str]:
    words = [each.replace("{app}", app).replace("{port}", str(port)) for each in server.command]
    pin = ["taskset", "-c", SERVER_CPU] if shutil.which("taskset") else []
    return [*pin, *words]


def free_port() -> int:
    """A port that nobody uses now.  Here a race is a failed run, not a wrong result."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


@contextmanager
def running(server: Server, app: str, cwd: Path = APPS) -> Iterator[tuple[int, int]]:
    """The server, serving; (pid, port).  Ended afterwards, with all its children."""
    port = free_port()
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "DJANGO_SETTINGS_MODULE": "project.settings"}
    process = subprocess.Popen(
        _command(server, app, port),
        cwd=cwd,
        env=environ,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        _wait_until_it_answers(process, port, server)
        yield process.pid, port
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _wait_until_it_answers(process: subprocess.Popen[bytes], port: int, server: Server) -> None:
    for _ in range(200):
        if process.poll() is not None:
            raise RuntimeError(f"{server.name} ended with status {process.returncode}")
        try:
            with socket.create_connection(("127.0.0.1", port), 1) as probe:
                probe.settimeout(5)
                probe.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                if probe.recv(1):
                    return
        except OSError:
            pass
        time.sleep(0.05)
    raise RuntimeError(f"{server.name} does not answer")

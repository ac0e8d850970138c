"""The mistakes of the first day: each ends the start, with its exit code and one line to go by."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.process.harness import APPS, OTHERS, ROOT

# Command line, exit code, and the line, in which {folder} is the current folder.
MISTAKES = {
    "the attribute is another": (
        ["simple_app:app"],
        4,
        'worker 1 cannot boot: simple_app has no attribute "app". '
        "Try forkmaster simple_app:simple_app",
    ),
    "the attribute was forgotten": (
        ["simple_app"],
        4,
        'worker 1 cannot boot: simple_app has no attribute "application". '
        "Try forkmaster simple_app:simple_app",
    ),
    "no callable": (
        ["non_callable"],
        4,
        "worker 1 cannot boot: non_callable is a dict, not a callable application. "
        "It defines no callable that could be an application.",
    ),
    "no module": (
        ["nope.wsgi"],
        3,
        'worker 1 cannot boot: cannot import nope.wsgi: no module named "nope" in {folder} '
        "or on the path",
    ),
    "the package of a Django project": (
        ["--pythonpath", str(ROOT / "tests" / "django_project"), "project"],
        4,
        'worker 1 cannot boot: project has no attribute "application". '
        "It is a package. Try forkmaster project.wsgi",
    ),
    "a path": (
        ["./hello.py"],
        4,
        "worker 1 cannot boot: ./hello.py is a file; did you mean hello:application?",
    ),
    "wsgi for an asgi worker": (
        ["-k", "uvicorn", "hello"],
        4,
        "forkmaster: worker_class is uvicorn (asgi), but the application is WSGI; name its ASGI "
        "callable (Django: project.asgi), or leave worker_class out",
    ),
    "asgi for a sync worker": (
        ["-k", "sync", "asgi_hello"],
        4,
        "forkmaster: worker_class is sync, but the application is ASGI; name its WSGI "
        "callable (Django: project.wsgi), or leave worker_class out",
    ),
    "an application that only its object tells": (
        ["-k", "sync", "fastapi_app"],
        4,
        "worker 1 cannot boot: worker_class is sync, but the application is ASGI; name its WSGI "
        "callable (Django: project.wsgi), or leave worker_class out",
    ),
    "a worker class that is not there": (
        ["-k", "project.workers.Mine", "hello"],
        3,
        'worker 1 cannot boot: worker_class: cannot import "project.workers.Mine": '
        "No module named 'project'",
    ),
    "a worker class that is no worker": (
        ["-k", "logging.Logger", "hello"],
        3,
        "worker 1 cannot boot: worker_class: Logger is a worker of its own making, which "
        "forkmaster cannot run; write sync, threaded or asgi, or derive it from UvicornWorker",
    ),
    "syntax": (
        ["syntax_error"],
        3,
        "worker 1 cannot boot: cannot import syntax_error\n"
        '    File "{folder}/syntax_error.py", line 3\n'
        "      def application(environ, start_response)\n"
        "                                              ^\n"
        "  SyntaxError: expected ':'",
    ),
    "a folder for the socket that is not there": (
        ["-b", "unix:/nowhere/x.sock", "hello"],
        1,
        "forkmaster: cannot bind unix:/nowhere/x.sock: No such file or directory",
    ),
    "a space after a backslash": (
        [" "],
        2,
        "forkmaster: the application is a blank; is there a space after the backslash at the end "
        "of a line?",
    ),
    "two mistakes at once": (
        ["-w", "many", "-t", "soon", "hello"],
        5,
        'forkmaster: workers: "many" is not a whole number (--workers); '
        'write a number, as 4, or "auto"\n'
        'forkmaster: timeout: "soon" is not a number of seconds (--timeout); '
        "write a number, as 30 or 0.5",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_explained(mistake: str, tmp_path: Path) -> None:
    arguments, code, line = MISTAKES[mistake]
    binds = [] if "-b" in arguments else ["-b", "127.0.0.1:0"]
    environ = {key: value for key, value in os.environ.items() if not OTHERS.fullmatch(key)}

    done = subprocess.run(
        [sys.executable, "-m", "forkmaster", "--worker-tmp-dir", str(tmp_path), *binds, *arguments],
        cwd=APPS,
        env={**environ, "PYTHONPATH": str(ROOT), "PWD": str(APPS)},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )

    assert done.returncode == code, done.stderr
    assert line.format(folder=APPS) in done.stderr
    assert "Traceback" not in done.stderr
    assert "forkmaster/" not in done.stderr.replace(str(APPS), ""), "a frame of ours"

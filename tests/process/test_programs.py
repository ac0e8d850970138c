"""Programs that are servers themselves: forkmaster.run, and those written for gunicorn."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.conftest import Serve
from tests.process.harness import Server

RUN = """
import forkmaster, sys

def greet(environ, start_response):
    start_response("200 OK", [])
    return [b"hello from a program"]

if __name__ == "__main__":
    bind = sys.argv[sys.argv.index("-b") + 1]
    board = sys.argv[sys.argv.index("--worker-tmp-dir") + 1]
    sys.exit(forkmaster.run(APP, bind=bind, workers=2, worker_tmp_dir=board))
"""
EMBEDDED = """
import sys
import forkmaster.gunicorn
from gunicorn.app.base import BaseApplication

def greet(environ, start_response):
    start_response("200 OK", [])
    return [b"hello from a program"]

class Standalone(BaseApplication):
    def __init__(self, application, options):
        self.options, self.application = options, application
        super().__init__()

    def load_config(self):
        for key, value in self.options.items():
            if key in self.cfg.settings and value is not None:
                self.cfg.set(key.lower(), value)

    def load(self):
        LOAD
        return self.application

if __name__ == "__main__":
    bind = sys.argv[sys.argv.index("-b") + 1]
    board = sys.argv[sys.argv.index("--worker-tmp-dir") + 1]
    Standalone(greet, {"bind": bind, "workers": 2, "worker_tmp_dir": board, "nonsense": 1}).run()
"""


def program(folder: Path, text: str) -> Path:
    """An executable file of this text."""
    path = folder / "program.py"
    path.write_text(f"#!{sys.executable}\n{text}")
    path.chmod(0o755)
    return path


def answers(server: Server) -> None:
    server.wait_until_ready(2)
    assert server.get().body == b"hello from a program"
    assert server.stop() == 0


@pytest.mark.parametrize("app", ['"program:greet"', "greet"], ids=["named", "object"])
def test_forkmaster_run_serves_until_told_to_stop(serve: Serve, tmp_path: Path, app: str) -> None:
    made = program(tmp_path, RUN.replace("APP", app))

    answers(serve(program=made, cwd=tmp_path))


def test_a_program_that_embeds_gunicorn_is_served(serve: Serve, tmp_path: Path) -> None:
    # What lies about is not for a program that says its settings itself.
    (tmp_path / "gunicorn.conf.py").write_text("workers = 7\n")
    made = program(tmp_path, EMBEDDED.replace("LOAD", "pass"))

    answers(serve(program=made, cwd=tmp_path, env={"FORKMASTER_WORKERS": "5"}))


def test_a_program_whose_application_cannot_be_made_ends_with_3(
    serve: Serve, tmp_path: Path
) -> None:
    made = program(tmp_path, EMBEDDED.replace("LOAD", "raise RuntimeError('no database')"))
    server = serve(program=made, cwd=tmp_path)
    server.expect("cannot make __main__:Standalone", "exited with status 3")
    server.tolerate("Traceback")

    assert server.wait() == 3
    assert "RuntimeError: no database" in server.log

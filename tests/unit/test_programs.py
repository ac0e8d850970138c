"""forkmaster.run and the stand-in for gunicorn's application, up to where a server would start."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest

import forkmaster
from forkmaster import typing
from forkmaster.config import shim
from forkmaster.config.table import SETTINGS, Config
from forkmaster.errors import ConfigError, ForkmasterError, UsageError
from forkmaster.worker.views import ServerView, WorkerView


def test_settings_of_a_call_are_checked_like_all_others(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        forkmaster.run("a:b", worker=2, workers="many")  # type: ignore[call-arg, arg-type]

    assert str(caught.value).splitlines() == [
        'workers: "many" is not a whole number (forkmaster.run); write a number, as 4, or "auto"',
        "worker: is not a setting (forkmaster.run); did you mean workers?",
    ]


def test_a_server_runs_on_the_main_thread_only() -> None:
    caught: list[ForkmasterError] = []

    def start() -> None:
        try:
            forkmaster.run("a:b")
        except ForkmasterError as exc:
            caught.append(exc)

    thread = threading.Thread(target=start)
    thread.start()
    thread.join()

    assert isinstance(caught[0], UsageError)
    assert str(caught[0]) == "a server runs on the main thread; only there it gets signals"


def test_gunicorn_itself_must_not_be_imported_before() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import gunicorn, forkmaster.gunicorn"],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )

    assert done.stderr.endswith(
        "UsageError: gunicorn itself is imported already; import forkmaster.gunicorn before it\n"
    )


def test_a_mistake_of_an_embedded_program_ends_it_with_5(
    capsys: pytest.CaptureFixture[str],
) -> None:
    shim.install()
    from gunicorn.app.base import BaseApplication

    class Program(BaseApplication):  # type: ignore[misc]
        def load_config(self) -> None:
            self.cfg.set("workers", "many")

        def load(self) -> object: ...

    with pytest.raises(SystemExit) as caught:
        Program().run()

    assert caught.value.code == 5
    said = capsys.readouterr().err
    assert said == (
        'forkmaster: workers: "many" is not a whole number (cfg.set); '
        'write a number, as 4, or "auto"\n'
    )


def test_a_load_config_that_fails_ends_the_program_with_5(
    capsys: pytest.CaptureFixture[str],
) -> None:
    shim.install()
    from gunicorn.app.base import BaseApplication

    class Program(BaseApplication):  # type: ignore[misc]
        def load_config(self) -> None:
            self.cfg.set("worker", 3)

    with pytest.raises(SystemExit) as caught:
        Program()

    assert caught.value.code == 5
    assert "Program.load_config: No configuration setting for: worker" in capsys.readouterr().err


def test_the_typed_settings_are_all_settings_but_the_application() -> None:
    assert set(typing.SettingsDict.__annotations__) == set(SETTINGS) - {"app"}


@pytest.mark.parametrize(
    ("promised", "view"),
    [
        (typing.Server, ServerView(Config())),
        (typing.Worker, WorkerView(1, Config(), (), None)),  # type: ignore[arg-type]
    ],
    ids=["server", "worker"],
)
def test_the_views_have_what_the_types_of_hooks_promise(promised: type, view: object) -> None:
    methods = {name for name in vars(promised) if not name.startswith("_")}

    assert set(promised.__annotations__) | methods <= set(dir(view))

"""What a reload cannot change keeps its value, and that is said."""

from __future__ import annotations

from pathlib import Path

from forkmaster.config.lasting import lasting
from forkmaster.config.sources import load
from forkmaster.config.table import Config


def reloaded(folder: Path, before: str, now: str) -> tuple[Config, list[str]]:
    """The configuration after a reload, and its warnings."""
    file = folder / "gunicorn.conf.py"
    file.write_text(before)
    loaded = load(environ={}, folder=folder)
    file.write_text(now)
    after = lasting(loaded, loaded.again())
    return after.config, after.warnings


def test_a_setting_that_needs_a_restart_keeps_its_value(tmp_path: Path) -> None:
    config, warnings = reloaded(
        tmp_path, "proc_name = 'one'\ntimeout = 1", "timeout = 2\nproc_name = 'two'\ndaemon = True"
    )

    assert (config.proc_name, config.timeout, config.daemon) == ("one", 2.0, False)
    assert warnings == [
        "daemon is True now (gunicorn.conf.py, line 3), which needs a restart; it stays False",
        'proc_name is "two" now (gunicorn.conf.py, line 2), which needs a restart; it stays "one"',
    ]


def test_a_setting_that_is_gone_is_said_to_be_the_default(tmp_path: Path) -> None:
    _, warnings = reloaded(tmp_path, "worker_tmp_dir = '/dev'", "")

    assert warnings == [
        'worker_tmp_dir is None now (default), which needs a restart; it stays "/dev"'
    ]


def test_nothing_is_said_of_what_has_not_changed(tmp_path: Path) -> None:
    text = "proc_name = 'one'\nuser = 0\nworker_tmp_dir = '/dev'\n"

    assert reloaded(tmp_path, text + "workers = 2", text + "workers = 3")[1] == []

"""The same files mean the same here as in the installed gunicorn.

One process runs gunicorn's own loader over every file and prints what it makes of them; each
file is then loaded here and compared, setting by setting.  The differences that are meant are
listed with their reasons, and nothing else may differ.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from forkmaster.addresses import DescriptorAddress, TCPAddress, UnixAddress
from forkmaster.config.gunicorn import THREADS_IN_PLACE
from forkmaster.config.sources import load
from forkmaster.config.table import SETTINGS
from forkmaster.config.values import shown
from forkmaster.errors import ConfigError
from tests.unit.config.gunicorn_files import FILES

ASK_GUNICORN = Path(__file__).with_name("ask_gunicorn.py")

# The defaults that differ on purpose; a file that says nothing gets these.
OUR_DEFAULTS = {
    "keepalive": "5 s, because sync workers keep connections too",
    "umask": "that of the process; gunicorn's 0 lets everybody connect to a unix socket",
    "worker_class": "found from the application",
    "logger_class": "none; gunicorn names its own",
    "sendfile": "true; gunicorn's None means the same",
    "chdir": "none; gunicorn's is the start folder, which means the same",
    "user": "none; gunicorn's is the user who starts it, which means the same",
    "group": "none; gunicorn's is the group of who starts it, which means the same",
    "default_proc_name": "our name",
    "control_socket": "the control socket lies elsewhere",
    "ssl_version": "ignored by both",
    "config": "gunicorn has the name of the file it would look for",
}

PATHS = {"pidfile", "worker_tmp_dir", "logconfig", "certfile", "keyfile", "tmp_upload_dir"}

CLASSES = {
    "sync": "sync",
    "gthread": "threaded",
    "uvicorn.workers.UvicornWorker": "asgi",
    "uvicorn.workers.UvicornH11Worker": "asgi",
    "uvicorn_worker.UvicornWorker": "asgi",
    "asgi": "asgi",
}
# These have no worker here; threads are run in their place.
IN_PLACE = ("gevent", "eventlet", "tornado")
CLASSES |= dict.fromkeys(IN_PLACE, "threaded")


@pytest.fixture(scope="module")
def by_gunicorn(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What gunicorn makes of each file: the name of the file, then of the setting."""
    folder = tmp_path_factory.mktemp("gunicorn")
    for name, text in FILES.items():
        _write(folder / name, text)
    environ = {"PATH": os.environ["PATH"], "HOME": str(folder)}
    asked = subprocess.run(
        [sys.executable, ASK_GUNICORN, folder],
        env=environ,
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    return json.loads(asked.stdout)  # type: ignore[no-any-return]


def _write(folder: Path, text: str) -> None:
    (folder / "sub").mkdir(parents=True)
    (folder / "conf.py").write_text(text)


def test_there_are_enough_files() -> None:
    assert len(FILES) >= 40


@pytest.mark.parametrize("name", FILES)
def test_the_same_file_means_the_same(
    name: str, by_gunicorn: Mapping[str, Mapping[str, Any]], tmp_path: Path
) -> None:
    _write(tmp_path, FILES[name])
    theirs = by_gunicorn[name]
    assert "error" not in theirs, theirs

    loaded = load(environ={"FORKMASTER_CONFIG": "conf.py"}, folder=tmp_path)

    ours = {name: getattr(loaded.config, name) for name in SETTINGS}
    for setting, their_value in theirs.items():
        if loaded.origins[setting].source == "default" and setting in OUR_DEFAULTS:
            continue
        if setting == "config":
            continue
        if setting in {"user", "group"} and ours[setting] is None:
            continue  # gunicorn has looked up who that is
        if setting == "threads" and theirs.get("worker_class") in IN_PLACE:
            assert ours[setting] == THREADS_IN_PLACE
            continue
        our_value = _comparable(setting, ours[setting], tmp_path)
        assert our_value == _theirs(setting, their_value, theirs["chdir"]), setting


def _comparable(setting: str, value: object, folder: Path) -> object:
    """Our value in the form in which gunicorn's is printed."""
    if isinstance(value, Path):
        return str(value).replace(str(folder), "FOLDER")
    plain = shown(value)
    if setting == "pythonpath":
        assert isinstance(plain, list)
        return [each.replace(str(folder), "FOLDER") for each in plain]
    return plain


def _theirs(setting: str, value: Any, chdir: str) -> object:
    """gunicorn's value in the types that ours has."""
    if setting in PATHS and value is not None:
        # gunicorn opens it when it has changed the folder; here it is absolute at once.
        return os.path.normpath(os.path.join(chdir, value))
    if setting == "bind":
        return [str(_address(each)) for each in value]
    if setting == "worker_class":
        return CLASSES.get(value, value)
    if setting == "pythonpath":
        return value or []
    if SETTINGS[setting].kind.switch:
        return bool(value)  # None is off
    if setting == "forwarder_headers":
        return [each.upper() for each in value]  # gunicorn compares them so
    if setting == "secure_scheme_headers":
        return {key.upper(): each for key, each in value.items()}
    return value


def _address(value: object) -> TCPAddress | UnixAddress | DescriptorAddress:
    match value:
        case int(fd):
            return DescriptorAddress(fd)
        case str(path):
            return UnixAddress(path)
        case [str(host), int(port)]:
            return TCPAddress(host or "0.0.0.0", port)
    raise AssertionError(value)


def test_the_effective_defaults_differ_only_as_listed(
    by_gunicorn: Mapping[str, Mapping[str, Any]], tmp_path: Path
) -> None:
    theirs = by_gunicorn["nothing"]

    loaded = load(environ={}, folder=tmp_path)

    different = {
        setting
        for setting, value in theirs.items()
        if _comparable(setting, getattr(loaded.config, setting), tmp_path)
        != _theirs(setting, value, theirs["chdir"])
    }
    assert different <= set(OUR_DEFAULTS)


# What gunicorn takes and we refuse, with the reason.
REFUSED = {
    "workers = 0": "no worker would serve nobody",
    "threads = 0": "no thread would serve nobody",
    'backlog = "0"': "a queue of none refuses everybody",
    'protocol = "uwsgi"': "it is not spoken",
}


@pytest.mark.parametrize("text", REFUSED)
def test_what_is_refused_here(text: str, tmp_path: Path) -> None:
    (tmp_path / "gunicorn.conf.py").write_text(text)

    with pytest.raises(ConfigError, match=r"gunicorn\.conf\.py, line 1"):
        load(environ={}, folder=tmp_path)


# What gunicorn refuses, or takes for something else, and we take.
TAKEN = {
    'bind = "8000"': ("bind", (TCPAddress("127.0.0.1", 8000),)),  # a host called 8000, there
    'umask = "0022"': ("umask", 0o22),  # octal on gunicorn's command line only
    "timeout = 0.5": ("timeout", 0.5),
    'timeout = "30s"': ("timeout", 30.0),
    "preload_app = 1": ("preload_app", True),
    'preload_app = "yes"': ("preload_app", True),
    'loglevel = "warn"': ("loglevel", "warning"),
    "def on_exit(server, more=None): ...": ("workers", 1),
    "from logging import config": ("workers", 1),
}


@pytest.mark.parametrize("text", TAKEN)
def test_what_is_taken_here(text: str, tmp_path: Path) -> None:
    (tmp_path / "gunicorn.conf.py").write_text(text)
    setting, value = TAKEN[text]

    assert getattr(load(environ={}, folder=tmp_path).config, setting) == value


def test_every_setting_of_gunicorn_is_here(
    by_gunicorn: Mapping[str, Mapping[str, Any]],
) -> None:
    theirs = set(by_gunicorn["all"]["names"])

    assert theirs == {name for name, setting in SETTINGS.items() if not setting.own}


def test_every_flag_of_gunicorn_is_here(by_gunicorn: Mapping[str, Mapping[str, Any]]) -> None:
    for name, flags in by_gunicorn["all"]["flags"].items():
        assert set(flags) <= set(SETTINGS[name].all_flags), name


def test_a_switch_of_gunicorn_is_a_switch_here(
    by_gunicorn: Mapping[str, Mapping[str, Any]],
) -> None:
    for name in by_gunicorn["all"]["switches"]:
        assert SETTINGS[name].kind.switch, name

"""Configuration files that import gunicorn run as they are, with or without it installed."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from forkmaster.config import shim
from forkmaster.config.gunicorn import worker_class_at
from forkmaster.config.values import BadValueError
from forkmaster.errors import ConfigError
from tests.unit.config.conftest import Load

SHIM = Path(shim.__file__).parent
MODULES = sorted(
    ".".join(path.relative_to(SHIM).with_suffix("").parts).removesuffix(".__init__")
    for path in (SHIM / "gunicorn").rglob("*.py")
)


@pytest.mark.parametrize("name", [*MODULES, "uvicorn_worker"])
def test_every_stand_in_can_be_imported(name: str) -> None:
    shim.install()

    module = importlib.import_module(name)

    assert module.__file__ is not None
    assert Path(module.__file__).is_relative_to(SHIM)


def test_to_install_it_twice_changes_nothing() -> None:
    shim.install()
    before = list(sys.meta_path)

    shim.install()

    assert sys.meta_path == before


@pytest.mark.parametrize(
    "statement",
    [
        "import gunicorn\nassert gunicorn.SERVER == 'gunicorn' and gunicorn.SERVER_SOFTWARE",
        "import gunicorn\nassert gunicorn.version_info >= (20, 0)",
        "from gunicorn import glogging\nglogging.Logger.error_fmt = '%(message)s'",
        "from gunicorn.glogging import CONFIG_DEFAULTS, Logger",
        "from gunicorn.arbiter import Arbiter",
        "from gunicorn.workers.base import Worker",
        "from gunicorn.workers.sync import SyncWorker",
        "from gunicorn.workers.gthread import ThreadWorker",
        "from gunicorn.http import Request",
        "from gunicorn.http.message import Request",
        "from gunicorn.http.wsgi import Response",
        "from gunicorn.http.errors import ParseException, InvalidHeader",
        "from gunicorn.app.base import Application, BaseApplication",
        "from gunicorn.app.wsgiapp import WSGIApplication",
        "from gunicorn.errors import AppImportError, ConfigError, HaltServer",
        "from gunicorn.config import Config",
        "from gunicorn.instrument.statsd import Statsd",
        "from gunicorn import util\nassert util.http_date(0).endswith('1970 00:00:00 GMT')",
        "from gunicorn.util import getcwd\nassert getcwd()",
        "from uvicorn_worker import UvicornH11Worker, UvicornWorker",
    ],
)
def test_a_file_called_gunicorn_py_can_import_gunicorn(statement: str, load_file: Load) -> None:
    loaded = load_file(f"{statement}\nworkers = 2", name="gunicorn.py")

    assert loaded.config.workers == 2
    assert loaded.warnings == []


def test_a_part_of_gunicorn_that_nobody_needs_is_not_there(load_file: Load) -> None:
    with pytest.raises(ConfigError, match=r"No module named 'gunicorn\.sock'"):
        load_file("import gunicorn.sock")


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("from uvicorn_worker import UvicornWorker as Base", "asgi"),
        ("from uvicorn_worker import UvicornH11Worker as Base", "asgi"),
        ("from gunicorn.workers.sync import SyncWorker as Base", "sync"),
        ("from gunicorn.workers.gthread import ThreadWorker as Base", "threaded"),
        ("from gunicorn.workers.gasgi import ASGIWorker as Base", "asgi"),
    ],
)
def test_a_worker_class_of_the_file_tells_its_kind(text: str, kind: str, load_file: Load) -> None:
    text += "\nclass Mine(Base):\n    CONFIG_KWARGS = {'loop': 'uvloop'}\nworker_class = Mine\n"

    config = load_file(text).config

    assert config.kind == kind
    assert isinstance(config.worker_class, type)
    assert config.worker_class.__name__ == "Mine"


def test_a_function_may_return_the_worker_class(load_file: Load) -> None:
    text = (
        "def worker_class():\n    from uvicorn_worker import UvicornWorker\n"
        "    return UvicornWorker\n"
    )

    assert load_file(text).config.kind == "asgi"


@pytest.mark.parametrize(
    "text",
    [
        "from gunicorn.workers.base import Worker\nclass Mine(Worker): ...\nworker_class = Mine",
        "class Mine: ...\n\nworker_class = Mine",
    ],
)
def test_a_worker_of_its_own_making_is_refused(text: str, load_file: Load) -> None:
    with pytest.raises(ConfigError) as caught:
        load_file(text)

    assert str(caught.value) == (
        "worker_class: Mine is a worker of its own making, which forkmaster cannot run "
        "(gunicorn.py, line 3); write sync, threaded or asgi, or derive it from UvicornWorker"
    )


@pytest.mark.parametrize("name", ["bogus", "egg:dist#worker", "async"])
def test_a_worker_class_that_does_not_exist_is_named(name: str, load_file: Load) -> None:
    with pytest.raises(ConfigError) as caught:
        load_file(f"worker_class = '{name}'")

    assert str(caught.value) == (
        f'worker_class: "{name}" is not a kind of worker (gunicorn.py, line 1); '
        "write sync, threaded or asgi"
    )


@pytest.mark.parametrize(
    "name",
    ["gevent", "gevent_wsgi", "gevent_pywsgi", "eventlet", "tornado", "GEVENT",
     "gunicorn.workers.ggevent.GeventWorker", "gunicorn.workers.gtornado.TornadoWorker"],
)  # fmt: skip
def test_a_green_worker_becomes_a_threaded_one(name: str, load_file: Load) -> None:
    loaded = load_file(f"worker_class = '{name}'")

    assert (loaded.config.kind, loaded.config.threads) == ("threaded", 32)
    assert str(loaded.origins["threads"]) == f"gunicorn.py, line 1, in place of {name}"
    assert loaded.warnings == [
        f"worker_class (gunicorn.py, line 1): forkmaster has no {name} worker "
        "and runs 32 threads in its place; the setting threads says how many"
    ]


@pytest.mark.parametrize(("threads", "said"), [(1, "1 thread"), (8, "8 threads")])
def test_the_threads_in_place_of_a_green_worker_are_as_many_as_asked_for(
    threads: int, said: str, load_file: Load
) -> None:
    loaded = load_file("worker_class = 'gevent'", threads=threads)

    assert loaded.config.threads == threads
    assert f"runs {said} in its place" in loaded.warnings[0]


@pytest.mark.parametrize(
    ("statement", "name"),
    [
        ("from gunicorn.workers.ggevent import GeventWorker as Base", "gevent"),
        ("from gunicorn.workers.gtornado import TornadoWorker as Base", "tornado"),
    ],
)
def test_a_class_derived_from_a_green_worker_becomes_threads_too(
    statement: str, name: str, load_file: Load
) -> None:
    loaded = load_file(f"{statement}\nclass Mine(Base): ...\nworker_class = Mine\n")

    assert (loaded.config.kind, loaded.config.threads) == ("threaded", 32)
    assert f"forkmaster has no {name} worker" in loaded.warnings[0]


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("os.getcwd", '"os.getcwd" is not a class; write sync, threaded or asgi'),
        ("os.nothing", 'the module os has no "nothing"'),
        ("failing_module.Mine", 'cannot import "failing_module.Mine": RuntimeError: no'),
    ],
)
def test_a_worker_class_that_cannot_be_had_is_explained(
    path: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "failing_module.py").write_text("raise RuntimeError('no')")
    monkeypatch.syspath_prepend(tmp_path)

    with pytest.raises(BadValueError) as caught:
        worker_class_at(path)

    assert str(caught.value) == said


def test_a_logger_of_the_file_sets_up_its_handlers(load_file: Load, tmp_path: Path) -> None:
    text = """\
from gunicorn.glogging import Logger

class Mine(Logger):
    error_fmt = "mine: %(message)s"
    def setup(self, cfg):
        super().setup(cfg)

logger_class = Mine
"""
    logger_class = load_file(text).config.logger_class
    assert isinstance(logger_class, type)
    log = tmp_path / "error.log"

    logger = logger_class(SimpleNamespace(loglevel="info", errorlog=str(log), accesslog=None))
    logger.info("hello %s", "world")
    logger.debug("not this")
    handler = logger._get_gunicorn_handler(logger.error_log)
    logger.error_log.removeHandler(handler)
    handler.close()

    assert log.read_text() == "mine: hello world\n"


def test_the_config_of_an_embedding_program_knows_every_setting() -> None:
    shim.install()
    config = importlib.import_module("gunicorn.config").Config()

    config.set("workers", 4)

    assert config.workers == 4
    assert config.timeout == 30.0
    assert "bind" in config.settings
    with pytest.raises(AttributeError, match="No configuration setting for: nothing"):
        config.set("nothing", 1)
    with pytest.raises(AttributeError, match="No configuration setting for: nothing"):
        _ = config.nothing


def test_a_server_software_that_nobody_hears_is_told(
    load_file: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    shim.install()
    module = importlib.import_module("gunicorn")
    monkeypatch.setattr(module, "SERVER_SOFTWARE", module.SERVER_SOFTWARE)

    (warning,) = load_file("import gunicorn\ngunicorn.SERVER_SOFTWARE = 'secret'").warnings

    assert warning.startswith("gunicorn.SERVER_SOFTWARE has no effect (secret): the Server header")

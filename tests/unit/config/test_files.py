"""Configuration files as people write them: what they mean, and what is wrong with them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from forkmaster.addresses import parse_address
from forkmaster.config.sources import load
from forkmaster.config.table import Config
from forkmaster.errors import ConfigError
from tests.unit.config.conftest import Load

# Python


def test_the_file_of_a_deployment_note_loads_without_a_warning(
    load_file: Load, tmp_path: Path
) -> None:
    loaded = load_file(f"""\
# location of gunicorn executable
command = '/usr/bin/gunicorn'
# Loaction of manage.py
pythonpath = '{tmp_path}'
# Path to port
bind = '0.0.0.0:8000'
# number of workers
workers = 3
""")

    assert loaded.warnings == []
    assert loaded.config.workers == 3
    assert loaded.config.bind == (parse_address("0.0.0.0:8000"),)
    assert loaded.config.pythonpath == (str(tmp_path),)
    assert str(loaded.origins["bind"]) == "gunicorn.py, line 6"


@pytest.mark.parametrize("spec", ["conf/my.py", "./conf/my.py", "file:conf/my.py", "{}/conf/my.py"])
def test_a_file_is_named_by_its_path(spec: str, tmp_path: Path, load_file: Load) -> None:
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "my.py").write_text("workers = 4")

    loaded = load_file(config=spec.format(tmp_path), name="other.py")

    assert loaded.config.workers == 4
    assert loaded.file is not None
    assert loaded.file.samefile(tmp_path / "conf" / "my.py")


def test_a_file_need_not_end_in_py(load_file: Load) -> None:
    assert load_file("workers = 4", name="gunicorn.conf").config.workers == 4


def test_a_module_is_named_with_python(load_file: Load, tmp_path: Path) -> None:
    (tmp_path / "settings_of_mine").mkdir()
    (tmp_path / "settings_of_mine" / "server.py").write_text("\nworkers = 4")

    loaded = load_file(config="python:settings_of_mine.server")

    assert loaded.config.workers == 4
    assert str(loaded.origins["workers"]) == "python:settings_of_mine.server, line 2"


def test_a_module_is_executed_again_by_a_reload(load_file: Load, tmp_path: Path) -> None:
    module = tmp_path / "server_settings.py"
    module.write_text("workers = 4")
    before = load_file(config="python:server_settings")
    module.write_text("workers = 55")  # another size: the cached bytecode is told by size and time

    assert before.again().config.workers == 55


def test_the_file_runs_in_its_start_folder_and_can_import_from_it(
    load_file: Load, tmp_path: Path
) -> None:
    (tmp_path / "numbers_of_mine.py").write_text("count = 6")
    text = (
        "import os\nfrom numbers_of_mine import count\n"
        "workers = count\nproc_name = os.path.basename(os.getcwd())\n"
        "pidfile = os.path.join(os.path.dirname(__file__), 'pid')\n"
    )

    loaded = load_file(text)

    assert loaded.config.workers == 6
    assert loaded.config.proc_name == tmp_path.name
    assert loaded.config.pidfile == tmp_path / "pid"


def test_names_that_are_imported_are_settings_too(load_file: Load, tmp_path: Path) -> None:
    (tmp_path / "base_of_mine.py").write_text("workers = 5\ntimeout = 7\ndef on_exit(s): ...\n")

    loaded = load_file("from base_of_mine import *\nfrom base_of_mine import on_exit\ntimeout = 8")

    assert (loaded.config.workers, loaded.config.timeout) == (5, 8.0)
    assert loaded.config.on_exit is not None
    assert str(loaded.origins["workers"]) == "gunicorn.py"


@pytest.mark.parametrize(
    "text",
    [
        "from logging import config",
        "import json as user",
        "config = {}",
        "app = object()",
    ],
)
def test_a_name_that_clashes_by_chance_is_left_alone(text: str, load_file: Load) -> None:
    loaded = load_file(text)

    assert loaded.warnings == []
    assert loaded.config == Config(config="gunicorn.py")


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("workers = 2", "gunicorn.py, line 1"),
        ("\nworkers: int = 2", "gunicorn.py, line 2"),
        ("if True:\n    workers = 2", "gunicorn.py, line 2"),
        ("try:\n    pass\nfinally:\n    workers = 2", "gunicorn.py, line 4"),
        ("try:\n    1 / 0\nexcept ZeroDivisionError:\n    workers = 2", "gunicorn.py, line 4"),
        ("with open(__file__):\n    workers = 2", "gunicorn.py, line 2"),
        ("workers = 2\nif workers > 9:\n    workers = 9", "gunicorn.py, lines 1 and 3"),
        ("workers, timeout = 2, 3", "gunicorn.py, line 1"),
        ("globals()['workers'] = 2", "gunicorn.py"),
    ],
)
def test_a_value_remembers_its_line(text: str, place: str, load_file: Load) -> None:
    assert str(load_file(text).origins["workers"]) == place


@pytest.mark.parametrize(
    ("text", "name", "value"),
    [
        ('import os\nworkers = os.getenv("NO_SUCH_VARIABLE", 1)', "workers", 1),
        ('import os\nworkers = os.environ.get("NO_SUCH_VARIABLE", "3")', "workers", 3),
        ("import multiprocessing\nworkers = max(2 * 1 + 1, 3)", "workers", 3),
        ('daemon = "false"', "daemon", False),
        ('preload_app = "True"', "preload_app", True),
        ('bind = ":6543"', "bind", (parse_address("0.0.0.0:6543"),)),
        ('bind = ["0.0.0.0:1", "unix:/run/x"]', "bind",
         (parse_address("0.0.0.0:1"), parse_address("unix:/run/x"))),
        ('name = "x"\nbind = f"unix:/run/{name}.sock"', "bind",
         (parse_address("unix:/run/x.sock"),)),
        ("user = None", "user", None),
        ('user = "1000"', "user", 1000),
        ("umask = 777", "umask", 777),
        ('umask = "007"', "umask", 7),
        ("umask = 0", "umask", 0),
        ("timeout = 0", "timeout", 0.0),
        ("keepalive = 9999", "keepalive", 9999.0),
        ('timeout = "120"', "timeout", 120.0),
        ("sendfile = True", "sendfile", True),
        ("accesslog = None", "accesslog", None),
        ('errorlog = "-"', "errorlog", "-"),
        ('loglevel = "DEBUG"', "loglevel", "debug"),
        ('worker_class = "gthread"', "worker_class", "threaded"),
        ('worker_class = "uvicorn.workers.UvicornWorker"', "worker_class", "asgi"),
        ('worker_class = "uvicorn_worker.UvicornH11Worker"', "worker_class", "asgi"),
        ('worker_class = ""', "worker_class", None),
        ('worker_class = "my.own.Worker"', "worker_class", "my.own.Worker"),
        ("proxy_protocol = True", "proxy_protocol", "auto"),
        ('forwarded_allow_ips = "*"', "forwarded_allow_ips", ("*",)),
        ('forwarder_headers = "SCRIPT_NAME"', "forwarder_headers", ("SCRIPT_NAME",)),
        ('raw_env = ["A=1"]', "raw_env", ("A=1",)),
        ('raw_env = "A=1"', "raw_env", ("A=1",)),
        ('reload_extra_files = []', "reload_extra_files", ()),
        ("def on_starting(server):\n    pass\nwhen_ready = on_starting", "on_exit", None),
    ],
)  # fmt: skip
def test_values_as_real_files_write_them(
    text: str, name: str, value: object, load_file: Load
) -> None:
    loaded = load_file(text)

    assert getattr(loaded.config, name) == value
    assert loaded.warnings == []


def test_a_relative_chdir_is_relative_to_the_start_folder(load_file: Load, tmp_path: Path) -> None:
    (tmp_path / "djbot").mkdir()

    assert load_file("chdir = './djbot/'").config.chdir == tmp_path / "djbot"


@pytest.mark.parametrize(
    ("text", "warning"),
    [
        ("worker = 3", "worker is not a setting (gunicorn.py, line 1): did you mean workers?"),
        ("\nthread = 4", "thread is not a setting (gunicorn.py, line 2): did you mean threads?"),
        ("WORKERS = 4", "WORKERS is not a setting (gunicorn.py, line 1): did you mean workers?"),
        (
            'log_level = "debug"',
            "log_level is not a setting (gunicorn.py, line 1): did you mean loglevel?",
        ),
        (
            'access_logfile = "-"',
            "access_logfile is not a setting (gunicorn.py, line 1): did you mean accesslog?",
        ),
        (
            "preload = True",
            "preload is not a setting (gunicorn.py, line 1): did you mean preload_app?",
        ),
        ('pid = "/x"', "pid is not a setting (gunicorn.py, line 1): did you mean pidfile?"),
        ('name = "x"', "name is not a setting (gunicorn.py, line 1): did you mean proc_name?"),
        (
            "keep_alive = 3",
            "keep_alive is not a setting (gunicorn.py, line 1): did you mean keepalive?",
        ),
        ("time_out = 3", "time_out is not a setting (gunicorn.py, line 1): did you mean timeout?"),
        (
            "def postfork(server, worker): ...",
            "postfork is not a setting (gunicorn.py, line 1): did you mean post_fork?",
        ),
        (
            "debug = True",
            "debug is not a setting (gunicorn.py, line 1): "
            'gunicorn removed it long ago; write loglevel = "debug"',
        ),
        (
            "worker_memory_limit = 512",
            "worker_memory_limit is not a setting (gunicorn.py, line 1): "
            "did you mean max_worker_memory?",
        ),
    ],
)  # fmt: skip
def test_a_misspelt_setting_is_reported_with_its_line(
    text: str, warning: str, load_file: Load
) -> None:
    assert load_file(text).warnings == [warning]


@pytest.mark.parametrize(
    "text",
    [
        "command = '/usr/bin/gunicorn'",
        "worker = 3\nworkers = worker * 2",  # read, so it is a helper
        "timeout_str = '30'\ntimeout = int(timeout_str)",
        "use_loglevel = 'info'\nloglevel = use_loglevel",
        "cores = 2",
        "BASE_DIR = '/srv'",
        "_worker = 3",
        "buffer_size = 32768",
        "def helper(): ...",
        "def worker(): ...",  # a function is no number
        "class Worker: ...",
        "import threading as thread",
        "post_forks = 3",  # and a number no hook
    ],
)
def test_other_names_are_nobodys_business(text: str, load_file: Load) -> None:
    assert load_file(text).warnings == []


def test_the_variables_of_a_common_base_image_do_not_warn(load_file: Load) -> None:
    loaded = load_file("""\
import json
import multiprocessing
import os

workers_per_core_str = os.getenv("WORKERS_PER_CORE", "1")
max_workers_str = os.getenv("MAX_WORKERS")
use_max_workers = None
if max_workers_str:
    use_max_workers = int(max_workers_str)
web_concurrency_str = os.getenv("NO_SUCH_CONCURRENCY", None)

host = os.getenv("NO_SUCH_HOST", "0.0.0.0")
port = os.getenv("NO_SUCH_PORT", "80")
bind_env = os.getenv("NO_SUCH_BIND", None)
use_loglevel = os.getenv("NO_SUCH_LEVEL", "info")
use_bind = bind_env if bind_env else f"{host}:{port}"

cores = multiprocessing.cpu_count()
workers_per_core = float(workers_per_core_str)
default_web_concurrency = workers_per_core * cores
web_concurrency = max(int(default_web_concurrency), 2)
if use_max_workers:
    web_concurrency = min(web_concurrency, use_max_workers)
accesslog_var = os.getenv("ACCESS_LOG", "-")
use_accesslog = accesslog_var or None
graceful_timeout_str = os.getenv("GRACEFUL_TIMEOUT", "120")
timeout_str = os.getenv("TIMEOUT", "120")
keepalive_str = os.getenv("KEEP_ALIVE", "5")

loglevel = use_loglevel
workers = web_concurrency
bind = use_bind
worker_tmp_dir = "/dev/shm"
accesslog = use_accesslog
graceful_timeout = int(graceful_timeout_str)
timeout = int(timeout_str)
keepalive = int(keepalive_str)

log_data = {"loglevel": loglevel, "workers": workers, "bind": bind}
json.dumps(log_data)
""")

    assert loaded.warnings == []
    assert loaded.config.graceful_timeout == 120.0
    assert loaded.config.bind == (parse_address("0.0.0.0:80"),)


# What is wrong with a file


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("workers = = 3", "gunicorn.py, line 1: invalid syntax: workers = = 3"),
        ("\nif True:\nworkers = 3",
         "gunicorn.py, line 3: expected an indented block after 'if' statement on line 2: "
         "workers = 3"),
        ("workers = int('many')",
         "gunicorn.py, line 1: ValueError: invalid literal for int() with base 10: 'many': "
         "workers = int('many')"),
        ("import os\n\nx = os.environ['NO_SUCH_VARIABLE']",
         "gunicorn.py, line 3: KeyError: 'NO_SUCH_VARIABLE': x = os.environ['NO_SUCH_VARIABLE']"),
        ("import no_such_module",
         "gunicorn.py, line 1: ModuleNotFoundError: No module named 'no_such_module': "
         "import no_such_module"),
        ("import sys\nsys.exit(3)", "gunicorn.py, line 2: it calls sys.exit(3): sys.exit(3)"),
        ("raise ValueError", "gunicorn.py, line 1: ValueError: raise ValueError"),
        ("def make():\n    return 1 / 0\nworkers = make()",
         "gunicorn.py, line 2: ZeroDivisionError: division by zero: return 1 / 0"),
    ],
)  # fmt: skip
def test_a_file_that_cannot_run_is_explained(text: str, message: str, load_file: Load) -> None:
    with pytest.raises(ConfigError) as caught:
        load_file(text)

    assert str(caught.value) == message


def test_an_error_in_what_the_file_imports_names_both_places(
    load_file: Load, tmp_path: Path
) -> None:
    (tmp_path / "broken_of_mine.py").write_text("\nvalue = 1 / 0\n")

    with pytest.raises(ConfigError) as caught:
        load_file("import broken_of_mine")

    assert str(caught.value) == (
        "gunicorn.py, line 1: ZeroDivisionError: division by zero, "
        f"raised in {tmp_path}/broken_of_mine.py, line 2: import broken_of_mine"
    )


def test_a_syntax_error_in_what_the_file_imports_names_that_file(
    load_file: Load, tmp_path: Path
) -> None:
    (tmp_path / "crooked_of_mine.py").write_text("\nvalue = = 1\n")

    with pytest.raises(ConfigError) as caught:
        load_file("import crooked_of_mine")

    expected = f"{tmp_path}/crooked_of_mine.py, line 2: invalid syntax: value = = 1"
    assert str(caught.value) == expected


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("nowhere.py", "there is no configuration file nowhere.py in {}"),
        ("/nowhere/x.py", "there is no configuration file /nowhere/x.py in {}"),
        (".", ". is a folder; name the configuration file in it"),
        ("python:nowhere", "there is no module nowhere to read the configuration from"),
        ("python:no.where", "there is no module no.where to read the configuration from"),
    ],
)
def test_a_file_that_is_not_there_is_named(
    spec: str, message: str, load_file: Load, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError) as caught:
        load_file(config=spec, name="other.py")

    assert str(caught.value) == message.format(tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_cannot_be_read_is_named(load_file: Load, tmp_path: Path) -> None:
    (tmp_path / "closed.py").write_text("workers = 1")
    (tmp_path / "closed.py").chmod(0)

    with pytest.raises(ConfigError, match=r"cannot read closed\.py: Permission denied"):
        load_file(config="closed.py", name="other.py")


def test_an_error_in_a_module_names_its_line(load_file: Load, tmp_path: Path) -> None:
    (tmp_path / "module_of_mine.py").write_text("\nraise RuntimeError('no')\n")

    with pytest.raises(ConfigError) as caught:
        load_file(config="python:module_of_mine")

    assert str(caught.value) == (
        "python:module_of_mine, line 2: RuntimeError: no: raise RuntimeError('no')"
    )


# Discovery


@pytest.mark.parametrize(
    ("names", "read"),
    [
        (["gunicorn.conf.py"], "gunicorn.conf.py"),
        (["gunicorn.conf.py", "forkmaster.conf.py"], "forkmaster.conf.py"),
        (["gunicorn.conf.py", "forkmaster.conf.py", "forkmaster.toml"], "forkmaster.toml"),
        (["pyproject.toml", "gunicorn.conf.py"], "gunicorn.conf.py"),
        (["pyproject.toml"], "pyproject.toml"),
        (["gunicorn.py"], None),
        ([], None),
    ],
)
def test_one_file_is_found_and_never_two(
    names: list[str], read: str | None, tmp_path: Path
) -> None:
    for name in names:
        text = "[tool.forkmaster]\nworkers = 3" if name == "pyproject.toml" else "workers = 3"
        (tmp_path / name).write_text(text)

    loaded = load(environ={}, folder=tmp_path)

    assert loaded.file == (tmp_path / read if read is not None else None)
    assert loaded.config.workers == (3 if read is not None else 1)


def test_a_pyproject_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "x"\n')

    assert load(environ={}, folder=tmp_path).file is None


# TOML


def test_toml_has_units_and_lists(load_file: Load) -> None:
    loaded = load_file(
        """\
app = "project.wsgi"
bind = ["127.0.0.1:1", "unix:/x"]
timeout = "30s"
limit_request_body = "20MB"
preload_app = true

[secure_scheme_headers]
X-Forwarded-Proto = "https"
""",
        name="forkmaster.toml",
    )

    assert loaded.config.app == "project.wsgi"
    assert loaded.config.timeout == 30.0
    assert loaded.config.limit_request_body == 20_000_000
    assert loaded.config.secure_scheme_headers == {"X-FORWARDED-PROTO": "https"}
    assert str(loaded.origins["timeout"]) == "forkmaster.toml, line 3"
    assert str(loaded.origins["secure_scheme_headers"]) == "forkmaster.toml, line 7"


def test_pyproject_has_a_table_of_its_own(load_file: Load) -> None:
    text = '[project]\nname = "x"\nworkers = 9\n\n[tool.forkmaster]\nworkers = 3\n'

    loaded = load_file(text, name="pyproject.toml")

    assert loaded.config.workers == 3
    assert str(loaded.origins["workers"]) == "pyproject.toml, line 6"


def test_a_hook_in_toml_is_a_dotted_path(load_file: Load) -> None:
    assert load_file('on_exit = "builtins.print"', name="forkmaster.toml").config.on_exit is print


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("worker = 3\nthredz = 1\n",
         "worker: is not a setting (forkmaster.toml, line 1); did you mean workers?\n"
         "thredz: is not a setting (forkmaster.toml, line 2); did you mean threads?"),
        ("preload-app = true",
         "preload-app: is not a setting (forkmaster.toml, line 1); did you mean preload_app?"),
        ("debug = true",
         "debug: is not a setting (forkmaster.toml, line 1); "
         'gunicorn removed it long ago; write loglevel = "debug"'),
        ("something = 3",
         "something: is not a setting (forkmaster.toml, line 1); forkmaster config lists them all"),
        ("config = 'x'",
         "config: is not a setting (forkmaster.toml, line 1); "
         "one file is read, and it cannot name another"),
        ("threds = 2\nworkers = 'many'",
         'workers: "many" is not a whole number (forkmaster.toml, line 2); '
         'write a number, as 4, or "auto"\n'
         "threds: is not a setting (forkmaster.toml, line 1); did you mean threads?"),
        ("workers = ", "forkmaster.toml is not valid TOML: Invalid value (at end of document)"),
        ("\ntimeout = '30 parsecs'",
         'timeout: "30 parsecs" is not a number of seconds (forkmaster.toml, line 2); '
         "write a number, as 30 or 0.5"),
    ],
)  # fmt: skip
def test_a_mistake_in_toml_is_an_error(text: str, message: str, load_file: Load) -> None:
    with pytest.raises(ConfigError) as caught:
        load_file(text, name="forkmaster.toml")

    assert str(caught.value) == message


def test_toml_must_be_utf_8(tmp_path: Path) -> None:
    (tmp_path / "forkmaster.toml").write_bytes(b"app = '\xff'")

    with pytest.raises(ConfigError, match=r"forkmaster\.toml is not UTF-8, as TOML must be"):
        load(environ={}, folder=tmp_path)

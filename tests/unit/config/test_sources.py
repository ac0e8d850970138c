"""Which source wins, where each value came from, and what is said about it."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

import pytest

from forkmaster.addresses import parse_address
from forkmaster.config.origins import Given, Origin
from forkmaster.config.sources import load, start_folder
from forkmaster.config.table import SETTINGS, Config
from forkmaster.errors import ConfigError
from tests.unit.config.conftest import Load

# From the weakest to the strongest.  Each gives a number of workers of its own.
SOURCES = ["platform", "file", "variable", "arguments", "command line"]


def test_without_any_source_everything_is_default(tmp_path: Path) -> None:
    loaded = load(environ={}, folder=tmp_path)

    assert loaded.config == Config()
    assert loaded.file is None
    assert loaded.warnings == []
    assert {str(origin) for origin in loaded.origins.values()} == {"default"}


@pytest.mark.parametrize(
    "present",
    [
        pytest.param(present, id="+".join(present))
        for size in range(1, len(SOURCES) + 1)
        for present in itertools.combinations(SOURCES, size)
    ],
)
def test_the_strongest_source_wins(present: tuple[str, ...], tmp_path: Path) -> None:
    if "file" in present:
        (tmp_path / "gunicorn.conf.py").write_text("workers = 2\n")
    environ = {}
    if "platform" in present:
        environ["WEB_CONCURRENCY"] = "1"
    if "variable" in present:
        environ["FORKMASTER_WORKERS"] = "3"
    line = []
    if "arguments" in present:
        line.append(Given("workers", "4", Origin("environment", "GUNICORN_CMD_ARGS --workers")))
    if "command line" in present:
        line.append(Given("workers", "5", Origin("command line", "--workers")))

    loaded = load(line, environ=environ, folder=tmp_path)

    strongest = SOURCES.index(present[-1])
    assert loaded.config.workers == strongest + 1
    assert (
        str(loaded.origins["workers"])
        == [
            "WEB_CONCURRENCY",
            "gunicorn.conf.py, line 1",
            "FORKMASTER_WORKERS",
            "GUNICORN_CMD_ARGS --workers",
            "--workers",
        ][strongest]
    )


def test_a_list_replaces_a_list(load_file: Load) -> None:
    loaded = load_file('bind = [":1", ":2"]', bind=[":3"])

    assert loaded.config.bind == (parse_address(":3"),)


def test_a_value_that_is_overridden_is_not_judged(load_file: Load) -> None:
    assert load_file('workers = "many"', workers="2").config.workers == 2


@pytest.mark.parametrize(
    ("environ", "name", "value"),
    [
        ({"PORT": "5000"}, "bind", (parse_address("0.0.0.0:5000"),)),
        ({"WEB_CONCURRENCY": "3"}, "workers", 3),
        ({"FORWARDED_ALLOW_IPS": "*"}, "forwarded_allow_ips", ("*",)),
        ({"SENDFILE": "no"}, "sendfile", False),
    ],
)
def test_what_platforms_set_is_obeyed(
    environ: dict[str, str], name: str, value: object, tmp_path: Path
) -> None:
    loaded = load(environ=environ, folder=tmp_path)

    assert getattr(loaded.config, name) == value
    assert str(loaded.origins[name]) == next(iter(environ))


@pytest.mark.parametrize("name", ["PORT", "WEB_CONCURRENCY", "FORKMASTER_WORKERS"])
def test_an_empty_variable_is_not_set(name: str, tmp_path: Path) -> None:
    assert load(environ={name: ""}, folder=tmp_path).config == Config()


@pytest.mark.parametrize(
    ("variable", "text", "name", "value"),
    [
        ("FORKMASTER_BIND", ":1, unix:/x", "bind", (parse_address(":1"), parse_address("unix:/x"))),
        ("FORKMASTER_PRELOAD_APP", "1", "preload_app", True),
        ("FORKMASTER_TIMEOUT", "2m", "timeout", 120.0),
        ("FORKMASTER_RAW_ENV", "A=1,B=2", "raw_env", ("A=1", "B=2")),
        ("FORKMASTER_APP", "project.wsgi", "app", "project.wsgi"),
        ("FORKMASTER_LOGCONFIG_DICT", '{"version": 1}', "logconfig_dict", {"version": 1}),
        ("FORKMASTER_ON_EXIT", "builtins.print", "on_exit", print),
    ],
)
def test_every_setting_has_a_variable(
    variable: str, text: str, name: str, value: object, tmp_path: Path
) -> None:
    loaded = load(environ={variable: text}, folder=tmp_path)

    assert getattr(loaded.config, name) == value
    assert str(loaded.origins[name]) == variable


@pytest.mark.parametrize(
    ("variable", "warning"),
    [
        (
            "FORKMASTER_WORKES",
            "FORKMASTER_WORKES is not a setting (environment): did you mean FORKMASTER_WORKERS?",
        ),
        (
            "FORKMASTER_LOG_LEVEL",
            "FORKMASTER_LOG_LEVEL is not a setting (environment): "
            "did you mean FORKMASTER_LOGLEVEL?",
        ),
        ("FORKMASTER_SERVICE_HOST", None),  # Kubernetes sets it where a Service has our name
        ("FORKMASTER_PORT_8000_TCP", None),
        ("WORKERS", None),
    ],
)
def test_a_variable_that_is_misspelt_is_reported(
    variable: str, warning: str | None, tmp_path: Path
) -> None:
    loaded = load(environ={variable: "x"}, folder=tmp_path)

    assert loaded.warnings == ([warning] if warning else [])


def test_the_file_can_be_named_by_a_variable(tmp_path: Path) -> None:
    (tmp_path / "my.py").write_text("workers = 7")

    loaded = load(environ={"FORKMASTER_CONFIG": "my.py"}, folder=tmp_path)

    assert loaded.config.workers == 7
    assert loaded.file == tmp_path / "my.py"


def test_the_application_of_the_command_line_wins_over_that_of_the_file(load_file: Load) -> None:
    assert load_file('wsgi_app = "a:b"').config.app == "a:b"
    assert load_file('wsgi_app = "a:b"', app="c:d").config.app == "c:d"
    assert str(load_file('\nwsgi_app = "a:b"').origins["app"]) == "gunicorn.py, line 2"


def test_a_variable_called_app_is_no_setting(load_file: Load) -> None:
    loaded = load_file("app = object()")

    assert loaded.config.app == ""
    assert loaded.warnings == []


def test_every_problem_of_every_source_is_reported_at_once(tmp_path: Path) -> None:
    (tmp_path / "gunicorn.conf.py").write_text('timeout = "long"\n\nbacklog = None\n')
    line = [Given("threads", "x", Origin("command line", "--threads"))]

    with pytest.raises(ConfigError) as caught:
        load(line, environ={"PORT": "http", "FORKMASTER_WORKERS": "0"}, folder=tmp_path)

    assert str(caught.value).splitlines() == [
        'bind: "http" is not a port number, in "0.0.0.0:http" (PORT); write HOST:PORT',
        'timeout: "long" is not a number of seconds (gunicorn.conf.py, line 1); '
        "write a number, as 30 or 0.5",
        "backlog: None is not a whole number (gunicorn.conf.py, line 3); "
        "is an environment variable missing?",
        'workers: 0 workers would serve nobody (FORKMASTER_WORKERS); write 1 or more, or "auto"',
        'threads: "x" is not a whole number (--threads); write a number, as 4',
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            'protocol = "uwsgi"',
            "protocol: it cannot be ignored safely (gunicorn.py, line 1); "
            "forkmaster speaks HTTP only: in nginx write proxy_pass in place of uwsgi_pass",
        ),
        (
            'paste = "development.ini"',
            "paste: it cannot be ignored safely (gunicorn.py, line 1); "
            'write a module that calls paste.deploy.loadapp("config:FILE") and name it',
        ),
    ],
)
def test_what_would_be_unsafe_to_ignore_stops_the_start(
    text: str, message: str, load_file: Load
) -> None:
    with pytest.raises(ConfigError) as caught:
        load_file(text)

    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("text", "messages"),
    [
        (
            f'keyfile = "{__file__}"\nciphers = "HIGH"',
            [
                "keyfile: nothing is encrypted without a certificate (gunicorn.py, line 1); "
                "set certfile",
                "ciphers: nothing is encrypted without a certificate (gunicorn.py, line 2); "
                "set certfile",
            ],
        ),
        (
            f'import ssl\ncertfile = "{__file__}"\ncert_reqs = ssl.CERT_REQUIRED',
            [
                "cert_reqs: no certificate of a client could be verified (gunicorn.py, line 3); "
                "set ca_certs"
            ],
        ),
    ],
)
def test_encryption_that_cannot_be_had_stops_the_start(
    text: str, messages: list[str], load_file: Load
) -> None:
    with pytest.raises(ConfigError) as caught:
        load_file(text)

    assert str(caught.value).splitlines() == messages


def test_a_certificate_or_the_hook_encrypts(load_file: Load) -> None:
    assert load_file(f'certfile = "{__file__}"').config.is_encrypted
    assert load_file("def ssl_context(conf, factory): ...").config.is_encrypted
    assert not load_file("").config.is_encrypted


def test_the_defaults_of_what_is_refused_are_welcome(load_file: Load) -> None:
    text = 'certfile = None\nkeyfile = ""\ncert_reqs = 0\nprotocol = "http"\npaste = None\n'

    assert load_file(text).warnings == []


@pytest.mark.parametrize(
    ("text", "warning"),
    [
        (
            "spew = True",
            "spew has no effect (gunicorn.py, line 1): "
            "run the application under python -m trace --trace",
        ),
        (
            'http_protocols = "h2,h1"',
            "http_protocols has no effect (gunicorn.py, line 1): "
            'HTTP/1.1 is spoken; worker_class = "hypercorn" speaks HTTP/2 too, or let nginx do it',
        ),
        (
            "dirty_workers = 2",
            "dirty_workers has no effect (gunicorn.py, line 1): "
            "there are no dirty workers; run long jobs in a queue, as Celery",
        ),
        (
            'worker_class = "gevent"',
            "worker_class (gunicorn.py, line 1): "
            "forkmaster has no gevent worker and runs 32 threads in its place; "
            "the setting threads says how many",
        ),
        (
            'worker_class = "uvicorn.workers.UvicornWorker"\nthreads = 4',
            "threads has no effect (gunicorn.py, line 2): "
            "an asgi worker runs any number of requests at once",
        ),
        (
            'pythonpath = "/nowhere"',
            'pythonpath (gunicorn.py, line 1): there is no folder "/nowhere"; '
            "nothing is imported from it",
        ),
    ],
)
def test_what_has_no_effect_is_said_once(text: str, warning: str, load_file: Load) -> None:
    assert load_file(text).warnings == [warning]


@pytest.mark.parametrize(
    "text",
    ["spew = False", "tmp_upload_dir = None", 'tmp_upload_dir = "/tmp"', "dirty_apps = []",
     "http_protocols = 'h1'", "import ssl\nssl_version = ssl.PROTOCOL_TLS", "http_parser = 'fast'",
     "suppress_ragged_eofs = False", "default_proc_name = 'x'", "http2_cleartext = False",
     "worker_class = 'hypercorn'\nhttp_protocols = 'h2,h1'\nhttp2_cleartext = True"],
)  # fmt: skip
def test_what_needs_no_effect_is_taken_silently(text: str, load_file: Load) -> None:
    assert load_file(text).warnings == []


def test_a_reload_reads_the_same_sources_afresh(tmp_path: Path) -> None:
    file = tmp_path / "gunicorn.conf.py"
    file.write_text("workers = 2\nthreads = 2")
    line = [Given("threads", "5", Origin("command line", "--threads"))]
    before = load(line, environ={"PORT": "81"}, folder=tmp_path)
    file.write_text("workers = 3\nthreads = 3")

    after = before.again()

    assert (after.config.workers, after.config.threads) == (3, 5)
    assert after.config.bind == (parse_address("0.0.0.0:81"),)
    assert before.config.workers == 2


def test_a_reload_finds_a_file_that_was_not_there_before(tmp_path: Path) -> None:
    before = load(environ={}, folder=tmp_path)
    (tmp_path / "gunicorn.conf.py").write_text("workers = 3")

    assert before.again().config.workers == 3


def test_a_reload_of_a_broken_file_raises_and_changes_nothing(load_file: Load) -> None:
    before = load_file("workers = 2")
    assert before.file is not None
    before.file.write_text("workers = = 3")

    with pytest.raises(ConfigError, match="line 1: invalid syntax"):
        before.again()
    assert before.config.workers == 2


def test_a_release_is_known_by_its_link_and_found_anew(tmp_path: Path) -> None:
    for release, workers in (("one", 1), ("two", 2)):
        (tmp_path / release).mkdir()
        (tmp_path / release / "gunicorn.conf.py").write_text(f"workers = {workers}")
    current = tmp_path / "current"
    current.symlink_to("one")
    before = load(environ={}, folder=current)
    current.unlink()
    current.symlink_to("two")

    assert before.again().config.workers == 2


def test_the_start_folder_keeps_the_name_of_a_link(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "release").mkdir()
    (tmp_path / "current").symlink_to("release")
    monkeypatch.chdir(tmp_path / "current")

    assert start_folder({"PWD": str(tmp_path / "current")}) == tmp_path / "current"
    assert start_folder({"PWD": "/nowhere"}) == Path(os.getcwd())
    assert start_folder({"PWD": "."}) == Path(os.getcwd())
    assert start_folder({}) == Path(os.getcwd())


def test_loading_leaves_the_current_folder_alone(load_file: Load) -> None:
    before = Path.cwd()

    load_file("import os\nworkers = 1")

    assert Path.cwd() == before


def test_every_setting_has_an_origin(load_file: Load) -> None:
    assert set(load_file("workers = 1").origins) == set(SETTINGS)

"""What `forkmaster migrate` makes of an uwsgi.ini."""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path

import pytest

from forkmaster.cli import entry, migrate
from forkmaster.cli.migrate import migrated
from forkmaster.config.sources import load
from forkmaster.config.table import SETTINGS
from forkmaster.errors import ForkmasterError

COPENHAGEN = """\
[uwsgi]
base = /srv/copenhagen
module = copenhagen.wsgi:application
chdir = %(base)
socket = /run/copenhagen.sock
chmod-socket = 660
master = true
processes = 4
threads = 2
harakiri = 60
max-requests = 5000
max-requests-delta = 500
reload-on-rss = 300
lazy-apps = true
vacuum = true
die-on-term = true
env = DJANGO_SETTINGS_MODULE=copenhagen.settings
env = TZ=Europe/Copenhagen
spooler = %(base)/spool
logto = /var/log/%n.log
"""

EXPECTED = """\
# From uwsgi.ini.  Start it with: forkmaster -c forkmaster.toml
# - socket spoke the uwsgi protocol, and is HTTP now: in nginx write proxy_pass \
http://unix:PATH: (or http://HOST:PORT) for uwsgi_pass, and drop uwsgi_params
# - die-on-term: TERM stops the server, always; HUP or forkmaster reload replaces the workers

app = "copenhagen.wsgi:application"
chdir = "/srv/copenhagen"
bind = ["unix:/run/copenhagen.sock"]
socket_mode = "0660"
workers = 4
threads = 2
request_timeout = 60
max_requests = 5000
max_requests_jitter = 500
max_worker_memory = "300MiB"
raw_env = ["DJANGO_SETTINGS_MODULE=copenhagen.settings", "TZ=Europe/Copenhagen"]
preload_app = false

# Without an equivalent:
# - line 19: spooler = /srv/copenhagen/spool: use a queue, as Celery or RQ
# - line 20: logto = /var/log/%n.log: uWSGI fills this in when it runs; write what it becomes
"""


def settings(text: str) -> dict[str, object]:
    return tomllib.loads(migrated(f"[uwsgi]\n{text}", "uwsgi.ini"))


def test_a_whole_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "uwsgi.ini").write_text(COPENHAGEN)

    assert entry.run(["migrate", str(tmp_path / "uwsgi.ini")]) == 0
    assert capsys.readouterr().out == EXPECTED


@pytest.mark.parametrize(
    ("text", "name", "value"),
    [
        ("http = :8000", "bind", [":8000"]),
        ("http-socket = 127.0.0.1:8000", "bind", ["127.0.0.1:8000"]),
        ("socket = 127.0.0.1:3031,0", "bind", ["127.0.0.1:3031"]),
        ("socket = app.sock", "bind", ["unix:app.sock"]),
        ("socket = fd://3", "bind", ["fd://3"]),
        ("http = :80\nhttp = :81", "bind", [":80", ":81"]),
        ("wsgi-file = project/wsgi.py", "app", "project.wsgi"),
        ("wsgi-file = app.py\ncallable = api", "app", "app:api"),
        ("callable = api\nmodule = shop.web", "app", "shop.web:api"),
        ("wsgi-file = /srv/shop/web.py", "pythonpath", ["/srv/shop"]),
        ("processes = %k", "workers", "auto"),
        ("workers = 8\ncheaper = 2", "workers_max", 8),
        ("umask = 027", "umask", "027"),
        ("umask = 22", "umask", "022"),
        ("chown-socket = app:www-data", "socket_group", "www-data"),
        ("lazy-apps = false", "preload_app", True),
        ("", "preload_app", True),
        ("static-map = /static=/srv/static", "static_map", {"/static/": "/srv/static"}),
        ("max_requests = 100", "max_requests", 100),
        ("logto = /var/log/shop.log", "accesslog", "/var/log/shop.log"),
        ("daemonize = /var/log/shop.log", "daemon", True),
        ("stats = 127.0.0.1:9191", "monitor_bind", "127.0.0.1:9191"),
    ],
)
def test_an_option_becomes_a_setting(text: str, name: str, value: object) -> None:
    assert settings(text)[name] == value


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "cron = 0 3 -1 -1 -1 backup",
            "line 2: cron = 0 3 -1 -1 -1 backup: use a timer of systemd",
        ),
        ("mule = worker.py", "line 2: mule = worker.py: use a queue"),
        ("emperor = /etc/vassals", "use one unit per project: forkmaster@.service"),
        ("touch-reload = /tmp/r", "touch-reload = /tmp/r: say forkmaster reload after a deploy"),
        ("frobnicate = 1", "line 2: frobnicate = 1: no equivalent is known"),
        (
            "home = /srv/venv",
            "# - home: install forkmaster there and start /srv/venv/bin/forkmaster",
        ),
        ("pidfile = $(HOME)/pid", "uWSGI fills this in when it runs"),
    ],
)
def test_what_has_no_equivalent_is_told(text: str, said: str) -> None:
    assert said in migrated(f"[uwsgi]\n{text}", "uwsgi.ini")


@pytest.mark.parametrize("text", ["master = true", "vacuum = true", "thunder-lock", "strict = 1"])
def test_what_is_so_anyway_is_not_mentioned(text: str) -> None:
    first = "# From uwsgi.ini.  Start it with: forkmaster -c forkmaster.toml"

    assert migrated(f"[uwsgi]\n{text}", "uwsgi.ini") == f"{first}\n\npreload_app = true\n"


def test_other_sections_and_comments_are_left_out() -> None:
    text = (
        "; workers = 1\n# workers = 2\n[app]\nworkers = 3\n[uwsgi]\nworkers = 4\n[x]\nworkers = 5"
    )

    assert tomllib.loads(migrated(text, "x"))["workers"] == 4


def test_every_option_leads_to_a_setting_that_exists() -> None:
    assert {name for name, _ in migrate.PLAIN.values()} <= set(SETTINGS)


def test_what_is_printed_is_a_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", sys.path[:])
    text = COPENHAGEN.replace("/srv/copenhagen", str(tmp_path))
    (tmp_path / "forkmaster.toml").write_text(migrated(text, "uwsgi.ini"))

    loaded = load(environ={}, folder=tmp_path)

    assert loaded.warnings == []
    assert loaded.config.workers == 4
    assert loaded.config.max_worker_memory == 300 * 1024 * 1024


def test_a_file_that_cannot_be_read_is_a_failure(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        entry.main(["migrate", str(tmp_path / "nowhere.ini")])

    assert caught.value.code == 1
    assert capsys.readouterr().err.endswith("nowhere.ini: No such file or directory\n")


@pytest.mark.parametrize("text", ["", "[app:main]\nuse = egg:x", "uwsgi:\n  module: a.b\n"])
def test_a_file_of_another_kind_is_refused(text: str) -> None:
    with pytest.raises(ForkmasterError) as caught:
        migrated(text, "x.yaml")

    assert str(caught.value) == "x.yaml has no option of uWSGI; an .ini with [uwsgi] is wanted"

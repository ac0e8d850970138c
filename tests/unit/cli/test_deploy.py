"""`forkmaster check --deploy`: what is said about settings and configuration together."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from forkmaster.addresses import TCPAddress, UnixAddress
from forkmaster.cli import deploy
from forkmaster.config.table import Config
from forkmaster.django import checks

OPEN = (TCPAddress("0.0.0.0", 8000),)
DATABASE = "django.contrib.sessions.backends.db"
CACHED = "django.contrib.sessions.backends.cache"
REDIS = "django.core.cache.backends.redis.RedisCache"


def settings(**changes: Any) -> SimpleNamespace:
    """Django's settings of a project without anything to find."""
    values: dict[str, Any] = {
        "SECURE_PROXY_SSL_HEADER": None,
        "SECURE_SSL_REDIRECT": False,
        "INSTALLED_APPS": [],
        "STATIC_URL": "/static/",
        "STATIC_ROOT": None,
        "CACHES": {"default": {"BACKEND": REDIS}},
        "SESSION_ENGINE": DATABASE,
        "SESSION_CACHE_ALIAS": "default",
        "DATABASES": {"default": {}},
        "ROOT_URLCONF": "",
    }
    return SimpleNamespace(**(values | changes))


def ids(config: Config, kind: str = "sync", **changes: Any) -> list[str]:
    """What is found, but for what Django itself finds."""
    return [each.id for check in checks.CHECKS for each in check(settings(**changes), config, kind)]


def test_a_project_without_anything_to_find() -> None:
    assert ids(Config(workers=4)) == []


def test_a_header_that_everybody_may_send() -> None:
    header = ("HTTP_X_FORWARDED_PROTO", "https")

    assert ids(Config(bind=OPEN), SECURE_PROXY_SSL_HEADER=header) == ["forkmaster.W001"]
    assert ids(Config(), SECURE_PROXY_SSL_HEADER=header) == []
    assert ids(Config(bind=(UnixAddress("/run/x"),)), SECURE_PROXY_SSL_HEADER=header) == []


def test_a_redirect_for_ever() -> None:
    encrypted = Config(bind=OPEN, certfile=Path("cert.pem"))
    believed = Config(bind=OPEN, forwarded_allow_ips=("127.0.0.1", "10.0.0.0/8"))

    assert ids(Config(bind=OPEN), SECURE_SSL_REDIRECT=True) == ["forkmaster.W002"]
    assert ids(believed, SECURE_SSL_REDIRECT=True) == []
    assert ids(encrypted, SECURE_SSL_REDIRECT=True) == []
    assert ids(Config(), SECURE_SSL_REDIRECT=True) == []


def test_static_files_that_nobody_collected(tmp_path: Path) -> None:
    apps = ["django.contrib.staticfiles"]

    assert ids(Config(), INSTALLED_APPS=apps) == ["forkmaster.W003"]
    assert ids(Config(), INSTALLED_APPS=apps, STATIC_ROOT=tmp_path) == ["forkmaster.W003"]
    (tmp_path / "style.css").touch()
    assert ids(Config(), INSTALLED_APPS=apps, STATIC_ROOT=str(tmp_path)) == []
    assert ids(Config(), INSTALLED_APPS=apps, STATIC_URL="https://cdn.example/") == []


def test_memory_that_the_workers_do_not_share() -> None:
    local = {"default": {"BACKEND": checks.LOCAL_MEMORY}}
    layers = {"default": {"BACKEND": checks.IN_MEMORY}}
    two = Config(workers=2)

    assert ids(two, CACHES=local) == ["forkmaster.W004"]
    assert ids(two, CACHES=local, SESSION_ENGINE=CACHED) == ["forkmaster.E001"]
    assert ids(two, SESSION_ENGINE=CACHED) == []
    assert ids(two, CHANNEL_LAYERS=layers) == ["forkmaster.W005"]
    assert ids(Config(workers=1), CACHES=local, CHANNEL_LAYERS=layers) == []


def test_connections_that_are_kept() -> None:
    kept = {"default": {"CONN_MAX_AGE": 60}}

    assert ids(Config(), DATABASES=kept) == ["forkmaster.I001"]
    assert ids(Config(), "asgi", DATABASES=kept) == ["forkmaster.W006"]


def test_every_finding_has_a_page_that_explains_it() -> None:
    code = Path(checks.__file__).read_text() + Path(deploy.__file__).read_text()
    page = (Path(__file__).parents[3] / "docs" / "django.md").read_text()

    known = {part.partition('"')[0] for part in code.split('id="')[1:]}
    known |= {part.partition('"')[0] for part in code.split('"forkmaster.')[1:] if part[0] in "WIE"}
    assert known
    for each in known:
        assert each.removeprefix("forkmaster.") in page


def test_more_workers_than_the_processors_can_run() -> None:
    found = {each.id for each in deploy.of_server(Config(workers=10_000))}

    assert "forkmaster.W021" in found


@pytest.mark.parametrize(("fail_level", "status"), [("ERROR", 0), ("WARNING", 1)])
def test_the_exit_code_goes_by_the_level(
    fail_level: str, status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert deploy.report(Config(workers=10_000), "sync", fail_level) == status

    captured = capsys.readouterr()
    assert "WARNINGS:" in captured.err
    assert "(forkmaster.W021) 10000 workers share" in captured.err

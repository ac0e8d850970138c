"""uvicorn's own names for settings, in a class or in `uvicorn_options`."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from forkmaster.config.table import Config
from forkmaster.errors import BootError
from forkmaster.http.response import OWN_SERVER
from forkmaster.worker.asgi import import_for_workers
from forkmaster.worker.asgi_options import UvicornOptions, with_uvicorn_options


class Worker:
    """As a configuration file derives it."""

    forkmaster_kind = "asgi"
    CONFIG_KWARGS = {"loop": "asyncio", "http": "h11", "timeout_keep_alive": 75, "lifespan": "off"}


def options(**settings: Any) -> UvicornOptions:
    return with_uvicorn_options(Config(**settings))


def test_nothing_asked_changes_nothing() -> None:
    config = Config()

    assert with_uvicorn_options(config) == UvicornOptions(config, {}, [], 0)


def test_a_class_is_heard() -> None:
    config = options(worker_class=Worker, keepalive=2.0).config

    assert (config.asgi_loop, config.asgi_lifespan, config.keepalive) == ("asyncio", "off", 75)


def test_encryption_that_is_asked_of_uvicorn_stops_the_start() -> None:
    with pytest.raises(BootError, match="ssl_certfile of uvicorn has no effect here; set certfile"):
        options(uvicorn_options={"ssl_certfile": "cert.pem"})


def test_options_outweigh_the_class() -> None:
    asked = {"timeout_keep_alive": 3, "root_path": "/x", "loop": "auto"}

    config = options(worker_class=Worker, uvicorn_options=asked).config

    assert (config.keepalive, config.root_path) == (3, "/x")


def test_what_is_about_websockets_is_uvicorns() -> None:
    asked = {"ws_ping_interval": 5.0, "ws": "websockets-sansio", "ws_max_size": 10}

    got = options(uvicorn_options=asked)

    assert got.websocket == {"ws_ping_interval": 5.0, "ws": "websockets-sansio"}
    assert got.config.websocket_max_message_size == 10


def test_headers_of_every_answer() -> None:
    got = options(uvicorn_options={"headers": [("X-A", "b")], "server_header": False})

    assert got.header_lines == [b"X-A: b\r\n"]
    assert got.own == OWN_SERVER


def test_a_header_that_cannot_be_stops_the_start() -> None:
    with pytest.raises(BootError, match=r"^uvicorn's option headers: "):
        options(uvicorn_options={"headers": [("X A", "b")]})


def test_what_has_no_effect_is_said(caplog: pytest.LogCaptureFixture) -> None:
    options(uvicorn_options={"h11_max_incomplete_event_size": 1, "access_log": True})

    (message,) = caplog.messages
    assert "h11_max_incomplete_event_size" in message


def test_an_event_loop_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvloop", None)  # what makes an import fail

    with pytest.raises(BootError) as caught:
        import_for_workers(Config(asgi_loop="uvloop"), application)

    assert str(caught.value) == "asgi_loop is uvloop, but uvloop is not installed"


async def application(scope: object, receive: object, send: object) -> None: ...

"""Every WSGI application of the tests between a validator and a worker."""

from __future__ import annotations

import importlib
import sys
from typing import Any
from wsgiref.validate import validator

import pytest

from tests.http.running import running
from tests.process.harness import APPS

# What they are asked: the ones that fail on purpose, where they do not.
ASKED = {
    "big": "/",
    "block": "/",
    "echo": "/environ",
    "exits": "/",
    "flask_app": "/?name=x",
    "hello": "/",
    "preloaded": "/",
    "raises": "/whole",
    "simple_app": "/",
    "slow": "/",
    "streaming": "/",
    "swallow": "/",
    "wsgi_echo": "/stream",
}


@pytest.mark.parametrize("name", ASKED)
def test_the_validator_finds_nothing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(APPS))
    module = importlib.import_module(name)
    application: Any = getattr(module, "application", None) or module.simple_app
    request = b"GET %b HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"

    try:
        with running(validator(application), "sync") as worker:
            answer = worker.ask(request % ASKED[name].encode())
    finally:
        del sys.modules[name]  # other tests have modules of these names, too

    assert answer.startswith(b"HTTP/1.1 200 ")

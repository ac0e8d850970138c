"""What the text of a module tells of its application, and that a doubt is told nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from forkmaster.worker import application
from forkmaster.worker.interface import as_written
from tests.process.harness import APPS

PLAIN = {
    "def application(environ, start_response): ...": "wsgi",
    "def application(environ, start_response, /): ...": "wsgi",
    "async def application(scope, receive, send): ...": "asgi",
    "import os\nfrom django.core.wsgi import get_wsgi_application\n"
    "os.environ.setdefault('DJANGO_SETTINGS_MODULE', 'a')\n"
    "application = get_wsgi_application()": "wsgi",
    "from django.core.asgi import get_asgi_application\n"
    "application = get_asgi_application()": "asgi",
    "from fastapi import Depends, FastAPI\napplication = FastAPI(debug=True)\n"
    "@application.get('/')\ndef view(): ...": "asgi",
    "from starlette.applications import Starlette\napplication = Starlette(routes=[])": "asgi",
    "from flask import Flask\napplication = Flask(__name__)\n"
    "@application.route('/')\ndef view(): ...": "wsgi",
    "import fastapi\napplication: fastapi.FastAPI = fastapi.FastAPI()": "asgi",
    "import flask\napplication = flask.Flask(__name__)": "wsgi",
}

FACTORIES = {
    "from flask import Flask\n"
    "def make(name='x'):\n    app = Flask(name)\n    app.testing()\n    return app": "wsgi",
    "def make():\n    from fastapi import FastAPI\n    return FastAPI()": "asgi",
    "import flask\ndef make(a):\n    app: flask.Flask = flask.Flask(a)\n"
    "    if a:\n        return app\n    return flask.Flask('b')": "wsgi",
    "from flask import Flask\n"
    "def make():\n    app = Flask(__name__)\n    app = to_asgi(app)\n    return app": None,
    "from flask import Flask\n"
    "def make():\n    app = Flask(__name__)\n    app.call = f(app.call)\n    return app": None,
    "from flask import Flask\nfrom fastapi import FastAPI\n"
    "def make(a):\n    if a:\n        return Flask('a')\n    return FastAPI()": None,
    "from flask import Flask\n"
    "def make():\n    app = Flask('a')\n    def f():\n        return app\n    return f()": None,
    "from flask import Flask\n@to_asgi\ndef make():\n    return Flask('a')": None,
    "from flask import Flask\ndef make():\n    return to_asgi(Flask('a'))": None,
    "from flask import Flask\ndef make():\n    Flask('a')": None,
    "make = partial(other)": None,
}

DOUBTFUL = [
    "import fastapi as flask\napplication = flask.Flask()",
    "import flask\nflask = other\napplication = flask.Flask()",
    "import flask\napplication, other = flask.Flask(), 3",
    "",
    "def application(:",
    "other = 3",
    "application = Site()",
    "application = 3",
    "class application: ...",
    "from elsewhere import application",
    "from elsewhere import *\ndef application(environ, start_response): ...",
    "def application(scope): ...",
    "def application(*arguments): ...",
    "def application(scope, receive, send): ...",
    "def application(environ, start_response, more=None): ...",
    "async def application(environ, start_response): ...",
    "@to_asgi\ndef application(environ, start_response): ...",
    "def application(environ, start_response): ...\napplication = to_asgi(application)",
    "def application(environ, start_response): ...\napplication._asgi_single_callable = True",
    "def application(environ, start_response): ...\n"
    "def change():\n    global application\n    application = 3",
    "if True:\n    def application(environ, start_response): ...",
    "try:\n    from a import application\nexcept ImportError:\n"
    "    def application(environ, start_response): ...",
    "from mine import get_asgi_application\napplication = get_asgi_application()",
    "from django.core.asgi import get_asgi_application\n"
    "get_asgi_application = wsgi_of(get_asgi_application)\napplication = get_asgi_application()",
    "from django.core.wsgi import get_wsgi_application\n"
    "application = WhiteNoise(get_wsgi_application())",
    "from flask import Flask\napplication = Flask(__name__)\napplication = to_asgi(application)",
]


@pytest.mark.parametrize("text", PLAIN)
def test_the_text_tells_what_leaves_no_doubt(text: str, tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text(text)

    assert as_written("main", [tmp_path]) == PLAIN[text]
    assert as_written("main:application", [tmp_path]) == PLAIN[text]


@pytest.mark.parametrize("text", FACTORIES)
def test_a_factory_tells_by_what_it_returns(text: str, tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text(text)

    assert as_written("main:make('a')", [tmp_path]) == FACTORIES[text]


def test_an_application_that_is_passed_on_is_followed(tmp_path: Path) -> None:
    package = tmp_path / "shop" / "site"
    package.mkdir(parents=True)
    (package.parent / "__init__.py").write_text("from .site import make, app, gone\n")
    (package / "__init__.py").write_text(
        "from ..factory import make\nfrom shop.factory import app\nfrom .round import gone\n"
    )
    (package / "round.py").write_text("from . import gone\n")
    (package.parent / "factory.py").write_text(
        "from flask import Flask\ndef make(): return Flask('a')\n"
        "async def app(scope, receive, send): ...\n"
    )

    assert as_written("shop:make()", [tmp_path]) == "wsgi"
    assert as_written("shop:app", [tmp_path]) == "asgi"
    assert as_written("shop:gone", [tmp_path]) is None


def test_an_application_that_a_factory_makes_is_followed(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(
        "from flask import Flask\ndef make():\n    app = Flask('a')\n    return app\n"
    )
    (tmp_path / "wsgi.py").write_text(
        "from shop import make\napplication = make()\nmiddle = f(make())\nround = round()\n"
    )

    assert as_written("wsgi", [tmp_path]) == "wsgi"
    assert as_written("wsgi:middle", [tmp_path]) is None
    assert as_written("wsgi:round", [tmp_path]) is None


@pytest.mark.parametrize("text", DOUBTFUL)
def test_a_doubt_is_told_nothing(text: str, tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text(text)

    assert as_written("main", [tmp_path]) is None


@pytest.mark.parametrize("app", ["nowhere", "main:other", "main:create_app()", "main:a.b", ""])
def test_what_is_not_there_is_told_nothing(app: str, tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text("def application(environ, start_response): ...")

    assert as_written(app, [tmp_path]) is None


def test_the_first_folder_that_has_the_module_counts(tmp_path: Path) -> None:
    for folder, text in (("a", "async def app(scope, receive, send): ..."), ("b", "app = 3")):
        (tmp_path / folder / "project").mkdir(parents=True)
        (tmp_path / folder / "project" / "main.py").write_text(text)

    assert as_written("project.main:app", [tmp_path, tmp_path / "a", tmp_path / "b"]) == "asgi"
    assert as_written("project.main:app", [tmp_path / "b", tmp_path / "a"]) is None


@pytest.mark.parametrize("name", ["hello", "asgi_hello", "asgi_echo", "block", "slow"])
def test_the_text_and_the_object_tell_the_same(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(APPS)

    loaded = application.load(name)

    assert as_written(name, [APPS]) in (application.kind_of(loaded), None)

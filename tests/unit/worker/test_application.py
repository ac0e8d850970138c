"""What the application string finds, and what it says when it finds nothing."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from forkmaster.errors import AppError, BootError
from forkmaster.worker.application import kind_of, load

Write = Callable[[str, str], None]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    """Writes a module into the current folder, and forgets it after the test."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path.copy())
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    before = set(sys.modules)

    def write(name: str, source: str) -> None:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(dedent(source))

    yield write
    for name in set(sys.modules) - before:
        del sys.modules[name]


WSGI = """
def {name}(environ, start_response):
    start_response("200 OK", [])
    return [b""]
"""


def test_the_default_attribute_is_application(write: Write) -> None:
    write("plain_app.py", WSGI.format(name="application"))

    assert load("plain_app").__name__ == "application"
    assert load("plain_app:").__name__ == "application"


def test_a_named_attribute_in_a_package(write: Write) -> None:
    write("site_a/__init__.py", "")
    write("site_a/wsgi.py", WSGI.format(name="main"))

    assert load("site_a.wsgi:main").__name__ == "main"


def test_a_factory_is_called_with_literal_arguments(write: Write) -> None:
    write(
        "factory_app.py",
        """
        def make(mode, *, debug=True):
            def app(environ, start_response): ...
            app.made_with = (mode, debug)
            return app
        """,
    )

    app: Any = load('factory_app:make("production", debug=False)')

    assert app.made_with == ("production", False)


def test_a_name_may_lead_through_attributes(write: Write) -> None:
    write(
        "nested_app.py",
        """
        class site:
            def app(environ, start_response): ...
            def make(mode):
                return [site.app, mode][0]
        """,
    )

    app: Any = load("nested_app:site.app")

    assert app.__qualname__ == "site.app"
    assert load('nested_app:site.make("production")') is app


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("make(", '"make(" is not a name or a call of one'),
        ("'text'", " must be a name, or a call of one: MODULE:NAME or MODULE:NAME("),
        ("make()()", " must be a name, or a call of one: MODULE:NAME or MODULE:NAME("),
        ("text.nothing", 'wrong_app:text has no attribute "nothing"'),
        ("inner.app", 'wrong_app has no attribute "inner"'),
        ("make(name)", "the arguments of the factory must be literal values"),
        ("make(**{'mode': 1})", "the arguments of the factory must be written out, without **"),
        ("make()", ": the factory cannot be called so: make() missing 1 required positional"),
        ("none()", "the factory returned None instead of an application"),
        ("number()", "number is an int, which cannot be called"),
        ("number", "is an int, not a callable application"),
        ("text", "is a str, not a callable application"),
    ],
)
def test_a_wrong_expression_is_explained(write: Write, expression: str, message: str) -> None:
    write(
        "wrong_app.py",
        """
        number, text = 1, "text"
        def make(mode): ...
        def none(): ...
        """,
    )

    with pytest.raises(AppError) as caught:
        load(f"wrong_app:{expression}")

    assert message in str(caught.value)


def test_a_missing_attribute_names_the_callable_that_exists(write: Write) -> None:
    write("lonely_app.py", "import os.path\nfrom os.path import join" + WSGI.format(name="simple"))

    with pytest.raises(AppError) as caught:
        load("lonely_app")

    assert str(caught.value) == (
        'lonely_app has no attribute "application". Try forkmaster lonely_app:simple'
    )


def test_a_missing_attribute_lists_applications_before_factories(write: Write) -> None:
    write(
        "many_app.py",
        """
        class Site:
            def __call__(self, environ, start_response): ...
        async def ws(scope, receive, send): ...
        def create_app(): ...
        def needs_much(a, b, c, d): ...
        my_app = Site()
        """,
    )

    with pytest.raises(AppError) as caught:
        load("many_app:ap")

    assert "It defines my_app, create_app(), ws." in str(caught.value)
    assert str(caught.value).endswith("Try forkmaster many_app:my_app")


def test_a_module_without_callables_says_so(write: Write) -> None:
    write("empty_app.py", "")

    with pytest.raises(AppError, match="no callable that could be an application"):
        load("empty_app")


def test_a_file_name_is_answered_with_the_module_name(write: Write) -> None:
    write("site_b/wsgi.py", WSGI.format(name="application"))

    with pytest.raises(AppError, match=r"did you mean site_b\.wsgi:main\?"):
        load("site_b/wsgi.py:main")


def test_a_path_is_answered_with_the_module_name(write: Write) -> None:
    write("site_d/wsgi.py", WSGI.format(name="main"))

    with pytest.raises(AppError, match=r"^site_d/wsgi is a file; did you mean site_d\.wsgi:app\?"):
        load("site_d/wsgi:app")


@pytest.mark.parametrize("app", ["site_e.main", "site_e.main:application"])
def test_a_dot_is_answered_with_a_colon(app: str, write: Write) -> None:
    write("site_e.py", WSGI.format(name="main"))

    with pytest.raises(BootError, match=r"; did you mean site_e:main\?$"):
        load(app)


@pytest.mark.parametrize("app", ["", ":", ":app"])
def test_an_application_without_a_module_is_none(app: str) -> None:
    with pytest.raises(AppError) as caught:
        load(app)

    assert str(caught.value) == (
        f'"{app}" names no module; write MODULE:NAME, as project.wsgi:application'
    )


def test_an_unknown_module_is_answered_with_its_neighbour(write: Write) -> None:
    write("project_c/__init__.py", "")

    with pytest.raises(BootError) as caught:
        load("projct_c.wsgi")

    message = str(caught.value)
    assert message.startswith('cannot import projct_c.wsgi: no module named "projct_c" in ')
    assert message.endswith("did you mean project_c.wsgi?")
    assert "Traceback" not in message


def test_a_module_that_raises_shows_the_frames_of_the_application_only(write: Write) -> None:
    write("deep/__init__.py", "from . import settings")
    write("deep/settings.py", "def check():\n    raise ValueError('SECRET_KEY is empty')\ncheck()")

    with pytest.raises(BootError) as caught:
        load("deep")

    lines = str(caught.value).splitlines()
    assert lines[:2] == ["cannot import deep", "Traceback (most recent call last):"]
    assert [line.split('"')[1].rsplit("/", 1)[1] for line in lines if "File" in line] == [
        "__init__.py",
        "settings.py",
        "settings.py",
    ]
    assert lines[-1] == "ValueError: SECRET_KEY is empty"
    assert "importlib" not in str(caught.value)


def test_the_cause_of_an_error_loses_our_frames_too(write: Write) -> None:
    write(
        "chained_app.py",
        """
        import importlib
        try:
            importlib.import_module("no_such_driver")
        except ImportError as exc:
            raise RuntimeError("no driver") from exc
        """,
    )

    with pytest.raises(BootError) as caught:
        load("chained_app")

    assert "No module named 'no_such_driver'" in str(caught.value)
    assert "importlib" not in str(caught.value).replace('importlib.import_module("no', "")


def test_a_module_missing_inside_the_application_is_its_own_error(write: Write) -> None:
    write("needs_app.py", "import not_installed")

    with pytest.raises(BootError) as caught:
        load("needs_app")

    assert "cannot import needs_app\nTraceback" in str(caught.value)
    assert "ModuleNotFoundError: No module named 'not_installed'" in str(caught.value)


def test_a_syntax_error_points_at_file_and_line(write: Write) -> None:
    write("broken_app.py", "x = 1\ndef (:\n")

    with pytest.raises(BootError) as caught:
        load("broken_app")

    assert "broken_app.py" in str(caught.value)
    assert "line 2" in str(caught.value)
    assert "SyntaxError" in str(caught.value)


def test_an_exit_during_import_is_a_boot_failure(write: Write) -> None:
    write("leaving_app.py", "import sys\nsys.exit('no configuration')")

    with pytest.raises(BootError, match="SystemExit: no configuration"):
        load("leaving_app")


def test_a_clean_exit_during_import_is_how_a_signal_stops_a_boot(write: Write) -> None:
    write("stopped_app.py", "import sys\nsys.exit(0)")

    with pytest.raises(SystemExit):
        load("stopped_app")


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (
            "def make(name='x'): ...",
            "main:make cannot be called with (environ, start_response); "
            "if it makes the application, write main:make()",
        ),
        (
            "async def make(): ...",
            "main:make cannot be called with (scope, receive, send); "
            "if it makes the application, write main:make()",
        ),
        (
            "def make(name): ...",
            "main:make cannot be called with (environ, start_response); "
            "if it makes the application, write main:make(…) with its arguments",
        ),
        (
            "def make(scope, receive, send): ...",
            "main:make cannot be called with (environ, start_response); "
            "an ASGI application is async: async def make(…)",
        ),
    ],
)
def test_a_function_that_takes_no_request_is_explained(
    function: str, message: str, write: Write
) -> None:
    write("main.py", function)

    with pytest.raises(AppError) as caught:
        load("main:make")

    assert str(caught.value) == message


@pytest.mark.parametrize(
    "function",
    [
        "def make(environ, start_response, more=None): ...",
        "def make(*arguments): ...",
        "import functools\n@functools.wraps(lambda: None)\ndef make(*arguments): ...",
        "def make(scope): ...\nmake._asgi_double_callable = True",
        "class make:\n    def __init__(self, environ, start_response): ...",
    ],
)
def test_a_function_that_may_take_a_request_is_taken(function: str, write: Write) -> None:
    write("main.py", function)

    assert callable(load("main:make"))


def test_an_error_inside_a_factory_is_a_boot_failure(write: Write) -> None:
    write("bad_factory.py", "def make():\n    return len(5)\n")

    with pytest.raises(BootError) as caught:
        load("bad_factory:make()")

    assert "object of type 'int' has no len()" in str(caught.value)
    assert "worker/application.py" not in str(caught.value)


class WsgiObject:
    def __call__(self, environ: Any, start_response: Any) -> Any: ...


class WsgiClass:
    def __init__(self, environ: Any, start_response: Any) -> None: ...
    def __iter__(self) -> Any: ...


class AsgiObject:
    async def __call__(self, scope: Any, receive: Any, send: Any) -> None: ...


class Asgi2Class:
    def __init__(self, scope: Any) -> None: ...
    async def __call__(self, receive: Any, send: Any) -> None: ...


class Asgi3Class:
    def __init__(self, scope: Any, receive: Any, send: Any) -> None: ...
    def __await__(self) -> Any: ...


class ChoosesWhenMade:
    def __init__(self, app: Any) -> None:
        self.__call__ = app


def wsgi_function(environ: Any, start_response: Any) -> Any: ...
async def asgi_function(scope: Any, receive: Any, send: Any) -> None: ...


def marked_function(scope: Any, receive: Any, send: Any) -> Any: ...


marked_function._asgi_single_callable = True  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "application", [wsgi_function, WsgiObject(), WsgiClass, WsgiObject().__call__]
)
def test_wsgi_is_recognised(application: object) -> None:
    assert kind_of(application) == "wsgi"


@pytest.mark.parametrize(
    "application",
    [
        asgi_function,
        functools.partial(asgi_function),
        AsgiObject(),
        Asgi2Class,
        Asgi3Class,
        ChoosesWhenMade(asgi_function),
        marked_function,
    ],
)
def test_asgi_is_recognised(application: object) -> None:
    assert kind_of(application) == "asgi"


def test_frameworks_are_recognised() -> None:
    asgi = pytest.importorskip("django.core.handlers.asgi")
    wsgi = pytest.importorskip("django.core.handlers.wsgi")
    flask = pytest.importorskip("flask")
    fastapi = pytest.importorskip("fastapi")

    assert kind_of(asgi.ASGIHandler.__new__(asgi.ASGIHandler)) == "asgi"
    assert kind_of(wsgi.WSGIHandler.__new__(wsgi.WSGIHandler)) == "wsgi"
    assert kind_of(flask.Flask("x")) == "wsgi"
    assert kind_of(fastapi.FastAPI()) == "asgi"

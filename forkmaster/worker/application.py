"""Finds the application that a string names, and tells WSGI from ASGI.  In the worker.

The string is gunicorn's: `MODULE[:EXPRESSION]`.  The expression is a name in the module, or a
call of one with literal arguments, `module:create_app("production", debug=False)`; without one
the name is `application`.  As in uvicorn the name may lead through attributes: `module:site.app`.
The module is imported with the current folder first on the path.

What goes wrong here is nearly always the user's own code or a slip of the keyboard, so each error
says which: an AppError names what does exist, a BootError carries the traceback of the user's
frames, without ours and those of the import system.
"""

from __future__ import annotations

import ast
import difflib
import importlib
import inspect
import os
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import forkmaster
from forkmaster.errors import AppError, BootError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import ModuleType

DEFAULT_ATTRIBUTE = "application"

# How the names of files begin whose frames say nothing about the application.
_NOT_THE_APPLICATION = (
    str(Path(forkmaster.__file__).parent) + os.sep,
    importlib.__file__,
    "<frozen importlib",
)

# What asgiref sets on a callable whose signature does not tell.
_ASGI_MARKS = ("_asgi_single_callable", "_asgi_double_callable")


_WSGI_ARGUMENTS = ("environ", "start_response")
_ASGI_ARGUMENTS = ("scope", "receive", "send")

# Applications of the program that this process, or its parent, is; see `provide`.
_provided: dict[str, Callable[[], Callable[..., Any]]] = {}


def provide(app: str, make: Callable[[], Callable[..., Any]]) -> None:
    """Let `load` call `make` for the application of this name.  In the master, before any fork."""
    _provided[app] = make


def load(app: str) -> Callable[..., Any]:
    """The callable that `app` names, imported from the current folder or the path.

    Raises AppError if the string or the object is wrong, BootError if the application's code
    raised while it was imported or made.
    """
    if app in _provided:
        return _provided_by_program(app)
    module_name, _, expression = app.partition(":")
    if not module_name:
        raise AppError(f'"{app}" names no module; write MODULE:NAME, as project.wsgi:application')
    expression = expression or DEFAULT_ATTRIBUTE
    names, call = _parse(app, expression)
    folder = os.getcwd()
    if folder not in sys.path:
        sys.path.insert(0, folder)
    module = _import(module_name, expression)
    found = _attribute(module, names)
    if call is not None:
        found = _make(app, found, call)
    if not callable(found):
        kind = _article(type(found).__name__)
        raise AppError(f"{app} is {kind}, not a callable application." + _suggestion(module))
    _check_signature(app, found)
    return found


def _provided_by_program(app: str) -> Callable[..., Any]:
    try:
        made = _provided[app]()
    except Exception as exc:
        raise BootError(f"cannot make {app}\n{traceback_of(exc)}") from None
    if not callable(made):
        raise AppError(f"{app} is {_article(type(made).__name__)}, not a callable application.")
    return made


def kind_of(application: object) -> Literal["wsgi", "asgi"]:
    """Which interface the callable speaks, judged as uvicorn and asgiref do: by what is async."""
    if any(getattr(application, mark, False) for mark in _ASGI_MARKS):
        return "asgi"
    # Through the instance, not its class: middlewares choose their __call__ when they are made.
    # Of a class it is the plain function: an ASGI 2 class is called with the scope, and its
    # instance with receive and send.
    call = getattr(application, "__call__", None)  # noqa: B004 - the value is what counts
    if _is_async(application) or _is_async(call):
        return "asgi"
    if inspect.isclass(application) and hasattr(application, "__await__"):
        return "asgi"
    return "wsgi"


def traceback_of(exc: BaseException) -> str:
    """The traceback of `exc` as text, with the application's frames only."""
    summary = traceback.TracebackException.from_exception(exc)
    _keep_application_frames(summary)
    return "".join(summary.format()).rstrip("\n")


def _parse(app: str, expression: str) -> tuple[list[str], ast.Call | None]:
    """The names to look up, from the module on, and the call to make with what is found, if any."""
    try:
        tree = ast.parse(expression, mode="eval").body
    except SyntaxError:
        raise AppError(f'{app}: "{expression}" is not a name or a call of one') from None
    call = tree if isinstance(tree, ast.Call) else None
    names: list[str] = []
    node = tree.func if isinstance(tree, ast.Call) else tree
    while isinstance(node, ast.Attribute):
        names.insert(0, node.attr)
        node = node.value
    if isinstance(node, ast.Name):
        return [node.id, *names], call
    raise AppError(
        f'{app}: "{expression}" must be a name, or a call of one: '
        'MODULE:NAME or MODULE:NAME("argument", option=1)'
    )


def _attribute(module: ModuleType, names: list[str]) -> object:
    """What `names` lead to, from the module on.  Raises AppError."""
    found: object = module
    for name in names:
        try:
            found = getattr(found, name)
        except AttributeError:
            if found is module:
                raise AppError(_missing(module, name)) from None
            path = ".".join(names[: names.index(name)])
            raise AppError(f'{module.__name__}:{path} has no attribute "{name}"') from None
    return found


def _import(name: str, expression: str) -> ModuleType:
    path = Path(name)
    if (path.suffix == ".py" or os.sep in name) and path.with_suffix(".py").is_file():
        dotted = ".".join(path.with_suffix("").parts)
        raise AppError(f"{name} is a file; did you mean {dotted}:{expression}?")
    try:
        return importlib.import_module(name)
    except (Exception, SystemExit) as exc:  # whatever a module of the user's may raise
        if isinstance(exc, ModuleNotFoundError) and _is_part(exc.name, name):
            raise BootError(_not_found(name, exc.name or name)) from None
        if _is_clean_exit(exc):
            raise
        raise BootError(f"cannot import {name}\n{traceback_of(exc)}") from None


def _is_clean_exit(exc: BaseException) -> bool:
    """Whether it is how a worker is told to stop while it boots: a signal handler raises it."""
    return isinstance(exc, SystemExit) and exc.code in (None, 0)


def _is_part(missing: str | None, name: str) -> bool:
    """Whether the module that was not found is the one asked for, or a package above it."""
    return missing is not None and f"{name}.".startswith(f"{missing}.")


def _not_found(name: str, missing: str) -> str:
    text = f'cannot import {name}: no module named "{missing}" in {os.getcwd()} or on the path'
    parent, _, last = name.rpartition(".")
    if missing == name and last.isidentifier() and _is_module_here(parent):
        return f"{text}; did you mean {parent}:{last}?"
    if "." not in missing:
        here = {path.stem for path in Path().glob("*.py")}
        here |= {path.parent.name for path in Path().glob("*/__init__.py")}
        for close in difflib.get_close_matches(missing, sorted(here), n=1):
            text += f"; did you mean {close}{name.removeprefix(missing)}?"
    return text


def _is_module_here(name: str) -> bool:
    """Whether there is a file for the module in the current folder."""
    return bool(name) and Path(*name.split(".")).with_suffix(".py").is_file()


def _make(app: str, factory: object, call: ast.Call) -> object:
    """What the factory returns for the literal arguments of `call`."""
    try:
        arguments = [ast.literal_eval(node) for node in call.args]
        options = {node.arg: ast.literal_eval(node.value) for node in call.keywords if node.arg}
    except ValueError:
        raise AppError(f"{app}: the arguments of the factory must be literal values") from None
    if len(options) != len(call.keywords):
        raise AppError(f"{app}: the arguments of the factory must be written out, without **")
    if not callable(factory):
        kind = _article(type(factory).__name__)
        raise AppError(f"{app}: {ast.unparse(call.func)} is {kind}, which cannot be called")
    try:
        made = factory(*arguments, **options)
    except (Exception, SystemExit) as exc:  # whatever a factory of the user's may raise
        # One frame, ours: the call itself did not fit, and its traceback would tell nothing.
        if isinstance(exc, TypeError) and (tb := exc.__traceback__) and tb.tb_next is None:
            raise AppError(f"{app}: the factory cannot be called so: {exc}") from None
        if _is_clean_exit(exc):
            raise
        raise BootError(f"cannot make {app}\n{traceback_of(exc)}") from None
    if made is None:
        raise AppError(f"{app}: the factory returned None instead of an application")
    return made


def _missing(module: ModuleType, name: str) -> str:
    return f'{module.__name__} has no attribute "{name}".' + _suggestion(module)


def _suggestion(module: ModuleType) -> str:
    names = sorted(_applications(module), key=_likelihood)
    if not names:
        # Django's startproject makes a package that holds them.
        for each in ("wsgi", "asgi"):
            if any(
                Path(folder, f"{each}.py").exists() for folder in getattr(module, "__path__", ())
            ):
                return f" It is a package. Try forkmaster {module.__name__}.{each}"
        return " It defines no callable that could be an application."
    listed = f" It defines {', '.join(names[:5])}." if len(names) > 1 else ""
    return f"{listed} Try forkmaster {module.__name__}:{names[0]}"


def _applications(module: ModuleType) -> Iterator[str]:
    """What in the module could be served, as expressions: its own callables and its factories."""
    for name, value in vars(module).items():
        if name.startswith("_") or not callable(value) or inspect.isclass(value):
            continue
        if inspect.isroutine(value) and value.__module__ != module.__name__:
            continue  # imported
        if _accepts(value, 2) or _accepts(value, 3):
            yield name
        elif _accepts(value, 0):
            yield f"{name}()"


def _accepts(function: Callable[..., Any], count: int) -> bool:
    """Whether `function` can be called with that many positional arguments."""
    try:
        inspect.signature(function).bind(*[None] * count)
    except (TypeError, ValueError):  # it cannot; or it is a builtin without a signature
        return False
    return True


def _likelihood(name: str) -> tuple[bool, bool, str]:
    plain = name.removesuffix("()")
    return "app" not in plain.lower(), plain != name, name


def _check_signature(app: str, found: Callable[..., Any]) -> None:
    """Raise AppError for a function that no request can be given to: a factory as a rule.

    Only of a plain function the signature is the whole truth.
    """
    if not inspect.isfunction(found) or any(hasattr(found, mark) for mark in _ASGI_MARKS):
        return
    needed = _ASGI_ARGUMENTS if kind_of(found) == "asgi" else _WSGI_ARGUMENTS
    signature = inspect.signature(found, follow_wrapped=False)
    if _takes(signature, needed):
        return
    wrong = f"{app} cannot be called with ({', '.join(needed)})"
    if _takes(signature, ()):
        raise AppError(f"{wrong}; if it makes the application, write {app}()")
    if _takes(signature, _ASGI_ARGUMENTS):
        raise AppError(f"{wrong}; an ASGI application is async: async def {found.__name__}(…)")
    raise AppError(f"{wrong}; if it makes the application, write {app}(…) with its arguments")


def _takes(signature: inspect.Signature, arguments: tuple[str, ...]) -> bool:
    try:
        signature.bind(*arguments)
    except TypeError:
        return False
    return True


def _article(noun: str) -> str:
    return f"{'an' if noun[0].lower() in 'aeiou' else 'a'} {noun}"


def _is_async(function: object) -> bool:
    # The second is asgiref's mark on Python 3.11; asyncio, which knows it, is not imported here.
    return inspect.iscoroutinefunction(function) or hasattr(function, "_is_coroutine")


def _keep_application_frames(summary: traceback.TracebackException) -> None:
    summary.stack[:] = [
        frame for frame in summary.stack if not frame.filename.startswith(_NOT_THE_APPLICATION)
    ]
    for chained in (summary.__cause__, summary.__context__, *(summary.exceptions or ())):
        if chained is not None:
            _keep_application_frames(chained)

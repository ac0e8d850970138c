"""The kinds of value that only code can give well: dictionaries, hooks, classes."""

from __future__ import annotations

import importlib
import inspect
import json
from collections.abc import Callable, Mapping
from typing import Any

from forkmaster.config.values import BadValueError, Kind, either, parse_text, quoted


def _mapping(value: object) -> dict[str, Any]:
    if isinstance(value, str):
        # From the environment, where nothing but text is.
        try:
            table = json.loads(value)
        except ValueError:
            table = None
    else:
        table = value
    if isinstance(table, Mapping):
        return dict(table)
    raise BadValueError(f"{quoted(value)} is not a dictionary", 'write it as {"name": value}')


MAPPING = Kind("a dictionary", _mapping, "", {"type": "object"})


def _scheme_headers(value: object) -> dict[str, str]:
    table = _mapping(value)
    for key, each in table.items():
        if not isinstance(key, str) or not isinstance(each, str):
            raise BadValueError(
                f"{quoted(key)}: {quoted(each)} is not a header and its value",
                'write it as {"X-FORWARDED-PROTO": "https"}',
            )
    return {key.upper(): each for key, each in table.items()}


SCHEME_HEADERS = Kind(
    "a dictionary of headers",
    _scheme_headers,
    "",
    {"type": "object", "additionalProperties": {"type": "string"}},
)


def imported(path: str) -> object:
    """What `path` names, as package.module.name.  Runs the module.  Raises BadValueError."""
    module, _, name = path.replace(":", ".").rpartition(".")
    if not module:
        raise BadValueError(f"{quoted(path)} names no module", "write it as package.module.name")
    try:
        found = importlib.import_module(module)
    except (Exception, SystemExit) as exc:  # the module is somebody's program
        what = str(exc) if isinstance(exc, ImportError) else f"{type(exc).__name__}: {exc}"
        raise BadValueError(f"cannot import {quoted(path)}: {what}") from exc
    try:
        return getattr(found, name)
    except AttributeError:
        raise BadValueError(f"the module {module} has no {quoted(name)}") from None


def _function(value: object) -> Callable[..., Any]:
    if isinstance(value, str):
        value = imported(value.strip())
    if not callable(value):
        raise BadValueError(f"{quoted(value)} is not a function")
    return value


def _takes(function: Callable[..., Any], arguments: int) -> bool:
    try:
        inspect.signature(function).bind(*range(arguments))
    except TypeError:
        return False
    except ValueError:
        return True  # a function of C without a signature; it will say so itself
    return True


def hook(*parameters: str) -> Kind:
    """A function that is called with `parameters`, or the dotted path of one."""
    arity = len(parameters)

    def parse(value: object) -> Callable[..., Any] | None:
        if value is None:
            return None
        function = _function(value)
        if not _takes(function, arity):
            name = getattr(function, "__name__", "function")
            raise BadValueError(
                f"{name}{_signature(function)} cannot be called with {arity} "
                + ("argument" if arity == 1 else "arguments"),
                f"write it as def {name}({', '.join(parameters)})",
            )
        return function

    return Kind(f"a function of {either(parameters)}", parse, "MODULE.FUNCTION")


def _signature(function: Callable[..., Any]) -> str:
    try:
        return str(inspect.signature(function))
    except (TypeError, ValueError):
        return "(…)"


def _post_request(value: object) -> Callable[..., Any] | None:
    # It grew: gunicorn calls it with 2, 3 or 4 arguments.  Made one form here, so that the
    # request path need not ask.
    if value is None:
        return None
    function = _function(value)
    for arity in (4, 3, 2):
        if _takes(function, arity):
            return function if arity == 4 else _shortened(function, arity)
    raise BadValueError(
        f"post_request{_signature(function)} cannot be called with 4 arguments",
        "write it as def post_request(worker, req, environ, resp)",
    )


def _shortened(function: Callable[..., Any], arity: int) -> Callable[..., Any]:
    def post_request(*arguments: Any) -> Any:
        return function(*arguments[:arity])

    post_request.__wrapped__ = function  # type: ignore[attr-defined]
    return post_request


POST_REQUEST = Kind("a function", _post_request, "MODULE.FUNCTION")


def _class(value: object) -> type | str | None:
    if value is None or isinstance(value, type):
        return value
    if inspect.isfunction(value) or inspect.ismethod(value):
        return _class(value())
    return parse_text(value)


def _logger_class(value: object) -> type | str | None:
    logger = _class(value)
    # gunicorn's default, written out.
    return None if logger in ("simple", "gunicorn.glogging.Logger") else logger


LOGGER_CLASS = Kind("a class", _logger_class, "MODULE.CLASS")


def _anything(value: object) -> object:
    return value


ANYTHING = Kind("a value", _anything, "VALUE", {})

"""A logger_class: somebody's class, derived from the stand-in for gunicorn.glogging.Logger.

It sets up the loggers gunicorn.error and gunicorn.access, whose handlers become those of ours;
see setup.py.  If it overrides `access` or `atoms` it is also called for every request, with
gunicorn's arguments, which costs about ten times what our own line does.
"""

from __future__ import annotations

import importlib
import logging
import sys
from collections.abc import Callable, Iterator
from datetime import timedelta
from http import HTTPStatus
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from forkmaster.config import shim
from forkmaster.config.code import imported
from forkmaster.config.values import BadValueError
from forkmaster.errors import ConfigError
from forkmaster.logs.access import AccessEntry

if TYPE_CHECKING:
    from forkmaster.config.table import Config

LOGGERS = ("gunicorn.error", "gunicorn.access")

log = logging.getLogger("forkmaster.error")


def make(config: Config) -> Any:
    """The logger of `logger_class`, which has set its loggers up.  Runs code of the user's.

    Raises ConfigError.
    """
    shim.install()
    base = importlib.import_module("gunicorn.glogging").Logger
    made = _class(config.logger_class, base)
    for name in LOGGERS:
        # What the one before this has set up, at the last reload.
        before, logging.getLogger(name).handlers = logging.getLogger(name).handlers, []
        for handler in before:
            handler.close()
    try:
        return made(config)
    except Exception as exc:
        raise ConfigError(f"logger_class: {made.__name__}: {type(exc).__name__}: {exc}") from exc


def _class(given: object, base: type) -> Callable[..., Any] | Any:
    found = given
    if isinstance(given, str):
        try:
            found = imported(given)
        except BadValueError as exc:
            raise ConfigError(f"logger_class: {exc}") from exc
    if not (isinstance(found, type) and issubclass(found, base)):
        raise ConfigError(
            f"logger_class: {given} is not derived from gunicorn.glogging.Logger; derive it from"
            " that, or use logconfig_dict"
        )
    return found


def writer(logger: Any) -> Callable[[AccessEntry], None] | None:
    """What is called for each request; None if it leaves that to us."""
    base = sys.modules["gunicorn.glogging"].Logger
    kind = type(logger)
    if kind.access is base.access and kind.atoms is base.atoms:
        return None

    def write(entry: AccessEntry) -> None:
        try:
            logger.access(*_arguments(entry))
        except Exception:  # the user's code; the answer is sent already
            log.exception("%s.access raised", kind.__name__)

    return write


def _arguments(entry: AccessEntry) -> tuple[Any, Any, dict[str, Any], timedelta]:
    """resp, req, environ and request_time, as gunicorn calls it."""
    path, _, query = entry.target.partition("?")
    try:
        phrase = HTTPStatus(entry.status).phrase
    except ValueError:
        phrase = ""
    response = SimpleNamespace(
        status=f"{entry.status} {phrase}".rstrip(),
        status_code=entry.status,
        headers=list(_text(entry.response_headers)),
        sent=entry.sent,
        response_length=entry.sent,
    )
    environ = dict(entry.environ) if entry.environ is not None else _environ(entry, query)
    environ.setdefault("REMOTE_ADDR", entry.client)
    environ.setdefault("RAW_URI", entry.target)
    if entry.environ is not None:
        headers = [
            (key[5:].replace("_", "-"), value)
            for key, value in environ.items()
            if key.startswith("HTTP_")
        ]
    else:
        headers = [(name.upper(), value) for name, value in _text(entry.request_headers)]
    request = SimpleNamespace(
        method=entry.method,
        uri=entry.target,
        path=path,
        query=query,
        version=tuple(map(int, entry.protocol.removeprefix("HTTP/").split("."))),
        headers=headers,
    )
    return response, request, environ, timedelta(microseconds=entry.duration / 1000)


def _environ(entry: AccessEntry, query: str) -> dict[str, Any]:
    """What an environ would say of a request of an asgi worker."""
    environ: dict[str, Any] = {
        "REQUEST_METHOD": entry.method,
        "PATH_INFO": entry.target.partition("?")[0],
        "QUERY_STRING": query,
        "SERVER_PROTOCOL": entry.protocol,
    }
    for name, value in _text(entry.request_headers):
        environ[f"HTTP_{name.upper().replace('-', '_')}"] = value
    return environ


def _text(headers: Any) -> Iterator[tuple[str, str]]:
    for name, value in headers:
        if isinstance(name, bytes):
            yield name.decode("latin-1"), value.decode("latin-1")
        else:
            yield name, value

"""Those who watch requests of the sync and threaded workers: the hooks and the access log.

With none of them set, which is the default, a request costs one attribute for all of this.
"""

from __future__ import annotations

import inspect
import logging
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_to_bytes

from forkmaster.http.errors import BodyEndedError, Refused
from forkmaster.http.head import split_field
from forkmaster.logs.access import (
    CLIENT_LEFT,
    REFUSED,
    TIMED_OUT,
    AccessEntry,
    first_line,
)
from forkmaster.logs.setup import access_file, access_writer, exchange_writer

if TYPE_CHECKING:
    from collections.abc import Callable

    from forkmaster.worker.assignment import Assignment
    from forkmaster.worker.connection import Connection
    from forkmaster.worker.exchange import Exchange

log = logging.getLogger("forkmaster.error")


class RequestHooks:
    """What is to be called around each request of this worker."""

    def __init__(self, assignment: Assignment, *, multithread: bool) -> None:
        config = assignment.config
        self._assignment = assignment
        self._pre_request = config.pre_request
        self._post_request = config.post_request
        self._post_arity = _arity(config.post_request) if config.post_request else 0
        # Lines wait for the others of the same wake-up, but not where several threads write.
        self._write_access = access_writer(config, hold=not multithread)
        self._file = access_file()
        self.held = [] if self._file is None else self._file.held
        """Lines of the access log to be written with `write_held`; always the same list."""
        self.wants_before = config.pre_request is not None
        self.wants_refused = self._write_access is not None
        self.wants_after = config.post_request is not None or self._write_access is not None
        self.takes_time = config.post_request is not None
        """Whether what `after` does may take longer than the request."""
        self._log = exchange_writer(
            config,
            self._log_entry,
            serial=assignment.serial,
            generation=assignment.generation,
            hold=not multithread,
        )
        self.after = self._log if config.post_request is None else self._log_and_call
        """Write the access line and call post_request, of a request that took so many nanoseconds.

        Never raises.  An attribute, because a method that calls another costs a tenth of the line.
        """

    def before(self, exchange: Exchange) -> None:
        """Call pre_request, and let what it changed in the request take effect.

        What it raises is for the caller, as if the application had raised it.
        """
        assert self._pre_request is not None
        request = RequestView(exchange)
        headers = list(request.headers)
        self._pre_request(self._assignment.view, request)
        exchange.request_view = request
        _apply(request, headers, exchange.environ)

    def _log_and_call(self, exchange: Exchange, duration: int) -> None:
        if self._write_access is not None:
            self._log(exchange, duration)
        assert self._post_request is not None
        request = exchange.request_view or RequestView(exchange)
        arguments = (self._assignment.view, request, exchange.environ, ResponseView(exchange))
        try:
            self._post_request(*arguments[: self._post_arity])
        except Exception:
            log.exception("%s: the hook post_request raised", exchange)

    def refused(self, connection: Connection, head: bytes, refused: Refused) -> None:
        """Write the line of a request that no application has seen."""
        assert self._write_access is not None
        assignment = self._assignment
        entry = refused_entry(head, connection.host, refused)
        entry.serial, entry.generation = assignment.serial, assignment.generation
        entry.environ = {}
        self._write_access(entry)

    def given_up(self, exchange: Exchange, connection: Connection, duration: int) -> None:
        """Write the line of a request that took longer than request_timeout."""
        if self._write_access is not None:
            self._write_entry(exchange, connection, duration, TIMED_OUT)

    def _log_entry(self, exchange: Exchange, duration: int) -> None:
        ending = CLIENT_LEFT if exchange.client_left else ""
        self._write_entry(exchange, exchange.connection, duration, ending)

    def _write_entry(
        self, exchange: Exchange, connection: Connection, duration: int, ending: str
    ) -> None:
        assert self._write_access is not None
        line = exchange.line
        entry = AccessEntry(
            connection.host,
            line.method,
            line.target,
            line.protocol,
            exchange.code,
            exchange.body_sent,
            duration,
            environ=exchange.environ,
            response_headers=exchange.response_headers if exchange.code else (),
            trusted=connection.origin.trusted,
            ending=ending,
            serial=self._assignment.serial,
            generation=self._assignment.generation,
        )
        self._write_access(entry)

    def write_held(self) -> None:
        """Write the lines of the access log that wait for it."""
        if self._file is not None:
            self._file.write_held()


def refused_entry(head: bytes, client: str, refused: Refused) -> AccessEntry:
    """What is logged of a request that no application has seen."""
    ending = ending_of(refused)
    return AccessEntry(client, *first_line(head), refused.status, 0, 0, ending=ending)


def ending_of(refused: Refused) -> str:
    """How a request ended that the server answered itself, as an AccessEntry has it."""
    if isinstance(refused, BodyEndedError):
        return CLIENT_LEFT
    return TIMED_OUT if refused.status == HTTPStatus.REQUEST_TIMEOUT else REFUSED


class RequestView:
    """`req` of a hook: the attributes of gunicorn's request."""

    def __init__(self, exchange: Exchange) -> None:
        line, environ, connection = exchange.line, exchange.environ, exchange.connection
        self.method = line.method
        self.uri = line.target
        self.path = line.target.partition("?")[0]
        self.query = line.query
        self.fragment = ""
        self.version = (1, int(line.protocol[-1]))
        self.headers = _headers(exchange)
        self.trailers: list[tuple[str, str]] = []
        self.body = environ["wsgi.input"]
        self.scheme: str = environ["wsgi.url_scheme"]
        self.peer_addr = self.remote_addr = (
            (connection.host, int(connection.port)) if connection.port else ""
        )
        self.proxy_protocol_info = connection.proxied

    def should_close(self) -> bool:
        """Whether the connection ends with this request, as gunicorn's tells."""
        return False


class ResponseView:
    """`resp` of a hook: the attributes of gunicorn's response."""

    def __init__(self, exchange: Exchange) -> None:
        self.status = exchange.status
        self.status_code = exchange.code
        self.headers = list(exchange.response_headers)
        self.headers_sent = exchange.streaming
        self.sent = exchange.body_sent
        lengths = [value for name, value in self.headers if name.lower() == "content-length"]
        self.response_length = int(lengths[0]) if lengths else None


def _headers(exchange: Exchange) -> list[tuple[str, str]]:
    """The headers of a request that reached its environ, their names in capitals."""
    headers = []
    for text in exchange.head.rstrip(b"\r\n").split(b"\r\n")[1:]:
        name, value = split_field(text)
        if "_" not in name or _key(name) in exchange.environ:
            headers.append((name.upper(), value))
    return headers


def _key(name: str) -> str:
    key = name.upper().replace("-", "_")
    return key if key in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{key}"


def _apply(request: RequestView, before: list[tuple[str, str]], environ: dict[str, Any]) -> None:
    """Let an environ say what a hook has made of the request."""
    environ["wsgi.url_scheme"] = request.scheme
    environ["REQUEST_METHOD"] = request.method
    environ["QUERY_STRING"] = request.query
    if request.uri != environ["RAW_URI"]:
        environ["RAW_URI"] = request.uri
        path = unquote_to_bytes(request.path).decode("latin-1")
        environ["PATH_INFO"] = path.removeprefix(environ["SCRIPT_NAME"])
    if request.headers == before:
        return
    # A body that came in chunks has a length by now that no header told.
    length = environ.get("CONTENT_LENGTH")
    for key in [key for key in environ if key.startswith("HTTP_") or key == "CONTENT_TYPE"]:
        del environ[key]
    for name, value in request.headers:
        key = _key(name)
        if key in environ and key.startswith("HTTP_"):
            separator = "; " if key == "HTTP_COOKIE" else ","
            environ[key] = f"{environ[key]}{separator}{value}"
        else:
            environ[key] = value
    environ.pop("HTTP_TRANSFER_ENCODING", None)
    environ.pop("HTTP_PROXY", None)
    if length is not None:
        environ["CONTENT_LENGTH"] = length


def _arity(hook: Callable[..., Any]) -> int:
    """How many arguments post_request takes: 2 to 4, and 2 if it would take any number."""
    try:
        parameters = inspect.signature(hook).parameters.values()
    except (TypeError, ValueError):
        return 2
    if any(parameter.kind == parameter.VAR_POSITIONAL for parameter in parameters):
        return 2
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    return len(positional)

"""`pre_request` and `post_request` of an asgi worker, around every HTTP request.

The application is wrapped only if one of them is set, so the others pay nothing.  The hooks are
given gunicorn's `req` and `resp`, and the scope in place of an environ.  What `pre_request`
changes of a request's method, path, query, scheme and headers is what the application sees; if
it raises, the answer is 500.  What `post_request` raises is logged.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, MutableMapping

    from forkmaster.config.table import Config
    from forkmaster.worker.views import WorkerView

    Scope = MutableMapping[str, Any]
    Message = MutableMapping[str, Any]

log = logging.getLogger("forkmaster.error")


class HookedApplication:
    """An ASGI application with the hooks around its HTTP requests.

    It stands behind what believes the headers of a proxy: `req` has the client's own address.
    """

    def __init__(self, application: Callable[..., Any], config: Config, view: WorkerView) -> None:
        self._application = application
        self._config = config
        self._view = view

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self._application(scope, receive, send)
            return
        request = RequestView(scope, receive)
        start: Message = {"status": 0, "headers": ()}
        sent = 0

        def observed(message: Message) -> Any:
            nonlocal start, sent
            if message["type"] == "http.response.start":
                start = message
            else:
                sent += len(message.get("body", b""))
            return send(message)

        try:
            if self._config.pre_request is not None:
                self._config.pre_request(self._view, request)
                _change_scope(scope, request)
            await self._application(scope, receive, observed)
        finally:
            response = ResponseView(start, sent)
            _call_post(self._config, self._view, request, scope, response)


class RequestView:
    """`req` of a hook."""

    def __init__(self, scope: Scope, receive: Any) -> None:
        raw_path = (scope.get("raw_path") or scope["path"].encode()).decode("latin-1")
        major, _, minor = scope["http_version"].partition(".")
        self.method = scope["method"]
        self.path = scope["path"]
        self.query = scope["query_string"].decode("latin-1")
        self.uri = f"{raw_path}?{self.query}" if self.query else raw_path
        self.version = (int(major), int(minor or 0))
        self.headers = [(name.upper(), value) for name, value in _decoded(scope["headers"])]
        """Names in capitals; a hook may add to them."""
        self.scheme = scope["scheme"]
        self.peer_addr = self.remote_addr = tuple(scope.get("client") or ()) or ""
        self.body = receive
        self.fragment = ""
        self.trailers: list[tuple[str, str]] = []
        self.proxy_protocol_info = None
        self._before = (self.method, self.path, self.query, self.scheme, list(self.headers))

    @property
    def changes(self) -> dict[str, Any]:
        """The new value of each attribute that a hook has changed."""
        names = ("method", "path", "query", "scheme", "headers")
        pairs = zip(names, self._before, strict=True)
        return {name: now for name, old in pairs if (now := getattr(self, name)) != old}


class ResponseView:
    """`resp` of a hook."""

    def __init__(self, start: Message, sent: int) -> None:
        """`start` is the message that began the answer; status 0 if none did."""
        self.status_code = start["status"]
        self.status = str(self.status_code or "")
        self.headers = _decoded(start["headers"])
        self.sent = sent
        lengths = [value for name, value in self.headers if name.lower() == "content-length"]
        self.response_length = int(lengths[0]) if lengths else None
        self.headers_sent = self.status_code != 0


def _call_post(config: Config, *arguments: Any) -> None:
    """Call `post_request`, if there is one; log what it raises."""
    if config.post_request is None:
        return
    try:
        config.post_request(*arguments)
    except Exception:
        log.exception("%s: the hook post_request raised", arguments[0])


def _decoded(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[str, str]]:
    return [(name.decode("latin-1"), value.decode("latin-1")) for name, value in headers]


def _change_scope(scope: Scope, request: RequestView) -> None:
    for name, value in request.changes.items():
        match name:
            case "query":
                scope["query_string"] = value.encode("latin-1")
            case "headers":
                scope["headers"] = [
                    (header.lower().encode("latin-1"), text.encode("latin-1"))
                    for header, text in value
                ]
            case _:
                scope[name] = value

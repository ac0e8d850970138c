"""Warm-up requests: asked through the real callable before any client asks.

In the zygote with preload, else in each worker.  They prove that the application answers, and
have it build what it builds lazily (URL resolver, templates, connection pools): before the fork
that is memory all workers share, and after it the first client does not wait for it.  An answer
that is not accepted fails the boot, and with it the reload.
"""

from __future__ import annotations

import logging
import sys
import traceback
from io import BytesIO
from time import monotonic
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote
from wsgiref.util import setup_testing_defaults

from forkmaster.errors import BootError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, MutableMapping

    from forkmaster.config.warmup import WarmupRequest

log = logging.getLogger("forkmaster.error")

UNANSWERED = 0
USER_AGENT = "forkmaster-warmup"


def warm_wsgi(application: Callable[..., Any], requests: Iterable[WarmupRequest]) -> None:
    """Ask `application` for each of `requests`, in order.  Raises BootError."""
    for request in requests:
        began = monotonic()
        _judge(request, _guarded(request, lambda r: _ask_wsgi(application, r)), began)


async def warm_asgi(
    application: Callable[..., Any],
    requests: Iterable[WarmupRequest],
    state: MutableMapping[str, Any] | None = None,
) -> None:
    """The same for ASGI, on the running loop.  `state` is that of the lifespan.

    Raises BootError.
    """
    for request in requests:
        began = monotonic()
        try:
            status = await _ask_asgi(application, request, state)
        except Exception as exc:
            raise _failure(request) from exc
        _judge(request, status, began)


def _guarded(request: WarmupRequest, ask: Callable[[WarmupRequest], int]) -> int:
    try:
        return ask(request)
    except Exception as exc:
        raise _failure(request) from exc


def _failure(request: WarmupRequest) -> BootError:
    return BootError(f"warm-up request {request} raised\n{traceback.format_exc().rstrip()}")


def _judge(request: WarmupRequest, status: int, began: float) -> None:
    if status == UNANSWERED:
        raise BootError(f"warm-up request {request} was not answered")
    if not request.accepts(status):
        wanted = "a status below 400" if request.status is None else str(request.status)
        raise BootError(f"warm-up request {request} was answered {status}, not {wanted}")
    log.debug("warm-up request %s answered %d after %.3f s", request, status, monotonic() - began)


def _ask_wsgi(application: Callable[..., Any], request: WarmupRequest) -> int:
    environ: dict[str, Any] = {
        "REQUEST_METHOD": request.method,
        "SCRIPT_NAME": "",
        "PATH_INFO": unquote(request.path, "latin-1"),
        "QUERY_STRING": request.query,
        "RAW_URI": request.path + ("?" + request.query if request.query else ""),
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "127.0.0.1",
        "HTTP_HOST": request.host,
        "HTTP_USER_AGENT": USER_AGENT,
        "wsgi.url_scheme": request.scheme,
        "wsgi.input": BytesIO(),
        "wsgi.input_terminated": True,
        "wsgi.errors": sys.stderr,
        "wsgi.multiprocess": True,
    }
    setup_testing_defaults(environ)
    statuses: list[str] = []

    def start_response(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
        statuses.append(status)
        return lambda data: None

    body = application(environ, start_response)
    try:
        for _ in body:
            pass
    finally:
        close = getattr(body, "close", None)
        if close is not None:
            close()
    return int(statuses[-1].split(" ", 1)[0]) if statuses else UNANSWERED


async def _ask_asgi(
    application: Callable[..., Any],
    request: WarmupRequest,
    state: MutableMapping[str, Any] | None,
) -> int:
    scope: dict[str, Any] = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": request.method,
        "scheme": request.scheme,
        "path": unquote(request.path),
        "raw_path": request.path.encode(),
        "query_string": request.query.encode(),
        "root_path": "",
        "headers": [(b"host", request.host.encode()), (b"user-agent", USER_AGENT.encode())],
        "client": ("127.0.0.1", 0),
        "server": (request.host, None),
    }
    if state is not None:
        scope["state"] = dict(state)
    statuses: list[int] = []
    told = False

    async def receive() -> dict[str, Any]:
        nonlocal told
        if told:
            return {"type": "http.disconnect"}
        told = True
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    await application(scope, receive, send)
    return statuses[-1] if statuses else UNANSWERED

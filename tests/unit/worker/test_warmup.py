"""Warm-up requests against WSGI and ASGI callables."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from forkmaster.config.warmup import parse_warmup
from forkmaster.errors import BootError
from forkmaster.worker.warmup import warm_asgi, warm_wsgi


def wsgi(status: str) -> tuple[Callable[..., Any], list[dict[str, Any]]]:
    seen: list[dict[str, Any]] = []

    def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        seen.append(environ)
        start_response(status, [])
        return [b"warm"]

    return application, seen


def asgi(status: int) -> tuple[Callable[..., Any], list[dict[str, Any]]]:
    seen: list[dict[str, Any]] = []

    async def application(scope: dict[str, Any], receive: Any, send: Any) -> None:
        seen.append({**scope, "received": await receive(), "then": await receive()})
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": b"warm"})

    return application, seen


def test_wsgi_is_asked_with_the_host_and_scheme_written() -> None:
    application, seen = wsgi("200 OK")

    warm_wsgi(application, [parse_warmup("https://shop.example/a%20b?c=d")])

    (environ,) = seen
    assert environ["HTTP_HOST"] == "shop.example"
    assert environ["wsgi.url_scheme"] == "https"
    assert environ["QUERY_STRING"] == "c=d"
    assert environ["PATH_INFO"] == "/a b"


def test_asgi_is_asked_with_the_host_and_scheme_written() -> None:
    application, seen = asgi(204)

    asyncio.run(warm_asgi(application, [parse_warmup("https://shop.example/a?c=d")], {"db": 1}))

    (scope,) = seen
    assert (b"host", b"shop.example") in scope["headers"]
    assert (scope["scheme"], scope["path"], scope["query_string"]) == ("https", "/a", b"c=d")
    assert scope["state"] == {"db": 1}
    assert scope["received"]["type"] == "http.request"
    assert scope["then"]["type"] == "http.disconnect"


def test_a_status_that_is_not_accepted_fails_the_boot() -> None:
    application, _ = wsgi("503 Service Unavailable")

    with pytest.raises(BootError, match="GET / was answered 503, not a status below 400"):
        warm_wsgi(application, [parse_warmup("/")])


def test_asgi_fails_the_boot_alike() -> None:
    application, _ = asgi(500)

    with pytest.raises(BootError, match="GET / was answered 500, not 200"):
        asyncio.run(warm_asgi(application, [parse_warmup("/ 200")]))


def test_an_application_that_raises_fails_the_boot_with_its_traceback() -> None:
    def application(environ: object, start_response: object) -> list[bytes]:
        raise ValueError("no such template")

    with pytest.raises(BootError, match="no such template") as caught:
        warm_wsgi(application, [parse_warmup("/")])

    assert "test_warmup.py" in str(caught.value)


def test_an_asgi_application_that_answers_nothing_fails_the_boot() -> None:
    async def application(scope: object, receive: object, send: object) -> None:
        pass

    with pytest.raises(BootError, match="GET / was not answered"):
        asyncio.run(warm_asgi(application, [parse_warmup("/")]))


def test_a_body_is_read_to_its_end_and_closed() -> None:
    events = []

    class Body:
        def __iter__(self) -> Any:
            events.append("read")
            return iter([b"x"])

        def close(self) -> None:
            events.append("closed")

    def application(environ: object, start_response: Callable[..., Any]) -> Body:
        start_response("200 OK", [])
        return Body()

    warm_wsgi(application, [parse_warmup("/")])

    assert events == ["read", "closed"]

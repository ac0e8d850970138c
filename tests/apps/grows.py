"""Holds so many MB for ever after /grow?N; answers its pid."""

import os

kept = []


def grow(path, query):
    if path == "/grow":
        kept.append(os.urandom(1 << 20) * int(query))
    return str(os.getpid()).encode()


def wsgi(environ, start_response):
    body = grow(environ["PATH_INFO"], environ["QUERY_STRING"])
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]


async def asgi(scope, receive, send):
    if scope["type"] != "http":
        raise NotImplementedError(scope["type"])
    body = grow(scope["path"], scope["query_string"])
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})

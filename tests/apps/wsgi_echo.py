"""A WSGI application with one path for each behaviour; the same paths as asgi_echo."""

import os
import sys
import time


def application(environ, start_response):
    path, query = environ["PATH_INFO"], environ["QUERY_STRING"]
    if path == "/raise":
        raise ValueError("raised before start_response")
    if path == "/exit":
        sys.exit(int(query or 0))
    if path == "/os_exit":
        os._exit(int(query or 0))
    if path == "/extend":
        environ["forkmaster.extend_timeout"](30)
        time.sleep(float(query))
    if path in ("/block", "/slow"):
        time.sleep(float(query or (600 if path == "/block" else 0)))
    if path == "/stream":
        start_response("200 OK", [("Content-Type", "text/plain")])
        return stream(int(query or 3))
    if path == "/big":
        body = b"x" * int(query or 8 * 1024 * 1024)
    elif path == "/pid":
        body = str(os.getpid()).encode()
    elif path == "/request":
        names = ("wsgi.url_scheme", "HTTP_X_ADDED", "HTTP_X_SENT")
        body = " ".join(environ.get(name, "-") for name in names).encode()
    elif path == "/environ":
        body = " ".join(os.environ).encode()
    elif path == "/modules":
        body = " ".join(sys.modules).encode()
    else:
        body = environ["wsgi.input"].read()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]


def stream(parts):
    for number in range(parts):
        yield b"part %d\n" % number
        time.sleep(0.01)

"""Answers with what it was asked: /environ as JSON, anything else the body itself."""

import json


def application(environ, start_response):
    if environ["PATH_INFO"].startswith("/environ"):
        body = json.dumps(
            {key: value for key, value in environ.items() if isinstance(value, str)}
        ).encode()
    else:
        body = environ["wsgi.input"].read()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]

"""Reads the body to its end and answers how long it was."""


def application(environ, start_response):
    size = 0
    while part := environ["wsgi.input"].read(65536):
        size += len(part)
    body = str(size).encode()
    headers = [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))]
    start_response("200 OK", headers)
    return [body]

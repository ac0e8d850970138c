"""Answers as many bytes as the query says (8 MiB without one), in one piece."""


def application(environ, start_response):
    size = int(environ["QUERY_STRING"] or 8 * 1024 * 1024)
    start_response(
        "200 OK", [("Content-Type", "application/octet-stream"), ("Content-Length", str(size))]
    )
    return [b"x" * size]

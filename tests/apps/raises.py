"""Raises: at once, after start_response, or in the middle of the body."""


def application(environ, start_response):
    if environ["PATH_INFO"] == "/":
        raise ValueError("raised before start_response")
    start_response("200 OK", [("Content-Type", "text/plain")])
    if environ["PATH_INFO"] == "/started":
        raise ValueError("raised after start_response")
    return body(environ["PATH_INFO"] == "/middle")


def body(is_broken):
    yield b"the first part\n"
    if is_broken:
        raise ValueError("raised in the middle of the body")
    yield b"the second part\n"

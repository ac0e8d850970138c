"""An application that is not named `application`."""


def simple_app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"simple\n"]

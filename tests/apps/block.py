"""Hangs on /block for longer than any test; answers its pid otherwise."""

import os
import time


def application(environ, start_response):
    if environ["PATH_INFO"].startswith("/block"):
        time.sleep(600)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [str(os.getpid()).encode()]

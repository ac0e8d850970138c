"""Calls sys.exit() in a view, with the code in the query; answers its pid otherwise."""

import os
import sys


def application(environ, start_response):
    if environ["PATH_INFO"] == "/exit":
        sys.exit(int(environ["QUERY_STRING"] or 0))
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [str(os.getpid()).encode()]

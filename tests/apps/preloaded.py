"""Tells which process imported it, which one answers, and how often it was asked before."""

import json
import os

IMPORTED_BY = os.getpid()
asked = 0


def application(environ, start_response):
    global asked
    asked += 1
    body = json.dumps(
        {"imported_by": IMPORTED_BY, "pid": os.getpid(), "ppid": os.getppid(), "asked": asked}
    ).encode()
    status = environ["QUERY_STRING"] or "200 OK"
    headers = [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
    start_response(status.replace("+", " "), headers)
    return [body]

"""Prints in every way there is; WSGI and ASGI."""

import ctypes
import os
import subprocess
import sys

print("imported")


def speak(path):
    if path == "/all":
        print("printed")
        print("to stderr", file=sys.stderr)
        os.write(1, b"written\n")
        subprocess.run(["sh", "-c", "echo echoed; echo cried >&2"], check=True)
        ctypes.CDLL(None).perror(b"from C")
        print("a\x1bb\udcff".encode(errors="surrogateescape").decode("latin-1"))
    elif path == "/last":
        os.write(2, b"last words")
        os.abort()
    elif path == "/flood":
        for number in range(20000):
            print("flood", number, "x" * 200)
    elif path == "/orphan":
        # Outlives the worker by as long as its input is open.
        subprocess.Popen(["sh", "-c", "read line; echo orphan $line"], stdin=sys.stdin)


def application(environ, start_response):
    speak(environ["PATH_INFO"])
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [str(os.getpid()).encode()]


async def asgi(scope, receive, send):
    if scope["type"] != "http":
        raise NotImplementedError(scope["type"])
    speak(scope["path"])
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": str(os.getpid()).encode()})

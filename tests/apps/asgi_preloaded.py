"""The same for ASGI: which process imported it, which answers, how often it was asked."""

import json
import os

IMPORTED_BY = os.getpid()
asked = 0


async def application(scope, receive, send):
    global asked
    if scope["type"] != "http":
        raise NotImplementedError(scope["type"])
    asked += 1
    body = json.dumps(
        {"imported_by": IMPORTED_BY, "pid": os.getpid(), "ppid": os.getppid(), "asked": asked}
    ).encode()
    headers = [(b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})

"""An ASGI application with one path for each behaviour, and a websocket that echoes."""

import asyncio
import json
import os
import time


async def application(scope, receive, send):
    if scope["type"] == "http":
        await http(scope, receive, send)
    elif scope["type"] == "websocket":
        await websocket(receive, send)
    else:
        raise NotImplementedError(scope["type"])


async def http(scope, receive, send):
    path = scope["path"].removeprefix(scope["root_path"])
    query = scope["query_string"].decode()
    if path == "/raise":
        raise ValueError("raised before http.response.start")
    if path == "/exit":
        raise SystemExit(int(query or 0))
    if path == "/os_exit":
        os._exit(int(query or 0))
    if path == "/extend":
        scope["forkmaster.extend_timeout"](30)
        await asyncio.sleep(float(query))
    if path == "/block":  # the whole loop, as a careless view does
        time.sleep(float(query or 600))
    if path == "/slow":
        await asyncio.sleep(float(query or 0))
    if path == "/stubborn":
        while True:
            try:
                await asyncio.sleep(600)
            except asyncio.CancelledError:
                pass
    if path == "/until-draining":
        await scope["state"]["forkmaster.draining"].wait()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"draining"})
        return
    if path == "/stream":
        await stream(int(query or 3), send)
        return
    if path == "/scope":
        shown = {
            key: scope[key]
            for key in ("client", "scheme", "path", "root_path", "http_version", "method")
        }
        body = json.dumps(shown).encode()
    elif path == "/big":
        body = b"x" * int(query or 8 * 1024 * 1024)
    elif path == "/request":
        headers = dict(scope["headers"])
        sent = [headers.get(name, b"-").decode() for name in (b"x-added", b"x-sent")]
        body = " ".join([scope["scheme"], *sent]).encode()
    elif path == "/environ":
        body = " ".join(os.environ).encode()
    elif path == "/pid":
        body = str(os.getpid()).encode()
    else:
        body = await read(receive)
    headers = [(b"content-type", b"text/plain"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def read(receive):
    parts, more = [], True
    while more:
        message = await receive()
        parts.append(message.get("body", b""))
        more = message.get("more_body", False)
    return b"".join(parts)


async def stream(parts, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    for number in range(parts):
        part = b"part %d\n" % number
        await send({"type": "http.response.body", "body": part, "more_body": True})
        await asyncio.sleep(0.01)
    await send({"type": "http.response.body"})


async def websocket(receive, send):
    await receive()
    await send({"type": "websocket.accept"})
    while True:
        message = await receive()
        if message["type"] == "websocket.disconnect":
            return
        await send({"type": "websocket.send", "text": message.get("text")})

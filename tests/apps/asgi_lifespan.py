"""Tells about its lifespan on stderr, and takes LIFESPAN_DELAY seconds to start."""

import asyncio
import os
import sys

from asgi_hello import application as hello


async def application(scope, receive, send):
    if scope["type"] != "lifespan":
        await hello(scope, receive, send)
        return
    await receive()
    await asyncio.sleep(float(os.environ.get("LIFESPAN_DELAY", "0")))
    print("lifespan: started", file=sys.stderr, flush=True)
    await send({"type": "lifespan.startup.complete"})
    await receive()
    print("lifespan: stopped", file=sys.stderr, flush=True)
    await send({"type": "lifespan.shutdown.complete"})

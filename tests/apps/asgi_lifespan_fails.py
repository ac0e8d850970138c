"""Its lifespan startup fails: as frameworks report it, or with LIFESPAN_RAISES by raising."""

import os
import traceback


async def connect():
    raise ConnectionError("no database at db.example.com")


async def application(scope, receive, send):
    assert scope["type"] == "lifespan"
    await receive()
    if os.environ.get("LIFESPAN_RAISES"):
        await connect()
    try:
        await connect()
    except ConnectionError:
        await send({"type": "lifespan.startup.failed", "message": traceback.format_exc()})

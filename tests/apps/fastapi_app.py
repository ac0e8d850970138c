"""A FastAPI application: a lifespan, a websocket, background tasks, and events for ever."""

import asyncio
import os
import uuid
from contextlib import asynccontextmanager

from fastapi import BackgroundTasks, FastAPI, Request, WebSocket
from starlette.responses import StreamingResponse


@asynccontextmanager
async def lifespan(app):
    app.state.ready = True
    yield
    app.state.ready = False


app = application = FastAPI(lifespan=lifespan)


@app.get("/")
async def index():
    return {"hello": "fastapi", "ready": app.state.ready}


@app.get("/sync")
def in_a_thread():
    return {"hello": "thread"}


@app.websocket("/ws")
async def websocket(socket: WebSocket):
    await socket.accept()
    async for text in socket.iter_text():
        await socket.send_text(text)


def note(text):
    """One line in the file that the test reads."""
    with open(os.environ["NOTES"], "a") as file:
        file.write(f"{text}\n")


async def later(text):
    await asyncio.sleep(0.05)
    note(text)


@app.get("/background")
async def background(tasks: BackgroundTasks):
    text = uuid.uuid4().hex
    tasks.add_task(later, text)
    return text


@app.get("/events")
async def events(request: Request):
    draining = request.scope["state"]["forkmaster.draining"]

    async def produce():
        yield f"data: {os.getpid()}\n\n"
        try:
            await asyncio.wait_for(draining.wait(), 60)
            yield "event: bye\n\n"
        except asyncio.CancelledError:
            note("events: cancelled")
            raise

    return StreamingResponse(produce(), media_type="text/event-stream")

"""A FastAPI application with a lifespan and a websocket."""

from contextlib import asynccontextmanager

from fastapi import FastAPI, WebSocket


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

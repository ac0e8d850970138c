"""A Starlette application with a lifespan."""

from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Route


@asynccontextmanager
async def lifespan(app):
    yield {"greeting": "hello"}


async def index(request):
    return PlainTextResponse(f"{request.state.greeting} {request.query_params['name']}\n")


async def upload(request):
    async with request.form() as form:
        content = await form["file"].read()
        return PlainTextResponse(f"{form['name']} {len(content)}\n")


async def lines():
    for number in range(3):
        yield b"line %d\n" % number


async def stream(request):
    return StreamingResponse(lines())


def broken(request):
    raise ValueError("on purpose")


app = Starlette(
    lifespan=lifespan,
    routes=[
        Route("/", index),
        Route("/upload", upload, methods=["POST"]),
        Route("/stream", stream),
        Route("/broken", broken),
    ],
)

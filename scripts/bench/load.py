"""The load: wrk where it can say what is wanted, clients of our own where it cannot."""

from __future__ import annotations

import asyncio
import re
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from bench.servers import LOAD_CPU

# Of a run of wrk: ten thousands of requests, but for the Django page.
SECONDS = 2

BROWSER = {
    "Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
    "Accept-Encoding": "gzip, deflate, br",
    "Accept-Language": "en-US,en;q=0.9",
    "Cache-Control": "max-age=0",
    "Connection": "keep-alive",
    "Cookie": "sessionid=s0m3l0ngs3ss10n1d3nt1f13r; csrftoken=an0th3rl0ngt0k3n0fm4nych4rs",
    "Referer": "http://localhost/somewhere/else",
    "Sec-Fetch-Mode": "navigate",
    "Sec-Fetch-Site": "same-origin",
    "Upgrade-Insecure-Requests": "1",
    "User-Agent": "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
}


class Answered(NamedTuple):
    """What wrk tells of a run."""

    count: int
    a_second: float


def wrk(
    port: int,
    path: str = "/",
    *,
    seconds: int = SECONDS,
    connections: int = 16,
    headers: dict[str, str] | None = None,
    body: int = 0,
) -> Answered:
    """Asks for `path` for so long.  Raises RuntimeError if any was not answered with 2xx."""
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s"]
    for name, value in (headers or {}).items():
        command += ["-H", f"{name}: {value}"]
    with TemporaryDirectory() as folder:
        if body:
            script = Path(folder) / "post.lua"
            script.write_text(f'wrk.method = "POST"\nwrk.body = string.rep("x", {body})\n')
            command += ["-s", str(script)]
        pin = ["taskset", "-c", LOAD_CPU] if shutil.which("taskset") else []
        done = subprocess.run(
            [*pin, *command, f"http://127.0.0.1:{port}{path}"],
            capture_output=True,
            text=True,
            check=True,
        )
    if "Non-2xx" in done.stdout:
        raise RuntimeError(done.stdout)
    count = re.search(r"(\d+) requests in", done.stdout)
    rate = re.search(r"Requests/sec:\s+([\d.]+)", done.stdout)
    assert count is not None, done.stdout
    assert rate is not None, done.stdout
    return Answered(int(count[1]), float(rate[1]))


@dataclass(frozen=True)
class Latencies:
    """Of one kind of request, in milliseconds."""

    p99: float
    longest: float


async def fast_beside_slow(
    port: int, fast: str, slow: str, *, clients: int = 8, seconds: float = 3.0
) -> Latencies:
    """Clients that ask for `fast` on kept-alive connections, while one asks for `slow`."""
    until = time.monotonic() + seconds
    took: list[float] = []

    async def client(path: str, times: list[float]) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        request = f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
        while (began := time.monotonic()) < until:
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            length = re.search(rb"content-length: (\d+)", head, re.I)
            await reader.readexactly(int(length[1]) if length else 0)
            times.append(time.monotonic() - began)
            if b"connection: close" in head.lower():
                writer.close()
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
            await asyncio.sleep(0.002)
        writer.close()

    await asyncio.gather(*(client(fast, took) for _ in range(clients)), client(slow, []))
    took.sort()
    return Latencies(took[int(len(took) * 0.99)] * 1e3, took[-1] * 1e3)


async def hold(port: int, count: int, *, seconds: float) -> None:
    """Open `count` connections, ask once on each, and keep them open and idle."""
    request = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
    writers = []
    for _ in range(count):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request)
        await reader.readuntil(b"\r\n\r\n")
        writers.append(writer)
    await asyncio.sleep(seconds)
    for writer in writers:
        writer.close()


async def upgrade(port: int, count: int, *, seconds: float) -> None:
    """Open `count` websockets and keep them open and idle."""
    request = (
        b"GET /ws HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    writers = []
    for _ in range(count):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101 "), head
        writers.append(writer)
    await asyncio.sleep(seconds)
    for writer in writers:
        writer.close()

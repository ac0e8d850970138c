"""Real frameworks on the asgi worker, with clients that stay while it is reloaded."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any, Self

import httpx
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from tests.conftest import Serve
from tests.e2e.conftest import PROJECT, Site
from tests.process.harness import (
    PATIENCE,
    Clients,
    Load,
    Server,
    read_all,
    request_bytes,
    wait_for,
)
from tests.process.test_http2 import HTTP2Load


def reload(server: Server) -> None:
    """Reload, and return when the old workers are gone."""
    before = set(server.workers())
    server.send_signal(signal.SIGHUP)
    wait_for(lambda: not before & set(server.workers()), 30, "new workers")


def in_flight(server: Server) -> int:
    return server.board().totals.counters["in_flight"]


class Chat(Clients):
    """Clients that talk over websockets, and come back when they are sent away."""

    def __init__(self, url: str, clients: int = 4, origin: str | None = None) -> None:
        super().__init__(clients)
        self._url, self._origin = url, origin
        self.codes: set[int] = set()

    def _run(self) -> None:
        while not self.stopping.is_set():
            try:
                with connect(self._url, origin=self._origin) as ws:  # type: ignore[arg-type]
                    while not self.stopping.is_set():
                        ws.send("hello")
                        assert ws.recv(PATIENCE) == "hello"
                        self.answered += 1
                        time.sleep(0.005)
            except ConnectionClosed as exc:
                self.codes.add(exc.rcvd.code if exc.rcvd else 1006)
            except Exception as exc:
                self.lost.append(repr(exc))


def test_a_chat_goes_on_through_a_reload(serve: Serve) -> None:
    server = serve("-w", "2", "fastapi_app").wait_until_ready(2)
    # A message of the application may meet the close that the reload has begun.
    server.tolerate("Exception in ASGI application")

    with Chat(f"ws://127.0.0.1:{server.port}/ws") as chat:
        chat.wait_for_answers(100)
        reload(server)
        chat.wait_for_answers(100)

    assert chat.lost == []
    assert chat.codes == {1012}


@pytest.mark.lab
def test_a_chat_through_channels_goes_on_through_a_reload(serve: Serve, data: Path) -> None:
    arguments = ("-w", "2", "project.asgi")
    server = serve(*arguments, cwd=PROJECT, env={"PROJECT_DATA": str(data)}).wait_until_ready(2)
    server.tolerate("Warning: ")

    url = f"ws://127.0.0.1:{server.port}/ws/echo"
    with Chat(url, origin=f"http://127.0.0.1:{server.port}") as chat:
        chat.wait_for_answers(100)
        reload(server)
        chat.wait_for_answers(100)

    assert chat.lost == []
    assert chat.codes == {1012}


@pytest.mark.lab
def test_background_tasks_are_finished_through_a_reload(serve: Serve, tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    server = serve("-w", "2", "fastapi_app", env={"NOTES": str(notes)}).wait_until_ready(2)

    with Load(server, "/background") as load:
        load.wait_for_answers(50)
        reload(server)
        load.wait_for_answers(50)
    assert server.stop() == 0

    assert load.lost == []
    done = {f'"{line}"'.encode() for line in notes.read_text().split()}
    assert load.bodies <= done


def test_a_stream_of_events_ends_when_its_worker_stops(serve: Serve, tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    server = serve("fastapi_app", env={"NOTES": str(notes)}).wait_until_ready()
    raw = server.send(request_bytes("/events"))
    wait_for(lambda: in_flight(server) == 1)

    reload(server)
    received = read_all(raw)

    assert b"event: bye\n\n" in received
    assert received.endswith(b"\r\n0\r\n\r\n")  # a whole answer, so the client comes back in peace
    assert not notes.exists()


def test_a_stream_of_events_is_cancelled_when_its_client_leaves(
    serve: Serve, tmp_path: Path
) -> None:
    notes = tmp_path / "notes"
    server = serve("fastapi_app", env={"NOTES": str(notes)}).wait_until_ready()
    raw = server.send(request_bytes("/events"))
    wait_for(lambda: in_flight(server) == 1)

    raw.close()

    wait_for(lambda: in_flight(server) == 0, what="the end of the request")
    assert notes.read_text() == "events: cancelled\n"


class Streams(Clients):
    """Clients that listen to events, and come back as soon as a stream has ended whole."""

    def __init__(self, server: Server, clients: int = 20) -> None:
        super().__init__(clients)
        self._server = server

    def _run(self) -> None:
        while not self.stopping.is_set():
            received = b""
            try:
                received = read_all(self._server.send(request_bytes("/events"), timeout=30))
            except OSError as exc:
                received += repr(exc).encode()
            if b"event: bye\n\n" in received and received.endswith(b"\r\n0\r\n\r\n"):
                self.answered += 1
            else:
                self.lost.append(repr(received))


@pytest.mark.lab
def test_streams_of_events_go_on_through_a_reload_under_load(serve: Serve) -> None:
    server = serve("-w", "2", "fastapi_app").wait_until_ready(2)

    with Streams(server) as streams:
        with Load(server, "/") as load:
            wait_for(lambda: in_flight(server) >= 20)
            load.wait_for_answers(50)
            reload(server)
            load.wait_for_answers(50)
            wait_for(lambda: streams.answered >= 20 or streams.lost, what="the end of all streams")
        wait_for(lambda: in_flight(server) == 20, what="all streams again")
        streams.stopping.set()
        assert server.stop() == 0

    assert load.lost == []
    assert streams.lost == []
    # Some came to the other old worker before it was replaced, too.
    assert streams.answered >= 40


class Files(Clients):
    """A visitor who sends files and fetches them again."""

    def __init__(self, server: Server) -> None:
        super().__init__(clients=1)
        self._browser = httpx.Client(base_url=server.url, timeout=PATIENCE)
        self._site = Site(server, self._browser)

    def __enter__(self) -> Self:
        self._site.log_in()
        return super().__enter__()

    def __exit__(self, *raised: Any) -> None:
        super().__exit__(*raised)
        self._browser.close()

    def _run(self) -> None:
        contents = os.urandom(1 << 20)
        try:
            while not self.stopping.is_set():
                form = {"text": "x", "csrfmiddlewaretoken": self._site.token("/upload")}
                sent = self._browser.post(
                    "/upload", data=form, files={"attachment": ("x.bin", contents)}
                )
                assert sent.status_code == 302, sent.text
                fetched = self._browser.get(sent.headers["location"])
                assert fetched.content == contents
                self.answered += 1
        except Exception as exc:
            self.lost.append(repr(exc))


@pytest.mark.lab
def test_django_is_reloaded_under_load(serve: Serve, data: Path) -> None:
    arguments = ("-w", "2", "project.asgi")
    server = serve(*arguments, cwd=PROJECT, env={"PROJECT_DATA": str(data)}).wait_until_ready(2)
    # Django says so of a file on an async server; it is right, and works.
    server.tolerate("StreamingHttpResponse must consume", "Warning: ")

    with (
        Load(server, "/", clients=2) as pages,
        Load(server, "/async?delay=0.01", clients=2) as views,
        Load(server, "/stream?lines=20&delay=0.005", clients=2) as streams,
        Files(server) as files,
    ):
        loads = (pages, views, streams, files)
        for each in loads:
            each.wait_for_answers(5)
        reload(server)
        for each in loads:
            each.wait_for_answers(5)

    assert [each.lost for each in loads] == [[], [], [], []]
    assert streams.bodies == {b"".join(b"line %d\n" % number for number in range(20))}


@pytest.mark.lab
def test_frameworks_are_reloaded_under_load_of_http_2(serve: Serve, data: Path) -> None:
    arguments = ("-w", "2", "-k", "hypercorn")
    django = serve(*arguments, "project.asgi", cwd=PROJECT, env={"PROJECT_DATA": str(data)})
    django.tolerate("Warning: ")
    fastapi = serve(*arguments, "fastapi_app")
    paths = {django: ("/", "/async", "/stream?lines=20&delay=0.002"), fastapi: ("/", "/sync")}

    for server, asked in paths.items():
        server.wait_until_ready(2)
        with HTTP2Load(server, *asked) as load:
            load.wait_for_answers(40)
            reload(server)
            load.wait_for_answers(40)
        assert load.lost == []


@pytest.mark.parametrize("path", ["/async?delay=600", "/stream?delay=600"])
def test_django_cancels_a_view_when_its_client_leaves(serve: Serve, data: Path, path: str) -> None:
    server = serve("project.asgi", cwd=PROJECT, env={"PROJECT_DATA": str(data)})
    server.tolerate("Warning: ")
    server.wait_until_ready()
    raw = server.send(request_bytes(path))
    wait_for(lambda: in_flight(server) == 1)

    raw.close()

    wait_for(lambda: in_flight(server) == 0, what="the end of the request")

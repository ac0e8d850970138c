"""One connection of HTTP/2: what is refused, what is answered, and how it ends."""

from __future__ import annotations

import asyncio
import importlib
import logging
import random
import sys
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import pytest
from h2.errors import ErrorCodes
from h2.exceptions import ProtocolError
from h2.settings import SettingCodes

from forkmaster.board import layout
from forkmaster.board.counters import read_counters, starts_in_flight
from forkmaster.board.slot import Slot
from forkmaster.cli import entry
from forkmaster.errors import BootError
from forkmaster.worker.http2 import EVERY_STREAM, PREFACE
from forkmaster.worker.http2_exchange import with_one_cookie
from tests.unit.worker.asgi_talk import Application, settle
from tests.unit.worker.http2_talk import Headers, HTTP2Talk
from tests.unit.worker.test_asgi_http import Recorder, read, slot  # noqa: F401 - a fixture

Story = Callable[[HTTP2Talk], Awaitable[None]]


def talk(application: Application, slot: Slot, story: Story, **settings: Any) -> HTTP2Talk:  # noqa: F811
    """Run a story about one connection."""
    told: list[HTTP2Talk] = []

    async def tell() -> None:
        told.append(HTTP2Talk(application, slot, **settings))
        await told[0].exchange()
        await story(told[0])

    asyncio.run(tell())
    return told[0]


# --- Who speaks what ----------------------------------------------------------------------------


def test_a_client_may_speak_either(slot: Slot) -> None:  # noqa: F811
    application = Recorder()

    async def story(talk: HTTP2Talk) -> None:
        assert (await talk.ask("/a?b=c")).body == b"hello"

    talk(application, slot, story)

    (scope,) = application.scopes
    assert scope["http_version"] == "2"
    assert (scope["path"], scope["query_string"]) == ("/a", b"b=c")
    assert (b"host", b"localhost") in scope["headers"]


def test_the_preface_may_come_in_pieces(slot: Slot) -> None:  # noqa: F811
    async def tell() -> None:
        talk = HTTP2Talk(Recorder(), slot)
        data = talk.h2.data_to_send()
        for number in range(len(data)):
            talk.transport.protocol.data_received(data[number : number + 1])
        await talk.exchange()
        assert (await talk.ask()).status == 200

    asyncio.run(tell())


def test_a_request_that_begins_like_the_preface_is_one_of_http_1(slot: Slot) -> None:  # noqa: F811
    application = Recorder()

    async def tell() -> None:
        talk = HTTP2Talk(application, slot)
        for piece in (b"PRI", b"NT / HTTP/1.1\r\nHost: a\r\n\r\n"):
            talk.transport.protocol.data_received(piece)
        for _ in range(10):
            await asyncio.sleep(0)
        assert talk.transport.written.startswith(b"HTTP/1.1 200 ")

    asyncio.run(tell())
    assert application.scopes[0]["method"] == "PRINT"


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"\0\0\x04\x08\0\0\0\0\0" + bytes(4), ErrorCodes.PROTOCOL_ERROR),  # a window of 0 more
        (b"\xff" * 20_000, ErrorCodes.FRAME_SIZE_ERROR),
    ],
)
def test_a_wrong_frame_ends_the_connection(slot: Slot, data: bytes, code: int) -> None:  # noqa: F811
    async def story(talk: HTTP2Talk) -> None:
        talk.transport.protocol.data_received(data)
        await talk.exchange()
        assert talk.terminations() == [(code, 0)]
        assert talk.transport.ended

    talk(Recorder(), slot, story)


def test_without_hypercorn_the_boot_fails_and_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "hypercorn", None)
    monkeypatch.delitem(sys.modules, "forkmaster.worker.http2")

    with pytest.raises(BootError, match=r"needs hypercorn: pip install 'forkmaster\[http2\]'"):
        importlib.import_module("forkmaster.worker.http2")


def test_forkmaster_check_says_so_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "hypercorn", None)
    monkeypatch.delitem(sys.modules, "forkmaster.worker.http2")
    monkeypatch.setitem(sys.modules, "site_app", SimpleNamespace(application=Recorder()))

    with pytest.raises(BootError, match="needs hypercorn"):
        entry.run(["check", "-k", "hypercorn", "site_app"])


# --- What is refused ----------------------------------------------------------------------------

REFUSED: dict[str, tuple[int, dict[str, Any]]] = {
    "a target without a slash": (400, {"path": "nowhere"}),
    "a target with a space": (400, {"path": "/a b"}),
    "a target that is too long": (414, {"path": "/" + 9000 * "x"}),
    "a method that is no token": (400, {"method": "GE(T"}),
    "a malformed host": (400, {"authority": "a b"}),
    "a Content-Length that is no number": (400, {"headers": [("content-length", "0x0")]}),
    "an unknown expectation": (417, {"headers": [("expect", "miracles")]}),
    "an underscore": (400, {"headers": [("x_forwarded_for", "1.1.1.1")]}),
    "too many fields": (431, {"headers": [("x-a", str(n)) for n in range(120)]}),
    "a field that is too large": (431, {"headers": [("x-a", 9000 * "x")]}),
}


@pytest.mark.parametrize("case", REFUSED)
def test_the_rules_of_http_1_hold(slot: Slot, case: str) -> None:  # noqa: F811
    status, options = REFUSED[case]
    application = Recorder()

    async def story(talk: HTTP2Talk) -> None:
        refused = await talk.ask(**options)
        if not talk.terminations():  # h2 has found it first, and takes it for an attack
            assert refused.status == status
            assert refused.is_whole
            # The others on the connection are not concerned.
            assert (await talk.ask("/after")).status == 200

    talk(application, slot, story, header_map="refuse")
    assert [scope["path"] for scope in application.scopes] in ([], ["/after"])
    assert starts_in_flight(slot.words) == []


@pytest.mark.parametrize(
    "headers",
    [
        [("x-a", "1\r\nx-b: 2")],
        [("x-a", "1\nx-b: 2")],
        [("connection", "close")],
        [("transfer-encoding", "chunked")],
        [("X-Upper", "1")],
        [("host", "another")],
    ],
)
def test_what_http_2_forbids_never_reaches_the_application(
    slot: Slot,  # noqa: F811
    headers: Headers,
) -> None:
    application = Recorder()

    async def story(talk: HTTP2Talk) -> None:
        await talk.ask(headers=headers)

    talk(application, slot, story)
    assert application.scopes == []


def test_a_body_that_is_announced_too_large(slot: Slot) -> None:  # noqa: F811
    application = Recorder()

    async def story(talk: HTTP2Talk) -> None:
        stream = talk.begin(method="POST", headers=[("content-length", "11")], ends=False)
        await talk.exchange()
        assert talk.answer(stream).status == 413
        assert (await talk.ask()).status == 200

    talk(application, slot, story, limit_request_body=10)
    assert len(application.bodies) == 1


def test_a_body_that_becomes_too_large(slot: Slot) -> None:  # noqa: F811
    async def story(talk: HTTP2Talk) -> None:
        stream = talk.begin(method="POST", ends=False)
        talk.h2.send_data(stream, 11 * b"x")
        await talk.exchange()
        assert talk.answer(stream).status == 413
        assert (await talk.ask()).status == 200

    seen = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        if scope["method"] == "POST":
            while (message := await receive())["type"] == "http.request":
                pass
            seen.append(message["type"])
            return
        await Recorder()(scope, receive, send)

    talk(application, slot, story, limit_request_body=10)
    assert seen == ["http.disconnect"]


# --- What the application is told -----------------------------------------------------------------


def test_cookies_that_were_cut_up_are_one_again(slot: Slot) -> None:  # noqa: F811
    application = Recorder()

    async def story(talk: HTTP2Talk) -> None:
        await talk.ask(headers=[("cookie", "a=1"), ("x-a", "b"), ("cookie", "c=2")])

    talk(application, slot, story)
    cookies = [value for name, value in application.scopes[0]["headers"] if name == b"cookie"]
    assert cookies == [b"a=1; c=2"]


def test_one_cookie_stays_as_it_is() -> None:
    assert with_one_cookie([(b"cookie", b"a=1")]) == [(b"cookie", b"a=1")]


def test_a_trusted_proxy_speaks_for_its_client(slot: Slot) -> None:  # noqa: F811
    application = Recorder()
    headers = [("x-forwarded-for", "203.0.113.9"), ("x-forwarded-proto", "https")]

    async def story(talk: HTTP2Talk) -> None:
        await talk.ask(headers=headers)

    talk(application, slot, story)
    assert application.scopes[0]["client"] == ("203.0.113.9", 0)
    assert application.scopes[0]["scheme"] == "https"


def test_a_body_comes_whole(slot: Slot) -> None:  # noqa: F811
    application = Recorder()

    async def story(talk: HTTP2Talk) -> None:
        stream = talk.begin(method="POST", ends=False)
        for number in range(20):
            talk.h2.send_data(stream, b"%d " % number, end_stream=number == 19)
            await talk.exchange()
        assert talk.answer(stream).is_whole

    talk(application, slot, story)
    assert application.bodies == [b"".join(b"%d " % number for number in range(20))]


def test_a_client_that_waits_for_it_is_told_to_go_on(slot: Slot) -> None:  # noqa: F811
    async def story(talk: HTTP2Talk) -> None:
        stream = talk.begin(method="POST", headers=[("expect", "100-continue")], ends=False)
        await talk.exchange()
        assert talk.answer(stream).informational == ["100"]
        talk.h2.send_data(stream, b"x", end_stream=True)
        await talk.exchange()
        assert talk.answer(stream).status == 200

    application = Recorder()
    talk(application, slot, story)
    assert application.bodies == [b"x"]


def test_a_client_that_sends_faster_than_the_application_takes_has_to_wait(
    slot: Slot,  # noqa: F811
) -> None:
    goes_on = asyncio.Event()
    taken = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/slow":
            await goes_on.wait()
            taken.append(await read(receive))
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body"})

    async def story(talk: HTTP2Talk) -> None:
        stream = talk.begin("/slow", "POST", ends=False)
        await talk.exchange()
        sent = 0
        while window := talk.h2.local_flow_control_window(stream):
            size = min(window, 16384)
            talk.h2.send_data(stream, size * b"x")
            sent += size
            await talk.exchange()
        assert sent < 300_000
        # The others are not held up by it.
        assert (await talk.ask("/other")).status == 200
        goes_on.set()
        await talk.exchange()
        talk.h2.send_data(stream, b"y", end_stream=True)
        await talk.exchange()
        assert talk.answer(stream).is_whole
        assert taken == [sent * b"x" + b"y"]

    talk(application, slot, story)


@pytest.mark.parametrize("ends", [False, True])
def test_a_body_that_nobody_reads_is_thrown_away(slot: Slot, ends: bool) -> None:  # noqa: F811
    async def application(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"enough"})

    async def story(talk: HTTP2Talk) -> None:
        stream = talk.begin(method="POST", ends=False)
        await talk.exchange()
        assert talk.answer(stream).body == b"enough"
        talk.h2.send_data(stream, 1000 * b"x", end_stream=ends)
        await talk.exchange()
        assert talk.answer(stream).reset == (None if ends else ErrorCodes.NO_ERROR)
        assert (await talk.ask()).status == 200

    talk(application, slot, story)


# --- What is answered ---------------------------------------------------------------------------


def test_an_answer_says_what_http_1_would(slot: Slot) -> None:  # noqa: F811
    application = Recorder(
        headers=[(b"X-Case", b"kept"), (b"Connection", b"close"), (b"Keep-Alive", b"5")]
    )

    async def story(talk: HTTP2Talk) -> None:
        answer = await talk.ask()
        assert answer.headers["x-case"] == "kept"
        assert answer.headers["content-length"] == "5"
        assert answer.headers["server"] == "forkmaster"
        assert "date" in answer.headers
        assert not {"connection", "keep-alive"} & answer.headers.keys()

    talk(application, slot, story)


@pytest.mark.parametrize(("method", "status"), [("HEAD", 200), ("GET", 204), ("GET", 304)])
def test_an_answer_without_a_body(slot: Slot, method: str, status: int) -> None:  # noqa: F811
    async def story(talk: HTTP2Talk) -> None:
        answer = await talk.ask(method=method)
        assert (answer.status, answer.body, answer.is_whole) == (status, b"", True)

    talk(Recorder(status=status), slot, story)


def test_trailers(slot: Slot) -> None:  # noqa: F811
    async def application(scope: Any, receive: Any, send: Any) -> None:
        assert "http.response.trailers" in scope["extensions"]
        await send({"type": "http.response.start", "status": 200, "headers": [], "trailers": True})
        await send({"type": "http.response.body", "body": b"x"})
        await send({"type": "http.response.trailers", "headers": [(b"Grpc-Status", b"0")]})

    async def story(talk: HTTP2Talk) -> None:
        answer = await talk.ask(headers=[("te", "trailers")])
        assert (answer.body, answer.trailers) == (b"x", {"grpc-status": "0"})
        assert answer.is_whole

    talk(application, slot, story)


def test_a_large_answer_waits_for_the_window(slot: Slot) -> None:  # noqa: F811
    async def story(talk: HTTP2Talk) -> None:
        stream = talk.begin()
        await talk.exchange()
        before = len(talk.answer(stream).body)
        assert 0 < before < 65536
        talk.h2.increment_flow_control_window(1 << 20)
        talk.h2.increment_flow_control_window(1 << 20, stream)
        await talk.exchange()
        assert talk.answer(stream).is_whole
        assert talk.answer(stream).body == 300_000 * b"x"

    talk(Recorder(300_000 * b"x"), slot, story)


FAILURES: dict[str, tuple[list[dict[str, Any]], int]] = {
    "nothing": ([], 500),
    "a header with a line break": (
        [{"type": "http.response.start", "status": 200, "headers": [(b"a", b"b\r\nc: d")]}],
        500,
    ),
    "a body first": ([{"type": "http.response.body", "body": b"x"}], 500),
    "a body that is cut off": (
        [
            {"type": "http.response.start", "status": 200, "headers": []},
            {"type": "http.response.body", "body": b"x", "more_body": True},
        ],
        200,
    ),
    "less than its Content-Length": (
        [
            {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"9")]},
            {"type": "http.response.body", "body": b"x"},
        ],
        200,
    ),
}


@pytest.mark.parametrize("case", FAILURES)
def test_an_application_that_fails(slot: Slot, case: str) -> None:  # noqa: F811
    messages, status = FAILURES[case]

    async def application(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/after":
            await Recorder()(scope, receive, send)
            return
        for message in messages:
            await send(message)

    async def story(talk: HTTP2Talk) -> None:
        answer = await talk.ask()
        assert answer.status == status
        # Half an answer must not look like a whole one.
        assert answer.is_whole == (status == 500)
        if status == 200:
            assert answer.reset == ErrorCodes.INTERNAL_ERROR
        assert (await talk.ask("/after")).status == 200

    talk(application, slot, story)


def test_more_than_its_content_length_is_cut_off(slot: Slot) -> None:  # noqa: F811
    async def story(talk: HTTP2Talk) -> None:
        answer = await talk.ask()
        assert (answer.body, answer.is_whole) == (b"hel", True)

    talk(Recorder(headers=[(b"content-length", b"3")]), slot, story)


# --- How long it lasts --------------------------------------------------------------------------


def test_many_streams_at_once(slot: Slot) -> None:  # noqa: F811
    arrived = []
    all_there = asyncio.Event()

    async def application(scope: Any, receive: Any, send: Any) -> None:
        arrived.append(scope["path"])
        if len(arrived) == 100:
            all_there.set()
        await all_there.wait()
        await Recorder()(scope, receive, send)

    async def story(talk: HTTP2Talk) -> None:
        streams = [talk.begin(f"/{number}") for number in range(100)]
        await talk.exchange()
        assert all(talk.answer(stream).is_whole for stream in streams)
        assert talk.connection.is_idle

    talk(application, slot, story)
    assert read_counters(slot.words)["status_2xx"] == 100


def test_the_settings_are_told(slot: Slot) -> None:  # noqa: F811
    async def story(talk: HTTP2Talk) -> None:
        settings = talk.h2.remote_settings
        assert settings.max_concurrent_streams == 7
        assert settings.initial_window_size == 100_000
        assert settings.max_frame_size == 20_000
        assert settings[SettingCodes.MAX_HEADER_LIST_SIZE] == 3000

    talk(
        Recorder(),
        slot,
        story,
        http2_max_concurrent_streams=7,
        http2_initial_window_size=100_000,
        http2_max_frame_size=20_000,
        http2_max_header_list_size=3000,
    )


def test_streams_that_are_reset_leave_nothing(slot: Slot) -> None:  # noqa: F811
    gone = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        gone.append(scope["path"])

    async def story(talk: HTTP2Talk) -> None:
        # More than hypercorn's tree of priorities holds.
        for _ in range(11):
            streams = [talk.begin() for _ in range(100)]
            await talk.exchange()
            for stream in streams:
                talk.h2.reset_stream(stream, ErrorCodes.CANCEL)
            await talk.exchange()
        assert len(gone) == 1100
        assert talk.connection.streams == {}
        assert talk.connection.protocol.stream_buffers == {}
        assert talk.terminations() == []

    talk(application, slot, story)
    assert starts_in_flight(slot.words) == []


def test_a_flood_of_resets_ends_the_connection(slot: Slot) -> None:  # noqa: F811
    cancelled = asyncio.Event()

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await cancelled.wait()

    async def story(talk: HTTP2Talk) -> None:
        for _ in range(15):
            stream = talk.begin()
            talk.h2.reset_stream(stream, ErrorCodes.CANCEL)
            data = talk.h2.data_to_send()
            if talk.transport.ended:
                break
            talk.transport.protocol.data_received(data)
            for _ in range(5):
                await asyncio.sleep(0)
        talk.events += talk.h2.receive_data(talk.transport.written[talk._read :])
        cancelled.set()
        (code, _) = talk.terminations()[-1]
        assert code == ErrorCodes.ENHANCE_YOUR_CALM

    talk(application, slot, story, http2_max_concurrent_streams=5)


def test_an_idle_connection_is_closed(slot: Slot) -> None:  # noqa: F811
    async def story(talk: HTTP2Talk) -> None:
        await talk.ask()
        since = talk.connection._idle_since
        talk.connection.check_patience(since + 4.9)
        assert not talk.transport.ended
        talk.connection.check_patience(since + 5.1)
        await talk.exchange()
        assert talk.terminations() == [(0, 1)]
        assert talk.transport.ended

    talk(Recorder(), slot, story, keepalive=5.0)


def test_without_keepalive_it_is_closed_after_the_end_of_the_answer(slot: Slot) -> None:  # noqa: F811
    goes_on = asyncio.Event()

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"first", "more_body": True})
        await goes_on.wait()
        await send({"type": "http.response.body", "body": b"last"})

    async def story(talk: HTTP2Talk) -> None:
        stream = talk.begin()
        await talk.exchange()
        talk.connection.pause_writing()
        goes_on.set()
        await talk.exchange()
        # The body is written, its end waits for the transport.
        assert talk.connection.streams == {}
        assert not talk.transport.ended
        talk.connection.resume_writing()
        await talk.exchange()
        assert talk.answer(stream).is_whole
        talk.connection.check_patience(talk.connection._idle_since + 1.1)
        await talk.exchange()
        assert talk.transport.ended
        assert talk.terminations() == [(0, 1)]

    talk(application, slot, story, keepalive=0.0)


def test_a_client_that_takes_nothing_is_given_up(slot: Slot) -> None:  # noqa: F811
    async def story(talk: HTTP2Talk) -> None:
        stream = talk.begin()
        await talk.exchange()
        talk.connection.check_patience(1000.0)
        talk.connection.check_patience(1059.0)
        await talk.exchange()
        assert talk.answer(stream).reset is None
        talk.connection.check_patience(1061.0)
        await talk.exchange()
        assert talk.answer(stream).reset == ErrorCodes.INTERNAL_ERROR
        assert talk.connection.streams == {}

    talk(Recorder(300_000 * b"x"), slot, story, write_timeout=60.0)


def test_a_body_that_does_not_come(slot: Slot) -> None:  # noqa: F811
    async def story(talk: HTTP2Talk) -> None:
        stream = talk.begin(method="POST", ends=False)
        await talk.exchange()
        (began,) = [each._heard for each in talk.connection.streams.values()]
        talk.connection.check_patience(began + 29)
        await talk.exchange()
        assert talk.answer(stream).status == 0
        talk.connection.check_patience(began + 31)
        await talk.exchange()
        assert talk.answer(stream).status == 408
        assert talk.connection.streams == {}

    async def application(scope: Any, receive: Any, send: Any) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    talk(application, slot, story, body_timeout=30.0)


def test_a_goodbye_lets_streams_finish_and_new_ones_begin(slot: Slot) -> None:  # noqa: F811
    goes_on = asyncio.Event()

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await goes_on.wait()
        await Recorder()(scope, receive, send)

    async def story(talk: HTTP2Talk) -> None:
        before = talk.begin("/before")
        await talk.exchange()
        talk.connection.say_goodbye()
        # On its way before the client knew.
        after = talk.begin("/after")
        goes_on.set()
        talk.transport.protocol.data_received(talk.h2.data_to_send())
        for _ in range(50):
            await asyncio.sleep(0)
        assert talk.connection.is_idle
        frames = talk.transport.written[talk._read :]
        assert frames.startswith(b"\0\0\x08\x07\0\0\0\0\0" + EVERY_STREAM.to_bytes(4, "big"))
        # h2 takes nothing after a GOAWAY, so the client reads what came after it.
        talk.events += talk.h2.receive_data(frames[17:])
        assert talk.answer(before).is_whole
        assert talk.answer(after).is_whole

    talk(application, slot, story)


def test_a_connection_that_breaks_off_disconnects_its_streams(slot: Slot) -> None:  # noqa: F811
    ends = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await read_all(receive, ends)
        # Nobody is there to hear it, and that is no error of the application.
        await Recorder()(scope, receive, send)

    async def story(talk: HTTP2Talk) -> None:
        talk.begin()
        talk.begin()
        await talk.exchange()
        connection = talk.connection
        talk.transport.close()
        connection.connection_lost(ConnectionResetError())
        for _ in range(50):
            await asyncio.sleep(0)
        assert connection.streams == {}
        assert talk.owner.closed == 1
        assert talk.owner.connections == set()

    talk(application, slot, story)
    assert ends == ["http.disconnect", "http.disconnect"]
    assert starts_in_flight(slot.words) == []
    assert slot.words[layout.ERRORS] == 0


async def read_all(receive: Any, ends: list[str]) -> None:
    while (message := await receive())["type"] == "http.request":
        pass
    ends.append(message["type"])


def test_a_request_that_takes_too_long(slot: Slot) -> None:  # noqa: F811
    async def application(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/late":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"x", "more_body": True})
        await asyncio.Event().wait()

    async def story(talk: HTTP2Talk) -> None:
        early, late = talk.begin("/early"), talk.begin("/late")
        await talk.exchange()
        for exchange in list(talk.owner.exchanges):
            exchange.time_out(1.0)
        await talk.exchange()
        assert talk.answer(early).status == 504
        assert talk.answer(late).reset == ErrorCodes.INTERNAL_ERROR

    talk(application, slot, story)


# --- Websockets ---------------------------------------------------------------------------------


async def echo(scope: Any, receive: Any, send: Any) -> None:
    assert scope["type"] == "websocket"
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": message["text"]})


def frame(first: int, payload: bytes) -> bytes:
    return bytes((first, 0x80 | len(payload))) + b"\0\0\0\0" + payload


async def open_websocket(talk: HTTP2Talk) -> int:
    stream = talk.h2.get_next_available_stream_id()
    pseudo = {
        ":method": "CONNECT",
        ":protocol": "websocket",
        ":scheme": "http",
        ":path": "/ws?a=b",
        ":authority": "localhost",
    }
    talk.h2.send_headers(stream, [*pseudo.items(), ("sec-websocket-version", "13")])
    await talk.exchange()
    assert talk.answer(stream).status == 200
    return stream


def test_a_websocket_over_http_2(slot: Slot) -> None:  # noqa: F811
    async def story(talk: HTTP2Talk) -> None:
        stream = await open_websocket(talk)
        talk.h2.send_data(stream, frame(0x81, b"hello"))
        await talk.exchange()
        assert talk.answer(stream).body == b"\x81\x05hello"
        talk.h2.send_data(stream, frame(0x88, (1000).to_bytes(2, "big")))
        await talk.exchange()
        assert talk.answer(stream).body[7:11] == b"\x88\x02\x03\xe8"
        assert talk.connection.streams == {}
        assert talk.owner.ledger.websockets == 0

    talk(echo, slot, story)
    assert slot.words[layout.WEBSOCKETS] == 1


WRONG = {
    "invalid UTF-8": (frame(0x81, b"\xff\xfe"), 1007),
    "invalid UTF-8 over two frames": (frame(0x01, b"\xc3") + frame(0x80, b"("), 1007),
    "a reserved opcode": (frame(0x83, b"x"), 1002),
    "a reserved flag": (frame(0xC1, b"x"), 1002),
    "a continuation of nothing": (frame(0x80, b"x"), 1002),
    "a ping in pieces": (frame(0x09, b"x"), 1002),
    "no mask": (b"\x81\x01x", 1002),
    "too large": (frame(0x81, 100 * b"x"), 1009),
    "too large in pieces": (frame(0x01, 40 * b"x") + frame(0x80, 40 * b"x"), 1009),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_client_that_breaks_the_protocol_of_websockets_is_told_so(
    slot: Slot,  # noqa: F811
    case: str,
) -> None:
    data, code = WRONG[case]

    async def story(talk: HTTP2Talk) -> None:
        stream = await open_websocket(talk)
        talk.h2.send_data(stream, data)
        await talk.exchange()
        body = talk.answer(stream).body
        assert (body[0], int.from_bytes(body[2:4], "big")) == (0x88, code)
        # The connection is not concerned.
        again = await open_websocket(talk)
        talk.h2.send_data(again, frame(0x81, b"hello"))
        await talk.exchange()
        assert talk.answer(again).body == b"\x81\x05hello"

    talk(echo, slot, story, websocket_max_message_size=64)


def test_the_close_code_of_a_client_is_told(slot: Slot) -> None:  # noqa: F811
    codes = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        codes.append((await receive())["code"])

    async def story(talk: HTTP2Talk) -> None:
        stream = await open_websocket(talk)
        talk.h2.send_data(stream, frame(0x88, (4000).to_bytes(2, "big")))
        await talk.exchange()

    talk(application, slot, story)
    assert codes == [4000]


def test_a_websocket_is_closed_with_1012_when_the_worker_stops(slot: Slot) -> None:  # noqa: F811
    async def story(talk: HTTP2Talk) -> None:
        stream = await open_websocket(talk)
        for session in talk.connection.sessions():
            session.restart()
        await talk.exchange()
        body = talk.answer(stream).body
        assert body[0] == 0x88
        assert int.from_bytes(body[2:4], "big") == 1012

    talk(echo, slot, story)


def test_an_application_that_returns_closes_its_websocket(slot: Slot) -> None:  # noqa: F811
    async def application(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "websocket.accept"})

    async def story(talk: HTTP2Talk) -> None:
        stream = await open_websocket(talk)
        assert talk.answer(stream).body[:4] == b"\x88\x02\x03\xe8"

    talk(application, slot, story)


def test_a_websocket_whose_client_is_gone(slot: Slot) -> None:  # noqa: F811
    ends: list[int] = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        ends.append((await receive())["code"])
        await send({"type": "websocket.send", "text": "too late"})

    async def story(talk: HTTP2Talk) -> None:
        stream = await open_websocket(talk)
        talk.h2.reset_stream(stream, ErrorCodes.CANCEL)
        await talk.exchange()
        assert talk.connection.streams == {}

    talk(application, slot, story)
    assert ends == [1006]
    assert slot.words[layout.ERRORS] == 0


# --- Damage -------------------------------------------------------------------------------------


def some_frames(talk: HTTP2Talk, rng: random.Random) -> bytearray:
    """What a client may send."""
    client = talk.h2
    streams = [talk.begin("/", "POST", ends=False)]
    for _ in range(rng.randrange(8)):
        stream = rng.choice(streams)
        try:
            match rng.randrange(6):
                case 0:
                    streams.append(talk.begin("/", "POST", ends=False))
                case 1:
                    talk.begin("/")
                case 2:
                    client.send_data(
                        stream, rng.randrange(200) * b"x", end_stream=rng.random() < 0.5
                    )
                case 3:
                    client.reset_stream(stream)
                case 4:
                    client.prioritize(stream, weight=5)
                case 5:
                    client.increment_flow_control_window(100, stream)
        except (ProtocolError, KeyError):
            pass  # this stream has ended
    return bytearray(client.data_to_send())


def damage(data: bytearray, rng: random.Random) -> None:
    """Change, remove or insert something, but in the preface."""
    at = rng.randrange(len(PREFACE), len(data))
    match rng.randrange(3):
        case 0:
            data[at] = rng.randrange(256)
        case 1:
            del data[at : at + rng.randrange(20)]
        case 2:
            data[at:at] = rng.randbytes(rng.randrange(20))


@pytest.mark.parametrize("seed", range(0, 200, 20))
def test_damaged_frames_harm_no_more_than_their_connection(
    slot: Slot,  # noqa: F811
    seed: int,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def tell() -> None:
        for number in range(seed, seed + 20):
            rng = random.Random(number)
            talk = HTTP2Talk(Recorder(), slot)
            data = some_frames(talk, rng)
            for _ in range(rng.randrange(4)):
                damage(data, rng)
            while data and not talk.transport.closed:
                size = rng.randrange(len(data)) + 1
                talk.transport.protocol.data_received(bytes(data[:size]))
                del data[:size]
                await settle()
            talk.transport.close()
            talk.transport.protocol.connection_lost(None)
            await settle()
            assert talk.owner.connections == set(), number
            assert asyncio.all_tasks() == {asyncio.current_task()}, number

    asyncio.run(tell())

    assert [each.getMessage() for each in caplog.records if each.levelno >= logging.WARNING] == []
    assert starts_in_flight(slot.words) == []

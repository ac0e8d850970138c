"""One connection of the asgi worker: what is refused, what is answered, and how it ends."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from forkmaster.board import layout
from forkmaster.board.counters import read_counters
from forkmaster.board.slot import Slot
from forkmaster.worker.asgi_exchange import Exchange
from tests.http.test_answers import REFUSED as ANSWERS
from tests.unit.http.test_body import REFUSED as BODY
from tests.unit.http.test_head import REFUSED as HEAD
from tests.unit.worker.asgi_talk import RECORDS, Application, Talk, settle, statuses

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
LAST = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"


@pytest.fixture
def slot(tmp_path: Path) -> Iterator[Slot]:
    slot = Slot.create(tmp_path / "slot", serial=1, generation=0, records=RECORDS)
    yield slot
    slot.close()


class Recorder:
    """An application that answers `hello`, and keeps what it was asked."""

    def __init__(
        self,
        body: bytes = b"hello",
        status: int = 200,
        headers: Any = (),
        keeps_scopes: bool = True,
    ) -> None:
        self._keeps_scopes = keeps_scopes
        self.scopes: list[dict[str, Any]] = []
        self.bodies: list[bytes] = []
        self._answer = body
        self._status = status
        self._headers = headers

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if self._keeps_scopes:
            self.scopes.append(scope)
        self.bodies.append(await read(receive))
        start = {"type": "http.response.start", "status": self._status, "headers": self._headers}
        await send(start)
        await send({"type": "http.response.body", "body": self._answer})


async def read(receive: Any) -> bytes:
    parts, more = [], True
    while more:
        message = await receive()
        parts.append(message.get("body", b""))
        more = message.get("more_body", False)
    return b"".join(parts)


def talk(
    application: Application,
    slot: Slot,
    story: Callable[[Talk], Awaitable[None]],
    **settings: Any,
) -> Talk:
    """Run a story about one connection."""
    told: list[Talk] = []

    async def tell() -> None:
        told.append(Talk(application, slot, **settings))
        await story(told[0])

    asyncio.run(tell())
    return told[0]


def ask(application: Application, slot: Slot, *pieces: bytes, **settings: Any) -> Talk:
    """A connection after it was fed `pieces`."""

    async def story(talk: Talk) -> None:
        await talk.say(*pieces)

    return talk(application, slot, story, **settings)


def request(*lines: bytes, body: bytes = b"") -> bytes:
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


# --- What is refused ----------------------------------------------------------------------------

# The tables of the sync worker: one set of rules serves both.
HEADS: dict[str, tuple[int, bytes]] = {
    **{f"head: {name}": (status, head + b"\r\n\r\n") for name, (status, head) in HEAD.items()},
    **{f"answer: {name}": case for name, case in ANSWERS.items() if "body" not in name},
}


@pytest.mark.parametrize("case", HEADS)
def test_a_head_that_is_refused(slot: Slot, case: str) -> None:
    status, data = HEADS[case]
    application = Recorder()

    talk = ask(application, slot, data, limit_request_body=1000)

    assert statuses(talk.written) == [status]
    assert b"\r\nConnection: close\r\n" in talk.written
    assert talk.is_over
    assert not application.scopes
    assert slot.words[layout.REFUSED] == 1


CHUNKED = request(b"POST / HTTP/1.1", b"Host: a", b"Transfer-Encoding: chunked")


@pytest.mark.parametrize("case", BODY)
def test_a_chunked_body_that_is_refused(slot: Slot, case: str) -> None:
    status, data = BODY[case]

    talk = ask(Recorder(), slot, CHUNKED, data, limit_request_fields=3)

    assert statuses(talk.written) == [status]
    assert talk.is_over


def test_a_body_that_is_too_large(slot: Slot) -> None:
    length = request(b"POST / HTTP/1.1", b"Host: a", b"Content-Length: 9")

    for data in (length, CHUNKED + b"9\r\n", CHUNKED + b"4\r\nabcd\r\n4\r\nabcd\r\n4\r\n"):
        talk = ask(Recorder(), slot, data, limit_request_body=8)

        assert statuses(talk.written) == [413]


def test_a_malformed_request_does_not_eat_the_answer_before_it(slot: Slot) -> None:
    application = Recorder()

    talk = ask(application, slot, GET + b"NONSENSE\r\n\r\n")

    assert statuses(talk.written) == [200, 400]
    assert len(application.scopes) == 1


def test_nothing_is_read_after_a_refusal_or_the_last_request(slot: Slot) -> None:
    for first, wanted in ((b"NONSENSE\r\n\r\n", [400]), (LAST, [200])):
        application = Recorder()

        talk = ask(application, slot, first + GET, GET)

        assert statuses(talk.written) == wanted
        assert len(application.scopes) == len([each for each in wanted if each == 200])


# --- What the application sees ------------------------------------------------------------------


def test_the_scope(slot: Slot) -> None:
    application = Recorder()

    ask(application, slot, request(b"GET /a%20b/%C3%A9?x=%20 HTTP/1.1", b"HOST: a", b"X-Y:  b\t"))

    (scope,) = application.scopes
    assert callable(scope.pop("forkmaster.extend_timeout"))
    assert scope == {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "root_path": "",
        "path": "/a b/é",
        "raw_path": b"/a%20b/%C3%A9",
        "query_string": b"x=%20",
        "headers": [(b"host", b"a"), (b"x-y", b"b")],
        "client": ("127.0.0.1", 50000),
        "server": ("127.0.0.1", 8000),
        "state": {"pool": 1},
    }


def test_requests_do_not_share_what_they_may_change(slot: Slot) -> None:
    application = Recorder()

    async def story(talk: Talk) -> None:
        await talk.say(GET)
        scope = application.scopes[0]
        scope["headers"].append((b"x", b"y"))
        scope["state"]["x"] = scope["asgi"]["x"] = 1
        await talk.say(GET)

    talk(application, slot, story)

    assert application.scopes[1]["headers"] == [(b"host", b"a")]
    assert application.scopes[1]["state"] == {"pool": 1}
    assert "x" not in application.scopes[1]["asgi"]


@pytest.mark.parametrize("step", [1, 3, 1000])
def test_bodies_in_any_pieces(slot: Slot, step: int) -> None:
    length = request(b"POST / HTTP/1.1", b"Host: a", b"Content-Length: 5", body=b"12345")
    chunks = CHUNKED + b"3;x=y\r\nabc\r\n2\r\nde\r\n0\r\nX-Sum: 1\r\n\r\n"
    data = length + b"\r\n" + chunks + LAST
    application = Recorder()

    talk = ask(application, slot, *(data[at : at + step] for at in range(0, len(data), step)))

    assert application.bodies == [b"12345", b"abcde", b""]
    assert statuses(talk.written) == [200, 200, 200]
    # A trailer comes after the application was called, and says nothing it could rely on.
    assert all(name != b"x-sum" for scope in application.scopes for name, _ in scope["headers"])


def test_an_absolute_target_overrides_the_host(slot: Slot) -> None:
    application = Recorder()

    ask(application, slot, request(b"GET http://b/c?d HTTP/1.1", b"Host: a"))

    (scope,) = application.scopes
    assert scope["headers"] == [(b"host", b"b")]
    assert (scope["path"], scope["raw_path"], scope["query_string"]) == ("/c", b"/c", b"d")


def test_the_root_path_comes_before_the_path(slot: Slot) -> None:
    application = Recorder()

    ask(application, slot, request(b"GET /a HTTP/1.1", b"Host: a"), root_path="/mounted")

    (scope,) = application.scopes
    assert (scope["root_path"], scope["path"], scope["raw_path"]) == (
        "/mounted",
        "/mounted/a",
        b"/mounted/a",
    )


def test_a_body_that_nobody_takes_stops_the_client(slot: Slot) -> None:
    go = asyncio.Event()

    async def slow(scope: Any, receive: Any, send: Any) -> None:
        await go.wait()
        await Recorder()(scope, receive, send)

    async def story(talk: Talk) -> None:
        await talk.say(request(b"POST / HTTP/1.1", b"Host: a", b"Content-Length: 200000"))
        await talk.say(100_000 * b"x")
        assert talk.transport.reads_paused
        go.set()
        await settle()
        assert not talk.transport.reads_paused
        await talk.say(100_000 * b"x")

    assert statuses(talk(slow, slot, story).written) == [200]


def test_an_interim_answer_only_for_who_waits_for_it(slot: Slot) -> None:
    head = (b"Host: a", b"Expect: 100-continue", b"Content-Length: 1")

    async def story(talk: Talk) -> None:
        assert (
            await talk.say(request(b"POST / HTTP/1.1", *head)) == b"HTTP/1.1 100 Continue\r\n\r\n"
        )
        assert statuses(await talk.say(b"x")) == [200]
        assert statuses(await talk.say(request(b"POST / HTTP/1.1", *head, body=b"x"))) == [200]
        assert await talk.say(request(b"POST / HTTP/1.0", *head)) == b""
        assert statuses(await talk.say(b"x")) == [200]

    talk(Recorder(), slot, story)


def test_who_is_answered_before_the_body_is_asked_no_further(slot: Slot) -> None:
    async def refuses(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 401, "headers": []})
        await send({"type": "http.response.body"})

    head = (b"Host: a", b"Expect: 100-continue", b"Content-Length: 1")
    talk = ask(refuses, slot, request(b"POST / HTTP/1.1", *head))

    assert statuses(talk.written) == [401]
    assert b"Connection: close" in talk.written
    assert talk.is_over


def test_the_rest_of_a_body_is_skipped(slot: Slot) -> None:
    async def hasty(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body"})

    post = request(b"POST / HTTP/1.1", b"Host: a", b"Content-Length: 10")

    assert statuses(ask(hasty, slot, post, b"12345", b"67890" + GET).written) == [200, 200]
    endless = ask(hasty, slot, CHUNKED, *40 * [b"ffff\r\n" + 65535 * b"x" + b"\r\n"])
    assert endless.is_over


def test_a_request_leaves_nothing_for_the_collector(slot: Slot) -> None:
    gc.collect()
    gc.disable()
    try:

        async def story(talk: Talk) -> None:
            await talk.say(*10 * [GET])
            kept = [each for each in gc.get_objects() if type(each) is Exchange]
            assert kept == []

        talk(Recorder(keeps_scopes=False), slot, story)
    finally:
        gc.enable()


# --- What the client sees -----------------------------------------------------------------------


@pytest.mark.parametrize("status", [204, 304])
def test_no_body_where_none_can_be(slot: Slot, status: int) -> None:
    application = Recorder(b"oops", status, [(b"content-length", b"4")])

    talk = ask(application, slot, GET + GET)

    assert statuses(talk.written) == [status, status]
    assert b"oops" not in talk.written
    assert (b"content-length: 4" in talk.written.lower()) is (status == 304)
    assert b"chunked" not in talk.written


def test_no_body_for_head(slot: Slot) -> None:
    talk = ask(Recorder(b"oops"), slot, request(b"HEAD / HTTP/1.1", b"Host: a") + GET)

    assert talk.written.count(b"oops") == 1
    assert statuses(talk.written) == [200, 200]


async def stream(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"ab", "more_body": True})
    await send({"type": "http.response.body", "body": b"", "more_body": True})
    await send({"type": "http.response.body", "body": b"c"})


def test_a_stream_comes_in_chunks(slot: Slot) -> None:
    talk = ask(stream, slot, GET + GET)

    assert talk.written.count(b"Transfer-Encoding: chunked\r\n") == 2
    assert talk.written.count(b"\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n") == 2


def test_an_old_client_gets_no_chunks(slot: Slot) -> None:
    old = request(b"GET / HTTP/1.0", b"Connection: keep-alive")

    streamed = ask(stream, slot, old)
    whole = ask(Recorder(), slot, old + old)

    assert streamed.written.endswith(b"\r\n\r\nabc")
    assert streamed.is_over
    assert b"chunked" not in streamed.written
    assert whole.written.count(b"Connection: keep-alive\r\n") == 2
    assert not whole.is_over


def test_an_old_client_that_does_not_ask_is_closed(slot: Slot) -> None:
    assert ask(Recorder(), slot, b"GET / HTTP/1.0\r\n\r\n").is_over


def test_a_large_piece_comes_whole(slot: Slot) -> None:
    talk = ask(Recorder(1_000_000 * b"x"), slot, GET)

    assert talk.written.endswith(b"\r\n\r\n" + 1_000_000 * b"x")


def test_date_and_server_come_once(slot: Slot) -> None:
    application = Recorder(headers=[(b"Date", b"then"), (b"server", b"mine")])

    talk = ask(application, slot, GET)

    assert talk.written.lower().count(b"\r\ndate: ") == 1
    assert b"server: mine\r\n" in talk.written
    assert b"forkmaster" not in talk.written


def test_what_is_between_us_and_the_client_is_not_the_applications(slot: Slot) -> None:
    headers = [(b"transfer-encoding", b"chunked"), (b"keep-alive", b"5"), (b"te", b"x")]

    talk = ask(Recorder(headers=headers), slot, GET)

    assert b"Content-Length: 5" in talk.written
    for name, _ in headers:
        assert b"\r\n" + name + b": " not in talk.written.lower()


def test_an_application_may_close(slot: Slot) -> None:
    talk = ask(Recorder(headers=[(b"connection", b"close")]), slot, GET + GET)

    assert statuses(talk.written) == [200]
    assert talk.is_over


@pytest.mark.parametrize(
    "pair",
    [
        (b"x", b"a\r\nSet-Cookie: b"),
        (b"x\r\n", b"a"),
        (b"x y", b"a"),
        (b"", b"a"),
        ("x", "a"),
        (b"content-length", b"5, 5"),
    ],
)
def test_a_header_that_cannot_be_is_the_applications_error(
    slot: Slot, pair: tuple[Any, Any]
) -> None:
    talk = ask(Recorder(headers=[pair]), slot, GET)

    assert statuses(talk.written) == [500]
    assert talk.is_over
    assert slot.words[layout.ERRORS] == 1


@pytest.mark.parametrize("status", [100, 99, 1000, "200 OK"])
def test_a_status_that_cannot_be_is_the_applications_error(slot: Slot, status: Any) -> None:
    assert statuses(ask(Recorder(status=status), slot, GET).written) == [500]


@pytest.mark.parametrize(("length", "sent"), [(b"3", b"hel"), (b"9", b"hello")])
def test_a_body_of_another_length_than_said(slot: Slot, length: bytes, sent: bytes) -> None:
    talk = ask(Recorder(headers=[(b"content-length", length)]), slot, GET)

    assert talk.written.endswith(b"\r\n\r\n" + sent)
    # More is cut, and the next request is answered; less cannot be mended.
    assert talk.is_over is (length == b"9")
    assert slot.words[layout.ERRORS] == 1


def test_an_application_that_raises(slot: Slot, caplog: pytest.LogCaptureFixture) -> None:
    async def broken(scope: Any, receive: Any, send: Any) -> None:
        raise ValueError("no")

    talk = ask(broken, slot, request(b"GET /why?x HTTP/1.1", b"Host: a"))

    assert statuses(talk.written) == [500]
    assert talk.is_over
    (record,) = [each for each in caplog.records if each.name == "forkmaster.error"]
    assert record.getMessage() == "GET /why?x from 127.0.0.1: the application raised ValueError"
    assert record.exc_info is not None
    assert read_counters(slot.words)["status_5xx"] == 1


def test_a_stream_that_raises_does_not_look_whole(slot: Slot) -> None:
    async def broken(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"ab", "more_body": True})
        raise SystemExit(3)

    talk = ask(broken, slot, GET)

    assert talk.written.endswith(b"2\r\nab\r\n")
    assert talk.transport.closed


@pytest.mark.parametrize("messages", [(), ({"type": "http.response.body"},)])
def test_an_application_that_answers_nothing(slot: Slot, messages: Any) -> None:
    async def silent(scope: Any, receive: Any, send: Any) -> None:
        for message in messages:
            await send(message)

    assert statuses(ask(silent, slot, GET).written) == [500]


def test_an_answer_after_the_answer_is_an_error(slot: Slot) -> None:
    async def twice(scope: Any, receive: Any, send: Any) -> None:
        await Recorder()(scope, receive, send)
        await send({"type": "http.response.body", "body": b"more"})

    talk = ask(twice, slot, GET + GET)

    assert talk.written.count(b"hello") == 2
    assert b"more" not in talk.written
    assert slot.words[layout.ERRORS] == 2


def test_what_runs_after_the_answer_holds_up_no_one(slot: Slot) -> None:
    go = asyncio.Event()

    async def background(scope: Any, receive: Any, send: Any) -> None:
        await Recorder()(scope, receive, send)
        assert (await receive())["type"] == "http.disconnect"
        await go.wait()

    async def story(talk: Talk) -> None:
        assert statuses(await talk.say(GET, GET)) == [200, 200]
        assert slot.words[layout.IN_FLIGHT] == 0
        assert len(talk.owner.exchanges) == 2
        go.set()
        await settle()
        assert not talk.owner.exchanges

    talk(background, slot, story)


# --- Clients that go ----------------------------------------------------------------------------


async def until_disconnect(scope: Any, receive: Any, send: Any) -> None:
    await read(receive)
    assert (await receive())["type"] == "http.disconnect"
    await Recorder()(scope, receive, send)


def test_an_application_is_told_that_its_client_left(slot: Slot) -> None:
    async def story(talk: Talk) -> None:
        await talk.say(GET)
        assert slot.words[layout.IN_FLIGHT] == 1
        await talk.break_off()
        assert slot.words[layout.IN_FLIGHT] == 0
        assert talk.owner.closed == 1
        assert not talk.owner.connections

    assert talk(until_disconnect, slot, story).written == b""


def test_a_client_that_closed_its_side_is_answered_all_the_same(slot: Slot) -> None:
    async def story(talk: Talk) -> None:
        await talk.say(GET + GET)
        await talk.hang_up()

    answered = talk(until_disconnect, slot, story)

    assert statuses(answered.written) == [200]
    assert answered.is_over


@pytest.mark.parametrize("cancelled", [False, True])
def test_an_application_may_stop_when_its_client_left(
    slot: Slot, caplog: pytest.LogCaptureFixture, cancelled: bool
) -> None:
    async def stops(scope: Any, receive: Any, send: Any) -> None:
        await read(receive)
        await receive()
        if cancelled:
            raise asyncio.CancelledError

    async def story(talk: Talk) -> None:
        await talk.say(GET)
        await talk.hang_up()

    ended = talk(stops, slot, story)

    assert ended.transport.closed
    assert ended.written == b""
    assert not [each for each in caplog.records if each.name == "forkmaster.error"]
    assert slot.words[layout.ERRORS] == 0


def test_an_idle_client_that_closes_is_closed(slot: Slot) -> None:
    async def story(talk: Talk) -> None:
        await talk.say(GET)
        await talk.hang_up()

    assert talk(Recorder(), slot, story).transport.closed


def test_a_body_that_ends_early_is_not_taken_for_whole(slot: Slot) -> None:
    application = Recorder()

    async def story(talk: Talk) -> None:
        await talk.say(request(b"POST / HTTP/1.1", b"Host: a", b"Content-Length: 5"), b"12")
        await talk.hang_up()

    assert statuses(talk(application, slot, story).written) == [400]


def test_a_client_that_reads_slowly_slows_the_application(slot: Slot) -> None:
    sent = []

    async def streams(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for number in range(4):
            await send({"type": "http.response.body", "body": b"x", "more_body": number < 3})
            sent.append(number)

    async def story(talk: Talk) -> None:
        talk.connection.pause_writing()
        await talk.say(GET)
        assert sent == []
        talk.connection.resume_writing()
        await settle()
        assert sent == [0, 1, 2, 3]

    talk(streams, slot, story)


# --- Patience -----------------------------------------------------------------------------------

LATER = 1e9


def test_an_idle_connection_is_ended_in_silence(slot: Slot) -> None:
    async def story(talk: Talk) -> None:
        await talk.say(GET)
        before = talk.written
        talk.connection.check_patience(LATER)
        assert talk.written == before
        assert talk.transport.ended

    talk(Recorder(), slot, story)


def test_one_that_never_asked_too(slot: Slot) -> None:
    async def story(talk: Talk) -> None:
        talk.connection.check_patience(LATER)

    ended = talk(Recorder(), slot, story)

    assert ended.is_over
    assert ended.written == b""


def test_half_a_head_and_half_a_body_are_refused(slot: Slot) -> None:
    post = request(b"POST / HTTP/1.1", b"Host: a", b"Content-Length: 5", body=b"1")
    for data in (b"GET / HT", GET + b"GET", post):

        async def story(talk: Talk, data: bytes = data) -> None:
            await talk.say(data)
            talk.connection.check_patience(LATER)

        ended = talk(Recorder(), slot, story)

        assert statuses(ended.written)[-1:] == [408]
        assert ended.is_over


def test_who_does_not_read_is_cut_off(slot: Slot) -> None:
    async def story(talk: Talk) -> None:
        talk.transport.unsent = 100
        talk.connection.pause_writing()
        await talk.say(GET)
        talk.transport.unsent = 50
        talk.connection.check_patience(LATER)
        assert not talk.transport.aborted
        talk.connection.check_patience(LATER + 1)
        assert not talk.transport.aborted
        talk.connection.check_patience(LATER + 61)
        assert talk.transport.aborted

    talk(Recorder(), slot, story)


def test_zero_is_for_ever(slot: Slot) -> None:
    async def story(talk: Talk) -> None:
        await talk.say(b"GET")
        talk.connection.check_patience(LATER)

    assert not talk(Recorder(), slot, story, header_timeout=0.0).is_over


def test_the_application_is_waited_for(slot: Slot) -> None:
    async def story(talk: Talk) -> None:
        await talk.say(GET)
        talk.connection.check_patience(LATER)
        assert not talk.is_over
        await talk.break_off()

    talk(until_disconnect, slot, story)


def test_a_request_that_takes_too_long_gets_504(slot: Slot) -> None:
    async def sleeps(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.sleep(600)

    async def story(talk: Talk) -> None:
        await talk.say(GET)
        (exchange,) = talk.owner.exchanges
        exchange.time_out(5)
        await settle()
        assert not talk.owner.exchanges

    answered = talk(sleeps, slot, story)

    assert statuses(answered.written) == [504]
    assert answered.is_over
    assert slot.words[layout.ERRORS] == 0
    assert read_counters(slot.words)["status_5xx"] == 1


# --- Settings -----------------------------------------------------------------------------------


def test_without_keepalive_every_answer_is_the_last(slot: Slot) -> None:
    talk = ask(Recorder(), slot, GET, keepalive=0.0)

    assert b"Connection: close\r\n" in talk.written
    assert talk.is_over


def test_the_last_answers_while_draining(slot: Slot) -> None:
    async def story(talk: Talk) -> None:
        await talk.say(GET)
        talk.owner.closes = talk.owner.is_draining = True
        assert b"Connection: close\r\n" in await talk.say(GET)
        assert talk.owner.looks == 1

    assert talk(Recorder(), slot, story).is_over


def test_a_websocket_is_handed_over_with_what_follows(slot: Slot) -> None:
    upgrade = request(
        b"GET /chat?x HTTP/1.1", b"Host: a", b"Connection: Upgrade", b"Upgrade: WebSocket"
    )

    talk = ask(Recorder(), slot, upgrade + b"rest")

    ((scope, rest),) = talk.owner.websockets
    assert scope["path"] == "/chat"
    assert rest == b"rest"
    assert talk.written == b""


def test_another_upgrade_is_not_followed_and_loses_no_body(slot: Slot) -> None:
    application = Recorder()
    post = request(
        b"POST / HTTP/1.1",
        b"Host: a",
        b"Connection: Upgrade",
        b"Upgrade: h2c",
        b"Content-Length: 2",
        body=b"ok",
    )

    talk = ask(application, slot, post)

    assert application.bodies == [b"ok"]
    assert statuses(talk.written) == [200]


def test_an_old_client_gets_no_websocket(slot: Slot) -> None:
    upgrade = request(b"GET / HTTP/1.0", b"Host: a", b"Connection: Upgrade", b"Upgrade: websocket")

    assert not ask(Recorder(), slot, upgrade).owner.websockets

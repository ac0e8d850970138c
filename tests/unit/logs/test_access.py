"""A line per request: every atom, no forgery."""

from __future__ import annotations

import base64
import json
import os
import re
import time
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forkmaster.http.head import Limits, parse_request_line
from forkmaster.logs import access_format
from forkmaster.logs.access import (
    CLIENT_LEFT,
    CUT_OFF,
    REFUSED,
    TIMED_OUT,
    AccessEntry,
    first_line,
)
from forkmaster.logs.access_format import (
    ATOMS,
    clean,
    compile_exchange_writer,
    compile_format,
    compile_writer,
    unknown_atoms,
)

DEFAULT = '%(h)s %(l)s %(u)s %(t)s "%(r)s" %(s)s %(b)s "%(f)s" "%(a)s"'
ENVIRON = {
    "REMOTE_ADDR": "10.0.0.9",
    "PATH_INFO": "/a b",
    "HTTP_REFERER": "https://example.com/",
    "HTTP_USER_AGENT": "curl/8",
    "HTTP_AUTHORIZATION": "Basic " + base64.b64encode(b"ann:secret").decode(),
    "HTTP_X_TRACE": "t1",
    "HTTP_X_REQUEST_ID": "r1",
    "CONTENT_TYPE": "text/plain",
    "wsgi.url_scheme": "https",
}
HEADERS = [
    (b"referer", b"https://example.com/"),
    (b"user-agent", b"curl/8"),
    (b"authorization", ENVIRON["HTTP_AUTHORIZATION"].encode()),
    (b"x-trace", b"t1"),
    (b"x-request-id", b"r1"),
    (b"content-type", b"text/plain"),
]


def wsgi(**changes: object) -> AccessEntry:
    entry = AccessEntry(
        "10.0.0.9",
        "GET",
        "/a%20b?q=1",
        "HTTP/1.1",
        404,
        12,
        1_234_567_890,
        environ=ENVIRON,
        response_headers=[("Content-Length", "12"), ("X-Out", "o1"), ("X-Out", "o2")],
        trusted=True,
        serial=3,
        generation=2,
    )
    for name, value in changes.items():
        setattr(entry, name, value)
    return entry


def asgi(**changes: object) -> AccessEntry:
    out = [(b"content-length", b"12"), (b"X-Out", b"o1"), (b"x-out", b"o2")]
    return wsgi(environ=None, request_headers=HEADERS, response_headers=out, **changes)


def exchange_of(entry: AccessEntry) -> Any:
    """The same request as a WSGI worker has it."""
    origin = SimpleNamespace(trusted=entry.trusted)
    return SimpleNamespace(
        connection=SimpleNamespace(host=entry.client, origin=origin),
        line=parse_request_line(entry.text.encode(), Limits()),
        environ=entry.environ,
        response_headers=entry.response_headers,
        code=entry.status,
        body_sent=entry.sent,
        began=time.monotonic_ns() - entry.duration,
        client_left=bool(entry.ending),
    )


def line_of_exchange(format_: str, entry: AccessEntry) -> str:
    """The line that is written of the exchange which `entry` tells of."""
    written: list[str] = []
    never = partial(pytest.fail, "the client has not left")
    write = compile_exchange_writer(format_, written.append, never, serial=3, generation=2)
    write(exchange_of(entry), entry.duration)
    (line,) = written
    assert line.endswith("\n")
    return line[:-1]


@pytest.mark.parametrize(
    ("atom", "value"),
    [
        ("h", "10.0.0.9"),
        ("l", "-"),
        ("u", "ann"),
        ("r", "GET /a%20b?q=1 HTTP/1.1"),
        ("m", "GET"),
        ("q", "q=1"),
        ("H", "HTTP/1.1"),
        ("s", "404"),
        ("B", "12"),
        ("b", "12"),
        ("f", "https://example.com/"),
        ("a", "curl/8"),
        ("T", "1"),
        ("M", "1234"),
        ("D", "1234567"),
        ("L", "1.234568"),
        ("Q", "-"),
        ("I", "r1"),
        ("E", "-"),
        ("W", "3"),
        ("G", "2"),
        ("{X-Trace}i", "t1"),
        ("{content-type}i", "text/plain"),
        ("{missing}i", "-"),
        ("{x-out}o", "o2"),
        ("{missing}o", "-"),
        ("missing", "-"),
    ],
)
def test_every_atom_for_every_kind_of_worker(atom: str, value: str) -> None:
    line_of = compile_format(f"%({atom})s")

    assert line_of(wsgi()) == value
    assert line_of(asgi()) == value
    assert line_of_exchange(f"%({atom})s", wsgi()) == value
    written: list[str] = []
    compile_writer(f"%({atom})s", written.append)(wsgi())
    assert written == [f"{value}\n"]


@pytest.mark.parametrize("atom", ["h", "u", "f", "a"])
def test_what_an_environ_does_not_have_is_a_dash(atom: str) -> None:
    entry = wsgi(environ={}, client="")

    assert compile_format(f"%({atom})s")(entry) == line_of_exchange(f"%({atom})s", entry) == "-"


def test_a_line_has_the_time_of_its_second(monkeypatch: pytest.MonkeyPatch) -> None:
    wall, monotonic = 1_800_000_000.25, 5.0
    clock = SimpleNamespace(time=lambda: wall, localtime=time.localtime, strftime=time.strftime)
    monkeypatch.setattr(access_format, "time", clock)
    monkeypatch.setattr(access_format, "monotonic_ns", lambda: int(monotonic * 1e9))
    monkeypatch.setattr(access_format, "_common", [0, ""])
    monkeypatch.setitem(access_format.NAMES, "c", access_format._common)
    written: list[str] = []
    write = compile_exchange_writer("%(t)s", written.append, print, serial=3, generation=2)
    line_of = compile_format("%(t)s")
    exchange = exchange_of(wsgi())

    for seconds in (0.0, 0.25, 0.625, 0.75, 1.625, 60.0):
        wall, monotonic = 1_800_000_000.25 + seconds, 5.0 + seconds
        exchange.began = int((monotonic - 0.5) * 1e9)
        write(exchange, 500_000_000)
        local = time.strftime("[%d/%b/%Y:%H:%M:%S %z]", time.localtime(wall))
        assert written.pop() == f"{local}\n"
        assert line_of(wsgi()) == local


def test_an_exchange_whose_client_has_left_is_for_somebody_else() -> None:
    others: list[tuple[object, int]] = []
    write = compile_exchange_writer(
        DEFAULT, pytest.fail, lambda *told: others.append(told), serial=3, generation=2
    )
    exchange = exchange_of(wsgi(ending=CLIENT_LEFT))

    write(exchange, 5)

    assert others == [(exchange, 5)]


@pytest.mark.parametrize(
    ("format_", "line"),
    [
        ("{%(s)s} {{}} %%", "{404} {{}} %"),
        ("'\"\\n\\ %(s)s", "'\"\\n\\ 404"),
        ("%({a\"b'c}i)s%({\\d}e)s%({é}o)s", "---"),
        ("%(s)5s|%(B)05d|%(s)-5s|", "  404|00012|404  |"),
    ],
)
def test_a_format_is_never_taken_for_source(format_: str, line: str) -> None:
    assert compile_format(format_)(wsgi()) == line
    assert line_of_exchange(format_, wsgi()) == line


def test_what_was_cleaned_is_kept_but_not_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access_format, "_TEXTS", 8)

    for number in range(100):
        assert clean(f'a"{number}') == clean(f'a"{number}') == f'a\\"{number}'
        assert len(access_format._cleaned) <= 8
    assert clean("x" * 4096) == "x" * 4096
    assert all(len(text) < 4096 for text in access_format._cleaned)


def test_the_pid_is_that_of_the_process_that_writes() -> None:
    assert compile_format("%(p)s")(wsgi()) == f"<{os.getpid()}>"


def test_the_path_is_the_applications_where_there_is_one() -> None:
    line_of = compile_format("%(U)s")

    assert line_of(wsgi()) == line_of_exchange("%(U)s", wsgi()) == "/a b"
    assert line_of(wsgi(environ={})) == ""
    assert line_of(asgi()) == "/a%20b"


def test_variables_of_the_environ() -> None:
    line_of = compile_format("%({wsgi.url_scheme}e)s %({remote_addr}e)s %({missing}e)s")

    assert line_of(wsgi()) == "https 10.0.0.9 -"
    assert line_of(asgi()) == "- - -"


def test_what_is_missing_is_a_dash() -> None:
    bare = AccessEntry("", "GET", "/", "HTTP/1.1", 400, 0, 0)

    assert re.fullmatch(
        r'- - - \[.+\] "GET / HTTP/1.1" 400 0 "-" "-"', compile_format(DEFAULT)(bare)
    )
    assert compile_format("%(Q)s%(q)s")(bare) == "-"


def test_the_time_is_that_of_the_common_log_format() -> None:
    line = compile_format("%(t)s")(wsgi())

    written = time.mktime(time.strptime(line[1:21], "%d/%b/%Y:%H:%M:%S"))
    assert abs(written - time.time()) < 60
    assert re.fullmatch(r"\[\d\d/[A-Z][a-z]{2}/\d{4}:\d\d:\d\d:\d\d [+-]\d{4}\]", line)


def test_numbers_can_be_formatted_and_percent_signs_written() -> None:
    assert compile_format("%(D)10d|%(s)5s|100%%|50%|%(m)-5s|")(wsgi()) == (
        "   1234567|  404|100%|50%|GET  |"
    )


def test_a_literal_is_only_a_literal() -> None:
    literal = "'\"{e.client}\\n" + "{__import__('os')}" + '"""'

    assert compile_format(literal)(wsgi()) == literal
    assert compile_format("%({x'+y+'}i)s")(wsgi()) == "-"


@pytest.mark.parametrize(
    ("format_", "message"),
    [
        ("%(m)d", "the format cannot be used"),
        ("%(D)z", "the format cannot be used"),
        ("%s", '"%s" names no atom'),
    ],
)
def test_a_format_that_cannot_work_is_refused_at_once(format_: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        compile_format(format_)


def test_names_that_are_no_atoms_are_told() -> None:
    assert unknown_atoms("%(h)s %(z)s %({x}i)s %({x}z)s %%") == ["z", "{x}z"]
    assert unknown_atoms("json") == []


@pytest.mark.parametrize(
    "authorization",
    [
        "Bearer abc",
        "Basic",
        "Basic ???",
        "Basic é",
        "Basic " + base64.b64encode(b"nocolon").decode(),
        "Basic " + base64.b64encode(b":password").decode(),
    ],
)
def test_what_is_no_user_is_a_dash(authorization: str) -> None:
    assert compile_format("%(u)s")(wsgi(environ={"HTTP_AUTHORIZATION": authorization})) == "-"


def test_the_name_of_a_user_cannot_shift_the_fields() -> None:
    credentials = base64.b64encode(b'a b" 200 \xff:').decode()

    user = compile_format("%(u)s")(wsgi(environ={"HTTP_AUTHORIZATION": f"basic {credentials}"}))

    assert " " not in user
    assert json.loads(f'"{user}"') == 'a b" 200 \\xff'


@given(st.text())
def test_whatever_is_sent_stays_inside_its_quotes_and_can_be_read_back(text: str) -> None:
    cleaned = clean(text)

    assert cleaned.isascii()
    assert cleaned.isprintable()
    assert re.fullmatch(r'([^"\\]|\\.)*', cleaned)
    assert json.loads(f'"{cleaned}"') == text


def test_what_is_no_text_is_written_as_text() -> None:
    assert clean(7) == "7"
    assert clean("\x7f") == "\\u007f"


@given(agent=st.text(), target=st.text(), referer=st.text(), user=st.text(), client=st.text())
def test_no_request_can_forge_a_line(
    agent: str, target: str, referer: str, user: str, client: str
) -> None:
    credentials = base64.b64encode(user.encode(errors="replace")).decode()
    environ = {
        "HTTP_USER_AGENT": agent,
        "HTTP_REFERER": referer,
        "HTTP_AUTHORIZATION": f"Basic {credentials}",
    }
    entry = wsgi(environ=environ, target=target, client=client)

    line = compile_format(DEFAULT.replace("%(h)s", '"%(h)s"'))(entry)

    quoted = r'"(?:[^"\\]|\\.)*"'
    assert re.fullmatch(rf"{quoted} - [^ ]+ \[[^\]]+\] {quoted} 404 12 {quoted} {quoted}", line)


def test_json_has_typed_fields() -> None:
    line_of = compile_format("json")

    for line in (line_of(wsgi()), line_of(asgi()), line_of_exchange("json", wsgi())):
        fields = json.loads(line)
        assert fields["status"] == 404
        assert fields["duration"] == 1.234568
        assert fields["queued"] is None
        assert fields["ending"] is None
        assert fields["user"] == "ann"
        assert fields["target"] == "/a%20b?q=1"
        assert fields["request_id"] == "r1"
        assert (fields["worker"], fields["generation"], fields["pid"]) == (3, 2, os.getpid())
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}[+-]\d\d:\d\d", fields["time"])


@given(st.text())
def test_json_is_json_whatever_is_sent(text: str) -> None:
    environ = {"HTTP_USER_AGENT": text, "HTTP_X_REQUEST_ID": text}

    line = compile_format("json")(wsgi(environ=environ, target=text))

    fields = json.loads(line)
    assert "\n" not in line
    assert fields["target"] == text
    assert fields["user_agent"] == (None if text == "-" else text)
    assert fields["queued"] is None


def test_every_atom_of_gunicorn_is_there() -> None:
    assert set("hlutrmUqHsBbfaTMDLp") <= set(ATOMS)


def started(text: str, **changes: object) -> tuple[AccessEntry, AccessEntry]:
    """A request of either kind of worker that took 2 s and bears this X-Request-Start."""
    pair = [(b"x-request-start", text.encode())]
    return (
        wsgi(environ={"HTTP_X_REQUEST_START": text}, duration=2_000_000_000, **changes),
        wsgi(environ=None, request_headers=pair, duration=2_000_000_000, **changes),
    )


@pytest.mark.parametrize(
    "form", ["t={:.3f}", "{:.3f}", "{:.0f}e3"], ids=["nginx", "seconds", "milliseconds"]
)
def test_queue_time_is_what_passed_between_the_proxy_and_the_worker(form: str) -> None:
    entries = started(form.format(time.time() - 5))

    for entry in entries:
        assert 2 <= float(compile_format("%(Q)s")(entry)) < 60
    assert 2 <= float(line_of_exchange("%(Q)s", entries[0])) < 60
    for entry in entries:
        assert 2 <= json.loads(compile_format("json")(entry))["queued"] < 60


@pytest.mark.parametrize("text", ["", "yesterday", "t=", "nan", "inf", "-1", "9999999999"])
def test_what_tells_no_time_is_a_dash(text: str) -> None:
    for entry in started(text):
        assert compile_format("%(Q)s")(entry) == "-"
        assert json.loads(compile_format("json")(entry))["queued"] is None


def test_nobody_but_a_trusted_proxy_tells_when_a_request_came() -> None:
    for entry in started(f"t={time.time() - 5}", trusted=False):
        assert compile_format("%(Q)s")(entry) == "-"


@pytest.mark.parametrize(
    ("status", "ending", "shown"),
    [
        (0, CLIENT_LEFT, "499 client_left"),
        (200, CLIENT_LEFT, "200 client_left"),
        (0, TIMED_OUT, "504 timed_out"),
        (0, CUT_OFF, "502 cut_off"),
        (413, REFUSED, "413 refused"),
    ],
)
def test_a_request_without_a_whole_answer_says_how_it_ended(
    status: int, ending: str, shown: str
) -> None:
    entry = AccessEntry("", "GET", "/", "HTTP/1.1", status, 0, 0, ending=ending)

    assert compile_format("%(s)s %(E)s")(entry) == shown
    assert json.loads(compile_format("json")(entry))["ending"] == ending


@pytest.mark.parametrize(
    ("head", "found"),
    [
        (b"GET /a?b HTTP/1.1\r\nHost: x\r\n", ("GET", "/a?b", "HTTP/1.1")),
        (b"\r\nGET / HTTP/1.1", ("GET", "/", "HTTP/1.1")),
        (b"GET /a b HTTP/1.1", ("GET", "/a", "b HTTP/1.1")),
        (b"GET", ("GET", "-", "-")),
        (b"\x16\x03\x01", ("\x16\x03\x01", "-", "-")),
        (b"", ("-", "-", "-")),
        (b"GET /" + b"a" * 9000, ("GET", "/" + "a" * 2043, "-")),
    ],
)
def test_the_first_line_of_what_nobody_could_read(head: bytes, found: tuple[str, ...]) -> None:
    assert first_line(head) == found

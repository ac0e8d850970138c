"""Whom to believe: names with underscores, forwarded headers, the scheme, SCRIPT_NAME."""

from __future__ import annotations

import logging

import pytest

from forkmaster.http import caches
from forkmaster.http import environ as module
from forkmaster.http.errors import Refused
from forkmaster.http.trust import AllowList, Trust
from tests.unit.http.reading import origin

GET = b"GET /app/x HTTP/1.1\r\nHost: h\r\n"
BARE = GET.rstrip(b"\r\n")


def test_a_name_with_an_underscore_is_dropped() -> None:
    environ, _, _ = origin().read(GET + b"X_Real: evil\r\nX-Real: good")

    assert environ["HTTP_X_REAL"] == "good"


def test_or_refused() -> None:
    with pytest.raises(Refused) as caught:
        origin(trust=Trust(header_map="refuse")).read(GET + b"X_Real: evil")

    assert caught.value.status == 400


def test_or_mapped_if_one_asks_for_danger() -> None:
    reader = origin(trust=Trust(header_map="dangerous"))

    assert reader.read(GET + b"X_Real: a\r\nX-Real: b")[0]["HTTP_X_REAL"] == "a,b"


@pytest.mark.parametrize("header_map", ["drop", "dangerous"])
def test_a_framing_header_with_an_underscore_frames_nothing(header_map: str) -> None:
    reader = origin(trust=Trust(header_map=header_map))

    _, _, fields = reader.read(GET + b"Content_Length: 5\r\nTransfer_Encoding: chunked")

    assert not fields.length
    assert not fields.chunked


def test_a_trusted_proxy_may_send_forwarder_headers() -> None:
    trust = Trust(forwarder_headers=frozenset(("SCRIPT_NAME", "REMOTE_USER")))
    head = GET + b"SCRIPT_NAME: /app\r\nREMOTE_USER: me\r\nOTHER_ONE: x"

    environ, _, _ = origin(trusted=True, trust=trust).read(head)
    other, _, _ = origin(trusted=False, trust=trust).read(head)

    assert (environ["SCRIPT_NAME"], environ["PATH_INFO"]) == ("/app", "/x")
    assert environ["HTTP_REMOTE_USER"] == "me"
    assert "HTTP_OTHER_ONE" not in environ
    assert (other["SCRIPT_NAME"], other["PATH_INFO"]) == ("", "/app/x")
    assert "HTTP_REMOTE_USER" not in other


@pytest.mark.parametrize("name", ["/other", "/ap", "/app/x/y"])
def test_a_path_outside_of_script_name_is_500(name: str) -> None:
    with pytest.raises(Refused) as caught:
        origin(script_name=name).read(BARE)

    assert caught.value.status == 500


@pytest.mark.parametrize("name", ["/app", "/app/x", "/app/"])
def test_script_name_is_taken_off_the_path(name: str) -> None:
    environ, _, _ = origin(script_name=name).read(BARE)

    assert environ["SCRIPT_NAME"] + environ["PATH_INFO"] == "/app/x"


@pytest.mark.parametrize("spelling", [b"Proxy", b"proxy", b"PROXY"])
@pytest.mark.parametrize("header_map", ["drop", "dangerous"])
def test_proxy_never_becomes_http_proxy(spelling: bytes, header_map: str) -> None:
    reader = origin(trusted=True, trust=Trust(header_map, frozenset("*")))

    environ, _, _ = reader.read(GET + spelling + b": http://evil/")

    assert "HTTP_PROXY" not in environ


@pytest.mark.parametrize(
    ("headers", "scheme"),
    [
        (b"", "http"),
        (b"X-Forwarded-Proto: https", "https"),
        (b"X-Forwarded-Ssl: on", "https"),
        (b"X-Forwarded-Proto: http", "http"),
        (b"X-Forwarded-Proto: HTTPS", "http"),  # values are exact
        (b"X-Forwarded-Proto: https\r\nX-Forwarded-Ssl: on", "https"),
        (b"X-Forwarded-Proto: https\r\nX-Forwarded-Proto: https", "https"),
    ],
)
def test_the_scheme_a_trusted_proxy_tells(headers: bytes, scheme: str) -> None:
    environ, _, _ = origin(trusted=True).read((GET + headers).rstrip(b"\r\n"))

    assert environ["wsgi.url_scheme"] == scheme


@pytest.mark.parametrize(
    "headers",
    [
        b"X-Forwarded-Proto: https\r\nX-Forwarded-Ssl: off",
        b"X-Forwarded-Proto: https\r\nX-Forwarded-Proto: http",
    ],
)
def test_headers_that_contradict_each_other_are_refused(headers: bytes) -> None:
    with pytest.raises(Refused) as caught:
        origin(trusted=True).read(GET + headers)

    assert caught.value.status == 400
    assert origin(trusted=False).read(GET + headers)[0]["wsgi.url_scheme"] == "http"


def test_an_ignored_forwarded_header_is_hinted_at_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "forkmaster.error")
    reader = origin(trusted=False)

    for value in (b"https", b"http", b"https"):
        environ, _, _ = reader.read(GET + b"X-Forwarded-Proto: " + value)

    assert environ["wsgi.url_scheme"] == "http"
    assert len(caplog.records) == 1
    assert "forwarded_allow_ips" in caplog.text


@pytest.mark.parametrize(
    ("head", "name", "port"),
    [
        (b"GET / HTTP/1.1\r\nHost: h:81", "h", "81"),
        (b"GET / HTTP/1.1\r\nHost: h", "h", "80"),
        (b"GET / HTTP/1.1\r\nHost: h:", "h", "80"),
        (b"GET / HTTP/1.1\r\nHost: h\r\nX-Forwarded-Proto: https", "h", "443"),
        (b"GET / HTTP/1.1\r\nHost: [::1]", "[::1]", "80"),
        (b"GET / HTTP/1.1\r\nHost: [::1]:81", "[::1]", "81"),
        (b"GET / HTTP/1.0", "localhost", "80"),
        (b"GET http://y:82/ HTTP/1.1\r\nHost: h", "y", "82"),
    ],
)
def test_a_unix_socket_has_the_name_that_was_asked_for(head: bytes, name: str, port: str) -> None:
    environ, _, _ = origin(trusted=True, server_from_host=True).read(head)

    assert (environ["SERVER_NAME"], environ["SERVER_PORT"]) == (name, port)


def test_the_caches_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caches, "LINES", 8)
    monkeypatch.setattr(caches, "BLOCKS", 4)
    reader = origin()

    for number in range(100):
        head = b"GET /%d HTTP/1.1\r\nHost: h\r\nA: %d" % (number, number)
        assert reader.read(head)[0]["HTTP_A"] == str(number)

    assert len(reader._requests) <= 8
    assert len(reader._lines) <= 8
    assert len(reader._blocks) <= 4


def test_the_same_bytes_are_the_same_request_however_often_they_come() -> None:
    reader = origin()
    environ, line, fields = origin().read(BARE + b"\r\nCookie: a=1")

    for _ in range(4):  # read, read and kept, looked up, looked up
        again = reader.whole(GET + b"Cookie: a=1\r\n\r\n")

        assert again == (environ, line, fields.keep_alive)
        again[0].clear()  # the caller's own


@pytest.mark.parametrize(
    ("head", "keep_alive"),
    [
        (b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close", False),
        (b"GET / HTTP/1.0\r\nHost: h", False),
        (b"GET / HTTP/1.0\r\nHost: h\r\nConnection: keep-alive", True),
    ],
)
def test_a_request_seen_before_still_says_whether_it_is_the_last(
    head: bytes, *, keep_alive: bool
) -> None:
    reader = origin()

    for _ in range(3):
        whole = reader.whole(head + b"\r\n\r\n")

        assert whole is not None
        assert whole[2] is keep_alive


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\r\n\r\n",
        GET,
        GET + b"\r\n" + GET + b"\r\n",
        GET + b"\r\nG",
        GET + b"Content-Length: 0\r\n\r\n",
        GET + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        GET + b"Expect: 100-continue\r\n\r\n",
    ],
)
def test_what_is_not_one_request_without_body_is_never_looked_up(data: bytes) -> None:
    reader = origin()

    assert [reader.whole(data) for _ in range(3)] == [None, None, None]


def test_a_refused_request_is_refused_every_time() -> None:
    reader = origin()

    for _ in range(3):
        with pytest.raises(Refused):
            reader.whole(GET + b"Host: other\r\n\r\n")


def test_whole_requests_are_kept_at_the_second_sight_and_few_of_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(caches, "BLOCKS", 8)
    monkeypatch.setattr(module, "_SEEN", 8)
    reader = origin()
    several = [b"GET /%d HTTP/1.1\r\nHost: h\r\n\r\n" % n for n in range(100)]

    for data in several:
        reader.whole(data)
    assert not reader._whole
    for data in several:
        reader.whole(data)
        assert reader.whole(data) == reader.whole(data)
        assert len(reader._whole) <= 8
        assert len(reader._seen) <= 8
    reader.whole(b"GET / HTTP/1.1\r\nHost: h\r\nX: %b\r\n\r\n" % (b"x" * 4096))
    assert all(len(data) <= 4096 for data in reader._whole)


def test_credentials_are_not_kept_as_lines() -> None:
    reader = origin()

    reader.read(GET + b"Cookie: secret\r\nAuthorization: secret\r\nA: b")

    assert not any(b"secret" in line for line in reader._lines)


def test_what_one_request_does_to_its_environ_stays_there() -> None:
    reader = origin()

    reader.read(BARE)[0]["HTTP_X"] = "mine"

    assert "HTTP_X" not in reader.read(BARE)[0]


@pytest.mark.parametrize("host", ["127.0.0.1", "10.1.2.3", "::1", "::ffff:10.0.0.1", "fe80::1%e0"])
def test_allowed_peers(host: str) -> None:
    assert host in AllowList(["127.0.0.1", "10.0.0.0/8", "::1", "fe80::/10"])
    assert host in AllowList(["*"])


@pytest.mark.parametrize("host", ["127.0.0.2", "11.0.0.1", "::2", "::ffff:11.0.0.1", "x", ""])
def test_other_peers(host: str) -> None:
    allowed = AllowList(["127.0.0.1", "10.0.0.0/8", "::1"])

    assert host not in allowed
    assert host not in allowed  # as it remembers

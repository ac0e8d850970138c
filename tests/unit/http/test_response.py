"""What an application may answer, and the bytes that become of it."""

from __future__ import annotations

from typing import Any

import pytest

from forkmaster.http import response
from forkmaster.http.response import OWN_DATE, OWN_SERVER, WANTS_CLOSE, Tails, read_head


def test_the_lines_of_a_head() -> None:
    headers = [("Content-Type", "text/plain"), ("Set-Cookie", "a=b"), ("Set-Cookie", "c=d")]

    code, lines, length, own = read_head("200 OK", headers)

    assert (code, length, own) == (200, -1, 0)
    assert lines == [
        b"HTTP/1.1 200 OK\r\n",
        b"Content-Type: text/plain\r\n",
        b"Set-Cookie: a=b\r\n",
        b"Set-Cookie: c=d\r\n",
    ]


WRONG: list[tuple[Any, Any, type[Exception]]] = [
    ("200 OK\r\nX: y", [], ValueError),
    ("200 OK\n", [], ValueError),
    ("200 \u20ac", [], ValueError),
    ("20 OK", [], ValueError),
    ("9999 X", [], ValueError),
    ("099 X", [], ValueError),
    ("101 Switching Protocols", [], ValueError),
    ("200OK", [], ValueError),
    ("", [], ValueError),
    (b"200 OK", [], TypeError),
    (200, [], TypeError),
    ("200 OK", [("A", "b\r\nC: d")], ValueError),
    ("200 OK", [("A", "b\nC: d")], ValueError),
    ("200 OK", [("A", "b\rC: d")], ValueError),
    ("200 OK", [("A", "b\0")], ValueError),
    ("200 OK", [("A", "\u20ac")], ValueError),
    ("200 OK", [("A\r\nB", "c")], ValueError),
    ("200 OK", [("A b", "c")], ValueError),
    ("200 OK", [("A:", "c")], ValueError),
    ("200 OK", [("", "c")], ValueError),
    ("200 OK", [("\xe9", "c")], ValueError),
    ("200 OK", [("A", 1)], TypeError),
    ("200 OK", [(b"A", b"b")], TypeError),
    ("200 OK", [("A", None)], TypeError),
    ("200 OK", [("A", "b", "c")], TypeError),
    ("200 OK", [None], TypeError),
    ("200 OK", [("A", ["b"])], TypeError),
    ("200 OK", [("Content-Length", "-1")], ValueError),
    ("200 OK", [("Content-Length", "+1")], ValueError),
    ("200 OK", [("Content-Length", "1_0")], ValueError),
    ("200 OK", [("Content-Length", "")], ValueError),
    ("200 OK", [("Content-Length", "1"), ("content-length", "1")], ValueError),
]


@pytest.mark.parametrize(("status", "headers", "error"), WRONG)
def test_what_must_not_reach_a_client_is_an_error(
    status: Any, headers: Any, error: type[Exception]
) -> None:
    for _ in range(2):  # nothing of it is cached
        with pytest.raises(error):
            read_head(status, headers)


def test_an_error_names_the_header_and_not_its_value() -> None:
    with pytest.raises(ValueError, match="X-Secret") as caught:
        read_head("200 OK", [("X-Secret", "token\n")])

    assert "token" not in str(caught.value)


@pytest.mark.parametrize(
    "name", ["Connection", "keep-alive", "TE", "Trailer", "Transfer-Encoding", "Upgrade"]
)
def test_hop_by_hop_headers_are_dropped(name: str) -> None:
    _, lines, _, own = read_head("200 OK", [(name, "x")])

    assert (lines[1:], own) == ([], 0)


def test_an_application_may_ask_to_close() -> None:
    assert read_head("200 OK", [("Connection", "Close")])[3] == WANTS_CLOSE


def test_own_date_and_server() -> None:
    _, lines, _, own = read_head("200 OK", [("date", "now"), ("Server", "mine")])

    assert own == OWN_DATE | OWN_SERVER
    assert lines[1:] == [b"date: now\r\n", b"Server: mine\r\n"]
    assert Tails(0).made(own, close=True, http10=False) == b"Connection: close\r\n\r\n"


def test_a_list_for_a_tuple_is_taken() -> None:
    headers: Any = [["A", "b"]]

    assert read_head("200 OK", headers)[1][1] == b"A: b\r\n"


def test_values_are_stripped_and_latin1() -> None:
    assert read_head("200", [("A", " \xe9\t")])[1] == [b"HTTP/1.1 200 \r\n", b"A: \xe9\r\n"]


def test_no_length_with_204() -> None:
    assert len(read_head("204 No Content", [("Content-Length", "0")])[1]) == 1


def test_the_cache_of_headers_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(response, "_ENTRIES", 8)
    response._headers.clear()

    for number in range(100):
        assert read_head("200 OK", [("A", str(number))])[1][1] == b"A: %d\r\n" % number

    assert len(response._headers) <= 8


def test_the_tails() -> None:
    tails = Tails(0)
    date = b"Server: forkmaster\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\n"

    assert tails.open == date + b"\r\n"
    assert tails.http10 == date + b"Connection: keep-alive\r\n\r\n"
    assert tails.close == date + b"Connection: close\r\n\r\n"
    assert tails.made(0, close=False, http10=False) == tails.open


def test_a_refusal_is_a_whole_answer() -> None:
    answer = response.refusal(400, "because", b"Date: x\r\n")
    head, _, body = answer.partition(b"\r\n\r\n")

    assert head.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert b"Content-Length: %d\r\n" % len(body) in head
    assert b"because" in body
    assert response.refusal(400, "because", b"Date: x\r\n", with_body=False) == head + b"\r\n\r\n"


def test_early_hints() -> None:
    hints = response.early_hints([("Link", "</a>; rel=preload"), (b"A", b"b")])

    assert hints == b"HTTP/1.1 103 Early Hints\r\nLink: </a>; rel=preload\r\nA: b\r\n\r\n"
    with pytest.raises(ValueError, match="Link"):
        response.early_hints([("Link", "a\r\nb")])

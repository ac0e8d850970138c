"""Every rule about the head of a request: the bytes, the status, and the section that says so."""

from __future__ import annotations

import pytest

from forkmaster.http.errors import Refused
from forkmaster.http.head import Limits, check_unfinished, is_host
from tests.unit.http.reading import origin, read

GET = b"GET / HTTP/1.1\r\nHost: x\r\n"
POST = b"POST / HTTP/1.1\r\nHost: x\r\n"

# Name: (status, the head without its last empty line).  Sections of RFC 9112 unless named.
REFUSED: dict[str, tuple[int, bytes]] = {
    # 2.2: one reading of where a line ends
    "bare CR in the line": (400, b"GET /a\rb HTTP/1.1\r\nHost: x"),
    "bare LF in the line": (400, b"GET / HTTP/1.1\nX: y\r\nHost: x"),
    "bare CR in a value": (400, GET + b"A: b\rC: d"),
    "bare LF in a value": (400, GET + b"A: b\nC: d"),
    "CR CR LF": (400, b"GET / HTTP/1.1\r\r\nHost: x"),
    # 3: the request line
    "HTTP/0.9": (400, b"GET /"),
    "no target": (400, b"GET HTTP/1.1\r\nHost: x"),
    "empty target": (400, b"GET  HTTP/1.1\r\nHost: x"),
    "two spaces": (400, b"GET  / HTTP/1.1\r\nHost: x"),
    "two spaces before the version": (400, b"GET /  HTTP/1.1\r\nHost: x"),
    "a tab for a space": (400, b"GET\t/ HTTP/1.1\r\nHost: x"),
    "a space in the target": (400, b"GET /a b HTTP/1.1\r\nHost: x"),
    "a space at the end": (400, b"GET / HTTP/1.1 \r\nHost: x"),
    "a space at the start": (400, b" GET / HTTP/1.1\r\nHost: x"),
    "a method that is no token": (400, b"G(T / HTTP/1.1\r\nHost: x"),
    "an empty method": (400, b" / HTTP/1.1\r\nHost: x"),
    "NUL in the target": (400, b"GET /\0 HTTP/1.1\r\nHost: x"),
    "a control character in the target": (400, b"GET /\x7f HTTP/1.1\r\nHost: x"),
    "non-ASCII in the target": (400, b"GET /\xc3\xa9 HTTP/1.1\r\nHost: x"),
    "a fragment (3.2)": (400, b"GET /a#b HTTP/1.1\r\nHost: x"),
    # 2.3: versions
    "HTTP/2.0": (505, b"GET / HTTP/2.0\r\nHost: x"),
    "HTTP/1.2": (505, b"GET / HTTP/1.2\r\nHost: x"),
    "HTTP/0.9 by name": (505, b"GET / HTTP/0.9\r\nHost: x"),
    "the preface of HTTP/2": (505, b"PRI * HTTP/2.0"),
    "http/1.1": (400, b"GET / http/1.1\r\nHost: x"),
    "HTTP/1.10": (400, b"GET / HTTP/1.10\r\nHost: x"),
    "HTTP/1": (400, b"GET / HTTP/1\r\nHost: x"),
    "HTTP/1,1": (400, b"GET / HTTP/1,1\r\nHost: x"),
    "HTP/1.1": (400, b"GET / HTP/1.1\r\nHost: x"),
    # 3.2: the four forms of a target
    "a relative target": (400, b"GET index.html HTTP/1.1\r\nHost: x"),
    "* with GET (3.2.4)": (400, b"GET * HTTP/1.1\r\nHost: x"),
    "an authority with GET (3.2.3)": (400, b"GET x:80 HTTP/1.1\r\nHost: x"),
    "another scheme": (400, b"GET ftp://x/ HTTP/1.1\r\nHost: x"),
    "no authority (9110 4.2.1)": (400, b"GET http:///a HTTP/1.1\r\nHost: x"),
    "only a port (9110 4.2.1)": (400, b"GET http://:80/a HTTP/1.1\r\nHost: x"),
    "user information (9110 4.2.4)": (400, b"GET http://u@x/ HTTP/1.1\r\nHost: x"),
    "backslashes for slashes": (400, b"GET http:\\\\x\\ HTTP/1.1\r\nHost: x"),
    "CONNECT": (501, b"CONNECT x:443 HTTP/1.1\r\nHost: x:443"),
    "CONNECT without port": (400, b"CONNECT x HTTP/1.1\r\nHost: x"),
    "CONNECT with a path": (400, b"CONNECT /a HTTP/1.1\r\nHost: x"),
    # 3.2: Host
    "no Host": (400, b"GET / HTTP/1.1"),
    "two Hosts": (400, GET + b"Host: x"),
    "two Hosts, one absolute": (400, b"GET http://x/ HTTP/1.1\r\nHost: x\r\nhost: x"),
    "an absolute target without Host": (400, b"GET http://x/ HTTP/1.1"),
    "Host with a space": (400, b"GET / HTTP/1.1\r\nHost: a b"),
    "Host with a slash": (400, b"GET / HTTP/1.1\r\nHost: a/b"),
    "Host with a user": (400, b"GET / HTTP/1.1\r\nHost: u@h"),
    "Host with a comma": (400, b"GET / HTTP/1.1\r\nHost: a,b"),
    "Host with a bad port": (400, b"GET / HTTP/1.1\r\nHost: h:8x"),
    "malformed Host in HTTP/1.0": (400, b"GET / HTTP/1.0\r\nHost: a b"),
    # 5: fields
    "no colon": (400, GET + b"nothing"),
    "a known name without colon": (400, GET + b"Hostx"),
    "an empty name": (400, GET + b": a"),
    "an empty line of LF": (400, GET + b"\nA: b"),
    "a space before the colon (5.1)": (400, GET + b"A : b"),
    "a tab before the colon (5.1)": (400, GET + b"A\t: b"),
    "a space before the name (CVE-2024-27982)": (400, b"GET / HTTP/1.1\r\n A: b\r\nHost: x"),
    "a folded line (5.2)": (400, GET + b"A: b\r\n c"),
    "a line folded with a tab (5.2)": (400, GET + b"A: b\r\n\tc"),
    "a name that is no token": (400, GET + b"A(b): c"),
    "a name in latin-1": (400, GET + b"\xe9: c"),
    "NUL in a name": (400, GET + b"A\0: b"),
    "NUL in a value (9110 5.5)": (400, GET + b"A: b\0"),
    "DEL in a value (9110 5.5)": (400, GET + b"A: b\x7f"),
    "a control character (9110 5.5)": (400, GET + b"A: b\x0b"),
    # 6.2 and 6.3, RFC 9110 8.6: Content-Length
    "a sign": (400, POST + b"Content-Length: +5"),
    "a minus": (400, POST + b"Content-Length: -0"),
    "an underscore": (400, POST + b"Content-Length: 1_0"),
    "hexadecimal": (400, POST + b"Content-Length: 0x5"),
    "a space inside": (400, POST + b"Content-Length: 5 5"),
    "no number": (400, POST + b"Content-Length:"),
    "a fraction": (400, POST + b"Content-Length: 5.0"),
    "a superscript digit": (400, POST + b"Content-Length: \xb2"),
    "a vertical tab (CVE-2019-16789)": (400, POST + b"Content-Length: 5\x0b"),
    "a list": (400, POST + b"Content-Length: 5, 5"),
    "two lines": (400, POST + b"Content-Length: 5\r\nContent-Length: 5"),
    "5000 digits": (413, POST + b"Content-Length: " + b"1" * 5000),
    "two Content-Types (9110 5.3)": (400, POST + b"Content-Type: a/b\r\nContent-Type: c/d"),
    # 6.1 and 6.3: Transfer-Encoding
    "both framings": (400, POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked"),
    "both, the other way round": (400, POST + b"Transfer-Encoding: chunked\r\nContent-Length: 0"),
    "chunked in HTTP/1.0": (400, b"POST / HTTP/1.0\r\nHost: x\r\nTransfer-Encoding: chunked"),
    "identity": (400, POST + b"Transfer-Encoding: identity"),
    "gzip": (400, POST + b"Transfer-Encoding: gzip"),
    "gzip, chunked": (501, POST + b"Transfer-Encoding: gzip, chunked"),
    "chunked, gzip": (400, POST + b"Transfer-Encoding: chunked, gzip"),
    "chunked twice": (400, POST + b"Transfer-Encoding: chunked, chunked"),
    "two lines of chunked": (
        400,
        POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
    ),
    "two lines, one other": (400, POST + b"Transfer-Encoding: x\r\nTransfer-Encoding: chunked"),
    "an empty coding": (400, POST + b"Transfer-Encoding:"),
    "a comma before": (400, POST + b"Transfer-Encoding: ,chunked"),
    "chunked quoted": (400, POST + b'Transfer-Encoding: "chunked"'),
    "chunked with a parameter": (400, POST + b"Transfer-Encoding: chunked;a=b"),
    "chunked after a vertical tab": (400, POST + b"Transfer-Encoding: \x0bchunked"),
    "chunked after a latin-1 space": (400, POST + b"Transfer-Encoding: \xa0chunked"),
    # RFC 9110 10.1.1
    "an unknown expectation": (417, POST + b"Expect: 200-ok"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_no_recipient_may_accept_is_refused(case: str) -> None:
    status, head = REFUSED[case]
    reader = origin()

    for _ in range(2):  # nothing of it gets into a cache
        with pytest.raises(Refused) as caught:
            reader.read(head)
        assert caught.value.status == status


# Name: (the head, what the environ has to have).
ACCEPTED: dict[str, tuple[bytes, dict[str, str]]] = {
    "the smallest": (
        b"GET / HTTP/1.1\r\nHost: x",
        {"REQUEST_METHOD": "GET", "PATH_INFO": "/", "QUERY_STRING": "", "HTTP_HOST": "x"},
    ),
    "HTTP/1.0 without Host": (b"GET / HTTP/1.0", {"SERVER_PROTOCOL": "HTTP/1.0"}),
    "any token as method": (b"a!#$%&'*+-.^_`|~9 / HTTP/1.1\r\nHost: x", {}),
    "a method in lower case": (b"get / HTTP/1.1\r\nHost: x", {"REQUEST_METHOD": "get"}),
    "a query": (
        b"GET /a?b=c&d=%20?e HTTP/1.1\r\nHost: x",
        {"PATH_INFO": "/a", "QUERY_STRING": "b=c&d=%20?e", "RAW_URI": "/a?b=c&d=%20?e"},
    ),
    "percent-encoded UTF-8, as latin-1": (
        b"GET /caf%C3%A9%2f HTTP/1.1\r\nHost: x",
        {"PATH_INFO": "/caf\xc3\xa9/", "RAW_URI": "/caf%C3%A9%2f"},
    ),
    "a malformed percent": (b"GET /%zz% HTTP/1.1\r\nHost: x", {"PATH_INFO": "/%zz%"}),
    "two slashes": (b"GET //a//b HTTP/1.1\r\nHost: x", {"PATH_INFO": "//a//b"}),
    "dots are the application's": (b"GET /a/../b HTTP/1.1\r\nHost: x", {"PATH_INFO": "/a/../b"}),
    "OPTIONS *": (b"OPTIONS * HTTP/1.1\r\nHost: x", {"PATH_INFO": "", "RAW_URI": "*"}),
    "an absolute target overrides Host (3.2.2)": (
        b"GET http://y:81/a?b HTTP/1.1\r\nHost: x",
        {"HTTP_HOST": "y:81", "PATH_INFO": "/a", "QUERY_STRING": "b"},
    ),
    "an absolute target without path": (b"GET HTTP://y?q HTTP/1.1\r\nHost: x", {"PATH_INFO": "/"}),
    "an empty Host": (b"GET / HTTP/1.1\r\nHost:", {"HTTP_HOST": ""}),
    "Host as IPv6": (b"GET / HTTP/1.1\r\nHost: [::1]:8000", {"HTTP_HOST": "[::1]:8000"}),
    "no space after the colon": (b"GET / HTTP/1.1\r\nHost:x", {"HTTP_HOST": "x"}),
    "spaces and tabs around a value": (GET + b"A: \t b c \t ", {"HTTP_A": "b c"}),
    "an empty value": (GET + b"A:", {"HTTP_A": ""}),
    "a value in latin-1": (GET + b"A: \xe9", {"HTTP_A": "\xe9"}),
    "a tab inside a value": (GET + b"A: b\tc", {"HTTP_A": "b\tc"}),
    "repeated lines": (GET + b"Accept: a\r\naccept: b\r\nACCEPT: c", {"HTTP_ACCEPT": "a,b,c"}),
    "several Cookie lines (9113 8.2.3)": (
        GET + b"Cookie: a=b\r\nCookie: c=d",
        {"HTTP_COOKIE": "a=b; c=d"},
    ),
    "the two without HTTP_": (
        GET + b"Content-Type: a/b\r\nContent-Length: 0",
        {"CONTENT_TYPE": "a/b", "CONTENT_LENGTH": "0"},
    ),
    "leading zeros": (GET + b"Content-Length: 000", {}),
    "an upgrade is a plain request": (
        GET + b"Connection: Upgrade\r\nUpgrade: h2c",
        {"HTTP_UPGRADE": "h2c"},
    ),
    "an expectation in HTTP/1.0": (b"GET / HTTP/1.0\r\nExpect: 100-Continue", {}),
}


@pytest.mark.parametrize("case", ACCEPTED)
def test_what_is_legal_is_read(case: str) -> None:
    head, expected = ACCEPTED[case]
    reader = origin()

    first = reader.read(head)[0]
    again = reader.read(head)[0]  # from the caches

    assert {key: first[key] for key in expected} == expected
    assert first == again
    assert first is not again


KEPT = {
    b"HTTP/1.1": True,
    b"HTTP/1.0": False,
    b"HTTP/1.1\r\nConnection: close": False,
    b"HTTP/1.1\r\nConnection: Close": False,
    b"HTTP/1.1\r\nConnection: a, close ,b": False,
    b"HTTP/1.1\r\nConnection: keep-alive\r\nConnection: close": False,
    b"HTTP/1.1\r\nConnection: closed": True,
    b"HTTP/1.0\r\nConnection: Keep-Alive": True,
    b"HTTP/1.0\r\nConnection: keep-alive, close": False,
}


@pytest.mark.parametrize("rest", KEPT)
def test_whether_the_connection_stays(rest: bytes) -> None:
    assert read(b"GET / " + rest + b"\r\nHost: x\r\n\r\n").keep_alive is KEPT[rest]


@pytest.mark.parametrize(
    ("limits", "head", "status"),
    [
        (Limits(line=20), b"GET /0123456 HTTP/1.1\r\nHost: x", 414),
        (Limits(fields=2), GET + b"A: b\r\nC: d", 431),
        (Limits(field_size=9), GET + b"A: bcdefgh", 431),
        (Limits(head=30), GET + b"A: bcdef\r\n" * 3 + b"E: f", 431),
    ],
)
def test_each_limit_of_a_head(limits: Limits, head: bytes, status: int) -> None:
    with pytest.raises(Refused) as caught:
        origin(limits=limits).read(head)

    assert caught.value.status == status


def test_what_is_just_inside_the_limits_is_read() -> None:
    head = b"GET /012345 HTTP/1.1\r\nHost: x\r\nA: bcdefg"

    origin(limits=Limits(line=20, fields=2, field_size=9, head=60)).read(head)
    origin(limits=Limits(0, 0, 0, 0)).read(head)


UNFINISHED = {
    b"\x16\x03\x01": 400,  # TLS
    b"\n": 400,
    b"\0": 400,
    b"GET / HTTP/1.1\n": 400,
    b"GET / HTTP/1.1\r\nHost: x\n\n": 400,
    b"GET /" + b"a" * 100: 414,
    b"GET /" + b"a" * 100 + b" HTTP/1.1\r\n": 414,
    b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 100: 431,
}


@pytest.mark.parametrize("data", UNFINISHED)
def test_a_head_that_cannot_become_valid_is_refused_early(data: bytes) -> None:
    with pytest.raises(Refused) as caught:
        check_unfinished(data, Limits(line=50, head=300))

    assert caught.value.status == UNFINISHED[data]


def test_the_start_of_a_valid_head_is_waited_for() -> None:
    head = b"\r\nGET / HTTP/1.1\r\nHost: x\r\n\r"

    for end in range(len(head) + 1):
        check_unfinished(head[:end], Limits())


@pytest.mark.parametrize(
    "host", ["", "x", "a.b-c_d~", "127.0.0.1:80", "[::1]", "[1::2.3.4.5]:65535", "x:", "%41"]
)
def test_hosts(host: str) -> None:
    assert is_host(host)


@pytest.mark.parametrize(
    "host",
    ["a b", "a/b", "a?b", "a#b", "u@h", "a\\b", "h:8x", "h:65536", "h:123456", "[::1", "[::g]",
     "[1]", "::1", "[v1.x]", "a:b:1", "h:-1", "%4", "x\xe9", 'a"b', "<a>", "[::1]x"],
)  # fmt: skip
def test_what_is_no_host(host: str) -> None:
    assert not is_host(host)

"""The scope of a request, and whom a proxy may speak for."""

from __future__ import annotations

from typing import Any

import pytest

from forkmaster.http.errors import Refused
from forkmaster.http.scope import Fields, ScopeReader, original_client, split_host, wire_head
from forkmaster.http.trust import AllowList, Trust


def read(*lines: str, **reader: Any) -> tuple[dict[str, Any], Fields]:
    head = "\r\n".join(("GET /a HTTP/1.1", "Host: a", *lines))
    return ScopeReader(**reader).read(head.encode())


@pytest.mark.parametrize(
    ("forwarded_for", "client"),
    [
        ("203.0.113.9", ("203.0.113.9", 0)),
        ("203.0.113.9:4711", ("203.0.113.9", 4711)),
        ("[2001:db8::1]:4711", ("2001:db8::1", 4711)),
        ("1.1.1.1, 203.0.113.9", ("203.0.113.9", 0)),
        ("1.1.1.1,203.0.113.9, 10.1.2.3", ("203.0.113.9", 0)),
        ("10.9.9.9, 10.1.2.3", ("10.9.9.9", 0)),
        ("", None),
        ("unknown", ("unknown", 0)),
    ],
)
def test_the_client_behind_the_proxies(forwarded_for: str, client: tuple[str, int] | None) -> None:
    assert original_client(forwarded_for, AllowList(("127.0.0.1", "10.0.0.0/8"))) == client


@pytest.mark.parametrize(
    ("text", "host"),
    [("", None), ("[::1", ("::1", 0)), ("a:99999999", ("a", 0)), ("::1", ("::1", 0))],
)
def test_a_malformed_entry_has_no_port(text: str, host: tuple[str, int] | None) -> None:
    assert split_host(text) == host


def test_several_lines_are_one_list() -> None:
    lines = ("X-Forwarded-For: 1.1.1.1", "X-Forwarded-For: 203.0.113.9, 10.1.2.3")

    _, fields = read(*lines, trusted=True, proxies=AllowList(("10.0.0.0/8",)))

    assert fields.client == ("203.0.113.9", 0)


def test_a_peer_that_is_not_trusted_speaks_for_itself() -> None:
    scope, fields = read("X-Forwarded-For: 1.1.1.1", "X-Forwarded-Proto: https", "SCRIPT_NAME: /a")

    assert (fields.client, fields.scheme, fields.root_path) == (None, None, None)
    assert (b"x-forwarded-for", b"1.1.1.1") in scope["headers"]
    assert scope["root_path"] == ""


@pytest.mark.parametrize(
    ("lines", "scheme"),
    [
        ((), None),
        (("X-Forwarded-Proto: https",), "https"),
        (("X-Forwarded-SSL: on",), "https"),
        (("X-Forwarded-Proto: http",), "http"),
        (("X-Forwarded-Proto: https", "X-Forwarded-SSL: on"), "https"),
    ],
)
def test_the_scheme_that_a_proxy_tells(lines: tuple[str, ...], scheme: str | None) -> None:
    assert read(*lines, trusted=True)[1].scheme == scheme


def test_headers_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(Refused, match="contradict"):
        read("X-Forwarded-Proto: https", "X-Forwarded-SSL: off", trusted=True)


@pytest.mark.parametrize(
    ("header_map", "names"), [("drop", [b"host"]), ("dangerous", [b"host", b"x_user"])]
)
def test_names_that_others_could_be_taken_for(header_map: str, names: list[bytes]) -> None:
    scope, _ = read("X_User: root", trust=Trust(header_map))

    assert [name for name, _ in scope["headers"]] == names


def test_they_may_be_refused() -> None:
    with pytest.raises(Refused, match="underscore"):
        read("X_User: root", trust=Trust("refuse"))


def test_a_trusted_proxy_tells_where_the_application_is_mounted() -> None:
    scope, _ = read("SCRIPT_NAME: /a", trusted=True)

    assert (scope["root_path"], scope["path"]) == ("/a", "/a")


@pytest.mark.parametrize("root", ["/b", "/"])
def test_a_mount_that_the_path_is_not_under(root: str) -> None:
    if root == "/":
        assert read("SCRIPT_NAME: /", trusted=True)[0]["root_path"] == "/"
        return
    with pytest.raises(Refused, match="SCRIPT_NAME"):
        read(f"SCRIPT_NAME: {root}", trusted=True)


def test_a_path_that_is_no_utf_8_is_shown_as_far_as_it_is() -> None:
    scope, _ = ScopeReader().read(b"GET /%ff%C3%A9 HTTP/1.1\r\nHost: a")

    assert scope["path"] == "/\ufffdé"


@pytest.mark.parametrize("target", [b"http://b", b"http://b?x=1", b"https://b/?x=1"])
def test_an_absolute_target_has_at_least_a_slash(target: bytes) -> None:
    scope, _ = ScopeReader().read(b"GET " + target + b" HTTP/1.1\r\nHost: a")

    assert (scope["path"], scope["raw_path"]) == ("/", b"/")


def test_the_server_itself() -> None:
    scope, _ = ScopeReader().read(b"OPTIONS * HTTP/1.1\r\nHost: a")

    assert (scope["path"], scope["raw_path"]) == ("*", b"*")


def test_a_reader_that_is_fed_ever_new_heads_forgets() -> None:
    reader = ScopeReader()

    for number in range(5000):
        head = b"GET /%d HTTP/1.1\r\nHost: a\r\nX: %d" % (number, number)
        assert reader.read(head)[0]["path"] == f"/{number}"

    assert len(reader._targets) <= 2048
    assert len(reader._lines) <= 2048
    assert len(reader._blocks) <= 256


def test_credentials_are_not_remembered() -> None:
    reader = ScopeReader()

    reader.read(b"GET / HTTP/1.1\r\nHost: a\r\nCookie: secret\r\nX: " + 3000 * b"x")

    assert not any(b"secret" in line for line in (*reader._lines, *reader._blocks))


def test_a_head_can_be_written_again() -> None:
    scope, _ = read("Upgrade: websocket")

    assert wire_head(scope, b"/a") == (b"GET /a HTTP/1.1\r\nhost: a\r\nupgrade: websocket\r\n\r\n")

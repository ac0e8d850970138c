"""The text people write for an address is parsed once, and its canonical text parses back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forkmaster.addresses import DescriptorAddress, TCPAddress, UnixAddress, parse_address


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("127.0.0.1:8000", "127.0.0.1:8000"),
        (" 127.0.0.1:8000 ", "127.0.0.1:8000"),
        ("localhost", "localhost:8000"),
        ("LOCALHOST:1", "localhost:1"),
        ("my_service.internal:80", "my_service.internal:80"),
        ("", "0.0.0.0:8000"),
        (":6543", "0.0.0.0:6543"),
        ("8080", "127.0.0.1:8080"),
        ("0.0.0.0:0", "0.0.0.0:0"),
        ("host:65535", "host:65535"),
        ("tcp://host:81", "host:81"),
        ("tcp://host", "host:8000"),
        ("[::1]:80", "[::1]:80"),
        ("[::]", "[::]:8000"),
        ("[FE80::1%eth0]:80", "[fe80::1%eth0]:80"),
        ("[::ffff:10.0.0.1]:80", "[::ffff:10.0.0.1]:80"),
        ("unix:/run/x.sock", "unix:/run/x.sock"),
        ("unix:///run/x.sock", "unix:/run/x.sock"),
        ("unix:relative.sock", "unix:relative.sock"),
        ("unix:@name", "unix:@name"),
        ("unix:\0name", "unix:@name"),
        ("unix:8000", "unix:8000"),
        ("fd://3", "fd://3"),
    ],
)
def test_an_address_has_one_canonical_text(text: str, canonical: str) -> None:
    address = parse_address(text)

    assert str(address) == canonical
    assert parse_address(canonical) == address


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "::1",
            '"::1" has more than one colon; write an IPv6 address in brackets, as [::1]:8000',
        ),
        (
            "host:80:81",
            '"host:80:81" has more than one colon; '
            "write an IPv6 address in brackets, as [::1]:8000",
        ),
        ("[::1", '"[::1" is not an IPv6 address with a port; write it as [::1]:8000'),
        ("[::1]80", '"[::1]80" is not an IPv6 address with a port; write it as [::1]:8000'),
        ("[name]:80", '"[name]:80" is not an IPv6 address with a port; write it as [::1]:8000'),
        ("host:http", '"http" is not a port number, in "host:http"; write HOST:PORT'),
        ("0\n0", r"'0\n0' is not an address"),
        ("host:-1", '"-1" is not a port number, in "host:-1"; write HOST:PORT'),
        ("host:８０", '"８０" is not a port number, in "host:８０"; write HOST:PORT'),
        ("host:", '"" is not a port number, in "host:"; write HOST:PORT'),
        ("[::1]:", '"" is not a port number, in "[::1]:"; write HOST:PORT'),
        ("host:70000", 'port 70000 is too large, in "host:70000"; ports end at 65535'),
        ("70000", 'port 70000 is too large, in "70000"; ports end at 65535'),
        (
            "/run/x.sock",
            '"/run/x.sock" is not an address; for a unix socket write unix:/run/x.sock',
        ),
        ("http://host:80", '"http://host:80" is a URL; write HOST:PORT, without http://'),
        ("ho st:80", '"ho st:80" is not an address: "ho st" cannot be a host name'),
        ("unix:", '"unix:" names no path; write unix:/run/name.sock'),
        ("unix:@", '"unix:@" names no path; write unix:/run/name.sock'),
        ("fd://", '"fd://" names no file descriptor; write fd:// and a number, as fd://3'),
        ("fd://x", '"fd://x" names no file descriptor; write fd:// and a number, as fd://3'),
        ("a\0b", "'a\\x00b' contains a NUL character"),
    ],
)
def test_a_wrong_address_is_explained(text: str, message: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011  compared in full below
        parse_address(text)

    assert str(caught.value) == message


def test_a_port_alone_is_one_of_the_default_host() -> None:
    assert parse_address("80", default_host="0.0.0.0") == TCPAddress("0.0.0.0", 80)


def test_an_abstract_name_starts_with_nul() -> None:
    address = parse_address("unix:@name")

    assert address == UnixAddress("\0name")
    assert address.abstract
    assert not UnixAddress("/run/x").abstract


def test_a_descriptor_is_a_number() -> None:
    assert parse_address("fd://7") == DescriptorAddress(7)


@given(st.text())
def test_any_text_is_an_address_or_a_value_error(text: str) -> None:
    try:
        address = parse_address(text)
    except ValueError:
        return
    assert parse_address(str(address)) == address


@given(st.integers(0, 65535), st.from_regex(r"[a-z][a-z0-9.-]{0,20}", fullmatch=True))
def test_every_host_and_port_come_through(port: int, host: str) -> None:
    assert parse_address(f"{host}:{port}") == TCPAddress(host, port)

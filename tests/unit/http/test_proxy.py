"""The PROXY protocol, versions 1 and 2."""

from __future__ import annotations

import struct

import pytest

from forkmaster.http.errors import Refused
from forkmaster.http.proxy import Proxied, parse

SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
TCP4 = bytes([1, 2, 3, 4, 5, 6, 7, 8]) + struct.pack("!HH", 1000, 80)
TCP6 = bytes(15) + b"\1" + bytes(15) + b"\2" + struct.pack("!HH", 1000, 80)


def v2(family: int, block: bytes, command: int = 0x21) -> bytes:
    return SIGNATURE + struct.pack("!BBH", command, family, len(block)) + block


ACCEPTED: dict[bytes, Proxied] = {
    b"PROXY TCP4 1.2.3.4 5.6.7.8 1000 80\r\n": Proxied("TCP4", "1.2.3.4", 1000, "5.6.7.8", 80),
    b"PROXY TCP6 ::1 ::2 0 65535\r\n": Proxied("TCP6", "::1", 0, "::2", 65535),
    b"PROXY UNKNOWN\r\n": Proxied("UNKNOWN"),
    b"PROXY UNKNOWN whatever follows\r\n": Proxied("UNKNOWN"),
    v2(0x11, TCP4): Proxied("TCP4", "1.2.3.4", 1000, "5.6.7.8", 80),
    v2(0x11, TCP4 + b"\x04\x00\x01x"): Proxied("TCP4", "1.2.3.4", 1000, "5.6.7.8", 80),
    v2(0x21, TCP6): Proxied("TCP6", "::1", 1000, "::2", 80),
    v2(0x31, bytes(216)): Proxied("UNIX"),
    v2(0x00, b""): Proxied("UNKNOWN"),
    v2(0x12, TCP4): Proxied("UNKNOWN"),
    v2(0x00, b"", command=0x20): Proxied("LOCAL"),
    v2(0x11, TCP4, command=0x20): Proxied("LOCAL"),
}


@pytest.mark.parametrize("data", ACCEPTED)
def test_a_header_is_read_to_its_end(data: bytes) -> None:
    rest = b"GET / HTTP/1.1\r\n"

    assert parse(data + rest, "auto") == (ACCEPTED[data], rest)


@pytest.mark.parametrize("data", ACCEPTED)
def test_a_part_of_a_header_is_waited_for(data: bytes) -> None:
    for end in range(len(data)):
        assert parse(data[:end], "auto") is None


REFUSED: dict[str, bytes] = {
    "no header": b"GET / HTTP/1.1\r\n",
    "lower case": b"proxy TCP4 1.2.3.4 5.6.7.8 1 2\r\n",
    "a bare LF": b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\n",
    "a line without end (Puma CVE-2026-47736)": b"PROXY TCP4 " + b"1" * 200,
    "an unknown protocol": b"PROXY UDP4 1.2.3.4 5.6.7.8 1 2\r\n",
    "too few fields": b"PROXY TCP4 1.2.3.4 5.6.7.8 1\r\n",
    "too many fields": b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2 3\r\n",
    "two spaces": b"PROXY  TCP4 1.2.3.4 5.6.7.8 1 2\r\n",
    "the other family": b"PROXY TCP4 ::1 ::2 1 2\r\n",
    "no address": b"PROXY TCP4 a b 1 2\r\n",
    "a zone": b"PROXY TCP6 fe80::1%eth0 ::2 1 2\r\n",
    "anything as a zone": b"PROXY TCP6 fe80::1%\xe9\0 ::2 1 2\r\n",
    "a leading zero": b"PROXY TCP4 1.2.3.4 5.6.7.8 01 2\r\n",
    "an empty port": b"PROXY TCP4 1.2.3.4 5.6.7.8  2\r\n",
    "a sign": b"PROXY TCP4 1.2.3.4 5.6.7.8 +1 2\r\n",
    "a port too large": b"PROXY TCP4 1.2.3.4 5.6.7.8 65536 2\r\n",
    "another version": v2(0x11, TCP4, command=0x31),
    "another command": v2(0x11, TCP4, command=0x22),
    "addresses cut off": v2(0x11, TCP4[:11]),
    "IPv6 addresses cut off": v2(0x21, TCP6[:35]),
    "too long": SIGNATURE + struct.pack("!BBH", 0x21, 0x11, 65535),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_header_is_refused(case: str) -> None:
    with pytest.raises(Refused) as caught:
        parse(REFUSED[case], "auto")

    assert caught.value.status == 400


def test_only_the_version_that_is_expected() -> None:
    first, second = b"PROXY UNKNOWN\r\n", v2(0x11, TCP4)

    assert parse(first, "v1")
    assert parse(second, "v2")
    for data, mode in ((first, "v2"), (second, "v1")):
        with pytest.raises(Refused):
            parse(data, mode)

"""The PROXY protocol, versions 1 and 2: who the client is, told by the proxy before any HTTP.

https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt, sections 2.1 and 2.2.  It is
expected once, at the start of a connection, and only where it was configured: a server that
took it from anybody would let anybody choose an address.  An address learnt so stays with the
connection for all its requests.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address, IPv6Address

from forkmaster.http.errors import Refused

_V2_SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
_V1_LONGEST = 107  # section 2.1, CRLF included
# Addresses are at most 216 bytes (two unix paths).  The rest is TLVs, of which the longest in
# use is a certificate's; a length of 65,535 would have us wait for 64 KiB from every client.
_V2_LONGEST = 4096


@dataclass(frozen=True, slots=True)
class Proxied:
    """What a PROXY header said."""

    protocol: str  # TCP4, TCP6, UNIX, or UNKNOWN and LOCAL, which name no client
    client: str = ""
    client_port: int = 0
    server: str = ""
    server_port: int = 0

    @property
    def names_a_client(self) -> bool:
        return self.protocol in ("TCP4", "TCP6")


def parse(data: bytes, mode: str) -> tuple[Proxied, bytes] | None:
    """What the header at the start of `data` says, and the bytes after it; None if incomplete.

    `mode` is "v1", "v2" or "auto".  Raises Refused 400 when `data` cannot become a header.
    """
    if mode != "v1" and _V2_SIGNATURE.startswith(data[:12]):
        return _parse_v2(data)
    if mode != "v2" and b"PROXY ".startswith(data[:6]):
        return _parse_v1(data)
    raise Refused(400, "the connection does not start with a PROXY header")


def _parse_v1(data: bytes) -> tuple[Proxied, bytes] | None:
    end = data.find(b"\n", 0, _V1_LONGEST)
    if end < 0:
        if len(data) >= _V1_LONGEST:
            raise Refused(400, "the PROXY line is too long")
        return None
    if data[end - 1] != 13:
        raise Refused(400, "the PROXY line ends without CR")
    line, rest = data[: end - 1], data[end + 1 :]
    fields = line.decode("latin-1").split(" ")
    if fields[1] == "UNKNOWN":
        return Proxied("UNKNOWN"), rest  # section 2.1: whatever follows is ignored
    if len(fields) != 6 or fields[1] not in ("TCP4", "TCP6"):
        raise Refused(400, "malformed PROXY line")
    _, protocol, client, server, client_port, server_port = fields
    kind = IPv4Address if protocol == "TCP4" else IPv6Address
    # Python takes any text behind % as the zone of an IPv6 address; the protocol has none.
    if "%" in client or "%" in server:
        raise Refused(400, "malformed address in the PROXY line")
    try:
        client, server = str(kind(client)), str(kind(server))
    except AddressValueError:
        raise Refused(400, "malformed address in the PROXY line") from None
    return Proxied(protocol, client, _port(client_port), server, _port(server_port)), rest


def _port(text: str) -> int:
    # No leading zero, as section 2.1 says; isdigit() alone takes other alphabets.
    if not (text.isascii() and text.isdigit()) or len(text) > 5 or (text[0] == "0" and text != "0"):
        raise Refused(400, "malformed port in the PROXY line")
    if int(text) > 65535:
        raise Refused(400, "malformed port in the PROXY line")
    return int(text)


def _parse_v2(data: bytes) -> tuple[Proxied, bytes] | None:
    if len(data) < 16:
        return None
    version, family, length = struct.unpack_from("!BBH", data, 12)
    if version >> 4 != 2 or version & 15 > 1:
        raise Refused(400, "unknown version or command in the PROXY header")
    if length > _V2_LONGEST:
        raise Refused(400, "the PROXY header is too long")
    if len(data) < 16 + length:
        return None
    block, rest = data[16 : 16 + length], data[16 + length :]
    if version & 15 == 0:
        return Proxied("LOCAL"), rest  # section 2.2: a health check of the proxy itself
    if family == 0x11:
        if length < 12:
            raise Refused(400, "the PROXY header is too short for its addresses")
        client, server, client_port, server_port = struct.unpack_from("!4s4sHH", block)
        v4 = str(IPv4Address(client)), client_port, str(IPv4Address(server)), server_port
        return Proxied("TCP4", *v4), rest
    if family == 0x21:
        if length < 36:
            raise Refused(400, "the PROXY header is too short for its addresses")
        client, server, client_port, server_port = struct.unpack_from("!16s16sHH", block)
        v6 = str(IPv6Address(client)), client_port, str(IPv6Address(server)), server_port
        return Proxied("TCP6", *v6), rest
    if family in (0x31, 0x32):
        return Proxied("UNIX"), rest
    # Section 2.2: a receiver may take what it does not know as UNSPEC.
    return Proxied("UNKNOWN"), rest

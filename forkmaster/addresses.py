"""Addresses to listen on, and the text people write for them.  Floor 0.

127.0.0.1:8000      a host and a port; a name is looked up when the socket is bound
[::1]:8000          IPv6, in brackets
:8000               every IPv4 address of this machine
8000                that port of the default host
unix:/run/x.sock    a unix socket; `unix:@name` is Linux's abstract namespace
fd://3              a socket that is already open, and listening
"""

from __future__ import annotations

import re
from dataclasses import dataclass

DEFAULT_PORT = 8000
EVERY_HOST = "0.0.0.0"

# A host name, an IPv4 address, or nothing; underscores occur in container names.
_HOST = re.compile(r"[A-Za-z0-9._-]*")
_IPV6_HOST = re.compile(r"[0-9A-Fa-f:.]+(%[A-Za-z0-9._-]+)?")


@dataclass(frozen=True)
class TCPAddress:
    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


@dataclass(frozen=True)
class UnixAddress:
    path: str
    """A relative path is relative to the folder the server runs in.  One that starts with NUL
    is a name in the abstract namespace."""

    @property
    def abstract(self) -> bool:
        return self.path.startswith("\0")

    def __str__(self) -> str:
        return f"unix:@{self.path[1:]}" if self.abstract else f"unix:{self.path}"


@dataclass(frozen=True)
class DescriptorAddress:
    fd: int

    def __str__(self) -> str:
        return f"fd://{self.fd}"


Address = TCPAddress | UnixAddress | DescriptorAddress


def parse_address(text: str, default_host: str = "127.0.0.1") -> Address:
    """The address that `text` stands for.

    `default_host` is the host of a text that is only a port.  Raises ValueError with a message
    for the person who wrote it.
    """
    text = text.strip()
    if text.startswith("unix:"):
        return _parse_unix(text)
    if text.startswith("fd://"):
        return _parse_descriptor(text)
    if "\0" in text:
        raise ValueError(f"{text!r} contains a NUL character")
    if not text.isprintable():
        # Escaped: a message is one line.
        raise ValueError(f"{text!r} is not an address")
    if text.startswith(("http://", "https://")):
        raise ValueError(f'"{text}" is a URL; write HOST:PORT, without http://')
    bare = text.removeprefix("tcp://")
    if "/" in bare:
        raise ValueError(f'"{text}" is not an address; for a unix socket write unix:{bare}')
    if bare.startswith("["):
        return _parse_ipv6(bare, text)
    if bare.count(":") > 1:
        raise ValueError(
            f'"{text}" has more than one colon; write an IPv6 address in brackets, as [::1]:8000'
        )
    if bare.isascii() and bare.isdigit():
        return TCPAddress(default_host, _parse_port(bare, text))
    host, _, port = bare.partition(":")
    if not _HOST.fullmatch(host):
        raise ValueError(f'"{text}" is not an address: "{host}" cannot be a host name')
    return TCPAddress(host.lower() or EVERY_HOST, _parse_port(port, text, missing=":" not in bare))


def _parse_unix(text: str) -> UnixAddress:
    path = text.removeprefix("unix:")
    if path.startswith("//"):
        path = path[2:]
    if path.startswith("@"):
        path = "\0" + path[1:]
    if path in ("", "\0"):
        raise ValueError(f'"{text}" names no path; write unix:/run/name.sock')
    return UnixAddress(path)


def _parse_descriptor(text: str) -> DescriptorAddress:
    number = text.removeprefix("fd://")
    if not (number.isascii() and number.isdigit()):
        raise ValueError(f'"{text}" names no file descriptor; write fd:// and a number, as fd://3')
    return DescriptorAddress(int(number))


def _parse_ipv6(bare: str, text: str) -> TCPAddress:
    host, bracket, rest = bare[1:].partition("]")
    if not bracket or not _IPV6_HOST.fullmatch(host) or (rest and not rest.startswith(":")):
        raise ValueError(f'"{text}" is not an IPv6 address with a port; write it as [::1]:8000')
    return TCPAddress(host.lower(), _parse_port(rest[1:], text, missing=not rest))


def _parse_port(port: str, text: str, *, missing: bool = False) -> int:
    if missing:
        return DEFAULT_PORT
    if not (port.isascii() and port.isdigit()):
        raise ValueError(f'"{port}" is not a port number, in "{text}"; write HOST:PORT')
    if int(port) > 65535:
        raise ValueError(f'port {port} is too large, in "{text}"; ports end at 65535')
    return int(port)

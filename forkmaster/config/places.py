"""The kinds of value that name a place: paths, addresses, networks, users.

A parser looks whether the place exists where a wrong one would otherwise be noticed late.
"""

from __future__ import annotations

import grp
import ipaddress
import os
import pwd
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from forkmaster.addresses import Address, DescriptorAddress, TCPAddress, UnixAddress, parse_address
from forkmaster.config.values import (
    TEXTS_SCHEMA,
    BadValueError,
    Kind,
    Noted,
    parse_commas,
    parse_text,
    parse_texts,
    quoted,
)


def _path(value: object) -> Path:
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if not isinstance(value, str) or not value.strip():
        raise BadValueError(f"{quoted(value)} is not a path", 'write it as "/srv/project"')
    if "\0" in value:
        raise BadValueError(f"{quoted(value)} contains a NUL character")
    # abspath, not resolve: a release named by a symbolic link is looked up anew at a reload.
    return Path(os.path.abspath(value.strip()))


def _relative(value: object) -> str:
    """Where a path that does not exist was looked for, unless it says so itself."""
    relative = isinstance(value, str) and not os.path.isabs(value.strip())
    return f"it is looked for in {os.getcwd()}" if relative else ""


def _existing_file(value: object) -> Path:
    path = _path(value)
    if not path.is_file():
        raise BadValueError(f"there is no file {quoted(value)}", _relative(value))
    return path


def _existing_folder(value: object) -> Path:
    path = _path(value)
    if not path.is_dir():
        raise BadValueError(f"there is no folder {quoted(value)}", _relative(value))
    return path


def _paths(value: object) -> tuple[str, ...]:
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if isinstance(value, Iterable) and not isinstance(value, str):
        value = [os.fspath(each) if isinstance(each, os.PathLike) else each for each in value]
    return parse_commas(value)


def _python_path(value: object) -> tuple[str, ...] | Noted:
    folders = tuple(os.path.abspath(folder) for folder in _paths(value))
    missing = [folder for folder in folders if not os.path.exists(folder)]
    if missing:
        return Noted(
            folders, f"there is no folder {quoted(missing[0])}; nothing is imported from it"
        )
    return folders


def _watched(value: object) -> tuple[str, ...]:
    entries = parse_texts(value)
    for entry in entries:
        if not any(sign in entry for sign in "*?[") and not os.path.exists(entry):
            raise BadValueError(f"there is no file {quoted(entry)}", _relative(entry))
    return entries


def _url_paths(value: object) -> tuple[str, ...]:
    paths = parse_commas(value)
    for path in paths:
        if not path.startswith("/"):
            raise BadValueError(
                f"{quoted(path)} is not a path of a URL", f"write {quoted('/' + path)}"
            )
    return paths


URL_PATHS = Kind("paths of URLs separated by commas", _url_paths, "PATH,…", TEXTS_SCHEMA)
PATH = Kind("a path", _path, "PATH")
FILE = Kind("a file", _existing_file, "FILE")
FOLDER = Kind("a folder", _existing_folder, "FOLDER")
PYTHONPATH = Kind("folders separated by commas", _python_path, "FOLDER,…", TEXTS_SCHEMA)
WATCHED = Kind("a list of files and patterns", _watched, "FILE", TEXTS_SCHEMA, many=True)

# Addresses and networks


def _address(value: object) -> Address:
    if isinstance(value, TCPAddress | UnixAddress | DescriptorAddress):
        return value
    if not isinstance(value, str):
        raise BadValueError(f"{quoted(value)} is not an address", 'write it as "127.0.0.1:8000"')
    try:
        return parse_address(value)
    except ValueError as exc:
        what, _, remedy = str(exc).partition("; ")
        raise BadValueError(what, remedy) from None


def _addresses(value: object) -> tuple[Address, ...]:
    if isinstance(value, str):
        value = [value]
    if not isinstance(value, Iterable) or isinstance(value, Mapping | bytes):
        raise BadValueError(f"{quoted(value)} is not an address", 'write it as "127.0.0.1:8000"')
    addresses = tuple(_address(each) for each in value)
    if not addresses:
        raise BadValueError("it names no address", 'write it as "127.0.0.1:8000"')
    for address in addresses:
        if addresses.count(address) > 1:
            raise BadValueError(f"{address} is there twice")
    return addresses


ADDRESSES = Kind("a list of addresses", _addresses, "ADDRESS", TEXTS_SCHEMA, many=True)


def _addresses_if_any(value: object) -> tuple[Address, ...]:
    return () if value in ("", [], (), None) else _addresses(value)


ADDRESSES_IF_ANY = Kind(
    ADDRESSES.wanted, _addresses_if_any, ADDRESSES.metavar, TEXTS_SCHEMA, many=True
)


def _statsd(value: object) -> TCPAddress | UnixAddress:
    if isinstance(value, str):
        value = value.strip()
        has_port = value.rpartition(":")[2].isdigit() or value.startswith(("unix:", "fd:"))
        if not has_port and value:
            value = f"{value}:{STATSD_PORT}"
    address = _address(value)
    if isinstance(address, DescriptorAddress):
        raise BadValueError(f"{address} is no address of a server", "write HOST:PORT")
    return address


STATSD_PORT = 8125
STATSD = Kind("an address", _statsd, "ADDRESS")


def _networks(value: object) -> tuple[str, ...]:
    networks = parse_commas(value)
    for network in networks:
        if network == "*":
            continue
        try:
            ipaddress.ip_network(network)
        except ValueError:
            raise _bad_network(network) from None
    return networks


def _bad_network(network: str) -> BadValueError:
    try:
        wanted = ipaddress.ip_network(network, strict=False)
    except ValueError:
        return BadValueError(
            f"{quoted(network)} is not an IP address or network",
            'write addresses, networks as "10.0.0.0/8", or "*"',
        )
    return BadValueError(f"{quoted(network)} has host bits set", f'write "{wanted}"')


NETWORKS = Kind("a list of IP addresses and networks", _networks, "ADDRESS,…", TEXTS_SCHEMA)


def _proxy_protocol(value: object) -> str:
    # gunicorn's reading: a switch before it had versions.
    if value is None:
        return "off"
    word = str(value).strip().lower() if isinstance(value, str | bool) else ""
    word = {"false": "off", "0": "off", "none": "off", "true": "auto", "1": "auto"}.get(word, word)
    if word not in ("off", "v1", "v2", "auto"):
        raise BadValueError(
            f"{quoted(value)} is not one of its values", "write off, v1, v2 or auto"
        )
    return word


PROXY_PROTOCOL = Kind(
    "a version of the PROXY protocol",
    _proxy_protocol,
    "off|v1|v2|auto",
    {"oneOf": [{"enum": ["off", "v1", "v2", "auto"]}, {"type": "boolean"}]},
    bare="auto",
)

# Users


def _number_of(noun: str, find: Callable[[str], int]) -> Callable[[object], int | None]:
    """A parser of the number of a user or a group; `find` raises KeyError for an unknown name."""

    def parse(value: object) -> int | None:
        if value is None:
            return None
        if isinstance(value, int):
            return int(value)
        name = parse_text(value)
        if name.isdigit():
            return int(name)
        try:
            return find(name)
        except KeyError:
            raise BadValueError(
                f"there is no {noun} {quoted(name)}", "make it, or write another or a number"
            ) from None

    return parse


_user = _number_of("user", lambda name: pwd.getpwnam(name).pw_uid)
_group = _number_of("group", lambda name: grp.getgrnam(name).gr_gid)
USER = Kind("a user", _user, "USER", {"type": ["string", "integer"]})
GROUP = Kind("a group", _group, "GROUP", {"type": ["string", "integer"]})


def _static_map(value: object) -> dict[str, Path] | str:
    if value in ("auto", ["auto"], ("auto",)):
        return "auto"
    if isinstance(value, Mapping):
        pairs = [(str(url), folder) for url, folder in value.items()]
    else:
        pairs = [(url, folder) for url, _, folder in (t.partition("=") for t in parse_texts(value))]
    for url, folder in pairs:
        if not url.startswith("/") or not folder:
            raise BadValueError(
                f"{quoted(url)} is not a path of a URL with its folder",
                'write /static/=staticfiles, or "auto" in a Django project',
            )
    return {f"{url.rstrip('/')}/": _path(folder) for url, folder in pairs}


STATIC_MAP = Kind(
    'paths of URLs with their folders, or "auto"',
    _static_map,
    "URL=FOLDER",
    {
        "oneOf": [
            {"type": "string"},
            {"type": "array", "items": {"type": "string"}},
            {"type": "object", "additionalProperties": {"type": "string"}},
        ]
    },
    many=True,
)

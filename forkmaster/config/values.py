"""The kinds of value that settings have: text in, typed value out, or a message for people.

A value comes from a command line, the environment or TOML as text, and from a Python file as
whatever the file made of it; real files write numbers and booleans as strings, so every parser
takes both.  A parser raises BadValueError, and knows neither the setting's name nor the source.
"""

from __future__ import annotations

import dataclasses
import grp
import importlib
import inspect
import ipaddress
import json
import math
import os
import pwd
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from forkmaster.addresses import Address, DescriptorAddress, TCPAddress, UnixAddress, parse_address
from forkmaster.config.warmup import WarmupRequest, parse_warmup


class BadValueError(ValueError):
    """A value that cannot be used: what is wrong with it, and what would be right."""

    def __init__(self, what: str, remedy: str = "") -> None:
        super().__init__(what, remedy)
        self.what = what
        self.remedy = remedy


@dataclass(frozen=True)
class Noted:
    """A value that can be used, but whose writer should be told something."""

    value: object
    note: str


def quoted(value: object) -> str:
    """`value` as a message shows it."""
    text = json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)
    return text if len(text) <= 80 else text[:77] + "…"


def shown(value: object) -> object:
    """`value` in the plainest types that say the same: for listings, JSON and TOML."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return int(value) if value.is_integer() else value
    if isinstance(value, Path | TCPAddress | UnixAddress | DescriptorAddress):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): shown(each) for key, each in value.items()}
    if isinstance(value, Iterable):
        return [shown(each) for each in value]
    origin = getattr(value, "__wrapped__", value)
    name = getattr(origin, "__qualname__", None) or type(origin).__qualname__
    return f"{getattr(origin, '__module__', '?')}.{name}"


@dataclass(frozen=True)
class Kind:
    """One kind of value."""

    wanted: str
    """Completes "… is not"; for people."""
    parse: Callable[[object], Any]
    """Raises BadValueError.  May return a Noted value."""
    metavar: str = "TEXT"
    schema: Mapping[str, object] = field(default_factory=lambda: {"type": "string"})
    many: bool = False
    """A list: its flag may be repeated, and in the environment commas separate its items."""
    switch: bool = False
    """A boolean: its flag takes no value."""
    bare: str | None = None
    """The value of its flag when none is given."""
    show: Callable[[Any], object] = shown
    """The parsed value in plain types, as people write it."""


# Numbers


def _integer(value: object) -> int:
    # gunicorn's rule: any integer, a boolean among them, and text in any of Python's bases.
    if isinstance(value, int):
        return int(value)
    if isinstance(value, str):
        try:
            return int(value.strip(), 0)
        except ValueError:
            if re.fullmatch(r"\s*0[0-9]+\s*", value):
                plain = value.strip().lstrip("0") or "0"
                raise BadValueError(
                    f"{quoted(value)} could be meant as octal", f"write {plain}"
                ) from None
    if value is None:
        raise BadValueError("None is not a whole number", "is an environment variable missing?")
    raise BadValueError(f"{quoted(value)} is not a whole number")


def count(minimum: int = 0, maximum: int | None = None) -> Kind:
    """Whole numbers from `minimum` up."""

    def parse(value: object) -> int:
        number = _integer(value)
        if number < minimum:
            raise BadValueError(f"{number} is too small", f"write {minimum} or more")
        if maximum is not None and number > maximum:
            raise BadValueError(f"{number} is too large", f"write {maximum} or less")
        return number

    schema: dict[str, object] = {"type": "integer", "minimum": minimum}
    if maximum is not None:
        schema["maximum"] = maximum
    return Kind("a whole number", parse, "NUMBER", schema)


COUNT = count()

_UNITS = {
    "": 1.0,
    "ms": 0.001,
    "s": 1.0,
    "sec": 1.0,
    "m": 60.0,
    "min": 60.0,
    "h": 3600.0,
    "d": 86400.0,
}
_DURATION = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?|\.[0-9]+)\s*([a-z]*)\s*", re.IGNORECASE)


def _seconds(value: object) -> float:
    wrong = BadValueError(
        f"{quoted(value)} is not a number of seconds", "write a number, as 30 or 0.5"
    )
    if isinstance(value, int | float):
        number = float(value)
    elif isinstance(value, str):
        match = _DURATION.fullmatch(value)
        if match is not None and match[2].lower() in _UNITS:
            number = float(match[1]) * _UNITS[match[2].lower()]
        else:
            try:
                number = float(_integer(value))
            except BadValueError:
                raise wrong from None
    else:
        raise wrong
    if not math.isfinite(number):
        raise wrong
    if number < 0:
        raise BadValueError(f"{quoted(value)} is negative", "write a number of seconds, 0 or more")
    return number


_DURATION_SCHEMA = {
    "oneOf": [
        {"type": "number", "minimum": 0},
        {"type": "string", "pattern": r"^[0-9.]+ *(ms|s|sec|m|min|h|d)?$"},
    ]
}
SECONDS = Kind("a number of seconds", _seconds, "SECONDS", _DURATION_SCHEMA)

_SIZES = {"": 1, "b": 1}
_SIZES |= {unit: 1000**power for power, unit in enumerate(("kb", "mb", "gb", "tb"), 1)}
_SIZES |= {unit: 1024**power for power, unit in enumerate(("kib", "mib", "gib", "tib"), 1)}
_SIZES |= {unit: 1024**power for power, unit in enumerate(("k", "m", "g", "t"), 1)}


def _size(value: object) -> int:
    wrong = BadValueError(f"{quoted(value)} is not a size", 'write a number of bytes, or "512MB"')
    if isinstance(value, str):
        match = _DURATION.fullmatch(value)
        if match is not None and match[2].lower() in _SIZES:
            return int(float(match[1]) * _SIZES[match[2].lower()])
    if not isinstance(value, str | int):
        raise wrong
    try:
        number = _integer(value)
    except BadValueError:
        raise wrong from None
    if number < 0:
        raise BadValueError(f"{quoted(value)} is negative", "write a number of bytes, 0 or more")
    return number


_SIZE_SCHEMA = {
    "oneOf": [
        {"type": "integer", "minimum": 0},
        {"type": "string", "pattern": r"^[0-9.]+ *([kmgtKMGT]i?)?[bB]?$"},
    ]
}
SIZE = Kind("a size in bytes", _size, "SIZE", _SIZE_SCHEMA)


def _memory(value: object) -> int:
    number = _size(value)
    # 1 MiB: no Python process is smaller, so a lesser number was meant in megabytes.
    if 0 < number < 1024 * 1024:
        raise BadValueError(
            f"{quoted(value)} is {number} bytes, too little for a process",
            f'write "{number}MB" if megabytes were meant',
        )
    return number


MEMORY = Kind("a size in bytes", _memory, "SIZE", _SIZE_SCHEMA)


def _octal(value: object) -> int:
    # gunicorn's rule for modes: text with a leading zero is octal, an integer is what it is.
    if isinstance(value, str) and re.fullmatch(r"\s*0[0-7]+\s*", value):
        number = int(value, 8)
    else:
        number = _integer(value)
    if not 0 <= number <= 0o7777:
        raise BadValueError(
            f"{quoted(value)} is not a file mode", 'write it in octal, as 0o660 or "0660"'
        )
    return number


def optional(kind: Kind) -> Kind:
    """`kind`, or nothing: None, and text that is empty."""

    def parse(value: object) -> object:
        if value is None or (isinstance(value, str) and not value.strip()):
            return None
        return kind.parse(value)

    schema = {"oneOf": [kind.schema, {"type": "null"}]}
    return dataclasses.replace(kind, parse=parse, schema=schema)


def _shown_octal(mode: int | None) -> str | None:
    return None if mode is None else f"{mode:04o}"


MODE = Kind("a file mode", _octal, "MODE", {"type": ["integer", "string"]}, show=_shown_octal)


def _workers(value: object) -> int:
    if isinstance(value, str) and value.strip().lower() == "auto":
        return len(os.sched_getaffinity(0))
    number = _integer(value)
    if number < 1:
        raise BadValueError(f"{number} workers would serve nobody", 'write 1 or more, or "auto"')
    return number


WORKERS = Kind(
    "a number of workers",
    _workers,
    "NUMBER|auto",
    {"oneOf": [{"type": "integer", "minimum": 1}, {"const": "auto"}]},
)

# Booleans

_TRUE = frozenset({"true", "1", "yes", "on"})
_FALSE = frozenset({"false", "0", "no", "off", ""})


def _boolean(value: object) -> bool:
    if value is None:
        return False
    if isinstance(value, bool):
        return value
    word = str(value).strip().lower() if isinstance(value, str | int) else ""
    if word in _TRUE:
        return True
    if word in _FALSE and isinstance(value, str | int):
        return False
    raise BadValueError(f"{quoted(value)} is neither true nor false", "write True or False")


BOOLEAN = Kind("true or false", _boolean, "", {"type": "boolean"}, switch=True)

# Text


def _text(value: object) -> str:
    if isinstance(value, str):
        return value.strip()
    raise BadValueError(f"{quoted(value)} is not text", "put it in quotes")


TEXT = Kind("text", _text)
OPTIONAL_TEXT = optional(TEXT)


def _given_text(value: object) -> str:
    if isinstance(value, str):
        return value
    raise BadValueError(f"{quoted(value)} is not text", "put it in quotes")


# A format whose spaces matter, and a secret, which may end in one.
VERBATIM = Kind("text", _given_text)


def choice(*words: str, **synonyms: str) -> Kind:
    """One of `words`, in any case; `synonyms` are read but not offered."""

    def parse(value: object) -> str:
        # A boolean is among the synonyms of what was a switch once.
        word = str(value).strip().lower() if isinstance(value, str | bool) else None
        if word in words:
            return word
        if word is not None and word in synonyms:
            return synonyms[word]
        raise BadValueError(f"{quoted(value)} is not one of its values", f"write {either(words)}")

    return Kind("one of " + ", ".join(words), parse, "|".join(words), {"enum": list(words)})


_LEVELS = choice("debug", "info", "warning", "error", "critical", warn="warning", fatal="critical")


def _log_level(value: object) -> str | Noted:
    try:
        return str(_LEVELS.parse(value))
    except BadValueError as exc:
        # gunicorn takes any text for info, without a word.
        if isinstance(value, str):
            return Noted("info", f"{exc.what}; info is used. {exc.remedy.capitalize()}")
        raise


LOG_LEVEL = Kind(_LEVELS.wanted, _log_level, _LEVELS.metavar, _LEVELS.schema)


def either(words: Iterable[str]) -> str:
    """`words` as people enumerate them: a, b or c."""
    *first, last = words
    return f"{', '.join(first)} or {last}" if first else last


def _texts(value: object) -> tuple[str, ...]:
    if not value and not isinstance(value, int | float):
        return ()
    if isinstance(value, str):
        return (value.strip(),)
    if isinstance(value, Iterable) and not isinstance(value, Mapping | bytes):
        return tuple(_text(each) for each in value)
    raise BadValueError(
        f"{quoted(value)} is not a list of texts", 'write it as ["first", "second"]'
    )


_TEXTS_SCHEMA = {"oneOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}
TEXTS = Kind("a list of texts", _texts, "TEXT", _TEXTS_SCHEMA, many=True)


def _commas(value: object) -> tuple[str, ...]:
    return tuple(part.strip() for text in _texts(value) for part in text.split(",") if part.strip())


# gunicorn writes some lists as one text.
COMMAS = Kind("a list separated by commas", _commas, "TEXT,…", _TEXTS_SCHEMA)


def _upper_commas(value: object) -> tuple[str, ...]:
    return tuple(part.upper() for part in _commas(value))


HEADERS = Kind("a list of header names", _upper_commas, "NAME,…", _TEXTS_SCHEMA)


def _warmup(value: object) -> tuple[WarmupRequest, ...]:
    requests = value if isinstance(value, (list, tuple)) else _texts(value)
    try:
        return tuple(r if isinstance(r, WarmupRequest) else parse_warmup(str(r)) for r in requests)
    except ValueError as exc:
        hint = 'write a path, as "/", or more of it, as "GET https://example.com/ 200"'
        raise BadValueError(str(exc), hint) from exc


WARMUP = Kind("a list of requests", _warmup, "REQUEST", _TEXTS_SCHEMA, many=True)


def _variables(value: object) -> tuple[str, ...]:
    pairs = _texts(value)
    for pair in pairs:
        if "=" not in pair or pair.startswith("="):
            raise BadValueError(f"{quoted(pair)} sets no variable", "write NAME=value")
    return pairs


VARIABLES = Kind("a list of NAME=value", _variables, "NAME=VALUE", _TEXTS_SCHEMA, many=True)

# Paths


def _path(value: object) -> Path:
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if not isinstance(value, str) or not value.strip():
        raise BadValueError(f"{quoted(value)} is not a path")
    if "\0" in value:
        raise BadValueError(f"{quoted(value)} contains a NUL character")
    # abspath, not resolve: a release named by a symbolic link is looked up anew at a reload.
    return Path(os.path.abspath(value.strip()))


def _existing_file(value: object) -> Path:
    path = _path(value)
    if not path.is_file():
        raise BadValueError(f"there is no file {quoted(value)}")
    return path


def _existing_folder(value: object) -> Path:
    path = _path(value)
    if not path.is_dir():
        raise BadValueError(f"there is no folder {quoted(value)}")
    return path


def _paths(value: object) -> tuple[str, ...]:
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if isinstance(value, Iterable) and not isinstance(value, str):
        value = [os.fspath(each) if isinstance(each, os.PathLike) else each for each in value]
    return _commas(value)


def _python_path(value: object) -> tuple[str, ...] | Noted:
    folders = tuple(os.path.abspath(folder) for folder in _paths(value))
    missing = [folder for folder in folders if not os.path.exists(folder)]
    if missing:
        return Noted(
            folders, f"there is no folder {quoted(missing[0])}; nothing is imported from it"
        )
    return folders


def _watched(value: object) -> tuple[str, ...]:
    entries = _texts(value)
    for entry in entries:
        if not any(sign in entry for sign in "*?[") and not os.path.exists(entry):
            raise BadValueError(f"there is no file {quoted(entry)}")
    return entries


PATH = Kind("a path", _path, "PATH")
FILE = Kind("a file", _existing_file, "FILE")
FOLDER = Kind("a folder", _existing_folder, "FOLDER")
PYTHONPATH = Kind("folders separated by commas", _python_path, "FOLDER,…", _TEXTS_SCHEMA)
WATCHED = Kind("a list of files and patterns", _watched, "FILE", _TEXTS_SCHEMA, many=True)

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


ADDRESSES = Kind("a list of addresses", _addresses, "ADDRESS", _TEXTS_SCHEMA, many=True)


def _networks(value: object) -> tuple[str, ...]:
    networks = _commas(value)
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


NETWORKS = Kind("a list of IP addresses and networks", _networks, "ADDRESS,…", _TEXTS_SCHEMA)


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


def _user(value: object) -> int | None:
    if value is None:
        return None
    if isinstance(value, int):
        return int(value)
    name = _text(value)
    if name.isdigit():
        return int(name)
    try:
        return pwd.getpwnam(name).pw_uid
    except KeyError:
        raise BadValueError(f"there is no user {quoted(name)}") from None


def _group(value: object) -> int | None:
    if value is None:
        return None
    if isinstance(value, int):
        return int(value)
    name = _text(value)
    if name.isdigit():
        return int(name)
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        raise BadValueError(f"there is no group {quoted(name)}") from None


USER = Kind("a user", _user, "USER", {"type": ["string", "integer"]})
GROUP = Kind("a group", _group, "GROUP", {"type": ["string", "integer"]})

# Code and tables


def _mapping(value: object) -> dict[str, Any]:
    if isinstance(value, str):
        # From the environment, where nothing but text is.
        try:
            table = json.loads(value)
        except ValueError:
            table = None
    else:
        table = value
    if isinstance(table, Mapping):
        return dict(table)
    raise BadValueError(f"{quoted(value)} is not a dictionary", 'write it as {"name": value}')


MAPPING = Kind("a dictionary", _mapping, "", {"type": "object"})


def _scheme_headers(value: object) -> dict[str, str]:
    table = _mapping(value)
    for key, each in table.items():
        if not isinstance(key, str) or not isinstance(each, str):
            raise BadValueError(
                f"{quoted(key)}: {quoted(each)} is not a header and its value",
                'write it as {"X-FORWARDED-PROTO": "https"}',
            )
    return {key.upper(): each for key, each in table.items()}


SCHEME_HEADERS = Kind(
    "a dictionary of headers",
    _scheme_headers,
    "",
    {"type": "object", "additionalProperties": {"type": "string"}},
)


def _imported(path: str) -> object:
    module, _, name = path.rpartition(".")
    if not module:
        raise BadValueError(
            f"{quoted(path)} names no module", "write it as package.module.function"
        )
    try:
        return getattr(importlib.import_module(module), name)
    except ImportError as exc:
        raise BadValueError(f"cannot import {quoted(path)}: {exc}") from None
    except AttributeError:
        raise BadValueError(f"the module {module} has no {quoted(name)}") from None


def _function(value: object) -> Callable[..., Any]:
    if isinstance(value, str):
        value = _imported(value.strip())
    if not callable(value):
        raise BadValueError(f"{quoted(value)} is not a function")
    return value


def _takes(function: Callable[..., Any], arguments: int) -> bool:
    try:
        inspect.signature(function).bind(*range(arguments))
    except TypeError:
        return False
    except ValueError:
        return True  # a function of C without a signature; it will say so itself
    return True


def hook(*parameters: str) -> Kind:
    """A function that is called with `parameters`, or the dotted path of one."""
    arity = len(parameters)

    def parse(value: object) -> Callable[..., Any] | None:
        if value is None:
            return None
        function = _function(value)
        if not _takes(function, arity):
            name = getattr(function, "__name__", "function")
            raise BadValueError(
                f"{name}{_signature(function)} cannot be called with {arity} "
                + ("argument" if arity == 1 else "arguments"),
                f"write it as def {name}({', '.join(parameters)})",
            )
        return function

    return Kind(f"a function of {either(parameters)}", parse, "MODULE.FUNCTION")


def _signature(function: Callable[..., Any]) -> str:
    try:
        return str(inspect.signature(function))
    except (TypeError, ValueError):
        return "(…)"


def _post_request(value: object) -> Callable[..., Any] | None:
    # It grew: gunicorn calls it with 2, 3 or 4 arguments.  Made one form here, so that the
    # request path need not ask.
    if value is None:
        return None
    function = _function(value)
    for arity in (4, 3, 2):
        if _takes(function, arity):
            return function if arity == 4 else _shortened(function, arity)
    raise BadValueError(
        f"post_request{_signature(function)} cannot be called with 4 arguments",
        "write it as def post_request(worker, req, environ, resp)",
    )


def _shortened(function: Callable[..., Any], arity: int) -> Callable[..., Any]:
    def post_request(*arguments: Any) -> Any:
        return function(*arguments[:arity])

    post_request.__wrapped__ = function  # type: ignore[attr-defined]
    return post_request


POST_REQUEST = Kind("a function", _post_request, "MODULE.FUNCTION")


def _class(value: object) -> type | str | None:
    if value is None or isinstance(value, type):
        return value
    if inspect.isfunction(value) or inspect.ismethod(value):
        return _class(value())
    return _text(value)


def _logger_class(value: object) -> type | str | None:
    logger = _class(value)
    # gunicorn's default, written out.
    return None if logger in ("simple", "gunicorn.glogging.Logger") else logger


LOGGER_CLASS = Kind("a class", _logger_class, "MODULE.CLASS")


def _anything(value: object) -> object:
    return value


ANYTHING = Kind("a value", _anything, "VALUE", {})

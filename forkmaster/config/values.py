"""The kinds of value that settings have: text in, typed value out, or a message for people.

A value comes from a command line, the environment or TOML as text, and from a Python file as
whatever the file made of it; real files write numbers and booleans as strings, so every parser
takes both.  A parser raises BadValueError, and knows neither the setting's name nor the source.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from forkmaster.addresses import DescriptorAddress, TCPAddress, UnixAddress
from forkmaster.config.warmup import WarmupRequest, parse_warmup


class BadValueError(ValueError):
    """A value that cannot be used: what is wrong with it, and what would be right."""

    def __init__(self, what: str, remedy: str = "") -> None:
        super().__init__(what, remedy)
        self.what = what
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.what}; {self.remedy}" if self.remedy else self.what


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
    raise BadValueError(f"{quoted(value)} is not a whole number", "write a number, as 4")


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


def _memory(value: object) -> int | Noted:
    number = _size(value)
    # 1 MiB: no Python process is smaller, so a lesser number was meant in megabytes.  Files
    # written for other servers say 200, and are to run as they are.
    if 0 < number < 1024 * 1024 and str(value).strip().isdigit():
        return Noted(number * 1024 * 1024, f'{number} is taken for {number} MiB; write "{number}M"')
    if 0 < number < 1024 * 1024:
        raise BadValueError(f"{quoted(value)} is too little for a process", 'write it as "200M"')
    return number


MEMORY = Kind("a size in bytes", _memory, "SIZE", _SIZE_SCHEMA)


def _octal(value: object) -> int:
    # gunicorn's rule for modes: text with a leading zero is octal, an integer is what it is.
    wrong = BadValueError(
        f"{quoted(value)} is not a file mode", 'write it in octal, as 0o660 or "0660"'
    )
    if isinstance(value, str) and re.fullmatch(r"\s*0[0-7]+\s*", value):
        number = int(value, 8)
    else:
        try:
            number = _integer(value)
        except BadValueError:
            raise wrong from None
    if not 0 <= number <= 0o7777:
        raise wrong
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
    return None if mode is None else f"0{mode:03o}"


MODE = Kind("a file mode", _octal, "MODE", {"type": ["integer", "string"]}, show=_shown_octal)


class OnePerProcessor(int):
    """The number that "auto" stands for, as far as this process' affinity tells.

    The master corrects it by the quota of its control group.
    """


def _workers(value: object) -> int:
    if isinstance(value, OnePerProcessor):
        return value
    if isinstance(value, str) and value.strip().lower() == "auto":
        return OnePerProcessor(len(os.sched_getaffinity(0)))
    try:
        number = _integer(value)
    except BadValueError as exc:
        raise BadValueError(exc.what, 'write a number, as 4, or "auto"') from None
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


def parse_text(value: object) -> str:
    if isinstance(value, str):
        return value.strip()
    raise BadValueError(f"{quoted(value)} is not text", "put it in quotes")


TEXT = Kind("text", parse_text)
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


LOG_FORMAT = choice("text", "json")


def either(words: Iterable[str]) -> str:
    """`words` as people enumerate them: a, b or c."""
    *first, last = words
    return f"{', '.join(first)} or {last}" if first else last


def parse_texts(value: object) -> tuple[str, ...]:
    if not value and not isinstance(value, int | float):
        return ()
    if isinstance(value, str):
        return (value.strip(),)
    if isinstance(value, Iterable) and not isinstance(value, Mapping | bytes):
        return tuple(parse_text(each) for each in value)
    raise BadValueError(
        f"{quoted(value)} is not a list of texts", 'write it as ["first", "second"]'
    )


TEXTS_SCHEMA = {"oneOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}
TEXTS = Kind("a list of texts", parse_texts, "TEXT", TEXTS_SCHEMA, many=True)


def parse_commas(value: object) -> tuple[str, ...]:
    return tuple(
        part.strip() for text in parse_texts(value) for part in text.split(",") if part.strip()
    )


# gunicorn writes some lists as one text.
COMMAS = Kind("a list separated by commas", parse_commas, "TEXT,…", TEXTS_SCHEMA)


def _upper_commas(value: object) -> tuple[str, ...]:
    return tuple(part.upper() for part in parse_commas(value))


HEADERS = Kind("a list of header names", _upper_commas, "NAME,…", TEXTS_SCHEMA)


def _warmup(value: object) -> tuple[WarmupRequest, ...]:
    requests = value if isinstance(value, (list, tuple)) else parse_texts(value)
    try:
        return tuple(r if isinstance(r, WarmupRequest) else parse_warmup(str(r)) for r in requests)
    except ValueError as exc:
        hint = 'write a path, as "/", or more of it, as "GET https://example.com/ 200"'
        raise BadValueError(str(exc), hint) from exc


def _shown_warmup(requests: tuple[WarmupRequest, ...]) -> list[str]:
    return [request.written() for request in requests]


WARMUP = Kind("a list of requests", _warmup, "REQUEST", TEXTS_SCHEMA, many=True, show=_shown_warmup)


def _variables(value: object) -> tuple[str, ...]:
    pairs = parse_texts(value)
    for pair in pairs:
        if "=" not in pair or pair.startswith("="):
            # Not all of it: what follows the name may be a secret.
            name = re.split(r"\W", pair, maxsplit=1)[0]
            shown_pair = name if name == pair else f"{name}…"
            raise BadValueError(f"{quoted(shown_pair)} sets no variable", "write NAME=value")
    return pairs


VARIABLES = Kind("a list of NAME=value", _variables, "NAME=VALUE", TEXTS_SCHEMA, many=True)

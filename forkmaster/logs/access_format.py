"""A line per request: gunicorn's formats, or JSON, compiled once to one function.

gunicorn builds a dictionary of every atom, every header and every variable for each request,
whatever the format asks for.  Here the format becomes the source of one expression, which looks
up what it names and nothing else: 0.5 µs for the default format instead of 30.  Only literals
written with `repr` and the expressions of the tables below get into that source.

There are two such expressions for a format.  One reads an AccessEntry, which every kind of worker
can fill.  The other reads the exchange of a WSGI worker where it stands: filling an entry would
cost as much as the line.

**No forgery.**  Whatever a client or the application says passes `clean`, which escapes quotes,
backslashes, control characters and all that is not ASCII the way a JSON string does.  So a line
is one line, a quoted field ends where it ends, and a format that people wrote to look like JSON
is JSON.  A space in the user's name is escaped too, because that field stands without quotes.

An atom that has no value, or is none, is "-".
"""

from __future__ import annotations

import os
import re
import time
from base64 import b64decode
from collections.abc import Callable, Iterable, Mapping
from json.encoder import encode_basestring_ascii
from time import monotonic_ns
from typing import Any, Protocol, TypeVar

from forkmaster.logs.access import AccessEntry, Header

MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")

# %(name)s with everything the % operator allows between the name and the type.
ATOM = re.compile(r"%(?:\((?P<name>[^)]*)\))?(?P<spec>[-#0 +]*\d*(?:\.\d+)?)(?P<type>[a-zA-Z%])")
VARIABLE = re.compile(r"\{([^}]*)\}([ioe])")

NOTHING = "'-'"

# In these `e` is an AccessEntry.  What is a whole number is one, for those who write %(D)d.
ATOMS = {
    "h": "clean(e.client) or '-'",
    "l": NOTHING,
    "u": "user(e)",
    "t": "clock()",
    "r": "clean(e.text)",
    "m": "clean(e.method)",
    "U": "clean(path(e.environ, e.target))",
    "q": "clean(e.target.partition('?')[2])",
    "H": "clean(e.protocol)",
    "s": "e.status",
    "B": "e.sent",
    "b": "e.sent",
    "f": "request_header(e, 'HTTP_REFERER', 'referer')",
    "a": "request_header(e, 'HTTP_USER_AGENT', 'user-agent')",
    "T": "e.duration // 1_000_000_000",
    "M": "e.duration // 1_000_000",
    "D": "e.duration // 1_000",
    "L": "f'{e.duration / 1e9:.6f}'",
    "p": "f'<{getpid()}>'",
    # Beyond gunicorn's.
    "Q": "queued(e, e.trusted, e.duration)",
    "W": "e.serial",
    "G": "e.generation",
    "I": "request_header(e, 'HTTP_X_REQUEST_ID', 'x-request-id')",
    "E": "e.ending or '-'",
}

JSON_FIELDS = {
    "time": '"{iso_time()}"',
    "client": '"{clean(e.client)}"',
    "user": "{json_text(user(e))}",
    "method": '"{clean(e.method)}"',
    "target": '"{clean(e.target)}"',
    "protocol": '"{clean(e.protocol)}"',
    "status": "{e.status}",
    "sent": "{e.sent}",
    "duration": "{e.duration / 1e9:.6f}",
    "queued": "{json_number(queued(e, e.trusted, e.duration))}",
    "referer": "{json_text(request_header(e, 'HTTP_REFERER', 'referer'))}",
    "user_agent": "{json_text(request_header(e, 'HTTP_USER_AGENT', 'user-agent'))}",
    "request_id": "{json_text(request_header(e, 'HTTP_X_REQUEST_ID', 'x-request-id'))}",
    "worker": "{e.serial}",
    "generation": "{e.generation}",
    "pid": "{getpid()}",
    "ending": "{json_text(e.ending or '-')}",
}

# Where an exchange has what an entry says, if it has it elsewhere; `d` is its duration.
EXCHANGE = {
    "e.client": "e.connection.host",
    "e.method": "e.line[0]",
    "e.target": "e.line[1]",
    "e.protocol": "e.line[4]",
    "e.text": "e.line[6]",
    "e.status": "e.code",
    "e.sent": "e.body_sent",
    "e.duration": "d",
    "e.trusted": "e.connection.origin.trusted",
    "e.ending": "''",
    "e.serial": "serial",
    "e.generation": "generation",
}

# The atoms of the usual formats, without a call for what is not there or was cleaned before.  A
# peer's address is the kernel's or ipaddress's text, which needs no cleaning.
EXCHANGE_ATOMS = {
    "h": "e.connection.host or '-'",
    "t": "c[1] if e.began + d < c[0] else clock()",
    "r": "cleaned(e.line[6]) or clean(e.line[6])",
    "u": "user(e) if 'HTTP_AUTHORIZATION' in e.environ else '-'",
    "f": "clean(e.environ['HTTP_REFERER']) if 'HTTP_REFERER' in e.environ else '-'",
    "a": "clean(e.environ['HTTP_USER_AGENT']) if 'HTTP_USER_AGENT' in e.environ else '-'",
}

LAST_SECOND = 1e11  # the year 5138; more than that is no number of seconds
DAY = 86400.0

SAMPLE = AccessEntry("127.0.0.1", "GET", "/?q=1", "HTTP/1.1", 200, 12, 1_234_567, environ={})

# Clients say the same over and over.  Entries and characters: 1 MiB at most.
_TEXTS, _LONGEST_TEXT = 1024, 512
_cleaned: dict[str, str] = {}


class Exchange(Protocol):
    """An answered request as a WSGI worker has it: what EXCHANGE and its atoms look at.

    `worker.exchange.Exchange` is one; written down here because logs know no workers.
    """

    connection: Any
    line: Any
    environ: dict[str, Any]
    response_headers: list[tuple[str, str]]
    code: int
    body_sent: int
    began: int
    client_left: bool


ExchangeT = TypeVar("ExchangeT", bound=Exchange)


def compile_format(format_: str) -> Callable[[AccessEntry], str]:
    """The function that makes a line, without its end, of an entry; "json" is a format too.

    Raises ValueError with a message for the person who wrote the format.
    """
    function: Callable[[AccessEntry], str] = eval(
        f"lambda e: {_line(format_, ATOMS, JSON_FIELDS)}", dict(NAMES)
    )
    try:
        function(SAMPLE)
    except (TypeError, ValueError) as exc:
        raise ValueError(f"the format cannot be used: {exc}") from exc
    return function


def compile_writer(format_: str, write: Callable[[str], object]) -> Callable[[AccessEntry], object]:
    """What writes the line of an entry, with its newline.  The format is known to be right."""
    writer: Callable[[AccessEntry], object] = eval(
        f"lambda e: write({_line(format_, ATOMS, JSON_FIELDS)} '\\n')", {**NAMES, "write": write}
    )
    return writer


def compile_exchange_writer(
    format_: str,
    write: Callable[[str], object],
    otherwise: Callable[[ExchangeT, int], object],
    *,
    serial: int,
    generation: int,
) -> Callable[[ExchangeT, int], object]:
    """What writes the line of an exchange that took so many nanoseconds.

    `otherwise` gets those whose client has left.  `serial` and `generation` are the worker's.
    """
    atoms = {name: _of_exchange(value) for name, value in ATOMS.items()} | EXCHANGE_ATOMS
    fields = {name: _of_exchange(value) for name, value in JSON_FIELDS.items()}
    line = _line(format_, atoms, fields)
    names = {"write": write, "otherwise": otherwise, "serial": serial, "generation": generation}
    writer: Callable[[ExchangeT, int], object] = eval(
        f"lambda e, d: otherwise(e, d) if e.client_left else write({line} '\\n')",
        {**NAMES, **names},
    )
    return writer


def _line(format_: str, atoms: Mapping[str, str], fields: Mapping[str, str]) -> str:
    return _json_source(fields) if format_ == "json" else _source(format_, atoms)


def _of_exchange(expression: str) -> str:
    return re.sub(r"\be\.\w+", lambda found: EXCHANGE.get(found[0], found[0]), expression)


def unknown_atoms(format_: str) -> list[str]:
    """The names in a format that are no atoms, and will be "-" in every line."""
    if format_ == "json":
        return []
    names = [found["name"] for found in ATOM.finditer(format_) if found["name"] is not None]
    return [name for name in names if name not in ATOMS and not VARIABLE.fullmatch(name)]


def clean(text: object) -> str:
    """`text` with nothing in it that could end a quoted field, a line, or a terminal's patience."""
    if type(text) is not str:
        return _clean(str(text))
    known = _cleaned.get(text)
    if known is None:
        known = _clean(text)
        if len(text) <= _LONGEST_TEXT:
            if len(_cleaned) >= _TEXTS:
                _cleaned.clear()
            _cleaned[text] = known
    return known


def _clean(text: str) -> str:
    if text.isascii() and text.isprintable() and '"' not in text and "\\" not in text:
        return text
    return encode_basestring_ascii(text)[1:-1].replace("\x7f", "\\u007f")


def _source(format_: str, atoms: Mapping[str, str]) -> str:
    """A format as the source of an expression over `e`: literals and f-strings side by side.

    The compiler makes one f-string of them, which takes half the time of the % operator.
    """
    parts: list[str] = []
    end = 0
    for found in ATOM.finditer(format_):
        parts.append(repr(format_[end : found.start()]))
        end = found.end()
        name, spec, type_ = found["name"], found["spec"], found["type"]
        if type_ == "%":
            parts.append("'%'")
        elif name is None:
            raise ValueError(
                f'"{found[0]}" names no atom; write %(name)s, or %% for a percent sign'
            )
        else:
            value = _expression(name, atoms)
            if spec or type_ != "s":
                value = f"'%{spec}{type_}' % ({value},)"
            parts.append(value if value == NOTHING else f'f"""{{({value})}}"""')
    parts.append(repr(format_[end:]))
    return " ".join(parts)


def _expression(name: str, atoms: Mapping[str, str]) -> str:
    variable = VARIABLE.fullmatch(name)
    if variable is None:
        return atoms.get(name, NOTHING)
    key, where = variable.groups()
    if where == "e":
        return f"environ_variable(e, {_literal(key)}, {_literal(key.upper())})"
    if where == "o":
        return f"clean(find(e.response_headers, {_literal(key.lower())}))"
    return f"request_header(e, {_literal(_environ_key(key))}, {_literal(key.lower())})"


def _literal(text: str) -> str:
    """`text` as a source that may stand in an f-string, so without quotes and backslashes."""
    if text.isascii() and not set(text) & set("'\"\\{}") and text.isprintable():
        return repr(text)
    return f"bytes({list(text.encode('utf-8', 'surrogatepass'))}).decode('utf-8', 'surrogatepass')"


def _environ_key(header: str) -> str:
    key = header.upper().replace("-", "_")
    return key if key in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{key}"


def _json_source(fields: Mapping[str, str]) -> str:
    members = ", ".join(f'"{name}": {value}' for name, value in fields.items())
    return f"f'''{{{{{members}}}}}'''"


def _json_number(text: str) -> str:
    return "null" if text == "-" else text


def _json_text(cleaned: str) -> str:
    return "null" if cleaned == "-" else f'"{cleaned}"'


def _request_header(entry: AccessEntry | Exchange, key: str, name: str) -> str:
    return clean(_header(entry, key, name))


def _header(entry: AccessEntry | Exchange, key: str, name: str) -> str:
    """The value of a header that is `key` in an environ and `name` in a list; "-" without."""
    environ = entry.environ
    if environ is None:
        assert isinstance(entry, AccessEntry)
        return _find(entry.request_headers, name)
    return str(environ.get(key, "-"))


def _environ_variable(entry: AccessEntry | Exchange, name: str, upper: str) -> str:
    environ = entry.environ or {}
    value = environ.get(name, environ.get(upper))
    return "-" if value is None else clean(value)


def _queued(entry: AccessEntry | Exchange, trusted: bool, duration: int) -> str:
    """The seconds since a trusted proxy took the request, by its X-Request-Start."""
    if not trusted:
        return "-"
    text = _header(entry, "HTTP_X_REQUEST_START", "x-request-start")
    try:
        started = float(text.removeprefix("t="))
    except ValueError:
        return "-"
    # nginx says seconds, Heroku milliseconds, others microseconds.
    for _ in range(2):
        if started > LAST_SECOND:
            started /= 1000
    queued = time.time() - duration / 1e9 - started
    return f"{queued:.6f}" if 0 <= queued < DAY else "-"


def _find(headers: Iterable[Header], name: str) -> str:
    """The value of the last header of that name, which is written in lower case."""
    found: str | bytes = "-"
    for key, value in headers:
        text = key.decode("latin-1") if isinstance(key, bytes) else key
        if text.lower() == name:
            found = value
    return found.decode("latin-1") if isinstance(found, bytes) else found


def _path(environ: Mapping[str, Any] | None, target: str) -> str:
    return target.partition("?")[0] if environ is None else str(environ.get("PATH_INFO", ""))


def _user(entry: AccessEntry | Exchange) -> str:
    """The name in the Authorization header, if it is basic; nobody has checked the password."""
    header = _header(entry, "HTTP_AUTHORIZATION", "authorization")
    scheme, _, credentials = header.partition(" ")
    if scheme.lower() != "basic":
        return "-"
    try:
        name, colon, _ = b64decode(credentials.strip()).partition(b":")
    except ValueError:
        return "-"
    text = name.decode("utf-8", "backslashreplace")
    return clean(text).replace(" ", "\\u0020") if colon and text else "-"


_common: list[Any] = [0, ""]  # the text of a second, and the monotonic_ns() at which it ends


def _clock() -> str:
    """ "[31/Dec/2025:23:59:59 +0100]", made once a second and in English whatever the locale."""
    text: str
    now = monotonic_ns()
    until, text = _common
    if now >= until:
        wall = time.time()
        local = time.localtime(wall)
        month = MONTHS[local.tm_mon - 1]
        text = time.strftime(f"[%d/{month}/%Y:%H:%M:%S %z]", local)
        _common[:] = now + int((1 - wall % 1) * 1e9), text
    return text


_iso_second = 0
_iso_start = ""
_iso_zone = ""


def iso_time(now: float | None = None) -> str:
    """ "2025-12-31T23:59:59.123+01:00", its seconds made once a second."""
    global _iso_second, _iso_start, _iso_zone
    now = time.time() if now is None else now
    second = int(now)
    if second != _iso_second:
        local = time.localtime(second)
        _iso_start = time.strftime("%Y-%m-%dT%H:%M:%S", local)
        zone = time.strftime("%z", local)
        _iso_zone = f"{zone[:3]}:{zone[3:]}"
        _iso_second = second
    return f"{_iso_start}.{int((now - second) * 1000):03d}{_iso_zone}"


NAMES: dict[str, object] = {
    "clean": clean,
    "cleaned": _cleaned.get,
    "c": _common,
    "clock": _clock,
    "environ_variable": _environ_variable,
    "find": _find,
    "getpid": os.getpid,
    "iso_time": iso_time,
    "json_number": _json_number,
    "json_text": _json_text,
    "path": _path,
    "queued": _queued,
    "request_header": _request_header,
    "user": _user,
}

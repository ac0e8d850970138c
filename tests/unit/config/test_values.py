"""Every kind of value: what it takes, what it makes of it, and what it says to the rest."""

from __future__ import annotations

import grp
import os
import pwd
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forkmaster.addresses import TCPAddress, UnixAddress
from forkmaster.config import code, places, values
from forkmaster.config.gunicorn import WORKER_CLASS, Named
from forkmaster.config.table import SETTINGS
from forkmaster.config.values import BadValueError, Kind, Noted

A = TCPAddress("127.0.0.1", 8000)
CHOICE = values.choice("red", "green", rot="red")


class Green:
    pass


def make_green() -> type[Green]:
    return Green


def called_with_one(server: object) -> None: ...
def called_with_two(server: object, worker: object) -> None: ...
def called_with_any(*arguments: object) -> None: ...
def called_with_one_or_two(server: object, worker: object = None) -> None: ...


HERE = Path(__file__)

TAKEN = [
    (values.COUNT, 3, 3),
    (values.COUNT, "3", 3),
    (values.COUNT, " 3 ", 3),
    (values.COUNT, "0x10", 16),
    (values.COUNT, "0o17", 15),
    (values.COUNT, "1_000", 1000),
    (values.COUNT, "0", 0),
    (values.COUNT, True, 1),
    (values.count(1, 5), 5, 5),
    (values.SECONDS, 30, 30.0),
    (values.SECONDS, 0.5, 0.5),
    (values.SECONDS, "30", 30.0),
    (values.SECONDS, ".5", 0.5),
    (values.SECONDS, "30s", 30.0),
    (values.SECONDS, "500ms", 0.5),
    (values.SECONDS, "2m", 120.0),
    (values.SECONDS, "2 min", 120.0),
    (values.SECONDS, "1H", 3600.0),
    (values.SECONDS, "1d", 86400.0),
    (values.SECONDS, "0x10", 16.0),
    (values.SECONDS, True, 1.0),
    (values.SIZE, 1024, 1024),
    (values.SIZE, "1024", 1024),
    (values.SIZE, "1kB", 1000),
    (values.SIZE, "1KiB", 1024),
    (values.SIZE, "1K", 1024),
    (values.SIZE, "512MB", 512_000_000),
    (values.SIZE, "512MiB", 512 * 1024**2),
    (values.SIZE, "1.5G", 3 * 1024**3 // 2),
    (values.SIZE, "0x100", 256),
    (values.MEMORY, "512MB", 512_000_000),
    (values.MEMORY, 0, 0),
    (values.MODE, 0o660, 0o660),
    (values.MODE, "0660", 0o660),
    (values.MODE, "0o660", 0o660),
    (values.MODE, "0", 0),
    (values.MODE, 777, 777),
    (values.optional(values.MODE), None, None),
    (values.optional(values.MODE), " ", None),
    (values.optional(values.MODE), "022", 0o22),
    (values.WORKERS, 4, 4),
    (values.WORKERS, "4", 4),
    (values.WORKERS, "Auto", values.OnePerProcessor(len(os.sched_getaffinity(0)))),
    (values.BOOLEAN, True, True),
    (values.BOOLEAN, False, False),
    (values.BOOLEAN, None, False),
    (values.BOOLEAN, 1, True),
    (values.BOOLEAN, 0, False),
    (values.BOOLEAN, "True", True),
    (values.BOOLEAN, "FALSE ", False),
    (values.BOOLEAN, "yes", True),
    (values.BOOLEAN, "off", False),
    (values.BOOLEAN, "", False),
    (values.TEXT, " a ", "a"),
    (values.OPTIONAL_TEXT, None, None),
    (values.OPTIONAL_TEXT, "", None),
    (values.OPTIONAL_TEXT, "a", "a"),
    (values.VERBATIM, " a ", " a "),
    (CHOICE, "green", "green"),
    (CHOICE, " GREEN ", "green"),
    (CHOICE, "rot", "red"),
    (values.LOG_LEVEL, "DEBUG", "debug"),
    (values.LOG_LEVEL, "warn", "warning"),
    (values.LOG_LEVEL, "fatal", "critical"),
    (values.TEXTS, None, ()),
    (values.TEXTS, "", ()),
    (values.TEXTS, [], ()),
    (values.TEXTS, "a", ("a",)),
    (values.TEXTS, "a,b", ("a,b",)),
    (values.TEXTS, ["a", " b "], ("a", "b")),
    (values.TEXTS, ("a",), ("a",)),
    (values.COMMAS, "a, b,,c", ("a", "b", "c")),
    (values.COMMAS, ["a", "b,c"], ("a", "b", "c")),
    (values.HEADERS, "script_name,Path_Info", ("SCRIPT_NAME", "PATH_INFO")),
    (values.VARIABLES, ["A=1", "B="], ("A=1", "B=")),
    (values.VARIABLES, "A=b=c", ("A=b=c",)),
    (places.PATH, "a/b", Path.cwd() / "a/b"),
    (places.PATH, PurePosixPath("/a"), Path("/a")),
    (places.FILE, str(HERE), HERE),
    (places.FOLDER, HERE.parent, HERE.parent),
    (places.FOLDER, ".", Path.cwd()),
    (places.FOLDER, "./tests/../", Path.cwd()),
    (places.PYTHONPATH, None, ()),
    (places.PYTHONPATH, str(HERE.parent), (str(HERE.parent),)),
    (
        places.PYTHONPATH,
        f"{HERE.parent},{HERE.parent.parent}",
        (str(HERE.parent), str(HERE.parent.parent)),
    ),
    (places.PYTHONPATH, [HERE.parent], (str(HERE.parent),)),
    (places.PYTHONPATH, HERE.parent, (str(HERE.parent),)),
    (places.WATCHED, [str(HERE), "nowhere/*.html"], (str(HERE), "nowhere/*.html")),
    (places.ADDRESSES, "127.0.0.1:8000", (A,)),
    (places.ADDRESSES, ["127.0.0.1:8000", "unix:/x"], (A, UnixAddress("/x"))),
    (places.ADDRESSES, ("127.0.0.1",), (A,)),
    (places.STATSD, "metrics", TCPAddress("metrics", 8125)),
    (places.STATSD, " metrics:99 ", TCPAddress("metrics", 99)),
    (places.STATSD, "unix:///run/statsd", UnixAddress("/run/statsd")),
    (places.NETWORKS, None, ()),
    (places.NETWORKS, "*", ("*",)),
    (places.NETWORKS, "127.0.0.1, 10.0.0.0/8,::1", ("127.0.0.1", "10.0.0.0/8", "::1")),
    (places.NETWORKS, ["fd00::/8"], ("fd00::/8",)),
    (places.PROXY_PROTOCOL, None, "off"),
    (places.PROXY_PROTOCOL, True, "auto"),
    (places.PROXY_PROTOCOL, False, "off"),
    (places.PROXY_PROTOCOL, "V2", "v2"),
    (places.PROXY_PROTOCOL, "none", "off"),
    (places.USER, None, None),
    (places.USER, 33, 33),
    (places.USER, "33", 33),
    (places.USER, pwd.getpwuid(0).pw_name, 0),
    (places.GROUP, None, None),
    (places.GROUP, 33, 33),
    (places.GROUP, "33", 33),
    (places.GROUP, grp.getgrgid(0).gr_name, 0),
    (code.MAPPING, {"a": 1}, {"a": 1}),
    (code.MAPPING, '{"a": 1}', {"a": 1}),
    (code.SCHEME_HEADERS, {"X-Proto": "https"}, {"X-PROTO": "https"}),
    (code.hook("server"), None, None),
    (code.hook("server"), called_with_one, called_with_one),
    (code.hook("server"), called_with_any, called_with_any),
    (code.hook("server"), called_with_one_or_two, called_with_one_or_two),
    (code.hook("server", "worker"), called_with_one_or_two, called_with_one_or_two),
    (code.hook("path"), "os.path.basename", os.path.basename),
    (code.hook("value"), print, print),
    (code.POST_REQUEST, None, None),
    (code.LOGGER_CLASS, None, None),
    (WORKER_CLASS, "Sync", Named("sync", "Sync")),
    (WORKER_CLASS, " gthread ", Named("threaded", "gthread")),
    (code.LOGGER_CLASS, "package.Class", "package.Class"),
    (code.LOGGER_CLASS, "gunicorn.glogging.Logger", None),
    (code.LOGGER_CLASS, "simple", None),
    (code.LOGGER_CLASS, Green, Green),
    (code.LOGGER_CLASS, make_green, Green),
    (code.ANYTHING, 3.5, 3.5),
]

REFUSED = [
    (values.COUNT, None, "None is not a whole number; is an environment variable missing?"),
    (values.COUNT, 1.5, "1.5 is not a whole number; write a number, as 4"),
    (values.COUNT, "many", '"many" is not a whole number; write a number, as 4'),
    (values.COUNT, "", '"" is not a whole number; write a number, as 4'),
    (values.COUNT, "010", '"010" could be meant as octal; write 10'),
    (values.COUNT, [1], "[1] is not a whole number; write a number, as 4"),
    (values.COUNT, -1, "-1 is too small; write 0 or more"),
    (values.count(1, 5), 6, "6 is too large; write 5 or less"),
    (values.SECONDS, None, "None is not a number of seconds; write a number, as 30 or 0.5"),
    (values.SECONDS, "30x", '"30x" is not a number of seconds; write a number, as 30 or 0.5'),
    (values.SECONDS, "", '"" is not a number of seconds; write a number, as 30 or 0.5'),
    (values.SECONDS, "1.2.3", '"1.2.3" is not a number of seconds; write a number, as 30 or 0.5'),
    (values.SECONDS, -1, "-1 is negative; write a number of seconds, 0 or more"),
    (values.SECONDS, "-1", '"-1" is negative; write a number of seconds, 0 or more'),
    (values.SECONDS, float("inf"), "inf is not a number of seconds; write a number, as 30 or 0.5"),
    (values.SECONDS, float("nan"), "nan is not a number of seconds; write a number, as 30 or 0.5"),
    (values.SIZE, "big", '"big" is not a size; write a number of bytes, or "512MB"'),
    (values.SIZE, 1.5, '1.5 is not a size; write a number of bytes, or "512MB"'),
    (values.SIZE, -1, "-1 is negative; write a number of bytes, 0 or more"),
    (values.MEMORY, "200kB", '"200kB" is too little for a process; write it as "200M"'),
    (values.MODE, "rw", '"rw" is not a file mode; write it in octal, as 0o660 or "0660"'),
    (values.MODE, 0o10000, '4096 is not a file mode; write it in octal, as 0o660 or "0660"'),
    (values.WORKERS, 0, '0 workers would serve nobody; write 1 or more, or "auto"'),
    (values.WORKERS, "all", '"all" is not a whole number; write a number, as 4, or "auto"'),
    (values.BOOLEAN, "maybe", '"maybe" is neither true nor false; write True or False'),
    (values.BOOLEAN, 2, "2 is neither true nor false; write True or False"),
    (values.BOOLEAN, [], "[] is neither true nor false; write True or False"),
    (values.TEXT, 3, "3 is not text; put it in quotes"),
    (values.TEXT, None, "None is not text; put it in quotes"),
    (values.VERBATIM, 3, "3 is not text; put it in quotes"),
    (CHOICE, "blue", '"blue" is not one of its values; write red or green'),
    (CHOICE, 3, "3 is not one of its values; write red or green"),
    (
        values.LOG_LEVEL,
        10,
        "10 is not one of its values; write debug, info, warning, error or critical",
    ),
    (values.TEXTS, 3, '3 is not a list of texts; write it as ["first", "second"]'),
    (values.TEXTS, {"a": 1}, '{\'a\': 1} is not a list of texts; write it as ["first", "second"]'),
    (values.TEXTS, [3], "3 is not text; put it in quotes"),
    (values.VARIABLES, ["A"], '"A" sets no variable; write NAME=value'),
    (values.VARIABLES, ["=1"], '"…" sets no variable; write NAME=value'),
    (values.VARIABLES, ["TOKEN: x"], '"TOKEN…" sets no variable; write NAME=value'),
    (places.PATH, "", '"" is not a path; write it as "/srv/project"'),
    (places.PATH, 3, '3 is not a path; write it as "/srv/project"'),
    (places.PATH, "a\0b", '"a\\u0000b" contains a NUL character'),
    (places.FILE, "/nowhere", 'there is no file "/nowhere"'),
    (places.FOLDER, "/nowhere", 'there is no folder "/nowhere"'),
    (places.FOLDER, "no", f'there is no folder "no"; it is looked for in {Path.cwd()}'),
    (places.FILE, "no", f'there is no file "no"; it is looked for in {Path.cwd()}'),
    (places.WATCHED, "no", f'there is no file "no"; it is looked for in {Path.cwd()}'),
    (places.FOLDER, str(HERE), f'there is no folder "{HERE}"'),
    (places.WATCHED, "/nowhere", 'there is no file "/nowhere"'),
    (places.ADDRESSES, 8000, '8000 is not an address; write it as "127.0.0.1:8000"'),
    (places.ADDRESSES, [8000], '8000 is not an address; write it as "127.0.0.1:8000"'),
    (places.ADDRESSES, [], 'it names no address; write it as "127.0.0.1:8000"'),
    (places.ADDRESSES, ["a:x"], '"x" is not a port number, in "a:x"; write HOST:PORT'),
    (places.ADDRESSES, [":1", "0.0.0.0:1"], "0.0.0.0:1 is there twice"),
    (places.NETWORKS, "10.0.0.1/8", '"10.0.0.1/8" has host bits set; write "10.0.0.0/8"'),
    (
        places.NETWORKS,
        "proxy",
        '"proxy" is not an IP address or network; '
        'write addresses, networks as "10.0.0.0/8", or "*"',
    ),
    (places.STATSD, "fd://3", "fd://3 is no address of a server; write HOST:PORT"),
    (places.PROXY_PROTOCOL, "v3", '"v3" is not one of its values; write off, v1, v2 or auto'),
    (places.PROXY_PROTOCOL, 1, "1 is not one of its values; write off, v1, v2 or auto"),
    (
        places.USER,
        "no-such-user",
        'there is no user "no-such-user"; make it, or write another or a number',
    ),
    (
        places.GROUP,
        "no-such-group",
        'there is no group "no-such-group"; make it, or write another or a number',
    ),
    (code.MAPPING, "a", '"a" is not a dictionary; write it as {"name": value}'),
    (code.MAPPING, "[1]", '"[1]" is not a dictionary; write it as {"name": value}'),
    (
        code.SCHEME_HEADERS,
        {"X-Proto": 1},
        '"X-Proto": 1 is not a header and its value; write it as {"X-FORWARDED-PROTO": "https"}',
    ),
    (code.hook("server"), 3, "3 is not a function"),
    (WORKER_CLASS, 3, "3 is not a kind of worker; write sync, threaded or asgi"),
    (
        code.hook("server"),
        "basename",
        '"basename" names no module; write it as package.module.name',
    ),
    (
        code.hook("server"),
        "no_such_module.function",
        "cannot import \"no_such_module.function\": No module named 'no_such_module'",
    ),
    (code.hook("server"), "os.nothing", 'the module os has no "nothing"'),
    (
        code.hook("server"),
        called_with_two,
        "called_with_two(server: 'object', worker: 'object') -> 'None' cannot be called with "
        "1 argument; write it as def called_with_two(server)",
    ),
    (
        code.POST_REQUEST,
        called_with_one,
        "post_request(server: 'object') -> 'None' cannot be called with 4 arguments; "
        "write it as def post_request(worker, req, environ, resp)",
    ),
    (code.LOGGER_CLASS, 3, "3 is not text; put it in quotes"),
]


@pytest.mark.parametrize(("kind", "given", "expected"), TAKEN)
def test_a_value_is_taken(kind: Kind, given: object, expected: object) -> None:
    value = kind.parse(given)

    assert value == expected
    assert type(value) is type(expected)


@pytest.mark.parametrize(("kind", "given", "message"), REFUSED)
def test_a_wrong_value_is_explained(kind: Kind, given: object, message: str) -> None:
    with pytest.raises(BadValueError) as caught:
        kind.parse(given)

    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("kind", "given", "expected"),
    [
        (
            values.LOG_LEVEL,
            "loud",
            Noted(
                "info",
                '"loud" is not one of its values; info is used. '
                "Write debug, info, warning, error or critical",
            ),
        ),
        (values.MEMORY, 200, Noted(200 << 20, '200 is taken for 200 MiB; write "200M"')),
        (values.MEMORY, "512", Noted(512 << 20, '512 is taken for 512 MiB; write "512M"')),
        (
            places.PYTHONPATH,
            "/nowhere",
            Noted(("/nowhere",), 'there is no folder "/nowhere"; nothing is imported from it'),
        ),
    ],
)
def test_a_doubtful_value_is_taken_with_a_note(kind: Kind, given: object, expected: Noted) -> None:
    assert kind.parse(given) == expected


@pytest.mark.parametrize("arity", [2, 3, 4])
def test_post_request_is_always_called_with_four_arguments(arity: int) -> None:
    seen: list[tuple[object, ...]] = []
    hooks: dict[int, Callable[..., None]] = {
        2: lambda worker, req: seen.append((worker, req)),
        3: lambda worker, req, environ: seen.append((worker, req, environ)),
        4: lambda worker, req, environ, resp: seen.append((worker, req, environ, resp)),
    }

    code.POST_REQUEST.parse(hooks[arity])("worker", "req", "environ", "resp")

    assert seen == [("worker", "req", "environ", "resp")[:arity]]


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (None, None),
        (True, True),
        (3, 3),
        (30.0, 30),
        (0.5, 0.5),
        ("a", "a"),
        (Path("/a"), "/a"),
        (A, "127.0.0.1:8000"),
        ((A, UnixAddress("/x")), ["127.0.0.1:8000", "unix:/x"]),
        ({"a": (1, 2.0)}, {"a": [1, 2]}),
        (Green, f"{__name__}.Green"),
        (called_with_one, f"{__name__}.called_with_one"),
        (Green(), f"{__name__}.Green"),
        (code.POST_REQUEST.parse(called_with_two), f"{__name__}.called_with_two"),
    ],
)
def test_a_value_is_shown_in_plain_types(value: object, plain: object) -> None:
    assert values.shown(value) == plain


def test_a_mode_is_shown_in_octal() -> None:
    assert values.MODE.show(0o22) == "0022"
    assert values.optional(values.MODE).show(None) is None


@pytest.mark.parametrize("text", ["GET /", "HEAD /a?b=c 204", "GET https://shop.example/ 200"])
def test_a_warm_up_request_is_shown_as_it_is_written(text: str) -> None:
    assert values.WARMUP.show(values.WARMUP.parse([text])) == [text]


def test_a_function_without_a_signature_is_taken() -> None:
    assert code.hook("server").parse(max) is max


def test_a_long_value_is_cut_in_messages() -> None:
    assert len(values.quoted("x" * 500)) < 90


@pytest.mark.parametrize("name", SETTINGS)
def test_every_default_is_a_value_of_its_kind(name: str) -> None:
    setting = SETTINGS[name]

    if setting.default is not None:
        assert setting.kind.parse(setting.default) == setting.default


@pytest.mark.parametrize("name", SETTINGS)
def test_every_default_is_taken_as_it_is_shown(name: str) -> None:
    setting = SETTINGS[name]

    if setting.default is not None:
        assert setting.kind.parse(setting.kind.show(setting.default)) == setting.default


anything: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
KINDS = sorted({id(each.kind): each.kind for each in SETTINGS.values()}.values(), key=repr)


@given(st.sampled_from(KINDS), anything)
def test_any_value_is_taken_or_explained(kind: Kind, value: object) -> None:
    try:
        kind.parse(value)
    except BadValueError as exc:
        message = str(exc)
    else:
        return
    assert message
    assert "\n" not in message


@given(st.integers(0, 10**12))
def test_an_integer_means_the_same_as_its_text(number: int) -> None:
    assert values.COUNT.parse(str(number)) == values.COUNT.parse(number) == number


@given(st.floats(0, 1e9), st.sampled_from(["", "s", "ms", "m", "h", "d"]))
def test_a_duration_with_a_unit_is_a_multiple_of_a_second(number: float, unit: str) -> None:
    text = f"{number:f}{unit}"

    factor = {"": 1, "s": 1, "ms": 0.001, "m": 60, "h": 3600, "d": 86400}[unit]
    assert values.SECONDS.parse(text) == pytest.approx(float(f"{number:f}") * factor)


@given(st.lists(st.ip_addresses(), max_size=5))
def test_networks_mean_the_same_as_list_and_as_text(addresses: list[object]) -> None:
    texts = [str(address) for address in addresses]

    assert places.NETWORKS.parse(texts) == places.NETWORKS.parse(",".join(texts)) == tuple(texts)


@given(st.integers(0, 10**6), st.sampled_from(["", "B", "kB", "MB", "GB", "KiB", "MiB", "M", "g"]))
def test_a_size_with_a_unit_is_a_multiple_of_a_byte(number: int, unit: str) -> None:
    factor = {"": 1, "B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9}
    factor |= {"KiB": 2**10, "MiB": 2**20, "M": 2**20, "g": 2**30}

    assert values.SIZE.parse(f"{number}{unit}") == number * factor[unit]
    assert values.SIZE.parse(f" {number} {unit.upper()} ") == number * factor[unit]


@given(st.integers(0, 0o7777))
def test_a_mode_means_the_same_as_its_octal_text(mode: int) -> None:
    assert values.MODE.parse(f"{mode:#o}") == values.MODE.parse(f"0{mode:o}") == mode
    assert values.MODE.parse(values.MODE.show(mode)) == mode


# What people write, where any text would nearly always be refused.
written = st.sampled_from(
    ["0", "1", "3", "0660", "0x10", "1_000", "30s", "1.5m", ".5", "512MB", "1.5GiB", "true",
     "off", "yes", "auto", "*", "red", "h2,h1", "a,b", "127.0.0.1", "10.0.0.0/8,::1", ":8000",
     "unix:/run/x", "localhost:80", "[::1]:80", "fd://3", "sync", "gthread", "debug", "WARN",
     "/", ".", "A=1", "/static/=.", "v2", "drop", "rolling", "udp://localhost:514"]
)  # fmt: skip
plain = anything | written | st.lists(written, max_size=3) | st.dictionaries(written, written)
# Functions and classes are shown by a name that is not always one to import, and a dictionary
# may hold whatever a file puts there.
PLAIN_KINDS = [
    kind
    for kind in KINDS
    if not kind.metavar.startswith("MODULE.")
    and kind not in (code.ANYTHING, code.MAPPING, WORKER_CLASS)
]


@given(st.sampled_from(PLAIN_KINDS), plain)
def test_what_is_shown_can_be_read_again(kind: Kind, value: object) -> None:
    try:
        taken = parsed(kind, value)
    except BadValueError:
        return

    assert taken is None or parsed(kind, kind.show(taken)) == taken


def parsed(kind: Kind, value: object) -> object:
    taken = kind.parse(value)
    return taken.value if isinstance(taken, Noted) else taken

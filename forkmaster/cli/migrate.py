"""`forkmaster migrate uwsgi.ini`: the configuration of uWSGI as one of forkmaster.

Prints a forkmaster.toml; what has no equivalent, and what now is different, stands in it as
comments.  Nothing of the file is executed, and no variable that uWSGI would fill in at run time
is: those are told.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import click

from forkmaster.cli.show import toml_value
from forkmaster.errors import ForkmasterError

PROCESSORS = "%k"  # uWSGI's word for their number
VARIABLE = r"%\((\w[\w-]*)\)"


def command() -> click.Command:
    return click.Command(
        "migrate",
        params=[click.Argument(["file"], type=click.Path(path_type=Path))],
        help=(
            "Print the forkmaster.toml for FILE, the .ini of uWSGI, and what of it has no "
            "equivalent."
        ),
        callback=run,
        context_settings={"help_option_names": ["-h", "--help"]},
    )


def run(file: Path) -> int:
    try:
        text = file.read_text()
    except (OSError, UnicodeDecodeError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else "it is not text"
        raise ForkmasterError(f"cannot read {file}: {reason}") from None
    print(migrated(text, file.name), end="")
    return 0


@dataclass
class Migration:
    """What has been found so far."""

    values: dict[str, object] = field(default_factory=dict)
    module: str = ""
    callable: str = ""
    notes: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)

    def add(self, name: str, item: str) -> None:
        """Add to a list."""
        items = self.values.setdefault(name, [])
        assert isinstance(items, list)
        items.append(item)

    def note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)


def migrated(text: str, name: str) -> str:
    """The forkmaster.toml for the text of an .ini file called `name`.

    Raises ForkmasterError if it is another kind of file.
    """
    migration = Migration()
    used = set(re.findall(VARIABLE, text))
    any_known = False
    for number, key, value in options(text):
        known = any(key in table for table in (PLAIN, TAKEN, GIVEN, NONE))
        any_known |= known
        if known or key not in used:  # a variable of the file was put in where it is used
            _take(migration, number, key, value)
    if not any_known and "[uwsgi]" not in text.lower():
        raise ForkmasterError(f"{name} has no option of uWSGI; an .ini with [uwsgi] is wanted")
    return _written(migration, name)


def options(text: str) -> Iterator[tuple[int, str, str]]:
    """Line, name and value of every option of the section [uwsgi], its variables replaced."""
    inside, variables = True, dict[str, str]()
    for number, raw in enumerate(text.splitlines(), 1):
        line = raw.strip()
        if not line or line[0] in "#;":
            continue
        if line.startswith("["):
            inside = line.lower() == "[uwsgi]"
            continue
        if not inside:
            continue
        key, _, value = (part.strip() for part in line.partition("="))
        # %(name) is what the file has set before; others uWSGI fills in when it runs.
        value = re.sub(VARIABLE, lambda found: variables.get(found[1], found[0]), value)
        variables[key] = value
        yield number, key.replace("_", "-"), value


def _take(migration: Migration, number: int, key: str, value: str) -> None:
    where = f"line {number}: {key} = {value}" if value else f"line {number}: {key}"
    filled_in = re.search(r"%[\w(]|\$\(|@\(", value) and value != PROCESSORS
    if filled_in and key not in ("log-format", "logformat"):
        migration.lost.append(f"{where}: uWSGI fills this in when it runs; write what it becomes")
        return
    if value.lower() in ("false", "0", "no") and key in SWITCHES:
        return
    if key in PLAIN:
        setting, convert = PLAIN[key]
        migration.values[setting] = convert(value)
    elif key in TAKEN:
        TAKEN[key](migration, value)
    elif key in GIVEN:
        if GIVEN[key]:
            migration.note(f"{key}: {GIVEN[key]}")
    elif key in NONE:
        migration.lost.append(f"{where}: {NONE[key]}")
    else:
        migration.lost.append(f"{where}: no equivalent is known")


def _written(migration: Migration, name: str) -> str:
    values = migration.values
    app = migration.module
    if app and migration.callable:
        app = f"{app.partition(':')[0]}:{migration.callable}"
    # uWSGI loads the application before it forks, unless it is told to be lazy.
    lazy = values.pop("lazy", False)
    values.setdefault("preload_app", not lazy)
    lines = [f"# From {name}.  Start it with: forkmaster -c forkmaster.toml"]
    lines += [f"# - {note}" for note in migration.notes]
    lines.append("")
    if app:
        lines.append(f"app = {toml_value(app)}")
    lines += [f"{key} = {toml_value(value)}" for key, value in values.items()]
    if migration.lost:
        lines += ["", "# Without an equivalent:"]
        lines += [f"# - {line}" for line in migration.lost]
    return "\n".join(lines) + "\n"


# How values are written


def _number(value: str) -> object:
    return int(value) if value.isdigit() else value


def _workers(value: str) -> object:
    return "auto" if value in (PROCESSORS, "auto") else _number(value)


def _mebibytes(value: str) -> object:
    return f"{value}MiB"


def _umask(value: str) -> object:
    return value if value.startswith("0") else f"0{value}"


def _mode(value: str) -> object:
    return f"0{value}" if len(value) == 3 else value or "0666"


# What takes more than another name


def _bind(migration: Migration, value: str) -> None:
    address = value.partition(",")[0]
    plain = re.fullmatch(r"(?:[\w.*\[\]:-]*:)?\d+|fd://\d+", address)
    migration.add("bind", address if plain else f"unix:{address}")


def _uwsgi_socket(migration: Migration, value: str) -> None:
    _bind(migration, value)
    migration.note(
        "socket spoke the uwsgi protocol, and is HTTP now: in nginx write proxy_pass"
        " http://unix:PATH: (or http://HOST:PORT) for uwsgi_pass, and drop uwsgi_params"
    )


def _module(migration: Migration, value: str) -> None:
    migration.module = value


def _wsgi_file(migration: Migration, value: str) -> None:
    path = value.removesuffix(".py").lstrip("/") if not value.startswith("/") else Path(value).stem
    migration.module = path.replace("/", ".")
    if value.startswith("/"):
        migration.add("pythonpath", str(Path(value).parent))


def _callable(migration: Migration, value: str) -> None:
    migration.callable = value


def _owner(migration: Migration, value: str) -> None:
    user, _, group = value.partition(":")
    migration.values["socket_user"] = user
    if group:
        migration.values["socket_group"] = group


def _environment(migration: Migration, value: str) -> None:
    migration.add("raw_env", value)


def _folder(migration: Migration, value: str) -> None:
    migration.add("pythonpath", value)


def _virtual_environment(migration: Migration, value: str) -> None:
    migration.note(f"home: install forkmaster there and start {value}/bin/forkmaster")


def _log_to(migration: Migration, value: str) -> None:
    migration.values["errorlog"] = migration.values["accesslog"] = value


def _no_log(migration: Migration, value: str) -> None:
    migration.values.pop("accesslog", None)
    migration.note("disable-logging: there is no line per request unless accesslog is set")


def _static(migration: Migration, value: str) -> None:
    path, _, folder = value.partition("=")
    folders = migration.values.setdefault("static_map", {})
    assert isinstance(folders, dict)
    folders[f"{path.rstrip('/')}/"] = folder
    migration.note("static-map: install forkmaster[static], or let nginx serve the files")


def _daemon(migration: Migration, value: str) -> None:
    migration.values["daemon"] = True
    migration.values["errorlog"] = value


def _cheaper(migration: Migration, value: str) -> None:
    migration.values["workers_min"] = _number(value)
    migration.values["workers_max"] = migration.values.get("workers", "auto")


def _harakiri(migration: Migration, value: str) -> None:
    migration.values["request_timeout"] = _number(value)


def _touch(migration: Migration, value: str) -> None:
    migration.lost.append(f"touch-reload = {value}: say forkmaster reload after a deploy")


def _lazy(migration: Migration, value: str) -> None:
    migration.values["lazy"] = True


def _buffer(migration: Migration, value: str) -> None:
    migration.values["limit_request_field_size"] = min(int(value), 65536)


PLAIN: dict[str, tuple[str, Callable[[str], object]]] = {
    "processes": ("workers", _workers),
    "workers": ("workers", _workers),
    "p": ("workers", _workers),
    "threads": ("threads", _number),
    "listen": ("backlog", _number),
    "chmod-socket": ("socket_mode", _mode),
    "chdir": ("chdir", str),
    "uid": ("user", str),
    "gid": ("group", str),
    "umask": ("umask", _umask),
    "max-requests": ("max_requests", _number),
    "max-requests-delta": ("max_requests_jitter", _number),
    "max-worker-lifetime": ("max_worker_lifetime", _number),
    "max-worker-lifetime-delta": ("max_worker_lifetime_jitter", _number),
    "reload-on-rss": ("max_worker_memory", _mebibytes),
    "worker-reload-mercy": ("graceful_timeout", _number),
    "reload-mercy": ("graceful_timeout", _number),
    "pidfile": ("pidfile", str),
    "procname-prefix": ("proc_name", str.strip),
    "procname-prefix-spaced": ("proc_name", str.strip),
    "procname": ("proc_name", str.strip),
    "stats": ("monitor_bind", lambda value: value if ":" in value else f"unix:{value}"),
}

TAKEN: dict[str, Callable[[Migration, str], None]] = {
    "socket": _uwsgi_socket,
    "s": _uwsgi_socket,
    "uwsgi-socket": _uwsgi_socket,
    "http": _bind,
    "http-socket": _bind,
    "module": _module,
    "w": _module,
    "wsgi": _module,
    "mount": lambda migration, value: migration.lost.append(
        f"mount = {value}: let nginx pass the path, and set SCRIPT_NAME in a header or raw_env"
    ),
    "wsgi-file": _wsgi_file,
    "file": _wsgi_file,
    "callable": _callable,
    "chown-socket": _owner,
    "env": _environment,
    "pythonpath": _folder,
    "python-path": _folder,
    "pp": _folder,
    "home": _virtual_environment,
    "virtualenv": _virtual_environment,
    "venv": _virtual_environment,
    "pyhome": _virtual_environment,
    "H": _virtual_environment,
    "logto": _log_to,
    "logto2": _log_to,
    "disable-logging": _no_log,
    "static-map": _static,
    "daemonize": _daemon,
    "daemonize2": _daemon,
    "cheaper": _cheaper,
    "harakiri": _harakiri,
    "touch-reload": _touch,
    "lazy": _lazy,
    "lazy-apps": _lazy,
    "buffer-size": _buffer,
}

# So by itself, or with a difference worth a word.
GIVEN = {
    "master": "",
    "single-interpreter": "",
    "need-app": "",
    "strict": "",
    "vacuum": "",
    "enable-threads": "",
    "thunder-lock": "",
    "so-keepalive": "",
    "auto-procname": "",
    "ignore-sigpipe": "",
    "ignore-write-errors": "",
    "disable-write-exception": "",
    "log-master": "",
    "py-call-osafterfork": "",
    "plugin": "",
    "plugins": "",
    "plugin-dir": "",
    "plugins-dir": "",
    "if-not-plugin": "",
    "no-site": "",
    "protocol": "HTTP is the only one",
    "die-on-term": "TERM stops the server, always; HUP or forkmaster reload replaces the workers",
    "post-buffering": "request bodies are read before the application is called, always",
    "http-keepalive": "connections are kept alive for `keepalive` seconds",
    "harakiri-verbose": "a worker that is killed for a timeout says where it stands, always",
    "memory-report": "forkmaster status shows the memory of each worker",
    "log-x-forwarded-for": "the client's address comes from forwarded_allow_ips",
    "log-format": "write it in the atoms of access_log_format, or make that json",
    "logformat": "write it in the atoms of access_log_format, or make that json",
    "log-date": "",
    "log-maxsize": "rotate the file with logrotate, and say forkmaster reopen",
    "http-to": "",
    "py-autoreload": "use --reload in development",
    "python-autoreload": "use --reload in development",
    "cheaper-algo": "workers are added when most are busy",
    "cheaper-initial": "the start is with workers_min",
    "cheaper-step": "workers are added one by one",
}

NONE = {
    "spooler": "use a queue, as Celery or RQ",
    "spooler-processes": "use a queue, as Celery or RQ",
    "mule": "use a queue, as Celery or RQ, or a service of its own",
    "mules": "use a queue, as Celery or RQ, or a service of its own",
    "farm": "use a queue, as Celery or RQ",
    "cron": "use a timer of systemd, or cron",
    "cron2": "use a timer of systemd, or cron",
    "unique-cron": "use a timer of systemd, or cron",
    "emperor": "use one unit per project: forkmaster@.service",
    "vassals-dir": "use one unit per project: forkmaster@.service",
    "attach-daemon": "make it a service of its own",
    "attach-daemon2": "make it a service of its own",
    "smart-attach-daemon": "make it a service of its own",
    "exec-pre-app": "use ExecStartPre= of the unit",
    "exec-asap": "use ExecStartPre= of the unit",
    "hook-master-start": "use ExecStartPre= of the unit, or the hook on_starting",
    "gevent": "use threads, or an asgi worker",
    "gevent-monkey-patch": "use threads, or an asgi worker",
    "asyncio": "use an asgi worker",
    "async": "use threads, or an asgi worker",
    "cache2": "use the cache of the application, as Redis or Memcached",
    "route": "let nginx do it",
    "route-uri": "let nginx do it",
    "offload-threads": "nginx, or static_map, serves files",
    "check-static": "use static_map, or nginx",
    "static-index": "use static_map, or nginx",
    "static-expires": "use static_map, or nginx",
    "ssl": "use certfile and keyfile, or let TLS end at nginx",
    "https": "use certfile and keyfile, or let TLS end at nginx",
    "https-socket": "use certfile and keyfile, or let TLS end at nginx",
    "ini": "name that file too",
    "include": "name that file too",
    "inherit": "name that file too",
    "for-readline": "write each line into raw_env",
    "zerg": "no such thing; an upgrade is USR2, or forkmaster upgrade",
    "req-logger": "use logconfig_dict",
    "logger": "use logconfig_dict, or syslog",
    "log-route": "use logconfig_dict",
    "limit-as": "use MemoryMax= of the unit, or max_worker_memory",
    "evil-reload-on-rss": "use max_worker_memory",
    "cpu-affinity": "use CPUAffinity= of the unit",
    "snmp": "use the Prometheus metrics of monitor_bind",
    "carbon": "use the Prometheus metrics of monitor_bind",
    "stats-push": "use the Prometheus metrics of monitor_bind",
    "subscribe-to": "let nginx or a load balancer know the address",
    "fs-reload": "use --reload in development",
}

SWITCHES = {"lazy", "lazy-apps", "disable-logging", *GIVEN}

"""The error log and the access log: opened, configured, reopened.

    forkmaster.error     everything that happens to the server; to `errorlog`
    forkmaster.access    a line per request; to `accesslog`

Both are ordinary loggers, so an application can attach handlers to them.  They differ from others
in one thing: they cannot be disabled, because `dictConfig` with disable_existing_loggers, which is
its default and Django's habit, would silence the server the moment the application is loaded.

Loggers that are configured for gunicorn, in a gunicorn.py or in Django's LOGGING, apply to ours.
"""

from __future__ import annotations

import json
import logging
import logging.config
import os
import sys
from collections.abc import Callable
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Any

from forkmaster.errors import ConfigError, ForkmasterError
from forkmaster.logs.access import AccessEntry
from forkmaster.logs.access_format import (
    ExchangeT,
    compile_exchange_writer,
    compile_format,
    compile_writer,
    unknown_atoms,
)
from forkmaster.logs.files import STDERR, STDOUT, LogFile
from forkmaster.logs.lines import ERROR_FORMAT, ERROR_TIME, formatter_for

if TYPE_CHECKING:
    from forkmaster.config.table import Config
    from forkmaster.logs.statsd import Statsd

ERROR, ACCESS = "forkmaster.error", "forkmaster.access"
GUNICORNS = {ERROR: "gunicorn.error", ACCESS: "gunicorn.access"}

ACCESS_FORMAT = "%(message)s"

GUNICORNS_CONFIG: dict[str, Any] = {
    "version": 1,
    "disable_existing_loggers": False,
    "root": {"level": "INFO", "handlers": ["console"]},
    "loggers": {
        "gunicorn.error": {"level": "INFO", "handlers": ["error_console"]},
        "gunicorn.access": {"level": "INFO", "handlers": ["console"]},
    },
    "handlers": {
        "console": {
            "class": "logging.StreamHandler",
            "formatter": "generic",
            "stream": "ext://sys.stdout",
        },
        "error_console": {
            "class": "logging.StreamHandler",
            "formatter": "generic",
            "stream": "ext://sys.stderr",
        },
    },
    "formatters": {
        "generic": {
            "format": ERROR_FORMAT,
            "datefmt": ERROR_TIME,
            "class": "logging.Formatter",
        }
    },
}


class ServerLogger(logging.Logger):
    """A logger that stays on.  Ours become one after they were made, by whoever imported first."""

    @property
    def disabled(self) -> bool:
        return False

    @disabled.setter
    def disabled(self, value: bool) -> None:
        pass


class FileHandler(logging.Handler):
    """Writes records to a LogFile, each with one system call."""

    def __init__(self, file: LogFile, formatter: logging.Formatter) -> None:
        super().__init__()
        self.file = file
        self.setFormatter(formatter)

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self.format(record)
        except Exception:  # a message whose arguments do not fit; logging's own way to say so
            self.handleError(record)
            return
        self.file.write_text(f"{line}\n")

    @property
    def lost(self) -> int:
        """Lines that could not be written."""
        return self.file.lost

    # `close` is logging's, which only forgets the handler: dictConfig in the application closes
    # every handler that it finds, and must not close our files.


class Logs:
    """What is open now.  One per process; a child goes on with its parent's."""

    def __init__(self) -> None:
        self.files: list[LogFile] = []
        self.standard: dict[int, LogFile] = {}
        """Standard output and error as they were at the start, before any capture."""
        self.captures: LogFile | None = None
        """Where standard output and error go."""
        self.custom: Any = None
        """The instance of logger_class, if there is one."""
        self.statsd: Statsd | None = None


_logs = Logs()
# Who this process is, in every line of JSON.
_identity: dict[str, int | None] = {"worker": None, "generation": None}


def configure(config: Config) -> None:
    """Send both logs where `config` says.  May be called again, for a reload.

    Raises ForkmasterError if a file cannot be opened, and ConfigError if logconfig is wrong; what
    was open before then stays.
    """
    if _wants_access_log(config):
        _line_function(config)  # a format that is wrong is an error now, not in every worker
    error_file = access_file = None
    try:
        error_file = _open(config.errorlog, STDERR, config)
        access_file = _open(config.accesslog, STDOUT, config) if config.accesslog else None
        handlers = _syslog_handlers(config)
        _install(
            ERROR,
            error_file,
            formatter_for(error_file.fd, config.log_format, _identity),
            handlers[ERROR],
        )
        _install(ACCESS, access_file, logging.Formatter(ACCESS_FORMAT), handlers[ACCESS])
        logging.getLogger(ERROR).setLevel(config.loglevel.upper())
        logging.getLogger(ACCESS).setLevel(logging.INFO)
        custom = _apply_logger_class(config)
        _apply_logconfig(config)
    except (ForkmasterError, OSError):
        _close([error_file, access_file])
        raise
    _logs.custom = custom
    _follow_statsd(config)
    before, _logs.files = _logs.files, [file for file in (error_file, access_file) if file]
    if config.capture_output and error_file.path is not None:
        _capture(error_file)
    _close(before)
    if _wants_access_log(config):
        for name in unknown_atoms(config.access_log_format):
            logging.getLogger(ERROR).warning(
                "access_log_format has no atom %%(%s)s; it is - in every line", name
            )


def identify(worker: int, generation: int) -> None:
    """Say in every line of JSON who writes it.  In a child, after the fork."""
    _identity.update(worker=worker, generation=generation)


def statsd() -> Statsd | None:
    """Where metrics go, if they go anywhere."""
    return _logs.statsd


def reopen() -> None:
    """Go on in new files after a rotation.  Called on both sides of the fork, for USR1."""
    for file in _logs.files:
        try:
            file.reopen()
        except OSError as exc:
            logging.getLogger(ERROR).error(
                "cannot reopen log file %s: %s; going on in the old one", file.path, exc.strerror
            )
    if _logs.captures is not None:
        _capture(_logs.captures)


def set_level(level: int) -> None:
    """Write messages of this level and above into the error log, until the next `configure`."""
    logging.getLogger(ERROR).setLevel(level)


def leave_terminal() -> None:
    """Let what is logged to standard output or error go nowhere: a daemon has lost both."""
    null = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
    for file in _logs.standard.values():
        os.dup2(null, file.fd, inheritable=False)
    os.close(null)


def goes_to_terminal(config: Config) -> bool:
    """Whether the error log is nowhere but on standard error."""
    elsewhere = config.syslog or config.logconfig or config.logconfig_dict or config.logconfig_json
    return config.errorlog in ("-", "/dev/stderr", "/dev/stdout") and not elsewhere


def lost_lines() -> int:
    """How many lines this process could not write."""
    handlers = [*logging.getLogger(ERROR).handlers, *logging.getLogger(ACCESS).handlers]
    return sum(getattr(handler, "lost", 0) for handler in handlers)


def access_writer(config: Config, *, hold: bool = False) -> Callable[[AccessEntry], object] | None:
    """What a worker calls for each request that it answered; None if nobody wants to know.

    Called in the worker, after the application is loaded.  `hold`: lines may be held by
    `access_file`, and the caller sees to their being written.
    """
    write = _line_writer(config, hold=hold)
    if write is not None and config.access_log_skip:
        write = _but(_skipper(config.access_log_skip), write)
    if _logs.statsd is None:
        return write
    tell = _logs.statsd.request
    if write is None:
        return tell
    also = write

    def write_and_tell(entry: AccessEntry) -> None:
        also(entry)
        tell(entry)

    return write_and_tell


def exchange_writer(
    config: Config,
    otherwise: Callable[[ExchangeT, int], object],
    *,
    serial: int,
    generation: int,
    hold: bool,
) -> Callable[[ExchangeT, int], object]:
    """What a WSGI worker calls for each exchange; `otherwise` itself if an entry is wanted.

    See `compile_exchange_writer`.
    """
    file = access_file()
    if file is None or _custom_writer() is not None or _logs.statsd is not None:
        return otherwise
    write = compile_exchange_writer(
        config.access_log_format,
        file.line_writer(hold=hold),
        otherwise,
        serial=serial,
        generation=generation,
    )
    if not config.access_log_skip:
        return write
    is_skipped = _skipper(config.access_log_skip)

    def write_others(exchange: ExchangeT, duration: int) -> None:
        if exchange.client_left or not is_skipped(exchange.line.target, exchange.code):
            write(exchange, duration)

    return write_others


def _custom_writer() -> Callable[[AccessEntry], object] | None:
    """The `access` of a logger_class that has its own."""
    if _logs.custom is None:
        return None
    from forkmaster.logs.custom import writer

    return writer(_logs.custom)


def _line_writer(config: Config, *, hold: bool) -> Callable[[AccessEntry], object] | None:
    """What writes the access log.

    With only our own file to write to it goes past the logging module, which would cost 5 µs a
    line.
    """
    logger = logging.getLogger(ACCESS)
    if not logger.hasHandlers() or not logger.isEnabledFor(logging.INFO):
        return None
    custom = _custom_writer()
    if custom is not None:
        return custom
    file = access_file()
    if file is not None:
        return compile_writer(config.access_log_format, file.line_writer(hold=hold))
    line_of = _line_function(config)
    # As an argument: a line with a percent sign in it is no format.
    return lambda entry: logger.info("%s", line_of(entry))


def write_held() -> None:
    """Write the lines of the access log that are held."""
    file = access_file()
    if file is not None:
        file.write_held()


def access_file() -> LogFile | None:
    """The file of the access log, if nothing else is to get the lines."""
    logger = logging.getLogger(ACCESS)
    match logger.handlers:
        case [FileHandler(file=file)] if not logger.propagate and not logger.filters:
            return file
    return None


def _skipper(skipped: tuple[str, ...]) -> Callable[[str, int], bool]:
    """Whether a target with that status gets no line; whoever probes wants to see what failed."""
    paths = frozenset(path for path in skipped if not path.endswith("*"))
    starts = tuple(path[:-1] for path in skipped if path.endswith("*"))

    def is_skipped(target: str, status: int) -> bool:
        path = target.partition("?")[0]
        return status < 400 and (path in paths or path.startswith(starts))

    return is_skipped


def _but(
    is_skipped: Callable[[str, int], bool], write: Callable[[AccessEntry], object]
) -> Callable[[AccessEntry], object]:
    def write_others(entry: AccessEntry) -> None:
        if not is_skipped(entry.target, entry.status):
            write(entry)

    return write_others


def _line_function(config: Config) -> Callable[[AccessEntry], str]:
    try:
        return compile_format(config.access_log_format)
    except ValueError as exc:
        raise ConfigError(f"access_log_format: {exc}") from exc


def _wants_access_log(config: Config) -> bool:
    return bool(
        config.accesslog
        or config.logconfig_dict
        or config.logconfig_json
        or config.logconfig
        or config.logger_class
        or (config.syslog and not config.disable_redirect_access_to_syslog)
    )


def _open(name: str, standard: int, config: Config) -> LogFile:
    # Under systemd they are sockets, which cannot be opened by name.
    standard = {"/dev/stdout": STDOUT, "/dev/stderr": STDERR}.get(name, standard)
    if name in ("-", "/dev/stdout", "/dev/stderr"):
        if standard not in _logs.standard:
            _logs.standard[standard] = LogFile.standard(standard)
        return _logs.standard[standard]
    # Workers, who run as this user, reopen it after a rotation.
    owner = (
        -1 if config.user is None else config.user,
        -1 if config.group is None else config.group,
    )
    return LogFile.open(Path(name), None if owner == (-1, -1) else owner)


def _close(files: list[LogFile | None] | list[LogFile]) -> None:
    for file in files:
        if file is not None and file not in _logs.standard.values():
            file.close()


def _install(
    name: str, file: LogFile | None, formatter: logging.Formatter, others: list[logging.Handler]
) -> None:
    logger = logging.getLogger(name)
    logger.__class__ = ServerLogger
    logger.propagate = False
    logger.handlers = [*([FileHandler(file, formatter)] if file else []), *others]


def print_into(fd: int) -> None:
    """Send there what this process prints, and what it starts.  In a child; closes `fd`."""
    _logs.captures = None
    _redirect(fd)
    os.close(fd)


def _capture(file: LogFile) -> None:
    """Make what this process prints part of the log.  In the master, of what hooks print."""
    _redirect(file.fd)
    _logs.captures = file


def _redirect(fd: int) -> None:
    """Standard output and error are `fd` from now on."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.flush()
            stream.reconfigure(line_buffering=True)  # or a print would wait for 8 KiB of others
    os.dup2(fd, STDOUT)
    os.dup2(fd, STDERR)


def _syslog_handlers(config: Config) -> dict[str, list[logging.Handler]]:
    handlers: dict[str, list[logging.Handler]] = {ERROR: [], ACCESS: []}
    if config.syslog:
        from forkmaster.logs.syslog import syslog_handler

        handlers[ERROR].append(syslog_handler(config, "error"))
        if not config.disable_redirect_access_to_syslog:
            handlers[ACCESS].append(syslog_handler(config, "access"))
    return handlers


def _follow_statsd(config: Config) -> None:
    """Send metrics where `config` says, and no more where they went before."""
    if _logs.statsd is not None:
        _logs.statsd.close()
        _logs.statsd = None
    if config.statsd_host is None:
        return
    # Imported late: hardly anybody has it.
    from forkmaster.logs.statsd import Statsd, StatsdHandler

    log = logging.getLogger(ERROR)
    try:
        _logs.statsd = Statsd(config.statsd_host, config.statsd_prefix, config.dogstatsd_tags)
    except OSError as exc:
        log.warning("cannot find statsd at %s: %s", config.statsd_host, exc.strerror)
        return
    log.handlers = [*log.handlers, StatsdHandler(_logs.statsd)]


def _apply_logger_class(config: Config) -> Any:
    """Have logger_class set its loggers up, and take their handlers.  Returns its instance."""
    if config.logger_class is None:
        return None
    # Imported late: hardly anybody has one.
    from forkmaster.logs.custom import make

    made = make(config)
    _take_gunicorns()
    return made


def _apply_logconfig(config: Config) -> None:
    """Apply the first of logconfig_dict, logconfig_json and logconfig that is set."""
    for name in GUNICORNS.values():
        # Else what one of them writes is written by the root logger once more.
        logging.getLogger(name).propagate = False
    try:
        if config.logconfig_dict:
            logging.config.dictConfig(_with_defaults(config.logconfig_dict))
        elif config.logconfig_json is not None:
            loaded = json.loads(config.logconfig_json.read_text())
            logging.config.dictConfig(_with_defaults(loaded))
        elif config.logconfig is not None:
            here = config.logconfig.absolute()
            defaults = {"__file__": str(here), "here": str(here.parent)}
            logging.config.fileConfig(here, defaults, disable_existing_loggers=False)
        else:
            return
    except Exception as exc:  # whatever a factory named in it raises
        raise ConfigError(f"logconfig: {type(exc).__name__}: {exc}") from exc
    _take_gunicorns()


def _take_gunicorns() -> None:
    """Log to where loggers that are configured for gunicorn do."""
    for ours, gunicorns in GUNICORNS.items():
        theirs = logging.getLogger(gunicorns)
        if theirs.handlers:
            logger = logging.getLogger(ours)
            logger.handlers = list(theirs.handlers)
            logger.filters = list(theirs.filters)
            logger.propagate = theirs.propagate
            if theirs.level != logging.NOTSET:
                logger.setLevel(theirs.level)


def _with_defaults(given: dict[str, Any]) -> dict[str, Any]:
    """A dictConfig with gunicorn's defaults for each part that it does not have."""
    return {**GUNICORNS_CONFIG, **given}

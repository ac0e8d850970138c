"""What is written, where, and how."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from forkmaster.addresses import TCPAddress, UnixAddress
from forkmaster.config.code import LOGGER_CLASS, MAPPING
from forkmaster.config.places import FILE, STATSD, URL_PATHS
from forkmaster.config.settings import setting
from forkmaster.config.values import (
    BOOLEAN,
    LOG_FORMAT,
    LOG_LEVEL,
    OPTIONAL_TEXT,
    TEXT,
    VERBATIM,
    optional,
)


@dataclass(frozen=True, kw_only=True, init=False, repr=False, eq=False)
class Logs:
    title: ClassVar[str] = "Logs"

    accesslog: str | None = setting(
        None,
        OPTIONAL_TEXT,
        "--access-logfile",
        "The file for a line per request; - is standard output.",
        default_text="none",
        everyday=True,
    )
    access_log_format: str = setting(
        '%(h)s %(l)s %(u)s %(t)s "%(r)s" %(s)s %(b)s "%(f)s" "%(a)s"',
        VERBATIM,
        "--access-logformat --access-log-format",
        'The line per request, in gunicorn\'s atoms; "json" is a format too.',
    )
    access_log_skip: tuple[str, ...] = setting(
        (),
        URL_PATHS,
        "--access-log-skip",
        "Paths that get no line when they are answered below 400: what probes ask for."
        " A * at the end stands for any rest.",
        own=True,
    )
    errorlog: str = setting(
        "-",
        TEXT,
        "--error-logfile --log-file",
        "The file for everything else; - is standard error.",
    )
    log_format: str = setting(
        "text",
        LOG_FORMAT,
        "--log-format",
        "How the lines of the error log look: text, as gunicorn writes them, or json.",
        own=True,
    )
    loglevel: str = setting(
        "info",
        LOG_LEVEL,
        "--log-level",
        "The least that is written.",
        everyday=True,
    )
    capture_output: bool = setting(
        False,
        BOOLEAN,
        "--capture-output",
        "Write what the application, and what it starts, prints into the error log.",
        differs="each line bears its time and its worker, and it is done for an errorlog of - too",
    )
    logger_class: type | str | None = setting(
        None,
        LOGGER_CLASS,
        "--logger-class",
        "A class that sets the logs up, derived from gunicorn.glogging.Logger.",
        differs="it gets what forkmaster logs; its methods are not what forkmaster logs through,"
        " except access and atoms",
    )
    logconfig: Path | None = setting(
        None,
        optional(FILE),
        "--log-config",
        "A file for logging.config.fileConfig.",
    )
    logconfig_dict: dict[str, Any] = setting(
        {},
        MAPPING,
        "",
        "A dictionary for logging.config.dictConfig.",
    )
    logconfig_json: Path | None = setting(
        None,
        optional(FILE),
        "--log-config-json",
        "A JSON file for logging.config.dictConfig.",
        differs="a file that is missing is an error",
    )
    syslog: bool = setting(False, BOOLEAN, "--log-syslog", "Write to syslog.")
    syslog_addr: str = setting(
        "udp://localhost:514",
        TEXT,
        "--log-syslog-to",
        "Where syslog is: udp://HOST:PORT, tcp://HOST:PORT or unix://PATH.",
    )
    syslog_prefix: str | None = setting(
        None, OPTIONAL_TEXT, "--log-syslog-prefix", "The name that syslog lines begin with."
    )
    syslog_facility: str = setting(
        "user", TEXT, "--log-syslog-facility", "The facility of syslog lines."
    )
    disable_redirect_access_to_syslog: bool = setting(
        False,
        BOOLEAN,
        "--disable-redirect-access-to-syslog",
        "Keep the lines per request out of syslog.",
    )
    enable_stdio_inheritance: bool = setting(
        False,
        BOOLEAN,
        "-R --enable-stdio-inheritance",
        "As a daemon, keep standard output and error where they were.",
        restart=True,
    )
    statsd_host: TCPAddress | UnixAddress | None = setting(
        None,
        optional(STATSD),
        "--statsd-host",
        "A statsd server, as HOST:PORT or unix://PATH, that is told of every request.",
        differs="uvicorn workers send too, and the metrics of a request share one datagram",
    )
    statsd_prefix: str = setting(
        "",
        TEXT,
        "--statsd-prefix",
        "What the names of statsd metrics begin with.",
    )
    dogstatsd_tags: str = setting(
        "",
        TEXT,
        "--dogstatsd-tags",
        "Tags for every statsd metric, separated by commas.",
    )
    enable_backlog_metric: bool = setting(
        False,
        BOOLEAN,
        "--enable-backlog-metric",
        "Send how many connections wait to statsd.",
    )
    prometheus_app_metrics: bool = setting(
        False,
        BOOLEAN,
        "--prometheus-app-metrics",
        "Add up what the application's own prometheus_client counts in all workers, and show it"
        " in /metrics of the monitor.",
        own=True,
        restart=True,
    )

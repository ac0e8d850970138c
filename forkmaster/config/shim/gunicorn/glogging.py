"""Stand-in for gunicorn.glogging: a logger class to derive from, and the defaults to change."""

from __future__ import annotations

import base64
import logging
import logging.handlers
import os
import sys
import time
from typing import Any, ClassVar, TextIO

CONFIG_DEFAULTS: dict[str, Any] = {
    "version": 1,
    "disable_existing_loggers": False,
    "root": {"level": "INFO", "handlers": ["console"]},
    "loggers": {
        f"gunicorn.{name}": {
            "level": "INFO",
            "handlers": [handler],
            "propagate": True,
            "qualname": f"gunicorn.{name}",
        }
        for name, handler in (("error", "error_console"), ("access", "console"))
    },
    "handlers": {
        name: {
            "class": "logging.StreamHandler",
            "formatter": "generic",
            "stream": f"ext://sys.{stream}",
        }
        for name, stream in (("console", "stdout"), ("error_console", "stderr"))
    },
    "formatters": {
        "generic": {
            "format": "%(asctime)s [%(process)d] [%(levelname)s] %(message)s",
            "datefmt": "[%Y-%m-%d %H:%M:%S %z]",
            "class": "logging.Formatter",
        }
    },
}


class SafeAtoms(dict[str, Any]):
    """The atoms of an access line: a missing one is -, and no quote gets through."""

    def __init__(self, atoms: dict[str, Any]) -> None:
        super().__init__()
        for key, value in atoms.items():
            self[key] = value.replace('"', '\\"') if isinstance(value, str) else value

    def __getitem__(self, key: str) -> Any:
        key = key.lower() if key.startswith("{") else key
        return super().__getitem__(key) if key in self else "-"


class Logger:
    """What a configuration file derives its logger_class from."""

    LOG_LEVELS: ClassVar[dict[str, int]] = {
        "critical": logging.CRITICAL,
        "error": logging.ERROR,
        "warning": logging.WARNING,
        "info": logging.INFO,
        "debug": logging.DEBUG,
    }
    loglevel = logging.INFO
    error_fmt = r"%(asctime)s [%(process)d] [%(levelname)s] %(message)s"
    datefmt = r"[%Y-%m-%d %H:%M:%S %z]"
    access_fmt = "%(message)s"
    syslog_fmt = "[%(process)d] %(message)s"
    atoms_wrapper_class = SafeAtoms

    def __init__(self, cfg: Any) -> None:
        self.error_log = logging.getLogger("gunicorn.error")
        self.access_log = logging.getLogger("gunicorn.access")
        self.error_log.propagate = False
        self.access_log.propagate = False
        self.error_handlers: list[logging.Handler] = []
        self.access_handlers: list[logging.Handler] = []
        self.cfg = cfg
        self.setup(cfg)

    def setup(self, cfg: Any) -> None:
        self.loglevel = self.LOG_LEVELS.get(str(cfg.loglevel).lower(), logging.INFO)
        self.error_log.setLevel(self.loglevel)
        self.access_log.setLevel(logging.INFO)
        # A dictConfig that ran before may have disabled what it did not name.
        self.error_log.disabled = self.access_log.disabled = False
        formatter = logging.Formatter(self.error_fmt, self.datefmt)
        self._set_handler(self.error_log, cfg.errorlog, formatter)
        if cfg.accesslog is not None:
            formatter = logging.Formatter(self.access_fmt)
            self._set_handler(self.access_log, cfg.accesslog, formatter, stream=sys.stdout)

    def critical(self, msg: object, *args: object, **kwargs: Any) -> None:
        self.error_log.critical(msg, *args, **kwargs)

    def error(self, msg: object, *args: object, **kwargs: Any) -> None:
        self.error_log.error(msg, *args, **kwargs)

    def warning(self, msg: object, *args: object, **kwargs: Any) -> None:
        self.error_log.warning(msg, *args, **kwargs)

    def info(self, msg: object, *args: object, **kwargs: Any) -> None:
        self.error_log.info(msg, *args, **kwargs)

    def debug(self, msg: object, *args: object, **kwargs: Any) -> None:
        self.error_log.debug(msg, *args, **kwargs)

    def exception(self, msg: object, *args: object, **kwargs: Any) -> None:
        self.error_log.exception(msg, *args, **kwargs)

    def log(self, lvl: int | str, msg: object, *args: object, **kwargs: Any) -> None:
        level = self.LOG_LEVELS.get(lvl.lower(), logging.INFO) if isinstance(lvl, str) else lvl
        self.error_log.log(level, msg, *args, **kwargs)

    def atoms(self, resp: Any, req: Any, environ: dict[str, Any], request_time: Any) -> Any:
        """The atoms of one access line."""
        status = resp.status.split(None, 1)[0] if isinstance(resp.status, str) else resp.status
        duration = request_time.total_seconds()
        atoms = {
            "h": environ.get("REMOTE_ADDR") or "-",
            "l": "-",
            "u": self._get_user(environ) or "-",
            "t": self.now(),
            "r": f"{environ['REQUEST_METHOD']} {environ['RAW_URI']} {environ['SERVER_PROTOCOL']}",
            "s": status,
            "m": environ.get("REQUEST_METHOD"),
            "U": environ.get("PATH_INFO"),
            "q": environ.get("QUERY_STRING"),
            "H": environ.get("SERVER_PROTOCOL"),
            "b": str(resp.sent),
            "B": resp.sent,
            "f": environ.get("HTTP_REFERER", "-"),
            "a": environ.get("HTTP_USER_AGENT", "-"),
            "T": int(duration),
            "D": int(duration * 1_000_000),
            "M": int(duration * 1_000),
            "L": f"{duration:.6f}",
            "p": f"<{os.getpid()}>",
        }
        atoms |= {f"{{{name.lower()}}}i": value for name, value in req.headers}
        atoms |= {f"{{{name.lower()}}}o": value for name, value in resp.headers}
        atoms |= {f"{{{name.lower()}}}e": value for name, value in environ.items()}
        return atoms

    def access(self, resp: Any, req: Any, environ: dict[str, Any], request_time: Any) -> None:
        """Write an access line.  For a subclass to override, or to call."""
        atoms = self.atoms_wrapper_class(self.atoms(resp, req, environ, request_time))
        self.access_log.info(self.cfg.access_log_format, atoms)

    def _get_user(self, environ: dict[str, Any]) -> str | None:
        kind, _, credentials = environ.get("HTTP_AUTHORIZATION", "").partition(" ")
        if kind.lower() != "basic":
            return None
        try:
            return base64.b64decode(credentials).decode().partition(":")[0]
        except ValueError:
            return None  # whoever checks it will say so

    def now(self) -> str:
        return time.strftime("[%d/%b/%Y:%H:%M:%S %z]")

    def reopen_files(self) -> None:
        """forkmaster reopens the files itself."""

    def close_on_exec(self) -> None:
        """Python closes them."""

    def _get_gunicorn_handler(self, log: logging.Logger) -> logging.Handler | None:
        return next((each for each in log.handlers if getattr(each, "_gunicorn", False)), None)

    def _set_handler(
        self,
        log: logging.Logger,
        output: str | None,
        fmt: logging.Formatter,
        stream: TextIO | None = None,
    ) -> None:
        before = self._get_gunicorn_handler(log)
        if before is not None:
            log.removeHandler(before)
        if output is None:
            return
        handler: logging.Handler = (
            logging.StreamHandler(stream)
            if output == "-"
            else logging.handlers.WatchedFileHandler(output)
        )
        handler.setFormatter(fmt)
        handler._gunicorn = True  # type: ignore[attr-defined]
        log.addHandler(handler)

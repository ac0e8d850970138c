"""How a record of the error log looks: to a file, a terminal, the journal, or as JSON."""

from __future__ import annotations

import logging
import os
import re
from typing import TYPE_CHECKING

from forkmaster.system.terminal import wants_colour

if TYPE_CHECKING:
    from collections.abc import Mapping

# gunicorn's, to the letter: people have parsers for it.
ERROR_FORMAT = "[%(asctime)s] [%(process)d] [%(levelname)s] %(message)s"
ERROR_TIME = "%Y-%m-%d %H:%M:%S %z"

# syslog's, by the least level that has them.
PRIORITIES = (
    (logging.CRITICAL, 2),
    (logging.ERROR, 3),
    (logging.WARNING, 4),
    (logging.INFO, 6),
    (logging.NOTSET, 7),
)

# What ECMA-48 calls them; info is what most lines are, so it has none.
COLOURS = {
    logging.DEBUG: "2",  # faint
    logging.WARNING: "33",  # yellow
    logging.ERROR: "31",  # red
    logging.CRITICAL: "1;31",
}

CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def formatter_for(
    fd: int, log_format: str, identity: Mapping[str, int | None]
) -> logging.Formatter:
    """What makes the lines of the error log that go to `fd`; `identity` is who writes them."""
    formatter: logging.Formatter
    if log_format == "json":
        # Imported late: hardly anybody has it.
        from forkmaster.logs.json_lines import JSONFormatter

        formatter = JSONFormatter(identity)
    elif wants_colour(fd, os.environ) and not _is_journal(fd):
        formatter = TerminalFormatter(ERROR_FORMAT, ERROR_TIME)
    else:
        formatter = LineFormatter(ERROR_FORMAT, ERROR_TIME)
    return JournalFormatter(formatter) if _is_journal(fd) else formatter


def _is_journal(fd: int) -> bool:
    """Whether systemd reads what is written there; systemd.exec(5), JOURNAL_STREAM."""
    status = os.fstat(fd)
    return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


class LineFormatter(logging.Formatter):
    """gunicorn's error format, in which nothing that a client sent looks like a line of ours."""

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        if CONTROL.search(text):
            text = CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", text)
        # Only the first line of a record begins at the margin.
        return text.replace("\n", "\n  ")


class JournalFormatter(logging.Formatter):
    """Another one with the priority in front, sd-daemon(3), so that `journalctl -p` works."""

    def __init__(self, inner: logging.Formatter) -> None:
        super().__init__()
        self._inner = inner

    def format(self, record: logging.LogRecord) -> str:
        priority = next(p for level, p in PRIORITIES if record.levelno >= level)
        # On each line, because the journal takes each for a message.
        return f"<{priority}>" + self._inner.format(record).replace("\n", f"\n<{priority}>")


class TerminalFormatter(LineFormatter):
    """The same with the level in colour."""

    def format(self, record: logging.LogRecord) -> str:
        text, colour = super().format(record), COLOURS.get(record.levelno)
        if colour is None:
            return text
        level = f"[{record.levelname}]"
        return text.replace(level, f"\x1b[{colour}m{level}\x1b[0m", 1)

"""`wsgi.errors`."""

from __future__ import annotations

import logging
import sys
from typing import Any

log = logging.getLogger("forkmaster.error")


class ErrorStream:
    """`wsgi.errors`: text goes where the error log goes, as it is."""

    def write(self, text: str) -> int:
        for stream in self._streams():
            stream.write(text)
        return len(text)

    def writelines(self, lines: list[str]) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        for stream in self._streams():
            stream.flush()

    def _streams(self) -> list[Any]:
        # Looked up each time: USR1 opens the log files anew.
        streams = [getattr(handler, "stream", None) for handler in log.handlers]
        return [stream for stream in streams if stream is not None] or [sys.stderr]

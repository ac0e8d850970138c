"""The error log as JSON, a line per record.  The only module that imports python-json-logger.

It turns a record and whatever an application put into it (`extra`, an exception, objects that JSON
does not know) into one object; the fields that are always there, and their types, are ours.  Lines
of requests do not pass here: access.py compiles them, ten times as fast.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pythonjsonlogger.json import JsonFormatter

from forkmaster.logs.access_format import iso_time

if TYPE_CHECKING:
    import logging
    from collections.abc import Mapping


class JSONFormatter(JsonFormatter):
    """time, level, logger, message, pid, worker, generation; exception if there is one."""

    def __init__(self, identity: Mapping[str, int | None]) -> None:
        """`identity` is who this process is: the worker and its generation, None in the master."""
        super().__init__("%(message)s", rename_fields={"exc_info": "exception"})
        self._identity = identity

    def add_fields(
        self,
        log_data: dict[str, Any],
        record: logging.LogRecord,
        message_dict: dict[str, Any],
    ) -> None:
        """Called by `format`, for what goes into the object."""
        log_data["time"] = iso_time(record.created)
        log_data["level"] = record.levelname.lower()
        log_data["logger"] = record.name
        log_data["message"] = record.getMessage()
        log_data["pid"] = record.process
        log_data.update(self._identity)
        super().add_fields(log_data, record, message_dict)

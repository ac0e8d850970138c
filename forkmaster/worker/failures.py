"""How an application's failure is logged: where it stands in the application, not in ours."""

from __future__ import annotations

import logging

log = logging.getLogger("forkmaster.error")

_OURS = ("forkmaster.worker", "forkmaster.http")


def log_failure(request: object, exc: BaseException) -> None:
    """One record: the request, and the application's frames.

    Without any, it was raised by us about what the application did, and its message says all.
    """
    tb = exc.__traceback__
    while tb is not None and tb.tb_frame.f_globals.get("__package__", "") in _OURS:
        tb = tb.tb_next
    if tb is None and isinstance(exc, (TypeError, ValueError, AssertionError, RuntimeError)):
        log.error("%s: %s", request, exc)
    else:
        log.error(
            "%s: the application raised %s",
            request,
            type(exc).__name__,
            exc_info=(type(exc), exc, tb),
        )

"""Stand-in for gunicorn.arbiter: a name for annotations, and the exit codes of a worker."""

from __future__ import annotations


class Arbiter:
    WORKER_BOOT_ERROR = 3
    APP_LOAD_ERROR = 4

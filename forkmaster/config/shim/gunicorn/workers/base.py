"""Stand-in for gunicorn.workers.base: a name for annotations, and for subclasses.

`forkmaster_kind` tells which of forkmaster's workers serves for a class.
"""

from __future__ import annotations

from typing import Any


class Worker:
    forkmaster_kind: str | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        raise NotImplementedError("forkmaster runs workers of its own")

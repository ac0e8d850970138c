"""Stand-in for uvicorn_worker and uvicorn.workers: classes to derive from.

A subclass changes CONFIG_KWARGS; forkmaster runs its own asgi worker and reads them from there.
"""

from __future__ import annotations

from typing import Any, ClassVar

from gunicorn.workers.base import Worker


class UvicornWorker(Worker):  # type: ignore[misc]
    forkmaster_kind = "asgi"
    CONFIG_KWARGS: ClassVar[dict[str, Any]] = {"loop": "auto", "http": "auto"}


class UvicornH11Worker(UvicornWorker):
    CONFIG_KWARGS: ClassVar[dict[str, Any]] = {"loop": "asyncio", "http": "h11"}

"""What gunicorn has and forkmaster has not: dirty workers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from forkmaster.config.settings import Effect, setting
from forkmaster.config.values import COUNT, SECONDS, TEXTS, count

_NO_DIRTY = "there are no dirty workers; run long jobs in a queue, as Celery"


@dataclass(frozen=True, kw_only=True, init=False, repr=False, eq=False)
class Dirty:
    title: ClassVar[str] = "Dirty workers"

    dirty_apps: tuple[str, ...] = setting(
        (),
        TEXTS,
        "--dirty-app",
        "An application for dirty workers.",
        effect=Effect.NONE,
        instead=_NO_DIRTY,
    )
    dirty_workers: int = setting(
        0,
        COUNT,
        "--dirty-workers",
        "How many dirty workers run.",
        effect=Effect.NONE,
        instead=_NO_DIRTY,
    )
    dirty_timeout: float = setting(
        300.0,
        SECONDS,
        "--dirty-timeout",
        "How long a dirty worker may be silent.",
        effect=Effect.NONE,
        instead=_NO_DIRTY,
    )
    dirty_threads: int = setting(
        1,
        count(1),
        "--dirty-threads",
        "How many threads a dirty worker has.",
        effect=Effect.NONE,
        instead=_NO_DIRTY,
    )
    dirty_graceful_timeout: float = setting(
        30.0,
        SECONDS,
        "--dirty-graceful-timeout",
        "How long a dirty worker may take to stop.",
        effect=Effect.NONE,
        instead=_NO_DIRTY,
    )

"""Every setting, in one frozen object.

The settings themselves are declared in `sections/`, one module for each section of the
reference page; this module only joins them.  A section makes none of the methods of a dataclass
(init, repr, eq), which Config makes for all of them: they would be a fifth of the time of `--help`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from forkmaster.config import gunicorn
from forkmaster.config.sections.absent import Dirty
from forkmaster.config.sections.application import Application
from forkmaster.config.sections.development import Development
from forkmaster.config.sections.hooks import Hooks
from forkmaster.config.sections.http import Proxies, Requests
from forkmaster.config.sections.http2 import HTTP2
from forkmaster.config.sections.listeners import Listeners
from forkmaster.config.sections.logs import Logs
from forkmaster.config.sections.process import Process
from forkmaster.config.sections.tls import TLS
from forkmaster.config.sections.workers import Replacement, Timeouts, Workers
from forkmaster.config.settings import settings_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from forkmaster.config.gunicorn import WorkerKind
    from forkmaster.config.settings import Setting


@dataclass(frozen=True, kw_only=True)
class Config(
    Application,
    Listeners,
    Workers,
    Timeouts,
    Replacement,
    Requests,
    Proxies,
    Logs,
    Process,
    TLS,
    Development,
    Hooks,
    HTTP2,
    Dirty,
):
    """The effective value of every setting.  `Config()` is all defaults."""

    @property
    def kind(self) -> WorkerKind | None:
        """The kind of worker that worker_class asks for; None is "find out from the callable"."""
        return gunicorn.kind_of_class(self.worker_class, self.threads)

    @property
    def speaks_http2(self) -> bool:
        """Whether an asgi worker speaks HTTP/2 beside HTTP/1.1."""
        return self.worker_class == gunicorn.HYPERCORN


SECTIONS: tuple[type, ...] = Config.__bases__
SETTINGS: Mapping[str, Setting] = settings_of(SECTIONS)

"""Calls the hooks that run in the master.  What one raises is logged and never fatal."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from forkmaster.config.table import Config

log = logging.getLogger("forkmaster.error")


def call(config: Config, name: str, *arguments: Any, may_refuse: bool = False) -> None:
    """Call the hook `name` of `config`, if it has one.

    With `may_refuse` a sys.exit() in it counts: before the first worker that is how a hook
    refuses the start.  Later it would take every worker along, so it is logged like an error.
    """
    called: Callable[..., Any] | None = getattr(config, name)
    if called is None:
        return
    try:
        called(*arguments)
    except Exception:
        log.exception("the hook %s raised", name)
    except SystemExit as exc:
        if may_refuse:
            raise
        log.error("the hook %s called sys.exit(%r), which has no effect here", name, exc.code)

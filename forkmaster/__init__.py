"""forkmaster: a pre-fork process manager for Python web applications."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Unpack

    from forkmaster.settings_dict import SettingsDict

__version__ = "0.1.0"


def run(app: str | Callable[..., Any], **settings: Unpack[SettingsDict]) -> int:
    """Serve `app` from this process until it is told to stop.  Returns the exit code.

    `app` is MODULE:ATTRIBUTE, which the workers import, or the application itself, which they
    inherit.  `settings` are stronger than the environment and the configuration file.  On the
    main thread only, because signals are.  Raises forkmaster.errors.ForkmasterError if the
    server cannot start.
    """
    import importlib

    # Late, and by name: the whole server stands on the floors above this one.
    programs = importlib.import_module("forkmaster.programs")
    status: int = programs.run(app, settings)
    return status

"""Whether what is written is seen in colour."""

from __future__ import annotations

import os
from collections.abc import Mapping


def wants_colour(fd: int, environ: Mapping[str, str]) -> bool:
    """Whether to write colour there: on a terminal, unless the environment says otherwise."""
    asked = colour_asked(environ)
    if asked is not None:
        return asked
    return os.isatty(fd) and environ.get("TERM") != "dumb"


def colour_asked(environ: Mapping[str, str]) -> bool | None:
    """What NO_COLOR and FORCE_COLOR ask for, wherever it is written; None if they do not.

    See no-color.org and force-color.org; of both the first wins.
    """
    if environ.get("NO_COLOR"):
        return False
    return True if environ.get("FORCE_COLOR") else None

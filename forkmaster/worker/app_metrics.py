"""Has the application's prometheus_client keep its metrics on the board.  In the worker.

Before the application is imported: prometheus_client decides where values live when a metric is
made.  After a fork from the zygote it notices the new number by itself, at the next change of a
value, and goes on in the files of that.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from forkmaster.board.app_metrics import FOLDER

_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
_number: int | None = None


def keep_on_board(board: Path, number: int) -> None:
    """Keep what the application measures in the files of worker number `number`.

    Called before the privileges go.  prometheus_client is imported here, and only if the setting
    prometheus_app_metrics asks.  Raises OSError.
    """
    global _number
    has_begun, _number = _number is not None, number
    if has_begun:
        return  # in the zygote
    os.environ[_VARIABLE] = _opened(board / FOLDER)
    from prometheus_client import values

    make: Any = values.MultiProcessValue
    values.ValueClass = make(lambda: _number)


def _opened(folder: Path) -> str:
    """A path to it that works whoever may enter the folders above."""
    if sys.platform != "linux":
        return str(folder)
    return f"/proc/self/fd/{os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)}"

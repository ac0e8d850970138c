"""A stand-in for gunicorn, so that configuration files that import it run as they are.

The modules beside this one are found under the name `gunicorn` once `install` was called,
whether gunicorn is installed or not, and also if the current folder has a gunicorn.py, which
would otherwise be taken for the package.  The two modules that uvicorn's workers for gunicorn
come from have a stand-in too, because the real ones import gunicorn, uvicorn and asyncio, and
the master has no use for any of them.

The modules import one another as `gunicorn.…`, never as a part of forkmaster: that would make
every class exist twice.
"""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import spec_from_file_location
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType

_FOLDER = Path(__file__).parent
_SERVER = "gunicorn"
_UVICORN_WORKERS = ("uvicorn_worker", "uvicorn.workers")


class _Finder:
    """Finds the stand-ins before anything on sys.path."""

    @staticmethod
    def find_spec(
        name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name == "gunicorn":
            return PathFinder.find_spec(name, [str(_FOLDER)], target)
        if name in _UVICORN_WORKERS:
            return spec_from_file_location(name, _FOLDER / "uvicorn_worker.py")
        return None


def install() -> None:
    """Let `import gunicorn` find the stand-in, in this process.  Once is enough."""
    if _Finder not in sys.meta_path:
        sys.meta_path.insert(0, _Finder)


def unheard() -> list[str]:
    """Warnings about what a configuration file has changed in the stand-in without effect."""
    module = sys.modules.get("gunicorn")
    written = getattr(module, "SERVER_SOFTWARE", None)
    if module is None or written in (None, f"{_SERVER}/{getattr(module, '__version__', '')}"):
        return []
    return [
        f"gunicorn.SERVER_SOFTWARE has no effect ({written}): the Server header is forkmaster,"
        " unless the application sends one, or nginx its own"
    ]

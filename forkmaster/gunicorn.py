"""Importing this makes `import gunicorn` find forkmaster, in this process.

For programs that embed gunicorn: one line above theirs, and `gunicorn.app.base.BaseApplication`
serves with forkmaster.

    import forkmaster.gunicorn
    from gunicorn.app.base import BaseApplication
"""

from __future__ import annotations

import sys
from pathlib import Path

from forkmaster.config import shim
from forkmaster.errors import UsageError

_imported = sys.modules.get("gunicorn")
if _imported is not None and not Path(_imported.__file__ or "").is_relative_to(
    Path(shim.__file__).parent
):
    raise UsageError("gunicorn itself is imported already; import forkmaster.gunicorn before it")
shim.install()

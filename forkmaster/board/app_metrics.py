"""The folder on the board where the application's own metrics are, as prometheus_client has them.

In its multi-process mode each process keeps its values in mapped files, which somebody else adds
up.  They bear the number of the worker's cell in their names and not its pid: the next worker with
that number goes on in them.  So no counter goes back, and there are never more files than workers
at a time.

This module knows the names of the files alone; who writes is worker/app_metrics.py, who reads
monitor/metrics.py.
"""

from __future__ import annotations

import os
from pathlib import Path

FOLDER = "metrics"


def prepare(board: Path, uid: int, gid: int) -> None:
    """Make the folder, if there is none, for a worker that runs as `uid` and `gid`.

    In the master.  Raises OSError.  A board is new with every start, and so is its folder.
    """
    folder = board / FOLDER
    folder.mkdir(mode=0o700, exist_ok=True)
    if os.geteuid() == 0:
        os.chown(folder, uid, gid)


def mark_dead(board: Path, number: int) -> None:
    """Remove what is true only while a worker lives: gauges of the modes live….  In the master.

    What prometheus_client's mark_process_dead does, which the master must not import: it takes
    longer than all the rest of a start.
    """
    for path in (board / FOLDER).glob(f"gauge_live*_{number}.db"):
        path.unlink(missing_ok=True)

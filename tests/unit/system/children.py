"""Forked children for the tests of this folder."""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable

NOBODY = 65534


def in_child(act: Callable[[], object], *, as_nobody: bool = False) -> int:
    """Run `act` in a forked child; 0 if it returned, 1 if it raised, -N if signal N ended it."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            if as_nobody and os.geteuid() == 0:
                os.setgroups([])
                os.setgid(NOBODY)
                os.setuid(NOBODY)
            act()
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

"""Forks a child, and lets go in it of all that is the master's.  In the master.

A fork copies everything, so what a child must not have is closed there before anything else runs:
the master's wakeup pipe (a signal to the child would wake the master), its side of the liveness
pipe (it would never read end of file), the slots of its siblings.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from forkmaster.system import signals
from forkmaster.worker import child

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


def fork(run: Callable[[], int], *, close: Sequence[Callable[[], None]]) -> int:
    """Fork a child that closes what it must, then ends with the status of `run`.

    Returns the pid.  Raises OSError if the kernel refuses (EAGAIN, ENOMEM).  To be called on the
    main thread only: PR_SET_PDEATHSIG fires when the thread that forked ends, not the process.
    """
    # Blocked, because a signal between the fork and the child's own handlers would run the
    # master's in it.  The child unblocks them when its handlers are in place.
    with signals.signals_blocked():
        pid = os.fork()
        if pid:
            return pid
        status = child.FAILED
        try:
            for let_go in close:
                let_go()
            signals.reset_signals()
            status = run()
        finally:
            child.end(status)
    raise AssertionError("unreachable: the child has ended")

"""How many processors this process may use: its affinity, and the quota of its control group."""

from __future__ import annotations

import math
import os

from forkmaster.system.cgroup import ControlGroup, control_group


def cpu_count() -> int:
    """The number of processors that can be kept busy, at least 1.

    `os.cpu_count()` counts the machine's, and a container with half a processor would get a
    worker for each of 64.
    """
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    quota = cpu_quota(control_group("cpu"))
    # Rounded up: with 1.5 processors two workers do more than one.
    return max(1, min(allowed or 1, math.ceil(quota) if quota else allowed or 1))


def cpu_quota(group: ControlGroup | None) -> float | None:
    """The processors' worth of time that `group` may use; None without a limit."""
    if group is None:
        return None
    if group.version == 2:
        pairs = [text.split() for text in group.read("cpu.max")]  # "max 100000", "50000 100000"
    else:
        quotas, periods = group.read("cpu.cfs_quota_us"), group.read("cpu.cfs_period_us")
        pairs = [[quota.strip(), period] for quota, period in zip(quotas, periods, strict=True)]
    limits = [int(quota) / int(period) for quota, period in pairs if quota not in ("max", "-1")]
    return min(limits, default=None)

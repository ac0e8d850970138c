"""How many processors this process may use: its affinity, and the quota of its control group."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass

from forkmaster.system.cgroup import ControlGroup, control_group


@dataclass(frozen=True)
class Processors:
    """What this process may use, and why."""

    online: int
    """Of the machine."""
    allowed: int
    """By the affinity of this process: taskset, or the cpuset of a container."""
    quota: float | None
    """The processors' worth of time that its control group grants."""

    @property
    def usable(self) -> int:
        """How many can be kept busy, at least 1.

        `os.cpu_count()` counts the machine's, and a container with half a processor would get a
        worker for each of 64.
        """
        # Rounded up: with 1.5 processors two workers do more than one.
        return max(1, min(self.allowed, math.ceil(self.quota or self.allowed)))

    def __str__(self) -> str:
        parts = [f"{self.online} processors"]
        if self.allowed < self.online:
            parts.append(f"{self.allowed} by the affinity")
        if self.quota is not None:
            parts.append(f"{self.quota:g} by the quota of the control group")
        return ", ".join(parts)


def processors() -> Processors:
    """What this process may use now."""
    online = os.cpu_count() or 1
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else online
    return Processors(online, allowed, cpu_quota(control_group("cpu")))


def cpu_count() -> int:
    """The number of processors that can be kept busy, at least 1."""
    return processors().usable


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

"""How much memory a process holds, how much its control group allows, and whom the kernel killed.

Resident memory counts pages that a worker shares with its siblings since the fork, so with preload
every worker seems large.  What a worker costs is its private memory.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from forkmaster.system.cgroup import ControlGroup, control_group

# Version 1 writes "no limit" as the largest multiple of the page size; nothing real is near it.
NO_LIMIT = 1 << 60

MEMORY_FILES = {
    1: ("memory.limit_in_bytes", "memory.usage_in_bytes", "memory.oom_control"),
    2: ("memory.max", "memory.current", "memory.events"),
}


def private_memory(pid: int) -> int:
    """The bytes that only this process holds, and that its death would free.

    Exact where the kernel lets us look (it costs the kernel a walk over all pages, about a
    millisecond for 100 MiB); otherwise `unshared_memory`.  Raises ProcessLookupError.
    """
    try:
        fields = _rollup(pid)
    except PermissionError:
        return unshared_memory(pid)  # the worker runs as another user
    return sum(size for name, size in fields.items() if name.startswith("Private_"))


def proportional_memory(pid: int) -> int | None:
    """The private bytes and this process' part of the shared ones; None if we may not look.

    Summed over all workers this is what the server takes.  Raises ProcessLookupError.
    """
    try:
        return _rollup(pid).get("Pss", 0)
    except PermissionError:
        return None


def unshared_memory(pid: int) -> int:
    """Resident bytes but those of files and shared memory: cheap, and readable for everybody.

    Pages still shared with the parent since the fork count.  Raises ProcessLookupError.
    """
    _, resident, shared, *_ = _proc_text(pid, "statm").split()
    return (int(resident) - int(shared)) * os.sysconf("SC_PAGESIZE")


def memory_limit(group: ControlGroup | None) -> int | None:
    """The bytes that the control group, or any above it, allows; None without a limit."""
    if group is None:
        return None
    limits = [text.strip() for text in group.read(MEMORY_FILES[group.version][0])]
    return min((int(text) for text in limits if _is_limit(text)), default=None)


def memory_in_use(group: ControlGroup | None) -> int | None:
    """The bytes that the control group holds now, caches included."""
    return _first(group, 1)


def working_set(group: ControlGroup | None) -> tuple[int, int] | None:
    """The limit that is nearest to being reached, and the bytes used of it; None without a limit.

    File pages that nobody has touched lately do not count: the kernel drops them before it kills.
    """
    if group is None:
        return None
    _, usage_file, _ = MEMORY_FILES[group.version]
    found = []
    for folder in group.folders:
        own = ControlGroup(group.version, (folder,))
        limit = memory_limit(own)
        usage = _number(own.read(usage_file))
        if limit is None or usage is None:
            continue
        name = "inactive_file" if group.version == 2 else "total_inactive_file"
        droppable = _number(own.read("memory.stat"), name) or 0
        found.append((limit, max(0, usage - droppable)))
    return min(found, key=lambda pair: pair[0] - pair[1], default=None)


def oom_kills(group: ControlGroup | None) -> int | None:
    """How many processes of the control group the kernel has killed for want of memory.

    Compared before and after a SIGKILL that nobody here sent, it proves or clears the kernel.
    """
    return _first(group, 2, "oom_kill")


def memory_group() -> ControlGroup | None:
    """The control group that limits the memory of this process and its children."""
    return control_group("memory")


def _rollup(pid: int) -> dict[str, int]:
    # "Private_Dirty:     1234 kB" after one line of addresses.
    lines = _proc_text(pid, "smaps_rollup").splitlines()[1:]
    pairs = (line.split(":") for line in lines)
    return {name: int(size.removesuffix("kB")) * 1024 for name, size in pairs}


def _proc_text(pid: int, name: str) -> str:
    try:
        return Path(f"/proc/{pid}/{name}").read_text()
    except FileNotFoundError as exc:
        raise ProcessLookupError(f"no process {pid}") from exc


def _is_limit(text: str) -> bool:
    return text != "max" and int(text) < NO_LIMIT


def _first(group: ControlGroup | None, file: int, field: str = "") -> int | None:
    """The number in the first of the files that is there, or the one beside `field`."""
    return _number(group.read(MEMORY_FILES[group.version][file]) if group else (), field)


def _number(texts: Iterable[str], field: str = "") -> int | None:
    for text in texts:
        lines = dict(line.rpartition(" ")[::2] for line in text.splitlines())
        return int(lines.get(field, "0"))
    return None

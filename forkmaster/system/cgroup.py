"""The control groups this process is in, version 1 and 2, as folders to read.

A limit may be set on any ancestor, so a group is the list of folders from its own up to the root
of the mount; in a container that root usually is the container's own group.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class ControlGroup:
    version: int
    """1 or 2: the files have other names and other words for "no limit"."""
    folders: tuple[Path, ...]
    """Its own first, the root of the mount last."""

    def read(self, name: str) -> Iterator[str]:
        """The text of that file in each of the folders that has it."""
        for folder in self.folders:
            try:
                yield (folder / name).read_text()
            except OSError:
                continue  # the root has no limits; or the file is not ours to read


def control_group(controller: str) -> ControlGroup | None:
    """The group of this process that `controller` ("memory", "cpu") acts on, if there is one."""
    try:
        groups = Path("/proc/self/cgroup").read_text()
        mounts = Path("/proc/self/mountinfo").read_text()
    except OSError:
        return None  # not Linux, or /proc is hidden
    return find_group(controller, groups, mounts)


def find_group(controller: str, groups: str, mounts: str) -> ControlGroup | None:
    """The same, from the texts of /proc/self/cgroup and /proc/self/mountinfo."""
    # With both versions mounted, a controller is in version 1 if its hierarchy names it.
    for version, type_ in ((1, "cgroup"), (2, "cgroup2")):
        path = _path_of(controller if version == 1 else "", groups)
        if path is None:
            continue
        for root, mount, options in _mounts(type_, mounts):
            if version == 2 or controller in options:
                return ControlGroup(version, tuple(_folders(path, root, mount)))
    return None


def _path_of(controller: str, groups: str) -> str | None:
    # "4:memory:/a/b", "1:cpu,cpuacct:/", and for version 2 "0::/a/b".
    for line in groups.splitlines():
        _, controllers, path = line.split(":", 2)
        if controller in controllers.split(","):
            return path
    return None


def _mounts(type_: str, mounts: str) -> Iterator[tuple[str, Path, list[str]]]:
    # "32 31 0:29 /root /mount/point rw,relatime shared:7 - cgroup cgroup rw,cpu"
    for line in mounts.splitlines():
        before, _, after = line.partition(" - ")
        filesystem, _, options = after.partition(" ")
        if filesystem == type_:
            root, mount = before.split(" ")[3:5]
            yield root, Path(_unescape(mount)), options.rpartition(" ")[2].split(",")


def _folders(path: str, root: str, mount: Path) -> Iterator[Path]:
    # In a container without its own cgroup namespace the path is the host's, and the mount
    # shows only what is below `root`.
    inside = path.removeprefix(root if root != "/" else "").strip("/")
    folder = mount / inside
    while True:
        yield folder
        if folder == mount:
            return
        folder = folder.parent


def _unescape(text: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), text)

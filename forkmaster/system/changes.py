"""Notices that files change: Python modules under folders, and whatever else is named.

What has changed is always found the same way, by comparing what `stat` says with what it said
before; the engines differ only in when to look.  *Polling* looks every tenth of a second, and
more seldom in a tree so large that looking takes long.  *inotify*, by watchfiles if that is
installed, looks when the kernel reports an event.  It looks every second too, because no event
comes from a network file system, or for a folder made a moment ago.

Folders in which nobody edits are left out: hidden ones, caches, virtual environments.  So is the
rest of site-packages; what is installed there changes with pip, and seldom.
"""

from __future__ import annotations

import glob
import os
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from importlib.util import cache_from_source, find_spec

SHORTEST_WAIT = 0.1  # seconds between two looks
LARGEST_SHARE = 0.1  # of one processor, for looking
SETTLED = 0.03  # seconds without a change: an editor writes a file in several steps
AT_LEAST_EVERY = 1.0  # seconds: for what inotify does not tell

SKIPPED = frozenset({"__pycache__", "node_modules", "site-packages"})

# What tells one content of a file from another without reading it.
Stamp = tuple[int, int, int]

Wait = Callable[[Iterable[str], float], None]
"""Returns when it is time to look at these folders again; told how long the last look took."""


@dataclass(frozen=True)
class Places:
    """What is watched."""

    folders: tuple[str, ...] = ()
    """Every *.py under them."""
    patterns: tuple[str, ...] = ()
    """Files, folders with all that is in them, and patterns of files, in which ** is any depth."""


@dataclass(frozen=True)
class Snapshot:
    """How the watched files were at one moment."""

    stamps: dict[str, Stamp]
    folders: frozenset[str]
    """The folders in which a file may change, appear or vanish."""

    @classmethod
    def take(cls, places: Places) -> Snapshot:
        """The files as they are now."""
        stamps: dict[str, Stamp] = {}
        folders: set[str] = set()
        for root in places.folders:
            _collect(root, ".py", stamps, folders)
        for pattern in places.patterns:
            magic = glob.has_magic(pattern)
            for path in glob.iglob(pattern, recursive=True) if magic else [pattern]:
                if os.path.isdir(path):
                    _collect(path, "", stamps, folders)
                else:
                    _stamp(path, stamps)
                    folders.add(os.path.dirname(path) or ".")
        return cls(stamps, frozenset(folders))

    def changed_since(self, before: Snapshot) -> list[str]:
        """The files that were written, appeared or vanished between the two, in order."""
        paths = self.stamps.keys() | before.stamps.keys()
        return sorted(p for p in paths if self.stamps.get(p) != before.stamps.get(p))


class Watch:
    """Tells which files change, from the moment it is made."""

    def __init__(self, places: Places, wait: Wait) -> None:
        self.places, self.wait = places, wait
        self.known = Snapshot.take(places)
        """The files as they were when a change was told last."""

    def __iter__(self) -> Iterator[list[str]]:
        """The files that changed, whenever some have; never ends.  Blocks meanwhile."""
        while True:
            now, took = self._look()
            if now.stamps == self.known.stamps:
                self.wait(now.folders, took)
                continue
            now = self._settled(now)
            changed = now.changed_since(self.known)
            for path in changed:
                _forget_compiled(path)
            if changed:  # not if all is as it was again
                yield changed
            # Not before it was told, so that nobody who is interrupted here forgets it.
            self.known = now

    def untold(self) -> list[str]:
        """The files that have changed, and that the iteration has not told.  Never blocks."""
        return self._look()[0].changed_since(self.known)

    def _look(self) -> tuple[Snapshot, float]:
        started = time.monotonic()
        return Snapshot.take(self.places), time.monotonic() - started

    def _settled(self, now: Snapshot) -> Snapshot:
        while True:
            time.sleep(SETTLED)
            later = Snapshot.take(self.places)
            if later.stamps == now.stamps:
                return later
            now = later


def poll(folders: Iterable[str], took: float) -> None:
    """A Wait by the clock."""
    time.sleep(max(SHORTEST_WAIT, took / LARGEST_SHARE))


def has_watchfiles() -> bool:
    """Whether `Inotify` can be used."""
    return find_spec("watchfiles") is not None


class Inotify:
    """A Wait by the kernel's events, through watchfiles."""

    def __init__(self) -> None:
        self._folders: frozenset[str] = frozenset()
        self._events: Iterator[object] = iter(())

    def __call__(self, folders: Iterable[str], took: float) -> None:
        """Returns after an event in one of `folders`, or a second."""
        folders = frozenset(folders)
        if folders != self._folders:
            from watchfiles import watch as events

            self._folders = folders
            # One by one and not recursively: a virtual environment has thousands of folders, and
            # a user may watch only so many.
            self._events = events(
                *folders,
                watch_filter=None,
                recursive=False,
                step=10,
                debounce=100,
                rust_timeout=int(AT_LEAST_EVERY * 1000),
                yield_on_timeout=True,
                ignore_permission_denied=True,
            )
        # A log file in a watched folder makes an event of every line.
        time.sleep(took / LARGEST_SHARE)
        next(self._events)


def _collect(root: str, suffix: str, stamps: dict[str, Stamp], folders: set[str]) -> None:
    """Add the files under `root` whose names end with `suffix`, and all folders."""
    if root in folders:
        return
    folders.add(root)
    below = []
    try:
        with os.scandir(root) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    below.append(entry)
                elif entry.name.endswith(suffix):
                    _stamp(entry.path, stamps)
    except OSError:
        return  # it vanished, or is not ours to read
    for folder in below:
        hidden = folder.name.startswith(".")
        if hidden or folder.name in SKIPPED or os.path.exists(f"{folder.path}/pyvenv.cfg"):
            continue
        _collect(folder.path, suffix, stamps, folders)


def _stamp(path: str, stamps: dict[str, Stamp]) -> None:
    try:
        status = os.stat(path)
    except OSError:
        return  # it is not there; if it was before, that is a change
    stamps[path] = status.st_mtime_ns, status.st_size, status.st_ino


def _forget_compiled(path: str) -> None:
    """Remove what Python has compiled from `path`.

    Python tells the age of that by whole seconds and the size, so of two changes within one
    second it would not see the other.
    """
    if path.endswith(".py"):
        try:
            os.unlink(cache_from_source(path))
        except (OSError, NotImplementedError):
            pass  # there is none, or it is not ours; one that Python keeps elsewhere it checks

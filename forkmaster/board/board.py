"""The folder of heartbeat files, as the master keeps it.

    forkmaster-<uid>-<master pid>-<random>/     mode 0700, in /dev/shm
        lock            flocked while the master lives
        master          a slot: the master's own beat, and the counters of all its dead children
        worker-<n>      a slot for each child
        stacks-<n>      where the dump signal writes the stacks of that child
        …               whatever else lives as long as the master: the control socket, the balance

The slots are mapped and the stacks opened here, before the fork, so a worker needs no right to
this folder: it may drop its privileges, or see a read-only file system, and still beat.

A folder whose lock nobody holds belongs to a master that was killed; the next one to start
removes it.  flock, not the pid in the name, because a pid means nothing in another container.
"""

from __future__ import annotations

import fcntl
import logging
import os
import re
import secrets
import shutil
import stat
import tempfile
import time
from pathlib import Path

from forkmaster.board import layout
from forkmaster.board.slot import Slot

log = logging.getLogger("forkmaster.error")

SHARED_MEMORY = Path("/dev/shm")
FOLDER_NAME = re.compile(r"forkmaster-(?P<uid>\d+)-(?P<pid>\d+)-[0-9a-f]+")
LOCK = "lock"
MASTER = "master"
SLOT_PREFIX = "worker-"
STACKS_PREFIX = "stacks-"

# A folder without a lock is being made, or its maker was killed in that millisecond.
GRACE_FOR_THE_UNFINISHED = 60.0

FOLDED_WORDS = (
    *(w for w in range(layout.FIRST_COUNTER, layout.LAST_COUNTER + 1) if w not in layout.LEVELS),
    *range(layout.HISTOGRAM, layout.LAST_HISTOGRAM_WORD + 1),
)
MONITOR = layout.KINDS.index("monitor")


class Board:
    """One server's board.  Lives in the master; a child keeps nothing of it but its own slot."""

    def __init__(self, path: Path, *, lock_fd: int, master: Slot, records: int) -> None:
        self.path = path
        self.lock_fd = lock_fd
        """Must outlive an exec of the master, or the board would look abandoned."""
        self.master = master
        self.records = records
        self.readers = -1
        """The group that may read it, besides its owner; -1 for none."""
        self._slots: dict[int, Slot] = {}
        self._stacks: dict[int, int] = {}

    @classmethod
    def create(cls, root: Path | None, *, records: int) -> Board:
        """A new board in `root`; `records` is the number of requests that each slot can show.

        Without `root` it is made in /dev/shm, or, with a warning, in a temporary folder where
        that cannot be used.  Raises OSError if the place asked for, or every place, fails.
        """
        if root is not None:
            return cls._create_in(root, records)
        try:
            return cls._create_in(SHARED_MEMORY, records)
        except OSError as exc:
            *_, fallback = places(None)
            log.warning(
                "cannot make the board in %s: %s; it is made in %s, where a busy disk can delay"
                " a heartbeat (worker_tmp_dir names a better place)",
                SHARED_MEMORY,
                exc.strerror,
                fallback,
            )
            return cls._create_in(fallback, records)

    @classmethod
    def _create_in(cls, root: Path, records: int) -> Board:
        name = f"forkmaster-{os.geteuid()}-{os.getpid()}-{secrets.token_hex(4)}"
        path = root / name
        path.mkdir(mode=0o700)
        try:
            lock_fd = _make_lock(path)
        except OSError:
            shutil.rmtree(path)
            raise
        try:
            master = Slot.create(path / MASTER, serial=0, generation=0, records=0)
        except OSError:
            shutil.rmtree(path)
            os.close(lock_fd)
            raise
        master.words[layout.PID] = os.getpid()
        master.words[layout.KIND] = layout.KINDS.index("master")
        return cls(path, lock_fd=lock_fd, master=master, records=records)

    @classmethod
    def reopen(cls, path: Path, *, lock_fd: int, serials: list[int], records: int) -> Board:
        """The board of a server that goes on after an upgrade, with the children `serials`."""
        board = cls(path, lock_fd=lock_fd, master=Slot.open(path / MASTER), records=records)
        for serial in serials:
            board._slots[serial] = Slot.open(path / f"{SLOT_PREFIX}{serial}")
            board.stacks_file(serial)
        return board

    def let_read(self, group: int) -> None:
        """Let a group read what the slots say: the monitor is in it if it is not our user.

        Nobody in it can change anything.  Raises OSError.
        """
        self.readers = group
        os.chown(self.path, -1, group)
        self.path.chmod(0o750)
        for slot in (self.master, *self._slots.values()):
            self._let_read(slot.path)

    def _let_read(self, file: Path) -> None:
        if self.readers != -1:
            os.chown(file, -1, self.readers)
            file.chmod(0o640)

    def new_slot(self, serial: int, generation: int) -> Slot:
        """A slot for a child about to be forked.  Raises OSError (ENOSPC)."""
        slot = Slot.create(
            self.path / f"{SLOT_PREFIX}{serial}",
            serial=serial,
            generation=generation,
            records=self.records,
        )
        self._slots[serial] = slot
        self._let_read(slot.path)
        return slot

    def stacks_file(self, serial: int) -> int:
        """A descriptor for the stacks of a child about to be forked.  The board closes it."""
        # Appending, so that a dump starts at 0 again after `take_stacks`, whatever the offset.
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        fd = os.open(self.path / f"{STACKS_PREFIX}{serial}", flags, 0o600)
        self._stacks[serial] = fd
        return fd

    def stacks_size(self, serial: int) -> int:
        """How many bytes the child has dumped since they were last taken."""
        fd = self._stacks.get(serial)
        return 0 if fd is None else os.fstat(fd).st_size

    def take_stacks(self, serial: int) -> str:
        """What the child has dumped since the last call; empty if nothing."""
        fd = self._stacks.get(serial)
        if fd is None:
            return ""
        # 1 MiB: a hundred threads, each 100 frames deep, the most faulthandler writes.
        dump = os.pread(fd, 1 << 20, 0)
        os.ftruncate(fd, 0)
        return dump.decode(errors="replace")

    def slot(self, serial: int) -> Slot:
        """The slot of a child that was not dropped yet."""
        return self._slots[serial]

    def count_death(self, cause: str) -> None:
        """Count the end of a child, for one of layout.DEATHS."""
        self.master.words[layout.DEATHS_FIRST_WORD + layout.DEATHS.index(cause)] += 1

    def drop(self, serial: int) -> None:
        """Forget a child that was reaped: add its counters to the totals, remove its files."""
        slot = self._slots.pop(serial)
        totals = self.master.words
        totals[layout.FOLDS] += 1
        # What the monitor serves is not the application's traffic.
        if slot.words[layout.KIND] != MONITOR:
            for word in FOLDED_WORDS:
                if count := slot.words[word]:  # most are 0
                    totals[word] += count
        slot.path.unlink(missing_ok=True)
        totals[layout.FOLDS] += 1
        slot.close()
        fd = self._stacks.pop(serial, None)
        if fd is not None:
            os.close(fd)
        (self.path / f"{STACKS_PREFIX}{serial}").unlink(missing_ok=True)

    def close_in_child(self, keep: int) -> None:
        """Let go of everything but the slot and the stacks of `keep`.  Called after the fork.

        The board cannot be used afterwards, and this process can write to no slot but its own.
        """
        os.close(self.lock_fd)
        self.master.close()
        for serial, slot in self._slots.items():
            if serial != keep:
                slot.close()
        for serial, fd in self._stacks.items():
            if serial != keep:
                os.close(fd)
        self._slots = {}
        self._stacks = {}

    def remove(self) -> None:
        """Remove the folder with all that is in it.  Called last by the master."""
        self.master.close()
        for slot in self._slots.values():
            slot.close()
        for fd in self._stacks.values():
            os.close(fd)
        self._slots = {}
        self._stacks = {}
        shutil.rmtree(self.path, ignore_errors=True)
        # After the files: an unlocked folder may be removed by somebody else meanwhile.
        os.close(self.lock_fd)


def _make_lock(folder: Path) -> int:
    """A descriptor that holds the lock of `folder`."""
    new = folder / f"{LOCK}.new"
    fd = os.open(new, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        # Locked before it has its name, so nobody ever sees the lock of a living master free.
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        new.rename(folder / LOCK)
    except OSError:
        os.close(fd)
        raise
    return fd


def places(root: Path | None) -> list[Path]:
    """Where a board can be: `root`, or without it everywhere `Board.create` may have put it."""
    return [SHARED_MEMORY, Path(tempfile.gettempdir())] if root is None else [root]


def is_held(folder: Path) -> bool:
    """Whether the master of this board lives.  Raises FileNotFoundError if there is no lock."""
    fd = os.open(folder / LOCK, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def folders(root: Path, uid: int | None) -> list[Path]:
    """The boards in `root` that belong to `uid`, or to anybody; oldest name first.

    Only real folders of that owner: anybody may put a link with such a name into /dev/shm.
    """
    found = []
    try:
        entries = sorted(os.scandir(root), key=lambda entry: entry.name)
    except OSError:
        return []  # no such place, so no board in it
    for entry in entries:
        if FOLDER_NAME.fullmatch(entry.name) is None:
            continue
        try:
            status = entry.stat(follow_symlinks=False)
        except FileNotFoundError:
            continue  # removed by its master just now
        if stat.S_ISDIR(status.st_mode) and uid in (None, status.st_uid):
            found.append(Path(entry.path))
    return found


def remove_stale(root: Path | None, uid: int) -> list[Path]:
    """Remove the boards of `uid` whose masters died; returns what was removed."""
    removed = []
    for folder in (folder for place in places(root) for folder in folders(place, uid)):
        try:
            stale = not is_held(folder)
        except FileNotFoundError:
            stale = _is_abandoned_half_made(folder)
        except OSError:
            continue  # not ours to judge
        if stale:
            shutil.rmtree(folder, ignore_errors=True)
            removed.append(folder)
    return removed


def _is_abandoned_half_made(folder: Path) -> bool:
    try:
        return time.time() - folder.stat().st_mtime > GRACE_FOR_THE_UNFINISHED
    except FileNotFoundError:
        return False  # another master removed it between our two looks

"""What a board says, for everything that watches: deadlines, incidents, status, top, metrics.

Needs neither the master's help nor a worker's, only the right to read the folder.  Times are
monotonic seconds of this machine, 0.0 for "never"; every age takes `now` as an argument.
"""

from __future__ import annotations

import mmap
import os
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from forkmaster.board import board, layout
from forkmaster.board.counters import histograms, read_counters
from forkmaster.board.slot import Slot

PROTOCOLS = frozenset(("HTTP/1.0", "HTTP/1.1"))
UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f]")

# A fold takes some 20 microseconds; a reader that meets this many in a row shows what it has.
ATTEMPTS = 20


@dataclass(frozen=True)
class BoardFolder:
    """A board found in the file system."""

    path: Path
    uid: int
    pid: int
    """Of the master, in the master's own pid namespace."""
    is_alive: bool


@dataclass(frozen=True)
class RequestView:
    """One request, in flight or finished.  Its strings hold no control characters."""

    method: str
    target: str
    """Cut at about 200 bytes."""
    client: str
    start: float
    end: float
    """0.0 while the request is in flight."""
    status: int
    """0 while in flight, and if it was never answered."""
    sent: int
    thread: int
    """Native thread id, 0 for the main thread."""
    protocol: str = ""
    """Empty if the record had no room for it."""

    def duration(self, now: float) -> float:
        """Seconds from its start to its end, or so far."""
        return (self.end or now) - self.start

    def __str__(self) -> str:
        return f"{self.method} {self.target}" if self.target else self.method


@dataclass(frozen=True)
class SlotView:
    """One slot at one moment."""

    pid: int
    serial: int
    generation: int
    kind: str
    state: str
    started: float
    ready: float
    beat: float
    extended: float
    wants_recycle: str | None
    """The reason why the worker asks to be replaced, or None."""
    counters: Mapping[str, int]
    """By the names of layout.COUNTERS."""
    in_flight: tuple[RequestView, ...]
    """Oldest first.  An asgi worker may serve more than it has records for."""
    finished: tuple[RequestView, ...]
    """The last ones, newest first."""
    histogram: tuple[int, ...]

    @property
    def requests(self) -> int:
        """How many requests have finished."""
        return sum(self.histogram)

    def age(self, now: float) -> float:
        """Seconds since the fork."""
        return now - self.started

    def silence(self, now: float) -> float:
        """Seconds since the last beat, or since the fork if there was none."""
        return now - (self.beat or self.started)


@dataclass(frozen=True)
class Totals:
    """The sums over all children, living and dead.  Levels are of the living only."""

    counters: Mapping[str, int]
    histogram: tuple[int, ...]

    @property
    def requests(self) -> int:
        """How many requests have finished."""
        return sum(self.histogram)


@dataclass(frozen=True)
class BoardView:
    """A whole board at one moment."""

    master: SlotView
    children: tuple[SlotView, ...]
    """By serial."""
    totals: Totals
    deaths: Mapping[str, int]
    """How many processes ended, by the causes of layout.DEATHS."""


def find_boards(root: Path | None = None) -> list[BoardFolder]:
    """The boards this user may read: its own, or everybody's for root."""
    uid = os.geteuid() or None
    found = []
    for folder in (folder for place in board.places(root) for folder in board.folders(place, uid)):
        name = board.FOLDER_NAME.fullmatch(folder.name)
        assert name is not None  # `folders` lists no other
        try:
            is_alive = board.is_held(folder)
        except OSError:
            continue  # half made, or half removed
        found.append(BoardFolder(folder, int(name["uid"]), int(name["pid"]), is_alive))
    return found


def read_slot(source: Path | Slot) -> SlotView:
    """The slot at a path, or one that is mapped already.

    Raises FileNotFoundError if the child is gone, and ValueError if it is no slot of this format.
    """
    if isinstance(source, Slot):
        return _view(source.octets, source.words)
    fd = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if os.fstat(fd).st_size < layout.RECORDS_OFFSET:
            raise ValueError(f"{source} is too short for a slot")
        mapping = mmap.mmap(fd, 0, access=mmap.ACCESS_READ)
    finally:
        os.close(fd)
    with mapping, memoryview(mapping) as octets, octets.cast("Q") as words:
        return _view(octets, words)


def read_board(folder: Path) -> BoardView:
    """Everything on a board, each child counted once.

    Raises FileNotFoundError if the board is gone.
    """
    for _ in range(ATTEMPTS):
        folds_before = _folds(folder)
        master = read_slot(folder / board.MASTER)
        deaths = _deaths(folder)
        children = _children(folder)
        if folds_before % 2 == 0 and _folds(folder) == folds_before:
            break
    traffic = [master, *(child for child in children if child.kind != "monitor")]
    return BoardView(master, tuple(children), _sum(traffic), deaths)


def totals(folder: Path) -> Totals:
    """The sums over all children of a board.  Counters never go back, whatever dies."""
    return read_board(folder).totals


def quantile(histogram: Sequence[int], fraction: float) -> float | None:
    """The duration in seconds that `fraction` of the requests stayed under; None without requests.

    Interpolated in its bucket, so the error is at most a factor of two and usually far less.
    """
    total = sum(histogram)
    if total == 0:
        return None
    rank = fraction * total
    below = 0
    for bucket, count in enumerate(histogram):
        if count and below + count >= rank:
            lower = 0 if bucket == 0 else 1 << (bucket - 1)
            units = lower + ((1 << bucket) - lower) * (rank - below) / count
            return units * layout.BUCKET_UNIT / 1e9
        below += count
    raise ValueError(f"{fraction} is not a fraction")


def _view(octets: memoryview, words: memoryview[int]) -> SlotView:
    if words[layout.MAGIC_WORD] != layout.MAGIC:
        raise ValueError("not a slot of format " + str(layout.VERSION_NUMBER))
    records = [
        request
        for record in range(words[layout.RECORD_COUNT])
        if (request := _request(octets, words, record)) is not None
    ]
    flags = words[layout.FLAGS]
    return SlotView(
        pid=words[layout.PID],
        serial=words[layout.SERIAL],
        generation=words[layout.GENERATION],
        kind=_name(layout.KINDS, words[layout.KIND]),
        state=_name(layout.STATES, words[layout.STATE]),
        started=words[layout.STARTED] / 1e9,
        ready=words[layout.READY] / 1e9,
        beat=words[layout.BEAT] / 1e9,
        extended=words[layout.EXTENDED] / 1e9,
        wants_recycle=(
            _name(layout.RECYCLE_REASONS, flags >> layout.WANT_RECYCLE_REASON_SHIFT)
            if flags & layout.WANT_RECYCLE
            else None
        ),
        counters=read_counters(words),
        in_flight=tuple(sorted((r for r in records if not r.end), key=lambda r: r.start)),
        finished=tuple(sorted((r for r in records if r.end), key=lambda r: r.end, reverse=True)),
        histogram=tuple(map(sum, zip(*histograms(words), strict=True))),
    )


def _request(octets: memoryview, words: memoryview[int], record: int) -> RequestView | None:
    """The request in `record`; None if there is none, or it changed while it was copied."""
    first = layout.RECORDS_FIRST_WORD + record * layout.RECORD_WORDS
    start = words[first + layout.START]
    if start == 0:
        return None
    copied = words[first : first + layout.CLIENT_OFFSET // 8].tolist()
    at = layout.RECORDS_OFFSET + record * layout.RECORD_SIZE
    client = _text(octets, at + layout.CLIENT_OFFSET, layout.CLIENT_SIZE)
    request = _text(octets, at + layout.REQUEST_OFFSET, layout.REQUEST_SIZE)
    if words[first + layout.START] != start:
        return None
    method, _, rest = request.partition(" ")
    target, _, protocol = rest.partition(" ")
    in_flight = copied[layout.END] == 0
    return RequestView(
        method=method,
        target=target,
        client=client,
        start=start / 1e9,
        end=copied[layout.END] / 1e9,
        # Left from the request before, while this one is in flight.
        status=0 if in_flight else copied[layout.RESPONSE_STATUS],
        sent=0 if in_flight else copied[layout.SENT],
        thread=copied[layout.THREAD],
        protocol=protocol if protocol in PROTOCOLS else "",
    )


def _text(octets: memoryview, offset: int, size: int) -> str:
    line = bytes(octets[offset : offset + size]).partition(b"\0")[0].partition(b"\r")[0]
    text = line.decode("latin-1")
    return UNPRINTABLE.sub(lambda found: f"\\x{ord(found[0]):02x}", text)


def _name(names: Sequence[str], index: int) -> str:
    return names[index] if index < len(names) else f"unknown ({index})"


def _folds(folder: Path) -> int:
    with open(folder / board.MASTER, "rb") as file:
        file.seek(layout.FOLDS * 8)
        return int.from_bytes(file.read(8), sys.byteorder)


def _deaths(folder: Path) -> dict[str, int]:
    with open(folder / board.MASTER, "rb") as file:
        file.seek(layout.DEATHS_FIRST_WORD * 8)
        counts = memoryview(file.read(8 * len(layout.DEATHS))).cast("Q")
    return dict(zip(layout.DEATHS, counts, strict=True))


def _children(folder: Path) -> list[SlotView]:
    views = []
    for path in folder.glob(f"{board.SLOT_PREFIX}*"):
        try:
            views.append(read_slot(path))
        except (FileNotFoundError, ValueError):
            continue  # reaped just now, or being made
    return sorted(views, key=lambda view: view.serial)


def _sum(slots: Sequence[SlotView]) -> Totals:
    return Totals(
        {name: sum(slot.counters[name] for slot in slots) for name in layout.COUNTERS},
        tuple(sum(bucket) for bucket in zip(*(slot.histogram for slot in slots), strict=True)),
    )

"""The writer of one heartbeat file: a worker tells what it is doing, in plain memory stores.

The slot is created and mapped by the process that forks, before the fork.  The child inherits
the mapping and opens nothing, so dropped privileges and a read-only file system do not matter.
A beat costs 0.12 microseconds and no system call.
"""

from __future__ import annotations

import mmap
from pathlib import Path
from time import monotonic_ns

from forkmaster.board import layout
from forkmaster.board.mapping import create_mapping, open_mapping


class Slot:
    """One mapped heartbeat file.  Written in the worker; the master only creates and closes it.

    `words` is the file as unsigned 8-byte integers and `octets` the same memory as bytes, both
    public because the request path stores into them directly: a method call costs more than
    the store it wraps.
    """

    __slots__ = ("_map", "octets", "path", "words")

    def __init__(self, path: Path, mapping: mmap.mmap) -> None:
        self.path = path
        self._map = mapping
        self.octets = memoryview(mapping)
        self.words = self.octets.cast("Q")

    @classmethod
    def create(cls, path: Path, *, serial: int, generation: int, records: int) -> Slot:
        """A new slot at `path`, which must not exist.  Raises OSError (ENOSPC, EACCES, EEXIST)."""
        slot = cls(path, create_mapping(path, layout.slot_size(records)))
        words = slot.words
        words[layout.SERIAL] = serial
        words[layout.GENERATION] = generation
        words[layout.RECORD_COUNT] = records
        words[layout.STATE] = layout.STARTING
        words[layout.STARTED] = monotonic_ns()
        words[layout.MAGIC_WORD] = layout.MAGIC  # last: readers skip a slot without it
        return slot

    @classmethod
    def open(cls, path: Path) -> Slot:
        """The slot that exists at `path`, mapped for writing.  For a master after an upgrade."""
        return cls(path, open_mapping(path))

    @classmethod
    def attach(cls, path: Path, fd: int) -> Slot:
        """The slot behind `fd`, received from the master by a process that may not open `path`."""
        return cls(path, mmap.mmap(fd, 0))

    def beat(self) -> None:
        """Record that the worker's loop runs now."""
        self.words[layout.BEAT] = monotonic_ns()

    def extend(self, seconds: float) -> None:
        """Ask not to be judged for so long: neither the beat nor the requests in flight."""
        until = monotonic_ns() + int(seconds * 1e9)
        self.words[layout.EXTENDED] = max(self.words[layout.EXTENDED], until)

    def last_beat(self) -> float:
        """The monotonic time of the last beat in seconds; 0.0 before the first."""
        return self.words[layout.BEAT] / 1e9

    def begin(self, record: int, request: bytes, client: bytes, now: int, thread: int = 0) -> None:
        """Put a request in flight in `record`.  `now` is monotonic_ns(); `request` is cut to size.

        Overwrites what the record held; a NUL after each string tells a reader where it stops.
        """
        words, octets = self.words, self.octets
        first = layout.RECORDS_FIRST_WORD + record * layout.RECORD_WORDS
        words[first + layout.START] = 0
        words[first + layout.END] = 0
        words[first + layout.THREAD] = thread
        at = layout.RECORDS_OFFSET + record * layout.RECORD_SIZE
        text = request[: layout.REQUEST_SIZE - 1] + b"\0"
        octets[at + layout.REQUEST_OFFSET : at + layout.REQUEST_OFFSET + len(text)] = text
        text = client[: layout.CLIENT_SIZE - 1] + b"\0"
        octets[at + layout.CLIENT_OFFSET : at + layout.CLIENT_OFFSET + len(text)] = text
        words[first + layout.START] = now

    def end(self, record: int, status: int, sent: int, now: int) -> None:
        """Finish the request in `record`: count it, and keep the record as history.

        `status` is the HTTP status answered, 0 if none was; `sent` the bytes of the answer.
        """
        words = self.words
        first = layout.RECORDS_FIRST_WORD + record * layout.RECORD_WORDS
        duration = now - words[first + layout.START]
        words[first + layout.RESPONSE_STATUS] = status
        words[first + layout.SENT] = sent
        words[first + layout.END] = now
        self.count(status, sent, duration)

    def count(self, status: int, sent: int, duration: int) -> None:
        """Add one finished request to the counters.  `duration` in nanoseconds."""
        words = self.words
        words[layout.BYTES_OUT] += sent
        words[layout.BUSY] += duration
        words[layout.HISTOGRAMS[status] + duration.bit_length()] += 1

    def close(self) -> None:
        """Unmap.  The file stays; see `Board.drop`.  Do not use the slot afterwards."""
        self.words.release()
        self.octets.release()
        self._map.close()

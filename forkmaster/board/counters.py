"""What the words of a slot amount to, for everybody who reads one."""

from __future__ import annotations

from forkmaster.board import layout

STATUSES = ("unanswered", "status_1xx", "status_2xx", "status_3xx", "status_4xx", "status_5xx")
# The counters of which a record holds a part; see layout.SUMS.
SUMMED = {
    "bytes_in": layout.BYTES_IN,
    "bytes_out": layout.BYTES_OUT,
    "busy_nanoseconds": layout.BUSY,
}


def read_counters(words: memoryview[int]) -> dict[str, int]:
    """Every counter, by its name in layout.COUNTERS."""
    counters = {name: words[word] for name, word in layout.COUNTERS.items()}
    for name, histogram in zip(STATUSES, histograms(words), strict=True):
        counters[name] += sum(histogram)
    for name, part in zip(SUMMED, sums(words), strict=True):
        counters[name] += part
    counters["in_flight"] = max(counters["in_flight"], len(starts_in_flight(words)))
    return counters


def histograms(words: memoryview[int]) -> list[list[int]]:
    """The durations of requests, by their class of status as in STATUSES."""
    firsts = layout.HISTOGRAMS[: layout.CLASSES]
    return [words[first : first + layout.BUCKETS].tolist() for first in firsts]


def busy(words: memoryview[int]) -> int:
    """Nanoseconds spent in requests that have ended."""
    return words[layout.BUSY] + sums(words)[-1]


def sums(words: memoryview[int]) -> list[int]:
    """What the record that was finished last adds to each of SUMMED."""
    newest, found = 0, [0] * len(SUMMED)
    for first in _records(words):
        start, end = words[first + layout.START], words[first + layout.END]
        if start and end > newest:
            said = words[first + layout.SUMS : first + layout.SUMS + len(SUMMED)].tolist()
            if words[first + layout.START] == start:
                newest, found = end, said
    return found


def starts_in_flight(words: memoryview[int]) -> list[int]:
    """When the requests began that are shown in flight, in monotonic nanoseconds."""
    shown = ((words[each + layout.START], words[each + layout.END]) for each in _records(words))
    return [start for start, end in shown if start and not end]


def _records(words: memoryview[int]) -> range:
    """The first word of each record."""
    last = layout.RECORDS_FIRST_WORD + words[layout.RECORD_COUNT] * layout.RECORD_WORDS
    return range(layout.RECORDS_FIRST_WORD, last, layout.RECORD_WORDS)

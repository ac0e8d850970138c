"""What the words of a slot amount to, for everybody who reads one."""

from __future__ import annotations

from forkmaster.board import layout

STATUSES = ("unanswered", "status_1xx", "status_2xx", "status_3xx", "status_4xx", "status_5xx")


def read_counters(words: memoryview[int]) -> dict[str, int]:
    """Every counter, by its name in layout.COUNTERS."""
    counters = {name: words[word] for name, word in layout.COUNTERS.items()}
    for name, histogram in zip(STATUSES, histograms(words), strict=True):
        counters[name] += sum(histogram)
    counters["in_flight"] = max(counters["in_flight"], len(starts_in_flight(words)))
    return counters


def histograms(words: memoryview[int]) -> list[list[int]]:
    """The durations of requests in layout.BUCKETS, by their class of status as in STATUSES."""
    return [_buckets(words, layout.HISTOGRAMS[100 * each]) for each in range(layout.CLASSES)]


def _buckets(words: memoryview[int], first: int) -> list[int]:
    lengths = words[first : first + layout.HISTOGRAM_SIZE].tolist()
    second = layout.BUCKET_BITS + 1
    last = layout.BUCKET_BITS + layout.BUCKETS - 1
    return [sum(lengths[:second]), *lengths[second:last], sum(lengths[last:])]


def starts_in_flight(words: memoryview[int]) -> list[int]:
    """When the requests began that are shown in flight, in monotonic nanoseconds."""
    shown = ((words[each + layout.START], words[each + layout.END]) for each in _records(words))
    return [start for start, end in shown if start and not end]


def _records(words: memoryview[int]) -> range:
    """The first word of each record."""
    last = layout.RECORDS_FIRST_WORD + words[layout.RECORD_COUNT] * layout.RECORD_WORDS
    return range(layout.RECORDS_FIRST_WORD, last, layout.RECORD_WORDS)

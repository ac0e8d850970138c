"""One heartbeat file: what a worker writes and what a reader sees."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from time import monotonic

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forkmaster.board import layout
from forkmaster.board.reader import RequestView, quantile, read_slot
from forkmaster.board.slot import Slot

SECOND = 1_000_000_000


@pytest.fixture
def slot(tmp_path: Path) -> Iterator[Slot]:
    made = Slot.create(tmp_path / "worker-7", serial=7, generation=2, records=3)
    yield made
    made.close()


def test_no_two_words_of_the_layout_overlap() -> None:
    counters = list(layout.COUNTERS.values())

    assert len(set(counters)) == len(counters)
    assert all(layout.FIRST_COUNTER <= word <= layout.LAST_COUNTER for word in counters)
    assert set(counters) >= layout.LEVELS
    assert (layout.LAST_HISTOGRAM_WORD + 1) * 8 <= layout.RECORDS_OFFSET
    assert set(layout.HISTOGRAMS) == {
        layout.HISTOGRAM + each * layout.HISTOGRAM_SIZE for each in range(layout.CLASSES)
    }
    assert all(layout.HISTOGRAMS[each] == layout.HISTOGRAMS[0] for each in (1, 99, 600, 999))
    assert layout.CLIENT_OFFSET + layout.CLIENT_SIZE <= layout.REQUEST_OFFSET
    assert layout.REQUEST_OFFSET + layout.REQUEST_SIZE <= layout.RECORD_SIZE
    assert layout.SENT < layout.END < layout.THREAD < layout.CLIENT_OFFSET // 8


def test_a_new_slot_is_starting_and_has_never_beaten(slot: Slot) -> None:
    view = read_slot(slot)

    assert (view.serial, view.generation, view.state, view.kind) == (7, 2, "starting", "unknown")
    assert view.beat == slot.last_beat() == 0.0
    assert view.age(view.started + 5) == view.silence(view.started + 5) == 5
    assert (view.requests, view.in_flight, view.finished) == (0, (), ())
    assert view.wants_recycle is None


def test_a_beat_is_seen_through_the_file(slot: Slot) -> None:
    slot.beat()

    view = read_slot(slot.path)

    assert view.beat == slot.last_beat()
    assert 0 <= view.silence(monotonic()) < 5


def test_a_request_is_in_flight_until_it_ends(slot: Slot) -> None:
    slot.begin(1, b"GET /slow?x=1 HTTP/1.1\r\nHost: a", b"10.0.0.9:5555", 5 * SECOND, thread=42)
    (request,) = read_slot(slot).in_flight
    assert request == RequestView(
        method="GET",
        target="/slow?x=1",
        client="10.0.0.9:5555",
        start=5.0,
        end=0.0,
        status=0,
        sent=0,
        thread=42,
        protocol="HTTP/1.1",
    )
    assert request.duration(now=7.5) == 2.5
    assert str(request) == "GET /slow?x=1"

    slot.end(1, 404, 12, 8 * SECOND)

    view = read_slot(slot)
    (request,) = view.finished
    assert view.in_flight == ()
    assert (request.status, request.sent, request.duration(now=99)) == (404, 12, 3.0)
    assert view.counters["status_4xx"] == 1
    assert view.counters["bytes_out"] == 12
    assert view.counters["busy_nanoseconds"] == 3 * SECOND


def test_a_record_taken_again_shows_nothing_of_the_request_before(slot: Slot) -> None:
    slot.begin(0, b"POST /a/long/path HTTP/1.1\r\n", b"192.168.100.100:60000", SECOND)
    slot.end(0, 500, 10, 2 * SECOND)

    slot.begin(0, b"GET /", b"::1", 3 * SECOND)

    (request,) = read_slot(slot).in_flight
    assert (request.target, request.client, request.status, request.sent) == ("/", "::1", 0, 0)


def test_requests_in_flight_are_told_oldest_first_and_history_newest_first(slot: Slot) -> None:
    slot.begin(0, b"GET /b", b"", 2 * SECOND)
    slot.begin(1, b"GET /a", b"", 1 * SECOND)
    assert [r.target for r in read_slot(slot).in_flight] == ["/a", "/b"]

    slot.end(1, 200, 0, 3 * SECOND)
    slot.end(0, 200, 0, 4 * SECOND)

    assert [r.target for r in read_slot(slot).finished] == ["/b", "/a"]


def test_a_record_stored_in_two_pieces_reads_like_one_stored_word_by_word(slot: Slot) -> None:
    at = [layout.RECORDS_OFFSET + record * layout.RECORD_SIZE for record in range(3)]
    layout.BEGINNING.pack_into(slot.octets, at[1], b"::1", b"GET /a", 2 * SECOND)
    layout.ENDING.pack_into(slot.octets, at[1], 200, 50, 3 * SECOND)
    layout.BEGINNING.pack_into(slot.octets, at[0], b"::1", b"GET /b", 4 * SECOND)
    layout.ENDING.pack_into(slot.octets, at[0], 404, 40, 6 * SECOND)
    layout.BEGINNING.pack_into(slot.octets, at[2], b"::1", b"GET /c", 7 * SECOND)

    view = read_slot(slot)

    assert view.counters["in_flight"] == len(view.in_flight) == 1
    assert [(r.target, r.status, r.sent) for r in view.finished] == [
        ("/b", 404, 40),
        ("/a", 200, 50),
    ]
    assert view.in_flight[0].start == 7.0


def test_what_a_client_sends_cannot_break_a_line_or_a_terminal(slot: Slot) -> None:
    slot.begin(0, b"GET /\x1b[2J\x9b\nfake", b"a\x07", SECOND)

    (request,) = read_slot(slot).in_flight

    assert request.target == r"/\x1b[2J\x9b\x0afake"
    assert request.client == r"a\x07"


def test_a_request_longer_than_its_room_is_cut(slot: Slot) -> None:
    slot.begin(0, b"GET /" + b"x" * 9999, b"c" * 9999, SECOND)
    slot.begin(1, b"GET /next", b"", SECOND)

    first, second = read_slot(slot).in_flight

    assert first.target == "/" + "x" * (layout.REQUEST_SIZE - 1 - len("GET /"))
    assert first.client == "c" * (layout.CLIENT_SIZE - 1)
    assert second.target == "/next"


class Torn:
    """Words in which the start of the first record changes between two looks at it."""

    def __init__(self, words: memoryview[int]) -> None:
        self._words = words
        self._looks = 0

    def __getitem__(self, index: int | slice) -> int | memoryview[int]:
        if index == layout.RECORDS_FIRST_WORD + layout.START:
            self._looks += 1
            return self._looks
        return self._words[index]


def test_a_record_that_changes_while_it_is_read_is_not_shown(slot: Slot) -> None:
    slot.begin(0, b"GET /", b"", SECOND)
    words = slot.words

    slot.words = Torn(words)  # type: ignore[assignment]
    view = read_slot(slot)
    slot.words = words

    assert view.in_flight == ()


@pytest.mark.parametrize(
    ("status", "counter"),
    [
        (0, "unanswered"),
        (101, "status_1xx"),
        (204, "status_2xx"),
        (599, "status_5xx"),
        (600, "unanswered"),
    ],
)
def test_every_status_counts_in_its_class(slot: Slot, status: int, counter: str) -> None:
    slot.count(status, 0, 0)

    counters = read_slot(slot).counters
    assert {name: value for name, value in counters.items() if value} == {counter: 1}


def test_a_wish_to_be_recycled_has_a_reason(slot: Slot) -> None:
    reason = layout.RECYCLE_REASONS.index("max_requests") << layout.WANT_RECYCLE_REASON_SHIFT
    slot.words[layout.FLAGS] = layout.WANT_RECYCLE | reason

    assert read_slot(slot).wants_recycle == "max_requests"


def test_a_name_of_a_newer_worker_is_shown_as_a_number(slot: Slot) -> None:
    slot.words[layout.STATE] = 77

    assert read_slot(slot).state == "unknown (77)"


def test_what_is_no_slot_is_refused(tmp_path: Path, slot: Slot) -> None:
    short = tmp_path / "short"
    short.write_bytes(b"x")
    slot.words[layout.MAGIC_WORD] = 0

    with pytest.raises(ValueError, match="too short"):
        read_slot(short)
    with pytest.raises(ValueError, match="format 3"):
        read_slot(slot.path)
    with pytest.raises(FileNotFoundError):
        read_slot(tmp_path / "gone")


def test_a_slot_is_never_made_over_another_file(slot: Slot) -> None:
    with pytest.raises(FileExistsError):
        Slot.create(slot.path, serial=8, generation=0, records=1)

    assert read_slot(slot.path).serial == 7


def test_the_file_is_private(slot: Slot) -> None:
    assert slot.path.stat().st_mode & 0o777 == 0o600


def test_a_slot_can_be_written_through_its_path_or_a_descriptor(slot: Slot) -> None:
    fd = os.open(slot.path, os.O_RDWR)
    received, opened = Slot.attach(slot.path, fd), Slot.open(slot.path)
    os.close(fd)

    received.count(200, 5, 0)
    opened.count(200, 5, 0)

    assert read_slot(slot).counters["bytes_out"] == 10
    received.close()
    opened.close()


def test_a_child_without_privileges_still_beats(slot: Slot) -> None:
    pid = os.fork()
    if pid == 0:
        if os.getuid() == 0:
            os.setgid(65534)
            os.setuid(65534)
        slot.beat()
        slot.count(200, 1, 1)
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0

    assert slot.last_beat() > 0
    assert read_slot(slot).requests == 1


@pytest.mark.parametrize("bits", range(64))
def test_a_duration_of_any_length_is_counted_in_its_bucket(slot: Slot, bits: int) -> None:
    shortest, longest = 1 << bits >> 1, (1 << bits) - 1
    slot.count(200, 0, shortest)
    slot.words[layout.BUSY] = 0  # which only adds up for 584 years
    slot.count(200, 0, longest)

    histogram = read_slot(slot).histogram

    bucket = min((shortest // layout.BUCKET_UNIT).bit_length(), layout.BUCKETS - 1)
    assert len(histogram) == layout.BUCKETS
    assert {at: count for at, count in enumerate(histogram) if count} == {bucket: 2}


def test_without_requests_there_is_no_quantile() -> None:
    assert quantile([0] * layout.BUCKETS, 0.5) is None


def test_a_quantile_is_interpolated_in_its_bucket() -> None:
    histogram = [0] * layout.BUCKETS
    histogram[11] = 100  # 1024 to 2048 units

    assert quantile(histogram, 0.5) == pytest.approx(1536 * 1.024e-6)
    assert quantile(histogram, 1.0) == pytest.approx(2048 * 1.024e-6)


def test_more_than_all_requests_is_no_fraction() -> None:
    with pytest.raises(ValueError, match="2 is not a fraction"):
        quantile([1], 2)


@given(
    durations=st.lists(st.integers(0, 60 * SECOND), min_size=1, max_size=50),
    fraction=st.sampled_from([0.5, 0.95, 0.99, 1.0]),
)
def test_a_quantile_is_at_most_a_factor_of_two_off(durations: list[int], fraction: float) -> None:
    histogram = [0] * layout.BUCKETS
    for duration in durations:
        histogram[(duration // layout.BUCKET_UNIT).bit_length()] += 1

    estimate = quantile(histogram, fraction)

    rank = -(-len(durations) * fraction // 1)
    exact = sorted(durations)[int(rank) - 1] / SECOND
    assert estimate is not None
    unit = layout.BUCKET_UNIT / 1e9
    assert exact / 2 - unit <= estimate <= exact * 2 + unit

"""The words for a death."""

from __future__ import annotations

from dataclasses import dataclass

from forkmaster.master import incidents


@dataclass
class Request:
    """A request in flight, as the board shows it."""

    text: str
    start: float
    client: str = ""

    def duration(self, now: float) -> float:
        return now - self.start

    def __str__(self) -> str:
        return self.text


def test_nothing_in_flight_is_not_mentioned() -> None:
    assert incidents.serving([], 10.0) == ""


def test_a_request_is_named_with_its_age_and_client() -> None:
    request = Request("GET /slow", 1.0, "10.0.0.7:5000")

    words = incidents.serving([request], 10.5)

    assert words == ", serving GET /slow for 9.5 s (client 10.0.0.7:5000)"


def test_many_requests_are_counted() -> None:
    requests = [Request(f"GET /{n}", 0.0) for n in range(6)]

    words = incidents.serving(requests, 1.0)

    assert words.endswith("GET /3 for 1.0 s and 2 more")


def test_only_the_frames_of_the_application_and_its_server_are_shown() -> None:
    dump = """Current thread 0x00007fb1 (most recent call first):
  File "/srv/app/views.py", line 12 in slow
  File "/lib/forkmaster/worker/sync.py", line 182 in _loop
  File "/lib/forkmaster/worker/child.py", line 119 in _serve
  File "/lib/forkmaster/master/spawn.py", line 211 in _in_child

Thread 0x00007fb2 (most recent call first):
  File "/lib/python3.11/threading.py", line 320 in wait

Extension modules: psutil._psutil_linux (total: 1)
"""

    assert incidents.own_frames(dump).splitlines() == [
        "Current thread 0x00007fb1 (most recent call first):",
        '  File "/srv/app/views.py", line 12 in slow',
        '  File "/lib/forkmaster/worker/sync.py", line 182 in _loop',
        "Thread 0x00007fb2 (most recent call first):",
        '  File "/lib/python3.11/threading.py", line 320 in wait',
    ]

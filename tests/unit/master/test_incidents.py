"""The record of a death: its cause, its words, its JSON."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace

import pytest

from forkmaster.board import layout
from forkmaster.master import incidents
from forkmaster.master.incidents import Cause, Condition, Death, Incident, Served, cause_of

ORDERED = Death(
    status=0,
    was_ready=True,
    asked=True,
    limit=False,
    missed=False,
    orderly=True,
    by_kernel=False,
)
SUDDEN = replace(ORDERED, asked=False, orderly=False)

CAUSES = {
    "told to stop": (ORDERED, Cause.REQUESTED),
    "told to stop by a stranger": (replace(ORDERED, asked=False), Cause.REQUESTED),
    "replaced at a limit": (replace(ORDERED, limit=True), Cause.LIMIT),
    "told to stop before it was ready": (replace(ORDERED, was_ready=False), Cause.REQUESTED),
    "missed a deadline and was killed": (replace(SUDDEN, status=None, missed=True), Cause.TIMEOUT),
    "missed a deadline and ended": (replace(SUDDEN, status=1, missed=True), Cause.TIMEOUT),
    "could not import": (replace(SUDDEN, status=3, was_ready=False), Cause.BOOT_FAILURE),
    "exited while importing": (replace(SUDDEN, was_ready=False), Cause.BOOT_FAILURE),
    "killed": (replace(SUDDEN, status=None), Cause.SIGNAL),
    "killed while it drained": (replace(ORDERED, status=None), Cause.SIGNAL),
    "killed while it booted": (replace(SUDDEN, status=None, was_ready=False), Cause.SIGNAL),
    "by the kernel": (replace(SUDDEN, status=None, by_kernel=True), Cause.OUT_OF_MEMORY),
    "os._exit(4) in a request": (replace(SUDDEN, status=4), Cause.EXIT_CODE),
    "os._exit(0) in a request": (SUDDEN, Cause.EXIT_CODE),
    "failed while it drained": (replace(ORDERED, status=1), Cause.EXIT_CODE),
}


@pytest.mark.parametrize(("death", "cause"), CAUSES.values(), ids=CAUSES)
def test_every_death_has_one_cause(death: Death, cause: Cause) -> None:
    assert cause_of(death) is cause


def test_the_board_counts_by_the_same_causes() -> None:
    assert tuple(cause.value for cause in Cause) == layout.DEATHS
    assert layout.DEATHS_FIRST_WORD > layout.LAST_COUNTER
    assert layout.DEATHS_FIRST_WORD + len(layout.DEATHS) <= layout.HISTOGRAM


def served(request: str = "GET /slow", **other: object) -> Served:
    fields: dict[str, object] = {
        "request": request,
        "client": "",
        "seconds": 9.5,
        "ended": None,
        "status": 0,
        "sent": 0,
        "thread": 0,
    }
    return Served(**{**fields, **other})  # type: ignore[arg-type]


def test_nothing_in_flight_is_not_mentioned() -> None:
    assert incidents.serving([]) == ""


def test_a_request_is_named_with_its_age_and_client() -> None:
    words = incidents.serving([served(client="10.0.0.7:5000")])

    assert words == ", serving GET /slow for 9.5 s (client 10.0.0.7:5000)"


def test_many_requests_are_counted() -> None:
    requests = [served(f"GET /{n}") for n in range(6)]

    assert incidents.serving(requests).endswith("GET /3 for 9.5 s and 2 more")
    assert incidents.serving(requests, unseen=10).endswith("GET /3 for 9.5 s and 12 more")
    assert incidents.serving([], unseen=2) == ", serving 2 requests"


@dataclass
class Record:
    """A request as the board shows it."""

    start: float
    end: float = 0.0
    client: str = "::1"
    status: int = 0
    sent: int = 0
    thread: int = 7

    def duration(self, now: float) -> float:
        return (self.end or now) - self.start

    def __str__(self) -> str:
        return "GET /"


def test_a_request_in_flight_is_kept_with_its_age() -> None:
    kept = Served.of(Record(start=1.0), now=10.5)

    assert (kept.request, kept.seconds, kept.ended, kept.thread) == ("GET /", 9.5, None, 7)


def test_a_finished_request_is_kept_with_its_duration_and_when_it_ended() -> None:
    kept = Served.of(Record(start=1.0, end=3.0, status=200), now=10.0)

    assert (kept.seconds, kept.ended, kept.status) == (2.0, 7.0, 200)


HUNG = Incident(
    cause=Cause.TIMEOUT,
    reason="sent no heartbeat for 30.1 s (timeout 30 s)",
    follows="sending SIGABRT",
    time=1_800_000_000.25,
    role="worker",
    serial=3,
    pid=4711,
    generation=0,
    kind="sync",
    age=90.4,
    status=None,
    signal=None,
    in_flight=(served(),),
    unseen=0,
    recent=(served("GET /", seconds=0.1, ended=12.0, status=200),),
    condition=Condition(
        "asleep in recvfrom on fd 7 (10.0.0.5:5432)", 300 << 20, 120 << 20, cpu=3.2
    ),
    stacks='Current thread 0x1 (most recent call first):\n  File "views.py", line 12 in slow\n',
)


def test_an_incident_reads_as_one_record() -> None:
    assert str(HUNG).splitlines() == [
        "worker 3 (pid 4711) sent no heartbeat for 30.1 s (timeout 30 s),"
        " serving GET /slow for 9.5 s; sending SIGABRT",
        "asleep in recvfrom on fd 7 (10.0.0.5:5432), 300 MiB resident, 120 MiB private,"
        " 3.2 s of processor time, 90 s after its start",
        "worker 3 stood here:",
        "Current thread 0x1 (most recent call first):",
        '  File "views.py", line 12 in slow',
    ]


def test_what_is_not_known_is_left_out() -> None:
    sudden = replace(HUNG, follows="", in_flight=(), condition=Condition(), stacks="")

    assert str(sudden) == "worker 3 (pid 4711) sent no heartbeat for 30.1 s (timeout 30 s)"


def test_an_incident_is_kept_as_json() -> None:
    kept = json.loads(HUNG.as_json())

    assert kept["summary"] == HUNG.headline
    assert kept["cause"] == "timeout"
    assert kept["time"] == "2027-01-15T08:00:00.250Z"
    assert kept["in_flight"][0]["request"] == "GET /slow"
    assert kept["recent"][0]["status"] == 200
    assert kept["condition"]["private"] == 120 << 20
    assert kept["stacks"][1] == '  File "views.py", line 12 in slow'


def test_the_names_of_incidents_sort_by_time() -> None:
    later = replace(HUNG, time=HUNG.time + 0.5, serial=1)

    assert HUNG.file_name == "incident-20270115T080000.250-worker-3.json"
    assert HUNG.file_name < later.file_name


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

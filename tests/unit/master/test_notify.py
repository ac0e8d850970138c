"""What the service manager is told, told as stories.  Time is an argument."""

from __future__ import annotations

from dataclasses import replace

from forkmaster.master.events import Recycle, Reload, Stop
from forkmaster.master.notify import Announcer, Standing, standing_of
from forkmaster.master.policy import State

from .fleet import Fleet

BOOTING = Standing(ready=0, wanted=4, needed=4, generation=0, changing=True)
SERVING = Standing(ready=4, wanted=4, needed=4, generation=0)


def sent(announcer: Announcer, now: float, standing: Standing) -> list[str]:
    """The messages, each with its assignments in one line."""
    return [" ".join(message) for message in announcer.messages(now, standing)]


def serving(watchdog: float | None = None) -> Announcer:
    """An announcer that has said READY=1 at 100."""
    announcer = Announcer(watchdog)
    announcer.messages(100.0, SERVING)
    return announcer


def test_ready_is_said_when_enough_workers_are() -> None:
    announcer = Announcer(None)

    first = sent(announcer, 100.0, BOOTING)
    third = sent(announcer, 101.5, replace(BOOTING, ready=3))
    fourth = sent(announcer, 101.6, SERVING)
    later = sent(announcer, 200.0, SERVING)

    assert first == [
        "STATUS=0 of 4 workers ready, generation 0",
        "EXTEND_TIMEOUT_USEC=10000000",
    ]
    assert third == ["STATUS=3 of 4 workers ready, generation 0"]
    assert fourth == ["READY=1 STATUS=4 of 4 workers ready, generation 0"]
    assert later == []


def test_fewer_may_be_enough() -> None:
    announcer = Announcer(None)

    assert sent(announcer, 100.0, replace(BOOTING, needed=2, ready=2))[0].startswith("READY=1")


def test_an_idle_server_is_never_woken() -> None:
    assert serving().next_deadline() == float("inf")


def test_a_boot_that_goes_on_is_given_more_time_and_one_that_stands_still_is_not() -> None:
    announcer = Announcer(None)
    announcer.messages(100.0, BOOTING)

    due = announcer.next_deadline()
    again = sent(announcer, 105.0, BOOTING)
    stuck = sent(announcer, 110.0, replace(BOOTING, changing=False))

    assert due == 105.0
    assert again == ["EXTEND_TIMEOUT_USEC=10000000"]
    assert stuck == []
    assert announcer.next_deadline() == float("inf")


def test_a_respawn_while_serving_prolongs_nothing() -> None:
    announcer = serving()

    assert not any("EXTEND" in m for m in sent(announcer, 110.0, replace(SERVING, changing=True)))
    assert announcer.next_deadline() == float("inf")


def test_a_reload_begins_with_its_time_in_one_message_and_ends_with_ready() -> None:
    announcer = serving()
    announcer.reload_asked()

    begins = sent(announcer, 110.25, replace(SERVING, reloading=True, changing=True))
    rolls = sent(announcer, 110.5, replace(SERVING, ready=5, reloading=True, changing=True))
    ends = sent(announcer, 111.0, replace(SERVING, generation=1))

    assert begins == [
        "RELOADING=1 MONOTONIC_USEC=110250000 STATUS=reloading: 4 of 4 workers ready, generation 0",
        "EXTEND_TIMEOUT_USEC=10000000",
    ]
    assert rolls == []  # the status changed less than a second ago
    assert ends == ["READY=1 STATUS=4 of 4 workers ready, generation 1"]


def test_a_second_reload_is_told_with_a_time_of_its_own() -> None:
    announcer = serving()
    reloading = replace(SERVING, reloading=True)
    announcer.reload_asked()
    announcer.messages(110.0, reloading)

    announcer.reload_asked()
    again = sent(announcer, 112.0, reloading)

    assert again == ["RELOADING=1 MONOTONIC_USEC=112000000"]


def test_a_reload_refused_at_once_is_two_messages() -> None:
    announcer = serving()
    announcer.reload_asked()

    refused = sent(announcer, 110.0, replace(SERVING, complaint="reload refused: no"))

    assert refused == [
        "RELOADING=1 MONOTONIC_USEC=110000000",
        "READY=1 STATUS=4 of 4 workers ready, generation 0; reload refused: no",
    ]


def test_a_failed_reload_ends_though_a_worker_is_missing() -> None:
    announcer = serving()
    announcer.messages(110.0, replace(SERVING, reloading=True))

    assert sent(announcer, 111.0, replace(SERVING, ready=3))[0].startswith("READY=1")


def test_a_reload_before_the_first_ready_is_part_of_the_start() -> None:
    announcer = Announcer(None)
    announcer.reload_asked()

    told = sent(announcer, 100.0, replace(BOOTING, reloading=True))
    ready = sent(announcer, 101.0, SERVING)

    assert not any("RELOADING=1" in message for message in told)
    assert ready == ["READY=1 STATUS=4 of 4 workers ready, generation 0"]


def test_a_stop_is_told_once_and_prolonged_while_workers_drain() -> None:
    announcer = serving()
    stopping = replace(SERVING, stopping="asked to stop", changing=True)

    told = sent(announcer, 110.0, stopping)
    prolonged = sent(announcer, 115.0, replace(stopping, ready=0))
    announcer.reload_asked()
    ignored = sent(announcer, 116.0, replace(stopping, ready=0))

    assert told == [
        "STOPPING=1 STATUS=stopping: asked to stop",
        "EXTEND_TIMEOUT_USEC=10000000",
    ]
    assert prolonged == ["EXTEND_TIMEOUT_USEC=10000000"]
    assert ignored == []


def test_the_watchdog_is_fed_at_half_its_interval() -> None:
    announcer = serving(watchdog=10.0)

    early = sent(announcer, 104.9, SERVING)
    due = announcer.next_deadline()
    late = sent(announcer, 105.1, SERVING)

    assert early == []
    assert due == 105.0
    assert late == ["WATCHDOG=1"]
    assert announcer.next_deadline() == 110.1


def test_the_watchdog_starves_while_nobody_serves_and_is_fed_at_once_when_somebody_does() -> None:
    announcer = serving(watchdog=10.0)

    sick = sent(announcer, 106.0, replace(SERVING, healthy=False))
    waits = announcer.next_deadline()
    well = sent(announcer, 108.0, SERVING)

    assert sick == []
    assert waits == float("inf")
    assert well == ["WATCHDOG=1"]


# --- What the supervisor shows ----------------------------------------------------------------


def standing(fleet: Fleet, ready_workers: int | None = None) -> Standing:
    return standing_of(fleet.supervisor, ready_workers, "")


def test_a_fleet_that_boots_changes_and_is_healthy() -> None:
    fleet = Fleet(workers=3)
    fleet.start()
    fleet.ready(1)

    assert standing(fleet) == Standing(ready=1, wanted=3, needed=3, generation=0, changing=True)


def test_never_more_workers_are_needed_than_wanted() -> None:
    fleet = Fleet(workers=2)
    fleet.serve()

    assert standing(fleet, 1).needed == 1
    assert standing(fleet, 8).needed == 2


def test_a_boot_without_a_limit_is_the_service_managers_to_judge() -> None:
    fleet = Fleet(workers=1, boot_timeout=0)
    fleet.start()

    assert not standing(fleet).changing


def test_a_fleet_that_waits_after_crashes_is_not_healthy() -> None:
    fleet = Fleet(workers=1)
    fleet.serve()
    while fleet.in_state(State.STARTING, State.READY):
        fleet.ready(*fleet.in_state(State.STARTING))
        fleet.exits(*fleet.in_state(State.READY), 1)

    assert not standing(fleet).healthy


def test_a_reload_shows_from_the_wish_to_the_commit() -> None:
    fleet = Fleet(workers=1)
    fleet.serve()

    fleet.tell(Reload())
    asked = standing(fleet).reloading
    fleet.reload(workers=1)
    rolling = standing(fleet).reloading
    fleet.settle()

    assert asked
    assert rolling
    assert not standing(fleet).reloading


def test_a_worker_that_drains_is_not_ready() -> None:
    fleet = Fleet(workers=2)
    fleet.serve()
    fleet.tell(Recycle(1, "max_requests"))
    fleet.ready(3)

    assert standing(fleet).ready == 2
    assert standing(fleet).changing


def test_a_stop_says_why() -> None:
    fleet = Fleet(workers=1)
    fleet.serve()
    fleet.tell(Stop())

    assert standing(fleet).stopping == "asked to stop"
    assert standing(fleet).status == "stopping: asked to stop"

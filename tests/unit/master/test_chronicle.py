"""What the chronicle remembers of a server, told as stories."""

from __future__ import annotations

import pytest

from forkmaster.board.notice import Death, Notice, Outcome
from forkmaster.config.sources import Loaded, load
from forkmaster.master import actions, chronicle, events
from forkmaster.master.chronicle import Chronicle
from forkmaster.master.events import Event
from forkmaster.master.policy import State
from tests.unit.master.fleet import Fleet


class Remembered(Fleet):
    """A fleet whose chronicle is kept.  Its workers end as they are told to."""

    def __init__(self, **policy: float) -> None:
        super().__init__(**policy)
        self.chronicle = Chronicle(1000.0)

    def tell(self, event: Event) -> list[actions.Action]:
        if isinstance(event, events.Exited):
            how = "was killed" if event.status is None else f"exited with status {event.status}"
            self.chronicle.buried(event.serial, 4000 + event.serial, "signal", how, self.now)
        done = super().tell(event)
        self.chronicle.observe(event, done, self.supervisor.committed, self.now)
        return done

    def notice(self) -> Notice:
        return self.chronicle.notice(
            LOADED, self.supervisor, listeners=(), monitor=(), incidents=""
        )

    @property
    def told(self) -> list[str]:
        """How the last ones died, the newest first."""
        return [death.text for death in self.chronicle.deaths]


LOADED: Loaded = load([], environ={})


@pytest.fixture
def fleet() -> Remembered:
    fleet = Remembered(workers=2, request_timeout=20, boot_timeout=60)
    fleet.serve()
    return fleet


def test_a_reload_is_an_outcome_and_two_deaths(fleet: Remembered) -> None:
    fleet.reload(workers=2)
    fleet.settle()

    assert fleet.chronicle.outcome == Outcome("committed", 1, "", fleet.now)
    assert fleet.chronicle.outcomes == {"committed": 1}
    assert fleet.told.count("replaced; exited with status 0") == 2
    assert fleet.chronicle.spawned == 4


def test_a_reload_that_fails_is_an_outcome_with_its_reason(fleet: Remembered) -> None:
    fleet.reload(workers=2)
    fleet.exits(4, 3)
    fleet.tell(events.Reload())
    fleet.tell(events.Exited(5, 5, "workers: no number"))

    assert fleet.chronicle.outcomes == {"rolled_back": 1, "refused": 1}
    assert fleet.chronicle.outcome == Outcome("refused", 0, "workers: no number", fleet.now)
    assert "exited with status 3" in fleet.told


def test_a_rollback_that_cannot_be_is_no_outcome(fleet: Remembered) -> None:
    fleet.tell(events.Rollback())

    assert fleet.chronicle.outcome is None


def test_a_death_that_nobody_asked_for(fleet: Remembered) -> None:
    fleet.exits(1, None)

    assert fleet.chronicle.deaths[0] == Death(1, 4001, "signal", "was killed", fleet.now)


@pytest.mark.parametrize(
    ("told", "reason"),
    [
        (events.Recycle(1, "max_requests"), "max_requests"),
        (events.Scale(1), "surplus"),
        (events.Stop(), "the server stops"),
        (events.Stop(graceful=False), "quick stop"),
    ],
)
def test_a_death_that_somebody_asked_for(fleet: Remembered, told: Event, reason: str) -> None:
    fleet.tell(told)
    fleet.all_ready()
    fleet.gone()

    assert f"{reason}; exited with status 0" in fleet.told


def test_of_an_abort_and_a_kill_the_abort_says_why() -> None:
    fleet = Remembered(workers=1)
    fleet.serve()
    fleet.at(130.1)  # it has not beaten for 30 s
    fleet.at(135.2)  # nor did the abort help
    fleet.exits(1, None)

    assert fleet.told == ["sent no heartbeat for 30.1 s (timeout 30 s); was killed"]


def test_a_kill_says_why_if_it_comes_alone(fleet: Remembered) -> None:
    fleet.tell(events.Scale(1))
    (going,) = fleet.in_state(State.STOPPING)
    fleet.after(31)
    fleet.exits(going, None)

    assert fleet.told[0].startswith("did not stop within 30 s (graceful_timeout)")


def test_only_the_last_deaths_are_kept(fleet: Remembered) -> None:
    for _ in range(15):
        fleet.chronicle.buried(9, 1, "signal", "died", 0.0)

    assert len(fleet.chronicle.deaths) == chronicle.REMEMBERED


def test_a_notice_tells_the_state() -> None:
    fleet = Remembered(workers=2)
    fleet.start()
    starting = fleet.notice()
    fleet.all_ready()
    serving = fleet.notice()
    fleet.reload(workers=3)
    reloading = fleet.notice()
    fleet.settle()
    reloaded = fleet.notice()
    fleet.tell(events.Stop())
    stopping = fleet.notice()

    states = [each.state for each in (starting, serving, reloading, reloaded, stopping)]
    assert states == ["starting", "serving", "reloading", "serving", "stopping"]
    assert [starting.started_up, serving.started_up] == [False, True]
    assert (serving.generation, serving.wanted) == (0, 2)
    assert (reloaded.generation, reloaded.wanted) == (1, 3)


def test_a_server_without_workers_is_not_ready() -> None:
    fleet = Remembered(workers=1)
    fleet.serve()

    fleet.tell(events.Scale(0))

    assert fleet.notice().needed == 1


def test_the_counts_survive_an_upgrade(fleet: Remembered) -> None:
    fleet.exits(1, None)
    fleet.reload(workers=2)
    fleet.settle()
    before = fleet.notice()

    after = Chronicle(5000.0, before).notice(
        LOADED, fleet.supervisor, listeners=(), monitor=(), incidents=""
    )

    assert after == before

"""Commands as stories: a client asks, things happen, and it learns the outcome."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import cast

import pytest

from forkmaster.board.board import Board
from forkmaster.master import actions, events, protocol
from forkmaster.master.events import Event
from forkmaster.master.orders import Conversation, OrderError, Orders
from forkmaster.master.policy import Role
from forkmaster.master.protocol import Done
from forkmaster.master.spawn import Process
from tests.unit.master.fleet import Fleet


class Listened(Fleet):
    """A fleet of which a client is told, as the master's observers are."""

    def __init__(self, **policy: float) -> None:
        super().__init__(**policy)
        self.client: Client | None = None

    def tell(self, event: Event) -> list[actions.Action]:
        done = super().tell(event)
        if self.client is not None:
            self.client.heard.append((event, done))
        return done


class ProcessOf:
    """What orders know of a process."""

    def __init__(self, serial: int) -> None:
        self.serial = serial
        self.pid = 0
        self.role = Role.WORKER
        self.sent: list[int] = []

    def send(self, number: int) -> None:
        self.sent.append(number)


class Client:
    """Asks one thing, and collects the answers."""

    def __init__(self, fleet: Listened, folder: Path | None = None) -> None:
        self.fleet = fleet
        self.heard: list[tuple[Event, Sequence[actions.Action]]] = []
        self.progress: list[str] = []
        self.done: Done | None = None
        self.error = ""
        self.processes = {serial: ProcessOf(serial) for serial in fleet.alive}
        self.orders = Orders(
            supervisor=fleet.supervisor,
            processes=cast("dict[int, Process]", self.processes),
            board=cast("Board", None),
            decide=fleet.tell,
            resize=lambda event, cause: fleet.tell(event),
            reopen=lambda: self.progress.append("reopened"),
            set_level=self.progress.append,
            status=lambda: {"pid": 7},
        )
        fleet.client = self
        self._conversation: Conversation | None = None

    def ask(self, request: protocol.Request) -> Client:
        try:
            self._conversation = self.orders.carry_out(request, self.progress.append)
        except OrderError as exc:
            self.error = str(exc)
            return self
        self._go_on(None)
        return self.listen()

    def listen(self) -> Client:
        """Take in what has happened."""
        while self.heard:
            self._go_on(self.heard.pop(0))
        return self

    @property
    def waits(self) -> bool:
        return self.done is None and not self.error

    def _go_on(self, heard: tuple[Event, Sequence[actions.Action]] | None) -> None:
        if not self.waits:
            return
        assert self._conversation is not None
        try:
            self._conversation.send(heard)
        except StopIteration as stop:
            self.done = stop.value
        except OrderError as exc:
            self.error = str(exc)


@pytest.fixture
def fleet() -> Listened:
    fleet = Listened(workers=2)
    fleet.serve()
    return fleet


def adopt(fleet: Listened) -> None:
    """The validator finds the new configuration sound, and the master adopts it."""
    (validator,) = [
        c.serial for c in fleet.supervisor.children.values() if c.role is Role.VALIDATOR
    ]
    fleet.exits(validator, 0)
    fleet.tell(events.Propose(fleet.policy))


def test_a_reload_is_done_when_it_is_committed(fleet: Listened) -> None:
    client = Client(fleet).ask(protocol.Reload())
    adopt(fleet)
    assert client.listen().waits

    fleet.settle()

    assert client.listen().done == Done("generation 1 serves alone", {"generation": 1})
    assert client.progress[:3] == [
        "validator 3 started (generation 0): reload",
        "the new configuration is sound",
        "worker 4 started (generation 1): first of its generation",
    ]


def test_a_reload_with_a_bad_configuration_is_refused(fleet: Listened) -> None:
    client = Client(fleet).ask(protocol.Reload())

    fleet.tell(events.Exited(3, 5, "workers: -1 is not a number of workers"))

    assert client.listen().error == "reload refused: workers: -1 is not a number of workers"


def test_a_reload_that_the_master_cannot_adopt_is_refused(fleet: Listened) -> None:
    client = Client(fleet).ask(protocol.Reload())

    fleet.exits(3, 0)
    fleet.tell(events.Refused("cannot bind 127.0.0.1:80: Permission denied"))

    assert client.listen().error == "reload refused: cannot bind 127.0.0.1:80: Permission denied"


def test_a_reload_whose_worker_cannot_boot_is_rolled_back(fleet: Listened) -> None:
    client = Client(fleet).ask(protocol.Reload())
    adopt(fleet)

    fleet.exits(4, 3)

    assert client.listen().error.startswith("reload rolled back: worker 4 exited with status 3")


def test_a_reload_that_another_one_replaces_says_so(fleet: Listened) -> None:
    client = Client(fleet).ask(protocol.Reload())
    adopt(fleet)

    fleet.reload()

    assert client.listen().error == "reload rolled back: another reload was asked for"


def test_two_that_ask_while_one_configuration_is_read_both_get_the_outcome(
    fleet: Listened,
) -> None:
    first = Client(fleet).ask(protocol.Reload())
    second = Client(fleet).ask(protocol.Reload())
    first.heard = second.heard  # both observe
    fleet.exits(3, 0)
    assert first.waits
    assert second.waits

    fleet.exits(4, 0)
    fleet.tell(events.Propose(fleet.policy))
    fleet.settle()
    first.heard = list(second.heard)

    assert (
        first.listen().done
        == second.listen().done
        == Done("generation 1 serves alone", {"generation": 1})
    )


def test_another_ones_refused_rollback_is_not_the_end_of_a_reload(fleet: Listened) -> None:
    client = Client(fleet).ask(protocol.Reload())

    fleet.tell(events.Rollback())

    assert client.listen().waits


def test_a_stop_ends_a_reload(fleet: Listened) -> None:
    client = Client(fleet).ask(protocol.Reload())
    adopt(fleet)

    fleet.tell(events.Stop())

    assert client.listen().error == "the server stops"


def test_an_upgrade_to_a_program_that_cannot_take_over_is_refused(fleet: Listened) -> None:
    client = Client(fleet).ask(protocol.Upgrade())
    assert client.waits

    fleet.tell(events.Exited(3, 5, "workers: -1 is no number"))

    assert client.listen().error == "upgrade refused: workers: -1 is no number"


def test_an_upgrade_during_a_reload_is_refused_and_the_reload_goes_on(fleet: Listened) -> None:
    reload = Client(fleet).ask(protocol.Reload())
    upgrade = Client(fleet).ask(protocol.Upgrade())
    reload.heard = list(upgrade.heard)

    assert upgrade.error == "upgrade refused: a reload or an upgrade is under way"
    assert reload.listen().waits


def test_an_upgrade_after_which_we_are_still_here_has_failed(fleet: Listened) -> None:
    client = Client(fleet).ask(protocol.Upgrade())

    fleet.exits(3, 0)  # the new program could take over; the exec failed

    assert client.listen().error == "upgrade refused; the error log says why"


def test_a_rollback_goes_back(fleet: Listened) -> None:
    fleet.reload(workers=2)
    fleet.settle()
    client = Client(fleet).ask(protocol.Rollback())

    fleet.settle()

    assert client.listen().done == Done("generation 0 serves alone", {"generation": 0})


def test_a_rollback_with_nothing_to_go_back_to_is_refused(fleet: Listened) -> None:
    client = Client(fleet).ask(protocol.Rollback())

    assert client.error == "rollback refused: there is no generation to go back to"


def test_scale_is_done_when_the_workers_are_ready(fleet: Listened) -> None:
    client = Client(fleet).ask(protocol.Scale(4))
    fleet.ready(3)
    assert client.listen().waits

    fleet.ready(4)

    assert client.listen().done == Done("4 workers are ready", {"workers": 4})


def test_scale_down_is_done_when_the_others_were_told_to_go(fleet: Listened) -> None:
    client = Client(fleet).ask(protocol.Scale(1))

    assert client.done == Done("1 worker is ready", {"workers": 1})
    assert client.progress == [] or client.progress == ["worker 2: surplus; stopping"]


def test_scale_fails_if_a_worker_cannot_boot(fleet: Listened) -> None:
    client = Client(fleet).ask(protocol.Scale(3))

    fleet.exits(3, 3)

    assert "worker 3 exited with status 3 before it was ready" in client.listen().error
    assert "2 of 3 workers are ready, and the next attempt is in" in client.error


def test_scale_fails_if_somebody_else_wants_another_number(fleet: Listened) -> None:
    client = Client(fleet).ask(protocol.Scale(3))

    fleet.tell(events.Scale(5))

    assert client.listen().error == "somebody else wants 5 workers now (2 are ready)"


def test_recycle_is_done_when_the_replacement_is_ready(fleet: Listened) -> None:
    client = Client(fleet).ask(protocol.Recycle(1))
    assert client.waits

    fleet.settle()

    assert client.listen().done == Done("worker 1 was replaced")
    assert fleet.generation(0) == [2, 3]


def test_recycle_all_replaces_every_worker(fleet: Listened) -> None:
    client = Client(fleet).ask(protocol.Recycle(None))

    fleet.settle()

    assert client.listen().done == Done("every worker was replaced")
    assert fleet.generation(0) == [3, 4]


def test_recycle_of_nobody_is_an_error(fleet: Listened) -> None:
    assert Client(fleet).ask(protocol.Recycle(9)).error == "there is no worker 9; there are 1, 2"


def test_recycle_fails_if_the_replacement_cannot_boot(fleet: Listened) -> None:
    client = Client(fleet).ask(protocol.Recycle(1))

    fleet.exits(3, 1)

    assert "; the old workers serve on, and the next attempt is in" in client.listen().error


def test_stop_is_done_when_the_last_worker_is_gone(fleet: Listened) -> None:
    client = Client(fleet).ask(protocol.Stop(quick=False))
    assert client.waits

    fleet.gone()

    assert client.listen().done == Done("stopped", {"exit_code": 0})


@pytest.mark.parametrize(
    "request_", [protocol.Reload(), protocol.Rollback(), protocol.Scale(3), protocol.Recycle(1)]
)
def test_a_server_that_stops_does_nothing_else(fleet: Listened, request_: protocol.Request) -> None:
    fleet.tell(events.Stop())

    assert Client(fleet).ask(request_).error == "the server stops"


def test_what_needs_no_waiting_is_done_at_once(fleet: Listened) -> None:
    status = Client(fleet).ask(protocol.Status())
    reopen = Client(fleet).ask(protocol.Reopen())
    level = Client(fleet).ask(protocol.LogLevel("debug"))

    assert status.done == Done("", {"pid": 7})
    assert reopen.progress == ["reopened"]
    assert level.progress == ["debug"]

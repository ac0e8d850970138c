"""The policy of the master, as stories.  No fork, no clock, no I/O."""

from __future__ import annotations

import json
import math

import pytest

from forkmaster.master.actions import (
    Abort,
    Action,
    Adopt,
    Commit,
    Delay,
    Dump,
    Execute,
    Halt,
    Linger,
    Refuse,
    Retire,
    RollBack,
    Wait,
)
from forkmaster.master.escalation import LATE
from forkmaster.master.events import (
    Aim,
    Exited,
    Left,
    Pulse,
    Pulses,
    Recycle,
    Refused,
    Reload,
    Resize,
    Rollback,
    Scale,
    SpawnFailed,
    Stop,
    Upgrade,
)
from forkmaster.master.policy import Role, State
from forkmaster.master.supervisor import Supervisor
from tests.unit.master.fleet import Fleet, signalled, spawned, verdicts

# --- Start and crash --------------------------------------------------------------------------


def test_start_spawns_the_workers_of_the_first_generation() -> None:
    fleet = Fleet(workers=3)

    actions = fleet.start()

    assert spawned(actions) == [(1, 0), (2, 0), (3, 0)]


def test_nothing_happens_before_the_start() -> None:
    fleet = Fleet(workers=3)

    assert fleet.at(1000.0) == []


def test_a_quiet_fleet_asks_to_be_woken_when_the_first_beat_is_overdue() -> None:
    fleet = Fleet(workers=2, timeout=30.0)
    fleet.serve()
    fleet.now = 110.0
    fleet.beat(1)

    assert fleet.supervisor.next_deadline() == 130.0


def test_without_timeout_a_quiet_fleet_never_wakes() -> None:
    fleet = Fleet(workers=2, timeout=0.0)
    fleet.serve()

    assert fleet.supervisor.next_deadline() == math.inf


@pytest.mark.parametrize("status", [None, 0, 1, 3, 4, 255])
def test_a_worker_that_dies_after_it_was_ready_is_replaced_at_once(status: int | None) -> None:
    fleet = Fleet(workers=2)
    fleet.serve()
    fleet.now += 60.0
    fleet.beat()

    actions = fleet.exits(1, status)

    assert spawned(actions) == [(3, 0)]


@pytest.mark.parametrize("status", [3, 4])
def test_a_first_generation_that_cannot_boot_halts_with_its_status(status: int) -> None:
    fleet = Fleet(workers=2)
    fleet.start()

    actions = fleet.exits(1, status)

    assert signalled(actions) == [(2, "SIGTERM")]
    assert fleet.exits(2, 0) == [
        Halt(status, f"worker 1 exited with status {status} before it was ready")
    ]


@pytest.mark.parametrize("status", [3, 4])
def test_a_boot_failure_after_a_success_never_halts(status: int) -> None:
    fleet = Fleet(workers=2)
    fleet.start()
    fleet.ready(1)

    actions = fleet.exits(2, status)

    assert fleet.halted is None
    assert actions == [Delay(1.0, f"worker 2 exited with status {status} before it was ready")]


def test_other_failures_of_the_first_boot_are_retried() -> None:
    fleet = Fleet(workers=1)
    fleet.start()

    assert spawned(fleet.exits(1, 1)) == []
    assert spawned(fleet.at(100.9)) == []
    assert spawned(fleet.at(101.0)) == [(2, 0)]


def test_a_crash_loop_before_ready_forks_at_most_nine_times_in_thirty_seconds() -> None:
    fleet = Fleet(workers=2)
    forks = len(spawned(fleet.start()))
    while fleet.now <= 130.0:
        for serial in sorted(fleet.alive):
            forks += len(spawned(fleet.exits(serial, 1)))
        forks += len(spawned(fleet.after(0.1)))

    assert 5 <= forks <= 9


def test_a_crash_loop_after_ready_forks_at_most_twelve_times_in_thirty_seconds() -> None:
    fleet = Fleet(workers=2)
    forks = len(spawned(fleet.start()))
    while fleet.now <= 130.0:
        fleet.all_ready()
        for serial in sorted(fleet.alive):
            forks += len(spawned(fleet.exits(serial, None)))
        forks += len(spawned(fleet.after(0.1)))

    assert 5 <= forks <= 12


def test_after_failures_one_worker_is_tried_at_a_time_until_one_boots() -> None:
    fleet = Fleet(workers=4)
    fleet.start()
    for serial in (1, 2, 3, 4):
        fleet.exits(serial, 1)

    tried = spawned(fleet.after(5.0))

    assert tried == [(5, 0)]
    assert spawned(fleet.ready(5)) == [(6, 0), (7, 0), (8, 0)]


def test_a_refused_fork_is_tried_again_later() -> None:
    fleet = Fleet(workers=1)
    fleet.start()

    actions = fleet.tell(SpawnFailed(1, "cannot fork: Resource temporarily unavailable"))

    assert actions == [Delay(1.0, "cannot fork: Resource temporarily unavailable")]
    assert spawned(fleet.at(101.0)) == [(2, 0)]


# --- Deadlines --------------------------------------------------------------------------------


def test_a_worker_without_a_beat_is_aborted_then_killed_and_replaced() -> None:
    fleet = Fleet(workers=2, timeout=30.0, kill_timeout=5.0)
    fleet.serve()
    fleet.now = 129.0
    fleet.beat(2)

    aborted = fleet.at(130.0)

    assert aborted[0] == Abort(1, "sent no heartbeat for 30.0 s (timeout 30 s)")
    assert spawned(aborted) == [(3, 0)]
    fleet.ready(3)
    assert fleet.at(134.9) == []
    assert signalled(fleet.at(135.0)) == [(1, "SIGKILL")]
    assert signalled(fleet.at(140.0)) == [(1, "SIGKILL")]


def test_a_worker_that_beats_is_left_alone() -> None:
    fleet = Fleet(workers=2, timeout=2.0)
    fleet.serve()

    assert signalled(fleet.after(600.0)) == []


def test_a_worker_that_never_becomes_ready_is_aborted_after_the_boot_timeout() -> None:
    fleet = Fleet(workers=1, boot_timeout=60.0, timeout=2.0)
    fleet.start()
    fleet.at(159.9)

    actions = fleet.at(160.0)

    assert actions == [
        Abort(1, "was not ready after 60.0 s (boot_timeout 60 s)"),
        Delay(1.0, "worker 1 was not ready after 60.0 s (boot_timeout 60 s)"),
    ]
    assert fleet.exits(1, None) == []


def test_a_worker_that_does_not_stop_is_killed_after_the_grace_even_if_it_beats() -> None:
    fleet = Fleet(workers=1, timeout=2.0, graceful_timeout=30.0)
    fleet.serve()
    fleet.tell(Stop())
    fleet.now = 129.9
    fleet.beat(1)

    assert fleet.at(129.9) == []
    assert signalled(fleet.at(130.0)) == [(1, "SIGKILL")]


def test_a_master_that_overslept_forgives_every_deadline_once() -> None:
    fleet = Fleet(workers=3, timeout=30.0)
    fleet.serve()

    assert fleet.at(1000.0) == []
    assert fleet.at(1029.9) == []
    assert [name for _, name in signalled(fleet.at(1030.0))] == ["SIGABRT"] * 3


def test_what_the_master_was_late_is_given_to_everybody_once() -> None:
    fleet = Fleet(workers=2, timeout=2.0)
    fleet.serve()
    due = fleet.supervisor.next_deadline()

    assert fleet.at(due + 1.0) == []
    assert fleet.at(due + 1.0 + LATE) != []


def test_timeout_zero_never_judges() -> None:
    fleet = Fleet(workers=1, timeout=0.0)
    fleet.serve()

    assert fleet.at(1e6) == []


# --- Size -------------------------------------------------------------------------------------


def test_one_worker_more_and_one_fewer() -> None:
    fleet = Fleet(workers=2)
    fleet.serve()

    assert spawned(fleet.tell(Resize(+1))) == [(3, 0)]
    fleet.ready(3)
    assert signalled(fleet.tell(Resize(-1))) == [(3, "SIGTERM")]


def test_ttou_never_goes_below_one_worker() -> None:
    fleet = Fleet(workers=1)
    fleet.serve()

    assert fleet.tell(Resize(-1)) == []


def test_scale_to_zero_keeps_the_master() -> None:
    fleet = Fleet(workers=2)
    fleet.serve()

    assert len(signalled(fleet.tell(Scale(0)))) == 2
    fleet.gone()
    assert fleet.halted is None
    assert len(spawned(fleet.tell(Resize(+1)))) == 1


def test_surplus_retires_what_is_not_ready_first() -> None:
    fleet = Fleet(workers=1)
    fleet.serve()
    fleet.tell(Scale(3))
    fleet.ready(3)

    assert signalled(fleet.tell(Scale(2))) == [(2, "SIGTERM")]


# --- Stop -------------------------------------------------------------------------------------


def test_a_graceful_stop_halts_when_the_last_child_is_gone() -> None:
    fleet = Fleet(workers=2)
    fleet.serve()

    assert signalled(fleet.tell(Stop())) == [(1, "SIGTERM"), (2, "SIGTERM")]
    assert fleet.exits(1) == []
    assert fleet.exits(2) == [Halt(0, "asked to stop")]


def test_a_quick_stop_overtakes_a_graceful_one() -> None:
    fleet = Fleet(workers=1, kill_timeout=5.0)
    fleet.serve()
    fleet.tell(Stop())

    assert signalled(fleet.tell(Stop(graceful=False))) == [(1, "SIGQUIT")]
    assert signalled(fleet.at(105.0)) == [(1, "SIGKILL")]


def test_a_server_with_a_shutdown_delay_serves_on_before_it_stops() -> None:
    fleet = Fleet(workers=2, shutdown_delay=5.0, monitor=True)
    fleet.serve()

    assert fleet.tell(Stop()) == [Linger(5.0, "the server is to stop (shutdown_delay)")]
    assert fleet.supervisor.stopping  # so it is not ready any more
    assert fleet.tell(Stop()) == []
    assert fleet.after(4.9) == []
    assert fleet.supervisor.next_deadline() == 105.0
    assert sorted(signalled(fleet.after(0.1))) == [(1, "SIGTERM"), (2, "SIGTERM")]
    assert fleet.supervisor.next_deadline() == 135.0  # graceful_timeout starts here


def test_a_quick_stop_does_not_wait_for_the_shutdown_delay() -> None:
    fleet = Fleet(workers=1, shutdown_delay=5.0)
    fleet.serve()
    fleet.tell(Stop())

    assert signalled(fleet.tell(Stop(graceful=False))) == [(1, "SIGQUIT")]


def test_a_server_that_was_never_ready_stops_without_the_shutdown_delay() -> None:
    fleet = Fleet(workers=1, shutdown_delay=5.0)
    fleet.start()

    assert signalled(fleet.tell(Stop())) == [(1, "SIGTERM")]


def test_in_the_shutdown_delay_who_dies_is_not_replaced_and_the_last_death_ends_it() -> None:
    fleet = Fleet(workers=2, shutdown_delay=5.0)
    fleet.serve()
    fleet.tell(Stop())

    assert fleet.exits(1, None) == []
    assert fleet.exits(2, None) == [Halt(0, "asked to stop")]


def test_a_worker_that_hangs_in_the_shutdown_delay_is_aborted() -> None:
    fleet = Fleet(workers=1, timeout=2.0, shutdown_delay=5.0)
    fleet.serve()
    fleet.tell(Stop())

    assert signalled(fleet.at(102.1)) == [(1, "SIGABRT")]


def test_a_crash_while_stopping_is_not_replaced() -> None:
    fleet = Fleet(workers=2)
    fleet.serve()
    fleet.tell(Stop())

    assert spawned(fleet.exits(1, None)) == []


# --- Reload -----------------------------------------------------------------------------------


def test_reload_reads_the_configuration_in_a_throw_away_child() -> None:
    fleet = Fleet(workers=2)
    fleet.serve()

    actions = fleet.tell(Reload())

    assert spawned(actions, Role.VALIDATOR) == [(3, 0)]
    assert spawned(actions) == signalled(actions) == []
    assert fleet.exits(3, 0) == [Adopt()]


def test_a_configuration_that_cannot_be_read_is_refused_with_its_reason() -> None:
    fleet = Fleet(workers=2)
    fleet.serve()
    fleet.tell(Reload())

    assert fleet.tell(Exited(3, 5, "workers: 'many' is not a number")) == [
        Refuse("workers: 'many' is not a number")
    ]
    assert not fleet.supervisor.reloading


def test_a_validator_that_hangs_is_aborted_and_the_reload_refused() -> None:
    fleet = Fleet(workers=1, boot_timeout=5.0)
    fleet.serve()
    fleet.tell(Reload())

    actions = fleet.after(5.0)

    assert signalled(actions) == [(2, "SIGABRT")]
    assert verdicts(actions) == ["Refuse"]
    assert fleet.exits(2, None) == []


def test_a_reload_while_one_is_being_read_reads_again() -> None:
    fleet = Fleet(workers=1)
    fleet.serve()
    fleet.tell(Reload())

    actions = fleet.tell(Reload())

    assert signalled(actions) == [(2, "SIGTERM")]
    assert spawned(actions, Role.VALIDATOR) == [(3, 0)]
    assert fleet.exits(2, None) == []
    assert fleet.exits(3, 0) == [Adopt()]


def test_a_configuration_that_cannot_be_adopted_is_refused() -> None:
    fleet = Fleet(workers=1)
    fleet.serve()

    assert fleet.tell(Refused("cannot bind :80")) == [Refuse("cannot bind :80")]


def test_reload_tries_one_worker_and_retires_nothing_before_it_is_ready() -> None:
    fleet = Fleet(workers=3)
    fleet.serve()

    actions = fleet.reload(workers=3)

    assert spawned(actions) == [(5, 1)]
    assert signalled(actions) == []


def test_reload_retires_one_stale_worker_for_each_ready_fresh_one() -> None:
    fleet = Fleet(workers=3)
    fleet.serve()
    fleet.reload(workers=3)

    first = fleet.ready(5)

    assert signalled(first) == [(1, "SIGTERM")]
    assert spawned(first) == []
    # The place is free as soon as the old worker is asked to go: draining takes none.
    assert spawned(fleet.at(100.0)) == [(6, 1)]


def test_reload_with_a_surge_of_all_replaces_them_at_once() -> None:
    fleet = Fleet(workers=3)
    fleet.serve()
    fleet.reload(workers=3, surge=3)

    assert len(spawned(fleet.ready(5) + fleet.at(100.0))) == 2


def test_reload_commits_when_the_old_workers_take_no_connections_any_more() -> None:
    fleet = Fleet(workers=2)
    fleet.serve()
    fleet.reload(workers=2)

    rolling = fleet.all_but_gone()
    first_left = fleet.tell(Left(1))
    second_left = fleet.tell(Left(2))

    assert signalled(rolling) == [(1, "SIGTERM"), (2, "SIGTERM")]
    assert verdicts(rolling + first_left) == []
    assert verdicts(second_left) == ["Commit"]


def test_an_old_worker_that_never_leaves_holds_a_reload_up_no_longer_than_the_grace() -> None:
    fleet = Fleet(workers=1, graceful_timeout=30.0, timeout=0.0)
    fleet.serve()
    fleet.reload(workers=1, graceful_timeout=30.0, timeout=0.0)
    fleet.all_but_gone()

    assert verdicts(fleet.at(129.9)) == []
    killed = fleet.at(130.0)

    assert signalled(killed) == [(1, "SIGKILL")]
    assert verdicts(killed) == ["Commit"]


def test_reload_commits_when_all_are_fresh() -> None:
    fleet = Fleet(workers=3)
    fleet.serve()
    fleet.reload(workers=2)

    actions = fleet.all_ready()
    actions += fleet.at(100.0)
    actions += fleet.all_ready()

    assert verdicts(actions) == ["Commit"]
    assert len(fleet.generation(1)) == 2
    assert fleet.supervisor.policy.workers == 2


@pytest.mark.parametrize("status", [None, 0, 1, 3, 4])
def test_a_candidate_that_does_not_boot_is_rolled_back_at_full_strength(status: int | None) -> None:
    fleet = Fleet(workers=3)
    fleet.serve()
    fleet.reload(workers=3)

    actions = fleet.exits(5, status)

    assert verdicts(actions) == ["RollBack"]
    assert spawned(actions) == signalled(actions) == []
    assert fleet.in_state(State.READY) == [1, 2, 3]
    assert fleet.supervisor.committed == 0


def test_a_candidate_that_never_becomes_ready_is_rolled_back() -> None:
    fleet = Fleet(workers=2)
    fleet.serve()
    fleet.reload(workers=2, boot_timeout=5.0)

    actions = fleet.after(5.0)

    reason = "worker 4 was not ready after 5.0 s (boot_timeout 5 s)"
    assert RollBack(1, reason) in actions
    assert signalled(actions) == [(4, "SIGABRT")]
    assert spawned(actions) == []


def test_a_candidate_that_fails_half_way_is_replaced_by_the_committed_generation() -> None:
    fleet = Fleet(workers=2)
    fleet.serve()
    fleet.reload(workers=2)
    fleet.ready(4)
    fleet.at(100.0)
    assert fleet.in_state(State.READY) == [2, 4]

    actions = fleet.exits(5, 3)

    # One of the old is gone already: it comes back before the fresh one goes.
    assert verdicts(actions) == ["RollBack"]
    assert spawned(actions) == [(6, 0)]
    assert signalled(fleet.ready(6)) == [(4, "SIGTERM")]


def test_a_crash_while_the_gate_is_closed_is_replaced_by_the_committed_generation() -> None:
    fleet = Fleet(workers=2)
    fleet.serve()
    fleet.reload(workers=2)

    assert spawned(fleet.exits(1, None)) == [(5, 0)]


def test_a_second_reload_starts_over() -> None:
    fleet = Fleet(workers=2)
    fleet.serve()
    fleet.reload(workers=2)

    actions = fleet.reload(workers=2)

    assert signalled(actions) == [(4, "SIGTERM")]
    assert spawned(actions) == [(6, 2)]
    settled = fleet.all_ready() + fleet.at(100.0) + fleet.all_ready() + fleet.at(100.0)
    assert verdicts(settled) == ["Commit"]
    assert fleet.supervisor.committed == 2


def test_stop_during_a_reload_wins() -> None:
    fleet = Fleet(workers=2)
    fleet.serve()
    fleet.reload(workers=2)

    actions = fleet.tell(Stop())

    assert sorted(signalled(actions)) == [(1, "SIGTERM"), (2, "SIGTERM"), (4, "SIGTERM")]
    assert fleet.gone()[-1] == Halt(0, "asked to stop")


def test_stop_while_a_configuration_is_read_wins() -> None:
    fleet = Fleet(workers=1)
    fleet.serve()
    fleet.tell(Reload())

    assert sorted(signalled(fleet.tell(Stop()))) == [(1, "SIGTERM"), (2, "SIGTERM")]
    assert fleet.gone()[-1] == Halt(0, "asked to stop")


def test_reload_undoes_ttin() -> None:
    fleet = Fleet(workers=2)
    fleet.serve()
    fleet.tell(Resize(+1))
    fleet.all_ready()

    fleet.reload(workers=2)
    fleet.settle()

    assert len(fleet.in_state(State.READY)) == 2


def test_rollback_brings_the_generation_before_back() -> None:
    fleet = Fleet(workers=2)
    fleet.serve()
    fleet.reload(workers=3)
    fleet.settle()
    assert len(fleet.generation(1)) == 3

    fleet.tell(Rollback())
    actions = fleet.settle()

    assert verdicts(actions) == ["Commit"]
    assert fleet.supervisor.committed == 0
    assert len(fleet.generation(0)) == 2


def test_rollback_without_a_generation_before_is_refused() -> None:
    fleet = Fleet(workers=1)
    fleet.serve()

    assert fleet.tell(Rollback()) == [Refuse("there is no generation to go back to")]


# --- Upgrade ----------------------------------------------------------------------------------


def test_an_upgrade_asks_the_new_program_first() -> None:
    fleet = Fleet(workers=1)
    fleet.serve()

    actions = fleet.tell(Upgrade())

    assert spawned(actions, Role.PREFLIGHT) == [(2, 0)]
    assert fleet.exits(2, 0) == [Execute()]


def test_a_program_that_cannot_take_over_is_refused() -> None:
    fleet = Fleet(workers=1)
    fleet.serve()
    fleet.tell(Upgrade())

    assert fleet.tell(Exited(2, 1, "no such module")) == [Refuse("no such module", "upgrade")]


def test_an_upgrade_during_a_reload_is_refused() -> None:
    fleet = Fleet(workers=1)
    fleet.serve()
    fleet.reload(workers=1)

    (refusal,) = fleet.tell(Upgrade())

    assert isinstance(refusal, Refuse)


def test_a_stopping_server_is_not_upgraded() -> None:
    fleet = Fleet(workers=1)
    fleet.serve()
    fleet.tell(Stop())

    assert fleet.tell(Upgrade()) == []


def test_another_supervisor_goes_on_where_one_left_off() -> None:
    fleet = Fleet(workers=2, preload=True, timeout=30.0)
    fleet.serve()
    fleet.tell(Resize(+1))
    fleet.all_ready()
    fleet.tell(Recycle(2, "max_requests"))

    restored = Supervisor.restore(json.loads(json.dumps(fleet.supervisor.snapshot())), fleet.now)
    fleet.supervisor = restored

    # Serials and generations go on; so does the recycling that was under way.
    assert fleet.at(fleet.now) == []
    assert restored.target == 3
    assert signalled(fleet.all_ready()) == [(2, "SIGTERM")]
    assert spawned(fleet.reload(workers=2), Role.WORKER) == [(7, 1)]


def test_a_restored_supervisor_judges_no_deadline_that_passed_meanwhile() -> None:
    fleet = Fleet(workers=1, timeout=30.0)
    fleet.serve()
    snapshot = fleet.supervisor.snapshot()

    fleet.supervisor = Supervisor.restore(snapshot, now=1000.0)

    assert signalled(fleet.at(1000.0)) == []
    assert signalled(fleet.at(1030.0)) == [(1, "SIGABRT")]


# --- Preload ----------------------------------------------------------------------------------


def test_with_preload_the_zygote_comes_first() -> None:
    fleet = Fleet(workers=2, preload=True)

    actions = fleet.start()

    assert spawned(actions, Role.ZYGOTE) == [(1, 0)]
    assert spawned(actions) == []
    assert spawned(fleet.ready(1)) == [(2, 0), (3, 0)]


@pytest.mark.parametrize("status", [3, 4])
def test_a_zygote_that_cannot_load_the_application_halts(status: int) -> None:
    fleet = Fleet(workers=2, preload=True)
    fleet.start()

    actions = fleet.exits(1, status)

    assert actions == [Halt(status, f"zygote 1 exited with status {status} before it was ready")]


def test_an_idle_zygote_is_never_overdue() -> None:
    fleet = Fleet(workers=1, preload=True, timeout=30.0)
    fleet.serve()

    assert signalled(fleet.after(600.0)) == []


def test_a_worker_that_dies_is_forked_by_the_zygote_that_lives() -> None:
    fleet = Fleet(workers=2, preload=True)
    fleet.serve()

    actions = fleet.exits(2, None)

    assert spawned(actions) == [(4, 0)]
    assert spawned(actions, Role.ZYGOTE) == []


def test_a_zygote_that_dies_is_replaced_before_it_is_needed() -> None:
    fleet = Fleet(workers=1, preload=True)
    fleet.serve()

    actions = fleet.exits(1, None)

    assert spawned(actions, Role.ZYGOTE) == [(3, 0)]
    assert spawned(fleet.exits(2, None)) == []
    assert spawned(fleet.ready(3)) == [(4, 0)]


def test_a_reload_with_preload_loads_new_code_in_a_new_zygote() -> None:
    fleet = Fleet(workers=2, preload=True)
    fleet.serve()

    actions = fleet.reload(workers=2, preload=True)

    assert spawned(actions, Role.ZYGOTE) == [(5, 1)]
    assert spawned(actions) == []
    assert spawned(fleet.ready(5)) == [(6, 1)]
    assert verdicts(fleet.settle()) == ["Commit"]


def test_a_zygote_that_cannot_load_the_new_code_rolls_the_reload_back() -> None:
    fleet = Fleet(workers=2, preload=True)
    fleet.serve()
    fleet.reload(workers=2, preload=True)

    actions = fleet.exits(5, 3)

    assert verdicts(actions) == ["RollBack"]
    assert fleet.in_state(State.READY, role=Role.WORKER) == [2, 3]


def test_the_zygote_of_the_generation_before_stays_for_a_rollback() -> None:
    fleet = Fleet(workers=1, preload=True)
    fleet.serve()
    for _ in range(2):
        fleet.reload(workers=1, preload=True)
        fleet.settle()
        fleet.gone()

    zygotes = [c.generation for c in fleet.supervisor.children.values() if c.role is Role.ZYGOTE]

    assert zygotes == [1, 2]
    actions = fleet.tell(Rollback())
    assert spawned(actions, Role.ZYGOTE) == []
    assert [generation for _, generation in spawned(actions)] == [1]


def test_preload_can_be_turned_off_by_a_reload() -> None:
    fleet = Fleet(workers=1, preload=True)
    fleet.serve()

    fleet.reload(workers=1)

    assert verdicts(fleet.settle()) == ["Commit"]


# --- Requests ---------------------------------------------------------------------------------


def test_a_request_older_than_request_timeout_aborts_its_worker() -> None:
    fleet = Fleet(workers=1, timeout=0.0, request_timeout=10.0)
    fleet.serve()
    fleet.now = 105.0
    fleet.busy(1, since=101.0)

    assert fleet.supervisor.next_deadline() == 111.0
    fleet.now = 111.0
    actions = fleet.busy(1, since=101.0)

    reason = "served one request for 10.0 s (request_timeout 10 s)"
    assert actions[0] == Abort(1, reason)


def test_a_request_that_ended_is_not_judged() -> None:
    fleet = Fleet(workers=1, timeout=0.0, request_timeout=10.0)
    fleet.serve()
    fleet.now = 105.0
    fleet.busy(1, since=101.0)

    fleet.now = 111.0

    assert fleet.beat(1) == []
    assert fleet.supervisor.next_deadline() == 121.0


def story_of_many(age: float) -> tuple[Fleet, list[Action]]:
    """A threaded or asgi worker whose oldest request is so old."""
    fleet = Fleet(workers=1, timeout=0.0, request_timeout=10.0, kill_timeout=5.0)
    fleet.serve()
    fleet.now = 100.0 + age
    return fleet, fleet.tell(Pulses({1: Pulse(fleet.now, oldest=100.0, cancels=True)}))


def test_a_worker_that_can_give_a_request_up_gets_the_time_to_do_so() -> None:
    fleet, actions = story_of_many(age=14.9)

    assert actions == []
    assert fleet.supervisor.next_deadline() == 115.0


def test_one_whose_loop_does_not_run_is_aborted() -> None:
    fleet, _ = story_of_many(age=10.0)

    assert signalled(fleet.at(115.0)) == [(1, "SIGABRT")]


def test_one_that_cannot_is_replaced_and_the_other_requests_finish() -> None:
    fleet, actions = story_of_many(age=15.0)

    reason = "served one request for 15.0 s (request_timeout 10 s)"
    assert actions[0] == Dump(1, f"{reason} and cannot give it up")
    assert spawned(actions) == [(2, 0)]
    assert signalled(actions) == []
    assert fleet.supervisor.next_deadline() > fleet.now
    assert fleet.ready(2) == [Retire(1, reason)]


def test_an_extension_asked_for_by_the_application_is_granted() -> None:
    fleet = Fleet(workers=1, timeout=5.0, request_timeout=10.0)
    fleet.serve()
    fleet.now = 104.0
    fleet.tell(Pulses({1: Pulse(104.0, oldest=101.0, extended=160.0)}))

    fleet.now = 159.0
    assert fleet.tell(Pulses({1: Pulse(104.0, oldest=101.0, extended=160.0)})) == []
    fleet.now = 160.0
    assert signalled(fleet.at(160.0)) == [(1, "SIGABRT")]


def test_a_slow_request_is_shown_once_and_goes_on() -> None:
    fleet = Fleet(workers=1, timeout=0.0, slow_request=2.0)
    fleet.serve()
    fleet.busy(1, since=100.0)
    fleet.now = 102.0

    assert fleet.busy(1, since=100.0) == [Dump(1, "slow request (slow_request 2 s)")]
    fleet.now = 110.0
    assert fleet.busy(1, since=100.0) == []
    assert fleet.busy(1, since=108.0) != []


# --- Recycling --------------------------------------------------------------------------------


def test_a_recycled_worker_serves_until_its_replacement_is_ready() -> None:
    fleet = Fleet(workers=2)
    fleet.serve()

    actions = fleet.tell(Recycle(1, "max_requests 1000 reached"))

    assert spawned(actions) == [(3, 0)]
    assert signalled(actions) == []
    retired = fleet.ready(3)
    assert signalled(retired) == [(1, "SIGTERM")]
    assert retired[0].reason == "max_requests 1000 reached"  # type: ignore[union-attr]


def test_one_worker_is_recycled_at_a_time() -> None:
    fleet = Fleet(workers=3)
    fleet.serve()
    fleet.tell(Recycle(1, "max_requests"))

    assert fleet.tell(Recycle(2, "max_requests")) == []
    fleet.ready(4)
    assert spawned(fleet.at(100.0)) == [(5, 0)]
    assert signalled(fleet.ready(5)) == [(2, "SIGTERM")]


def test_a_worker_asks_to_be_recycled_only_once() -> None:
    fleet = Fleet(workers=1)
    fleet.serve()
    fleet.tell(Recycle(1, "max_requests"))

    assert fleet.tell(Recycle(1, "max_requests")) == []


def test_a_reload_replaces_what_waits_to_be_recycled() -> None:
    fleet = Fleet(workers=1)
    fleet.serve()
    fleet.tell(Recycle(1, "max_requests"))

    fleet.reload(workers=1)
    fleet.settle()

    assert fleet.generation(1) == fleet.in_state(State.READY)
    assert len(fleet.generation(1)) == 1


# --- The watcher ------------------------------------------------------------------------------


def watched(**policy: float) -> Fleet:
    """A fleet of two workers, serving, with a watcher: child 3."""
    fleet = Fleet(workers=2, watch=("code",), **policy)
    fleet.serve()
    return fleet


def test_a_watcher_is_started_beside_the_workers() -> None:
    fleet = Fleet(workers=2, watch=("code",))

    actions = fleet.start()

    assert spawned(actions) == [(1, 0), (2, 0)]
    assert spawned(actions, Role.WATCHER) == [(3, 0)]


def test_a_watcher_that_watches_nothing_new_outlives_a_reload() -> None:
    fleet = watched()

    fleet.reload(workers=2, watch=("code",))
    actions = fleet.settle()

    assert verdicts(actions) == ["Commit"]
    assert spawned(actions, Role.WATCHER) == []
    assert 3 in fleet.in_state(State.READY)


def test_a_watcher_goes_when_the_next_one_watches() -> None:
    fleet = watched()

    fleet.reload(workers=2, watch=("code", "templates"))
    fleet.ready(5)
    fleet.gone()
    fleet.ready(6)
    fleet.gone()
    before = fleet.in_state(State.READY, role=Role.WATCHER)
    actions = fleet.ready(7)

    assert before == [3]
    assert signalled(actions) == [(3, "SIGTERM")]


def test_a_reload_can_end_the_watching() -> None:
    fleet = watched()

    fleet.reload(workers=2)
    actions = fleet.settle()

    assert (3, "SIGTERM") in signalled(actions)
    assert spawned(actions, Role.WATCHER) == []


def test_a_watcher_that_dies_is_replaced_and_delays_nobody() -> None:
    fleet = Fleet(workers=1, watch=("code",))
    fleet.start()

    failed = fleet.exits(2, 1)
    fleet.ready(1)
    replaced = fleet.exits(1, 1)
    again = fleet.after(1.0)

    assert spawned(failed, Role.WATCHER) == []
    assert spawned(replaced) == [(3, 0)]
    assert spawned(again, Role.WATCHER) == [(4, 0)]


@pytest.mark.parametrize("status", [3, 4])
def test_watched_code_that_cannot_be_loaded_waits_for_a_change(status: int) -> None:
    fleet = Fleet(workers=2, watch=("code",))
    fleet.start()

    failed = fleet.exits(1, status) + fleet.exits(2, status)
    later = fleet.after(600.0)

    assert [type(action) for action in failed] == [Wait]
    assert spawned(later) == []
    assert fleet.halted is None


def test_code_that_was_mended_is_served_at_full_strength() -> None:
    fleet = Fleet(workers=2, watch=("code",))
    fleet.start()
    fleet.exits(1, 3)
    fleet.exits(2, 3)

    still_broken = fleet.reload(workers=2, watch=("code",))
    rolled_back = fleet.exits(5, 3)
    mended = fleet.reload(workers=2, watch=("code",))
    fleet.settle()

    assert spawned(still_broken) == [(5, 1)]
    assert verdicts(rolled_back) == ["RollBack"]
    assert spawned(rolled_back) == []
    assert spawned(mended) == [(7, 2)]
    assert len(fleet.generation(2)) == 2


def test_a_worker_that_dies_while_its_code_is_broken_is_missed_until_it_is_mended() -> None:
    fleet = watched()

    fleet.exits(1, 1)
    failed = fleet.exits(4, 3)
    later = fleet.after(60.0)
    fleet.reload(workers=2, watch=("code",))
    fleet.settle()

    assert [type(action) for action in failed] == [Wait]
    assert spawned(later) == []
    assert len(fleet.generation(1)) == 2


def test_a_stop_ends_the_watcher_too() -> None:
    fleet = watched()

    fleet.tell(Stop())
    fleet.gone()

    assert fleet.halted is not None


# --- The monitor ----------------------------------------------------------------------------------


def monitored(**policy: float) -> Fleet:
    """A fleet of two workers, serving, with a monitor: child 3."""
    fleet = Fleet(workers=2, monitor=True, **policy)
    fleet.serve()
    return fleet


def test_a_monitor_is_started_beside_the_workers() -> None:
    fleet = Fleet(workers=2, monitor=True)

    actions = fleet.start()

    assert spawned(actions) == [(1, 0), (2, 0)]
    assert spawned(actions, Role.MONITOR) == [(3, 0)]


def test_a_monitor_that_dies_is_replaced_at_once() -> None:
    fleet = monitored()

    actions = fleet.exits(3, 1)

    assert spawned(actions, Role.MONITOR) == [(4, 0)]
    assert spawned(actions) == []


def test_a_monitor_that_cannot_boot_waits_and_delays_nobody() -> None:
    fleet = Fleet(workers=2, monitor=True)
    fleet.start()
    fleet.ready(1, 2)

    failed = fleet.exits(3, 3)
    replaced = fleet.exits(1, 1)
    again = fleet.after(1.0)

    assert spawned(failed, Role.MONITOR) == []
    assert spawned(replaced) == [(4, 0)]
    assert spawned(again, Role.MONITOR) == [(5, 0)]
    assert fleet.halted is None


def test_a_monitor_that_cannot_be_forked_waits() -> None:
    fleet = Fleet(workers=1, monitor=True)
    fleet.start()

    fleet.tell(SpawnFailed(2, "cannot fork monitor 2"))
    again = fleet.after(1.0)

    assert spawned(again, Role.MONITOR) == [(3, 0)]


def test_a_monitor_that_hangs_is_killed() -> None:
    fleet = monitored(timeout=30)

    fleet.beat()
    fleet.now += 20
    fleet.beat(1, 2)
    actions = fleet.at(fleet.now + 10.1)

    assert signalled(actions) == [(3, "SIGABRT")]


def test_no_number_of_workers_counts_the_monitor() -> None:
    fleet = monitored()

    more = fleet.tell(Resize(1))
    fleet.all_ready()
    fewer = fleet.tell(Scale(0))

    assert spawned(more) == [(4, 0)]
    assert 3 not in [serial for serial, _ in signalled(fewer)]


def test_a_reload_replaces_the_monitor_last() -> None:
    fleet = monitored()

    fleet.reload(workers=2, monitor=True)
    actions = fleet.settle()

    assert verdicts(actions) == ["Commit"]
    committed = next(i for i, action in enumerate(actions) if isinstance(action, Commit))
    assert signalled(actions[:committed])[-1][0] != 3
    assert (3, "SIGTERM") in signalled(actions[committed:])
    assert spawned(actions, Role.MONITOR) == [(7, 1)]


def test_a_reload_can_end_the_monitor_and_bring_one() -> None:
    fleet = monitored()

    fleet.reload(workers=2)
    ended = fleet.settle()
    fleet.reload(workers=2, monitor=True)
    brought = fleet.settle()

    assert (3, "SIGTERM") in signalled(ended)
    assert spawned(ended, Role.MONITOR) == []
    assert len(spawned(brought, Role.MONITOR)) == 1


def test_the_monitor_goes_last() -> None:
    fleet = monitored()

    stopping = fleet.tell(Stop())
    fleet.exits(1)
    last = fleet.exits(2)

    assert signalled(stopping) == [(1, "SIGTERM"), (2, "SIGTERM")]
    assert signalled(last) == [(3, "SIGTERM")]
    fleet.exits(3)
    assert fleet.halted is not None


def test_a_quick_stop_ends_the_monitor_too() -> None:
    fleet = monitored()

    actions = fleet.tell(Stop(graceful=False))

    assert signalled(actions) == [(1, "SIGQUIT"), (2, "SIGQUIT"), (3, "SIGQUIT")]


def test_without_room_for_both_the_old_one_is_gone_before_the_new_one_starts() -> None:
    fleet = Fleet(workers=2)
    fleet.serve()

    actions = fleet.tell(Recycle(1, "no memory", makes_room=True))

    assert signalled(actions) == [(1, "SIGTERM")]
    assert spawned(actions) == []
    assert spawned(fleet.after(5.0)) == []
    assert spawned(fleet.exits(1, 0)) == [(3, 0)]


def test_one_worker_makes_room_at_a_time() -> None:
    fleet = Fleet(workers=3)
    fleet.serve()
    fleet.tell(Recycle(1, "no memory", makes_room=True))

    assert fleet.tell(Recycle(2, "no memory", makes_room=True)) == []
    replaced = fleet.exits(1, 0)
    assert spawned(replaced) == [(4, 0)]
    assert signalled(replaced) == []
    # The second one goes when all others serve.
    assert signalled(fleet.ready(4)) == [(2, "SIGTERM")]
    assert spawned(fleet.exits(2, 0)) == [(5, 0)]


def test_a_worker_that_makes_room_is_killed_like_any_other_that_does_not_stop() -> None:
    fleet = Fleet(workers=1, graceful_timeout=10.0)
    fleet.serve()
    fleet.tell(Recycle(1, "no memory", makes_room=True))

    assert signalled(fleet.after(10.0)) == [(1, "SIGKILL")]
    assert spawned(fleet.exits(1, None)) == [(2, 0)]


# --- Scaling ----------------------------------------------------------------------------------


def test_the_load_decides_how_many_workers_there_are() -> None:
    fleet = Fleet(workers=2, workers_min=1, workers_max=4)
    fleet.serve()

    assert spawned(fleet.tell(Aim(4, "busy"))) == [(3, 0), (4, 0)]
    fleet.all_ready()
    assert signalled(fleet.tell(Aim(3, "busy"))) == [(4, "SIGTERM")]


def test_without_workers_max_the_load_decides_nothing() -> None:
    fleet = Fleet(workers=2)
    fleet.serve()

    assert fleet.tell(Aim(4, "busy")) == []


@pytest.mark.parametrize("asked", [Resize(-1), Scale(1)], ids=["TTOU", "scale"])
def test_a_number_that_somebody_asked_for_is_kept(asked: Resize | Scale) -> None:
    fleet = Fleet(workers=2, workers_min=1, workers_max=4)
    fleet.serve()
    fleet.tell(asked)

    assert fleet.tell(Aim(4, "busy")) == []
    assert fleet.supervisor.target == 1


def test_a_reload_lets_the_load_decide_again() -> None:
    fleet = Fleet(workers=2, workers_min=1, workers_max=4)
    fleet.serve()
    fleet.tell(Scale(1))

    fleet.reload(workers=2, workers_max=4)
    during = fleet.tell(Aim(4, "busy"))
    fleet.settle()

    assert during == []
    assert len(spawned(fleet.tell(Aim(4, "busy")))) == 2


def test_a_number_asked_for_during_a_reload_is_kept_after_it() -> None:
    fleet = Fleet(workers=2, workers_max=4)
    fleet.serve()
    fleet.reload(workers=2, workers_max=4)
    fleet.tell(Scale(3))
    fleet.settle()

    assert fleet.tell(Aim(4, "busy")) == []
    assert len(fleet.in_state(State.READY)) == 3

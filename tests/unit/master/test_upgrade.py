"""What is executed at an upgrade, and the form of the state it leaves."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from forkmaster.errors import ForkmasterError
from forkmaster.master import upgrade
from forkmaster.master.upgrade import ListenerState, ProcessState, Program, State

STATE = State(
    version=upgrade.STATE_VERSION,
    program=Program("/venv/bin/forkmaster", ("/venv/bin/forkmaster", "app"), "/srv"),
    board="/dev/shm/forkmaster-0-1-abc",
    lock_fd=3,
    records=24,
    announce=(4, 5),
    liveness=(6, 7),
    handoff=(8, 9),
    listeners=(
        ListenerState("127.0.0.1:8000", 10, None, False),
        ListenerState("unix:/run/x.sock", 11, ("/run/x.sock", 1, 2), True),
    ),
    processes=(
        ProcessState(1, 0, "zygote", 100, 0, 1.5, 12),
        ProcessState(2, 0, "worker", 101, 1, 2.5, None),
    ),
    supervisor={"committed": 0},
    forkmaster="0.1.0",
)


def test_a_state_survives_its_bytes() -> None:
    assert upgrade.state_from_bytes(STATE.to_bytes()) == STATE


def test_a_state_names_every_descriptor_that_must_survive() -> None:
    assert sorted(STATE.descriptors()) == list(range(3, 13))


def test_a_state_of_another_version_is_not_ours() -> None:
    text = STATE.to_bytes().replace(b'"version": 1', b'"version": 99')

    with pytest.raises(upgrade.NotOursError, match="version 99"):
        upgrade.state_from_bytes(text)


def test_a_script_is_executed_itself_so_that_its_first_line_counts(tmp_path: Path) -> None:
    script = tmp_path / "forkmaster"
    script.touch(0o755)

    program = upgrade.program_of(["/old/python", str(script), "app"], "/old/python", "/srv")

    assert program == Program(str(script), (str(script), "app"), "/srv")


def test_a_relative_script_is_found_from_the_folder_of_the_start(tmp_path: Path) -> None:
    (tmp_path / "forkmaster").touch(0o755)

    program = upgrade.program_of(["python", "./forkmaster", "app"], "/python", str(tmp_path))

    assert Path(program.path) == tmp_path / "forkmaster"


@pytest.mark.parametrize(
    "argv", [["python", "-m", "forkmaster", "app"], ["python", "/no/such/script", "app"]]
)
def test_anything_else_goes_through_the_python_that_runs(argv: list[str]) -> None:
    assert upgrade.program_of(argv, "/bin/python", "/srv") == Program(
        "/bin/python", tuple(argv), "/srv"
    )


def test_a_frozen_state_is_inherited_and_then_forgotten() -> None:
    ends = os.pipe()
    state = State(**{**vars(STATE), "announce": ends, "listeners": (), "processes": ()})
    state = State(**{**vars(state), "lock_fd": ends[0], "liveness": ends, "handoff": ends})

    fd = upgrade.freeze(state)
    assert os.get_inheritable(ends[0])
    environ = {upgrade.STATE_VARIABLE: str(fd), upgrade.BACK_VARIABLE: "1", "HOME": "/"}
    assert upgrade.inherited(environ) == state
    upgrade.adopted(state, environ)

    assert environ == {"HOME": "/"}
    assert not os.get_inheritable(ends[0])
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(fd)
    os.close(ends[0])
    os.close(ends[1])


def test_without_a_state_nothing_is_inherited_and_nobody_goes_back() -> None:
    assert upgrade.inherited({}) is None
    upgrade.go_back({})


def test_whoever_was_gone_back_to_does_not_go_back_again() -> None:
    upgrade.go_back({upgrade.STATE_VARIABLE: "9", upgrade.BACK_VARIABLE: "1"})


def test_a_preflight_accepts_the_version_of_the_state_it_knows() -> None:
    environ = {upgrade.PREFLIGHT_VARIABLE: str(upgrade.STATE_VERSION)}

    assert upgrade.is_preflight(environ)
    assert upgrade.preflight(environ) == 0


def test_a_preflight_refuses_any_other() -> None:
    with pytest.raises(ForkmasterError, match="state version"):
        upgrade.preflight({upgrade.PREFLIGHT_VARIABLE: "99"})

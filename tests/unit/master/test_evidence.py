"""What is found out about a process, and where it is kept."""

from __future__ import annotations

import json
import logging
import os
from dataclasses import replace
from pathlib import Path

import pytest

from forkmaster.master.evidence import IncidentFolder, KernelKills, condition_of
from forkmaster.master.incidents import Condition
from forkmaster.system.cgroup import ControlGroup
from tests.unit.master.test_incidents import HUNG


def test_a_living_process_is_described() -> None:
    condition = condition_of(os.getpid())

    assert condition.doing == "running"
    assert condition.resident is not None
    assert condition.private is not None
    assert 0 < condition.private <= condition.resident
    assert condition.cpu is not None


def test_of_a_dead_process_nothing_is_known() -> None:
    pid = os.posix_spawn("/bin/true", ["true"], {})
    os.waitpid(pid, 0)

    assert condition_of(pid) == Condition()


def test_the_kernel_is_blamed_once_for_each_of_its_kills(tmp_path: Path) -> None:
    events = tmp_path / "memory.events"
    events.write_text("oom 5\noom_kill 5\n")
    kills = KernelKills(ControlGroup(2, (tmp_path,)))

    before = kills.explain_one()
    events.write_text("oom 6\noom_kill 7\n")

    assert not before
    assert [kills.explain_one() for _ in range(3)] == [True, True, False]


def test_the_kernel_is_blamed_in_version_1_too(tmp_path: Path) -> None:
    control = tmp_path / "memory.oom_control"
    control.write_text("oom_kill_disable 0\nunder_oom 0\noom_kill 0\n")
    kills = KernelKills(ControlGroup(1, (tmp_path,)))

    control.write_text("oom_kill_disable 0\nunder_oom 0\noom_kill 1\n")

    assert kills.explain_one()
    assert not kills.explain_one()


def test_without_a_control_group_the_kernel_is_never_blamed() -> None:
    assert not KernelKills(None).explain_one()


def test_an_incident_is_kept_for_its_owner_alone(tmp_path: Path) -> None:
    folder = IncidentFolder(tmp_path / "a" / "b", limit=10)
    folder.prepare()

    folder.write(HUNG)

    (file,) = folder.path.iterdir()
    assert file.name == HUNG.file_name
    assert json.loads(file.read_text())["summary"] == HUNG.headline
    assert file.stat().st_mode & 0o777 == 0o600
    assert folder.path.stat().st_mode & 0o777 == 0o700


def test_the_newest_incidents_are_kept(tmp_path: Path) -> None:
    folder = IncidentFolder(tmp_path, limit=3)
    (tmp_path / "notes.txt").write_text("not ours")
    incidents = [replace(HUNG, time=HUNG.time + n, serial=n) for n in range(5)]

    for incident in incidents:
        folder.write(incident)

    kept = sorted(path.name for path in tmp_path.glob("incident-*"))
    assert kept == [incident.file_name for incident in incidents[2:]]
    assert (tmp_path / "notes.txt").exists()


def test_a_folder_that_cannot_be_made_is_a_warning_at_the_start(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    folder = IncidentFolder(tmp_path / "file" / "incidents", limit=3)

    with caplog.at_level(logging.WARNING, "forkmaster.error"):
        folder.prepare()
        folder.write(HUNG)

    said = [record.message for record in caplog.records]
    assert said[0].startswith("cannot make the folder for incidents")
    assert said[1].startswith("cannot keep the incident in")

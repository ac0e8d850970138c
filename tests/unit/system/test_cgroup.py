"""Limits of control groups, as version 1, version 2 and containers show them."""

from __future__ import annotations

import mmap
import os
from pathlib import Path

import pytest

from forkmaster.system import cgroup, cpus, memory
from forkmaster.system.cgroup import ControlGroup, control_group, find_group

VERSION_1_MOUNTS = """\
22 28 0:20 / /proc rw - proc proc rw
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:7 - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw,nsdelegate
"""
VERSION_1 = "4:memory:/system.slice/web.service\n2:cpu,cpuacct:/system.slice\n0::/system.slice\n"
VERSION_2_MOUNTS = (
    "30 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,memory_recursiveprot\n"
)


def group(version: int, *folders: dict[str, str], root: Path) -> ControlGroup:
    """A control group and its ancestors, each a folder of files."""
    paths = []
    for number, files in enumerate(folders):
        path = root / str(number)
        path.mkdir()
        for name, text in files.items():
            (path / name).write_text(text)
        paths.append(path)
    return ControlGroup(version, tuple(paths))


def test_version_1_is_found_by_its_controller() -> None:
    found = find_group("memory", VERSION_1, VERSION_1_MOUNTS)

    assert found == ControlGroup(
        1,
        (
            Path("/sys/fs/cgroup/memory/system.slice/web.service"),
            Path("/sys/fs/cgroup/memory/system.slice"),
            Path("/sys/fs/cgroup/memory"),
        ),
    )


def test_a_controller_that_shares_its_hierarchy_is_found() -> None:
    found = find_group("cpu", VERSION_1, VERSION_1_MOUNTS)

    assert found is not None
    assert found.folders[0] == Path("/sys/fs/cgroup/cpu,cpuacct/system.slice")


def test_version_2_has_one_path_for_all() -> None:
    found = find_group("cpu", "0::/web.slice\n", VERSION_2_MOUNTS)

    assert found == ControlGroup(2, (Path("/sys/fs/cgroup/web.slice"), Path("/sys/fs/cgroup")))


def test_a_container_without_its_own_namespace_sees_its_group_as_the_root() -> None:
    mounts = r"35 31 0:32 /docker/abc /my\040cgroup rw - cgroup cgroup rw,memory"

    found = find_group("memory", "4:memory:/docker/abc\n", mounts)

    assert found == ControlGroup(1, (Path("/my cgroup"),))


def test_without_mounts_or_groups_there_is_none() -> None:
    assert find_group("memory", VERSION_1, "") is None
    assert find_group("memory", "", VERSION_1_MOUNTS) is None


def test_this_machine_can_be_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    for found in (control_group("memory"), memory.memory_group()):
        assert found is None or found.folders

    assert 1 <= cpus.cpu_count() <= (os.cpu_count() or 1)


def test_where_proc_is_hidden_there_is_no_group(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(cgroup, "Path", lambda name: tmp_path / "missing")

    assert control_group("memory") is None


@pytest.mark.parametrize(
    ("version", "folders", "quota"),
    [
        (2, [{"cpu.max": "max 100000\n"}], None),
        (2, [{"cpu.max": "max 100000\n"}, {"cpu.max": "50000 100000\n"}, {}], 0.5),
        (2, [{"cpu.max": "400000 100000\n"}, {"cpu.max": "150000 100000\n"}], 1.5),
        (1, [{"cpu.cfs_quota_us": "-1\n", "cpu.cfs_period_us": "100000\n"}], None),
        (1, [{"cpu.cfs_quota_us": "250000\n", "cpu.cfs_period_us": "100000\n"}], 2.5),
    ],
)
def test_the_smallest_quota_of_all_ancestors_counts(
    version: int, folders: list[dict[str, str]], quota: float | None, tmp_path: Path
) -> None:
    assert cpus.cpu_quota(group(version, *folders, root=tmp_path)) == quota


def test_a_quota_of_half_a_processor_is_one_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    half = group(2, {"cpu.max": "50000 100000"}, root=tmp_path)

    monkeypatch.setattr(cpus, "control_group", lambda _: half)

    assert cpus.cpu_count() == 1


def test_without_a_control_group_there_is_no_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpus, "control_group", lambda _: None)

    assert cpus.cpu_count() == len(os.sched_getaffinity(0))
    assert memory.memory_limit(None) is None
    assert memory.memory_in_use(None) is None
    assert memory.oom_kills(None) is None


@pytest.mark.parametrize(
    ("version", "folders", "limit"),
    [
        (2, [{"memory.max": "max\n"}, {}], None),
        (2, [{"memory.max": "max\n"}, {"memory.max": "1048576\n"}], 1048576),
        (1, [{"memory.limit_in_bytes": "9223372036854771712\n"}], None),
        (1, [{"memory.limit_in_bytes": "134217728\n"}], 134217728),
    ],
)
def test_the_smallest_memory_limit_of_all_ancestors_counts(
    version: int, folders: list[dict[str, str]], limit: int | None, tmp_path: Path
) -> None:
    assert memory.memory_limit(group(version, *folders, root=tmp_path)) == limit


def test_memory_in_use_and_kills_are_of_the_group_itself(tmp_path: Path) -> None:
    events = "low 0\nhigh 3\nmax 9\noom 2\noom_kill 2\n"
    own = {"memory.current": "5000\n", "memory.events": events}
    two = group(2, own, {"memory.current": "9000\n"}, root=tmp_path)

    assert (memory.memory_in_use(two), memory.oom_kills(two)) == (5000, 2)


def test_version_1_tells_kills_beside_other_words(tmp_path: Path) -> None:
    own = {"memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 7\n"}
    one = group(1, own, root=tmp_path)

    assert memory.oom_kills(one) == 7
    assert memory.memory_in_use(one) is None


def test_the_memory_of_a_process() -> None:
    pid = os.getpid()

    before = memory.private_memory(pid)
    # Fresh pages of our own: what malloc gives may be some that were given back.
    ballast = mmap.mmap(-1, 16 << 20, flags=mmap.MAP_PRIVATE)
    ballast.write(os.urandom(1) * (16 << 20))

    assert memory.private_memory(pid) - before > 8 << 20
    assert memory.unshared_memory(pid) > 8 << 20
    proportional = memory.proportional_memory(pid)
    assert proportional is not None
    assert proportional >= memory.private_memory(pid) // 2
    ballast.close()


def test_the_memory_of_nobody() -> None:
    for ask in (memory.private_memory, memory.unshared_memory, memory.proportional_memory):
        with pytest.raises(ProcessLookupError):
            ask(2**22 + 1)


def test_where_the_kernel_does_not_let_us_look_the_cheap_number_must_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refused(pid: int) -> dict[str, int]:
        raise PermissionError

    monkeypatch.setattr(memory, "_rollup", refused)

    assert memory.private_memory(os.getpid()) > 0
    assert memory.proportional_memory(os.getpid()) is None


def test_what_the_kernel_can_drop_is_not_in_use(tmp_path: Path) -> None:
    own = {
        "memory.max": "1000\n",
        "memory.current": "900\n",
        "memory.stat": "anon 500\ninactive_file 300\nactive_file 100\n",
    }

    assert memory.working_set(group(2, own, root=tmp_path)) == (1000, 600)


def test_the_limit_that_is_nearest_counts(tmp_path: Path) -> None:
    own = {"memory.max": "1000\n", "memory.current": "100\n", "memory.stat": "anon 1\n"}
    above = {"memory.max": "5000\n", "memory.current": "4900\n", "memory.stat": "anon 1\n"}

    assert memory.working_set(group(2, own, above, root=tmp_path)) == (5000, 4900)


def test_version_1_tells_the_working_set_too(tmp_path: Path) -> None:
    own = {
        "memory.limit_in_bytes": "1000\n",
        "memory.usage_in_bytes": "900\n",
        "memory.stat": "inactive_file 1\ntotal_inactive_file 300\n",
    }

    assert memory.working_set(group(1, own, root=tmp_path)) == (1000, 600)


def test_without_a_limit_there_is_no_working_set(tmp_path: Path) -> None:
    own = {"memory.max": "max\n", "memory.current": "100\n"}

    assert memory.working_set(group(2, own, root=tmp_path)) is None
    assert memory.working_set(None) is None


def test_the_processors_tell_how_they_were_counted() -> None:
    assert str(cpus.Processors(64, 64, None)) == "64 processors"
    both = cpus.Processors(64, 8, 1.5)
    assert both.usable == 2
    assert str(both) == "64 processors, 8 by the affinity, 1.5 by the quota of the control group"

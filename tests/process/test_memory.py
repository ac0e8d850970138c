"""Under a real limit on memory: the largest worker goes before the kernel kills one, and a worker
that the kernel has killed is named so."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from forkmaster.system.cgroup import ControlGroup, control_group
from forkmaster.system.memory import MEMORY_FILES, working_set
from tests.conftest import Serve
from tests.process.harness import Kind, Load, read_all, request_bytes, wait_for

MEBIBYTE = 1 << 20
LIMIT = 400 * MEBIBYTE


class Limited:
    """A control group of its own, which allows so much memory and no swap."""

    def __init__(self) -> None:
        parent = control_group("memory")
        if parent is None:
            raise FileNotFoundError("no control group limits memory")
        # Below the root: a group of version 2 that has processes cannot limit those below it.
        folder = parent.folders[-1] / f"forkmaster-test-{os.getpid()}"
        folder.mkdir()
        self.group = ControlGroup(parent.version, (folder,))
        try:
            (folder / MEMORY_FILES[parent.version][0]).write_text(str(LIMIT))
            if parent.version == 2:
                (folder / "memory.swap.max").write_text("0")
        except OSError:
            folder.rmdir()
            raise

    @property
    def folder(self) -> Path:
        return self.group.folders[0]

    @property
    def through(self) -> tuple[str, ...]:
        """The command that enters it and executes what follows."""
        enter = f'echo $$ > {self.folder}/cgroup.procs && exec "$@"'
        return ("/bin/sh", "-c", enter, "sh")

    @property
    def used(self) -> int:
        found = working_set(self.group)
        assert found is not None
        return found[1]

    def remove(self) -> None:
        procs = self.folder / "cgroup.procs"
        wait_for(lambda: not procs.read_text(), what="an empty group")
        self.folder.rmdir()


@pytest.fixture
def limited() -> Iterator[Limited]:
    """To be named before `serve`, so that it outlives the server."""
    try:
        made = Limited()
    except OSError as exc:
        pytest.skip(f"cannot make a control group: {exc}")
    yield made
    made.remove()


def grows(kind: Kind) -> str:
    return "grows:asgi" if kind.name == "asgi" else "grows:wsgi"


def test_the_largest_worker_is_replaced_before_the_kernel_kills_one(
    limited: Limited, serve: Serve, kind: Kind
) -> None:
    server = serve(*kind.arguments, "-w", "2", grows(kind), through=limited.through)
    server.wait_until_ready(2)

    with Load(server, "/pid", clients=2) as load:
        load.wait_for_answers(20)
        grown = int(server.get(f"/grow?{(LIMIT * 94 // 100 - limited.used) // MEBIBYTE}").body)
        server.wait_for_line(
            r"worker \d: 9\d% of the memory of the control group \(400 MiB\) is used;"
            r" it holds \d+ MiB for itself; sending SIGTERM",
            timeout=40,
        )
        server.wait_until_ready(3)
        load.wait_for_answers(20)

    assert load.lost == []
    assert grown not in server.workers()
    assert len(server.wait_for_workers(2)) == 2


def test_a_worker_that_the_kernel_killed_is_named_so(
    limited: Limited, serve: Serve, kind: Kind
) -> None:
    server = serve(*kind.arguments, "-w", "2", grows(kind), through=limited.through)
    server.wait_until_ready(2)
    server.expect(
        r"worker \d .*was killed by the kernel: the control group is out of memory.*/grow"
    )
    server.tolerate("of the memory of the control group")

    lost = read_all(server.send(request_bytes(f"/grow?{2 * LIMIT // MEBIBYTE}")))
    server.wait_until_ready(3)

    assert lost == b""
    assert server.get("/pid").status == 200
    assert server.board().deaths["out of memory"] == 1

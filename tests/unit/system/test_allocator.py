"""Memory that was freed is there for what comes next."""

from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path

import pytest

PAGES = 256  # of a body of 1 MiB
REQUESTS = 50
TAKES_BODIES = f"""
import os, resource
from forkmaster.system.allocator import keep_freed_memory

def request():
    pieces = [os.urandom(1 << 18) for _ in range(4)]
    b"".join(pieces)

kept = keep_freed_memory()
request()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range({REQUESTS}):
    request()
print(int(kept), resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def taken(**environ: str) -> tuple[bool, int]:
    """Whether memory is kept, and how many pages many requests had to get from the kernel."""
    done = subprocess.run(
        [sys.executable, "-c", TAKES_BODIES],
        env={"PYTHONPATH": str(Path(__file__).parents[3]), **environ},
        capture_output=True,
        text=True,
        check=True,
    )
    kept, faults = done.stdout.split()
    return kept == "1", int(faults)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another allocator")
def test_a_request_finds_the_memory_of_the_one_before() -> None:
    kept, faults = taken(GLIBC_TUNABLES="glibc.rtld.nns=4")  # of another subject

    assert kept
    assert faults < REQUESTS * PAGES / 10


@pytest.mark.parametrize(
    "chosen",
    [{"MALLOC_TRIM_THRESHOLD_": "131072"}, {"GLIBC_TUNABLES": "glibc.malloc.top_pad=131072"}],
)
def test_who_has_chosen_decides(chosen: dict[str, str]) -> None:
    assert not taken(**chosen)[0]

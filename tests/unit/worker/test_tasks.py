"""Where the tasks of a loop stand, in words."""

from __future__ import annotations

import asyncio
import re
from typing import Any

from forkmaster.worker import tasks


async def inner(gate: asyncio.Event) -> None:
    await gate.wait()


async def outer(gate: asyncio.Event) -> None:
    await inner(gate)


def described(work: Any, count: int = 1) -> str:
    """What is said while `count` tasks of `work` wait."""

    async def main() -> str:
        gate = asyncio.Event()
        waiting = [asyncio.create_task(work(gate), name=f"work {n}") for n in range(count)]
        await asyncio.sleep(0)
        text = tasks.describe(asyncio.get_running_loop())
        gate.set()
        await asyncio.gather(*waiting)
        return text

    return asyncio.run(main())


def test_a_task_shows_what_it_awaits_innermost_first() -> None:
    lines = described(outer).splitlines()

    assert lines[0] == "Task work 0 (most recent call first):"
    assert [line.rpartition(" in ")[2] for line in lines[1:]] == ["wait", "inner", "outer"]
    assert re.fullmatch(r'  File ".*test_tasks\.py", line \d+ in inner', lines[2])


def test_asynchronous_generators_are_followed() -> None:
    async def numbers(gate: asyncio.Event) -> Any:
        await inner(gate)
        yield 1

    async def consume(gate: asyncio.Event) -> None:
        async for _ in numbers(gate):
            pass

    assert " in consume" in described(consume)


def test_the_task_that_runs_is_left_to_the_stack_of_its_thread() -> None:
    assert "in main" not in described(outer)


def test_many_tasks_are_counted() -> None:
    text = described(outer, count=tasks.SHOWN + 7)

    assert text.count("most recent call first") == tasks.SHOWN
    assert text.endswith("and 7 more tasks\n")

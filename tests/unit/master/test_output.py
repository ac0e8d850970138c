"""Bytes from a pipe, as lines of the log."""

from __future__ import annotations

import os
import selectors
import subprocess
from collections.abc import Iterator
from typing import Any, cast

import pytest

from forkmaster.master import output
from forkmaster.master.output import Outputs


class Worker:
    """As much of a Process as is shown."""

    serial, generation, pid = 3, 1, 4711

    def __str__(self) -> str:
        return "worker 3"


@pytest.fixture
def selector() -> Iterator[selectors.BaseSelector]:
    with selectors.DefaultSelector() as selector:
        yield selector


def turn(selector: selectors.BaseSelector) -> None:
    """Read whatever can be read, once."""
    for key, _ in selector.select(0):
        key.data()


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records]


def test_a_line_is_logged_when_it_is_whole(
    selector: selectors.BaseSelector, caplog: pytest.LogCaptureFixture
) -> None:
    outputs = Outputs(selector)
    process: Any = Worker()
    write_end = outputs.pipe_for(process)

    os.write(write_end, b"one\r\n\ntw")
    turn(selector)
    before = lines(caplog)
    os.write(write_end, b"o \xff\n")
    turn(selector)
    os.write(write_end, b"last")
    os.close(write_end)
    turn(selector)
    turn(selector)

    assert before == ["worker 3: one", "worker 3: "]
    assert lines(caplog)[2:] == ["worker 3: two \\xff", "worker 3: last"]
    record = cast(Any, caplog.records[0])
    assert (record.process, record.worker, record.generation) == (4711, 3, 1)
    assert record.levelname == "INFO"
    assert outputs.fd_of(process) is None
    assert not selector.get_map()


def test_a_line_without_end_does_not_fill_the_memory(
    selector: selectors.BaseSelector, caplog: pytest.LogCaptureFixture
) -> None:
    outputs = Outputs(selector)
    process: Any = Worker()
    write_end = outputs.pipe_for(process)
    size = output.LONGEST * 3

    os.write(write_end, b"x" * size)
    turn(selector)

    texts = [line.removeprefix("worker 3: ") for line in lines(caplog)]
    assert [len(text) for text in texts] == [output.LONGEST] * 3
    os.close(write_end)
    outputs.close()


def test_of_the_dead_everything_is_taken_and_others_may_go_on(
    selector: selectors.BaseSelector, caplog: pytest.LogCaptureFixture
) -> None:
    outputs = Outputs(selector)
    process: Any = Worker()
    write_end = outputs.pipe_for(process)
    os.write(write_end, b"a" * 60_000 + b"\nhalf")

    outputs.take_last_words(process)  # a child of it still has the pipe
    os.write(write_end, b"of its child\n")
    turn(selector)

    assert lines(caplog)[-2:] == ["worker 3: half", "worker 3: of its child"]
    os.close(write_end)
    outputs.close()


def test_what_the_dead_have_started_may_go_on_for_ever(
    selector: selectors.BaseSelector,
) -> None:
    outputs = Outputs(selector)
    process: Any = Worker()
    write_end = outputs.pipe_for(process)
    with subprocess.Popen(["yes"], stdout=write_end) as endless:
        os.close(write_end)
        selector.select(10)

        outputs.take_last_words(process)

        endless.kill()
    outputs.close()


def test_a_child_that_never_came_leaves_nothing(selector: selectors.BaseSelector) -> None:
    outputs = Outputs(selector)
    process: Any = Worker()
    write_end = outputs.pipe_for(process)

    outputs.drop(process)
    outputs.drop(process)

    assert not selector.get_map()
    with pytest.raises(BrokenPipeError):
        os.write(write_end, b"x")
    os.close(write_end)


def test_a_child_lets_go_of_all(selector: selectors.BaseSelector) -> None:
    outputs = Outputs(selector)
    processes: list[Any] = [Worker(), Worker()]
    write_ends = [outputs.pipe_for(process) for process in processes]

    outputs.close_in_child()

    for write_end in write_ends:
        with pytest.raises(BrokenPipeError):
            os.write(write_end, b"x")
        os.close(write_end)

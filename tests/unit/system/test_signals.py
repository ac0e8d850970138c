"""Signals as bytes of a pipe, held back around a fork, forgotten in a child."""

from __future__ import annotations

import os
import select
import signal
import threading
from collections.abc import Iterator

import pytest

from forkmaster.system.signals import (
    SignalPipe,
    reset_signals,
    signal_name,
    signals_blocked,
    unblock_signals,
)

from .children import in_child

USR1, USR2 = signal.SIGUSR1, signal.SIGUSR2


@pytest.fixture
def pipe() -> Iterator[SignalPipe]:
    made = SignalPipe([USR1, USR2])
    yield made
    made.close()


def test_signals_are_read_in_the_order_they_came(pipe: SignalPipe) -> None:
    assert pipe.read() == []

    for number in (USR2, USR1, USR2):
        os.kill(os.getpid(), number)

    assert select.select([pipe], [], [], 5)[0] == [pipe]
    assert pipe.read() == [USR2, USR1, USR2]
    assert pipe.read() == []


def test_a_signal_that_somebody_else_catches_is_not_ours(pipe: SignalPipe) -> None:
    before = signal.signal(signal.SIGWINCH, lambda *_: None)

    os.kill(os.getpid(), signal.SIGWINCH)
    os.kill(os.getpid(), USR1)

    assert pipe.read() == [USR1]
    signal.signal(signal.SIGWINCH, before)


def test_closing_puts_back_what_was_before() -> None:
    handler = signal.getsignal(USR1)

    SignalPipe([USR1]).close()

    assert signal.getsignal(USR1) is handler
    assert signal.set_wakeup_fd(-1) == -1


def test_signals_are_held_back_and_then_arrive(pipe: SignalPipe) -> None:
    with signals_blocked():
        # To this thread: pytest-timeout has one more, which a signal to the process would reach.
        signal.pthread_kill(threading.get_ident(), USR1)
        assert pipe.read() == []

    assert pipe.read() == [USR1]


def test_a_child_has_default_actions_and_no_part_in_the_masters_pipe(pipe: SignalPipe) -> None:
    def child() -> None:
        pipe.close_in_child()
        reset_signals()
        os.kill(os.getpid(), USR1)
        unblock_signals()

    with signals_blocked():
        status = in_child(child)

    assert status == -USR1
    assert pipe.read() == []


def test_a_signal_that_comes_early_waits_for_the_childs_own_handler() -> None:
    def child() -> None:
        reset_signals()
        os.kill(os.getpid(), USR1)  # would kill it now
        seen: list[int] = []
        signal.signal(USR1, lambda number, _: seen.append(number))
        unblock_signals()
        assert seen == [USR1]

    with signals_blocked():
        assert in_child(child) == 0


def test_a_child_goes_on_ignoring_what_was_ignored(pipe: SignalPipe) -> None:
    def child() -> None:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        reset_signals()
        unblock_signals()
        os.kill(os.getpid(), signal.SIGHUP)
        os.kill(os.getpid(), signal.SIGPIPE)
        assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == set()

    assert in_child(child) == 0


def test_every_signal_has_a_name() -> None:
    assert signal_name(15) == "SIGTERM"
    assert signal_name(signal.SIGRTMIN + 1) == f"signal {signal.SIGRTMIN + 1}"

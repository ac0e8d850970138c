"""What systemd puts into the environment, and what it is told."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from forkmaster.system.systemd import InheritedSocket, Notifier, take_inherited_sockets

PID = 4711


@pytest.mark.parametrize(
    ("environ", "sockets"),
    [
        ({}, []),
        ({"LISTEN_PID": "4711", "LISTEN_FDS": "0"}, []),
        ({"LISTEN_PID": "4711", "LISTEN_FDS": "many"}, []),
        ({"LISTEN_PID": "4712", "LISTEN_FDS": "1"}, []),
        ({"LISTEN_FDS": "1"}, []),
        ({"LISTEN_PID": "4711", "LISTEN_FDS": "1"}, [InheritedSocket(3, "unknown")]),
        (
            {"LISTEN_PID": "4711", "LISTEN_FDS": "3", "LISTEN_FDNAMES": "http:"},
            [
                InheritedSocket(3, "http"),
                InheritedSocket(4, "unknown"),
                InheritedSocket(5, "unknown"),
            ],
        ),
    ],
)
def test_sockets_are_ours_only_if_our_pid_is_named(
    environ: dict[str, str], sockets: list[InheritedSocket]
) -> None:
    environ = {**environ, "HOME": "/"}

    assert take_inherited_sockets(environ, PID) == sockets

    assert environ == {"HOME": "/"}


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """systemd's end of the conversation."""
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as made:
        made.settimeout(5)
        yield made


def test_messages_go_in_one_piece(manager: socket.socket, tmp_path: Path) -> None:
    address = f"/tmp/forkmaster-notify-{os.getpid()}"
    manager.bind(address)
    environ = {"NOTIFY_SOCKET": address}
    notifier = Notifier.take(environ, PID)

    sent = notifier.send("RELOADING=1", "MONOTONIC_USEC=5", "STATUS=two\nlines")

    os.unlink(address)
    assert sent
    assert environ == {}
    assert manager.recv(999) == b"RELOADING=1\nMONOTONIC_USEC=5\nSTATUS=two lines"


def test_an_abstract_address(manager: socket.socket) -> None:
    manager.bind(f"\0forkmaster-notify-{os.getpid()}")
    notifier = Notifier.take({"NOTIFY_SOCKET": f"@forkmaster-notify-{os.getpid()}"}, PID)

    assert notifier.send("READY=1")

    assert manager.recv(999) == b"READY=1"


def test_descriptors_can_be_left_in_safe_keeping(manager: socket.socket) -> None:
    manager.bind(f"\0forkmaster-notify-{os.getpid()}")
    notifier = Notifier.take({"NOTIFY_SOCKET": f"@forkmaster-notify-{os.getpid()}"}, PID)

    assert notifier.send("FDSTORE=1", "FDNAME=http", fds=[manager.fileno()])

    message, fds, _, _ = socket.recv_fds(manager, 999, 4)
    assert message == b"FDSTORE=1\nFDNAME=http"
    assert len(fds) == 1
    os.close(fds[0])


@pytest.mark.parametrize("address", ["", "vsock:2:1234", "relative"])
def test_without_a_manager_nothing_is_sent(address: str) -> None:
    notifier = Notifier.take({"NOTIFY_SOCKET": address}, PID)

    assert notifier.address is None
    assert not notifier.send("READY=1")


def test_a_manager_that_is_gone_is_no_error(tmp_path: Path) -> None:
    notifier = Notifier.take({"NOTIFY_SOCKET": str(tmp_path / "gone")}, PID)

    assert not notifier.send("READY=1")


@pytest.mark.parametrize(
    ("environ", "watchdog"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "15000000"}, 15.0),
        ({"WATCHDOG_USEC": "15000000", "WATCHDOG_PID": "4711"}, 15.0),
        ({"WATCHDOG_USEC": "15000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
    ],
)
def test_the_watchdog_is_for_one_process(environ: dict[str, str], watchdog: float | None) -> None:
    assert Notifier.take(environ, PID).watchdog == watchdog

    assert environ == {}

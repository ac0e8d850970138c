"""The pid file: whole, ours, and gone when we are."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from forkmaster.errors import ForkmasterError
from forkmaster.system import pidfile
from forkmaster.system.pidfile import Pidfile, read_pid

from .children import in_child

NOBODY = 2**22 + 1


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "web.pid"


def test_a_pid_file_names_this_process_and_can_be_read_by_all(path: Path) -> None:
    Pidfile.write(path)

    assert path.read_text() == f"{os.getpid()}\n"
    assert path.stat().st_mode & 0o777 == 0o644
    assert [other.name for other in path.parent.iterdir()] == ["web.pid"]


@pytest.mark.parametrize("left", ["", "garbage", f"{NOBODY}\n", "-1", "our own", "9" * 99])
def test_what_a_dead_process_left_is_replaced(path: Path, left: str) -> None:
    path.write_text(str(os.getpid()) if left == "our own" else left)

    Pidfile.write(path)

    assert read_pid(path) == os.getpid()


def test_a_living_process_keeps_its_file(path: Path) -> None:
    pid = os.fork()
    if pid == 0:
        while True:
            signal.pause()
    path.write_text(f"{pid}\n")
    try:
        with pytest.raises(ForkmasterError, match=rf"it names pid {pid} \(.+\), which lives"):
            Pidfile.write(path)
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)

    assert read_pid(path) == pid


def test_a_process_that_cannot_be_described_still_keeps_its_file(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def secret(pid: int) -> str:
        raise PermissionError

    monkeypatch.setattr(pidfile, "command_of", secret)
    path.write_text("1\n")

    with pytest.raises(ForkmasterError, match="it names pid 1, which lives"):
        Pidfile.write(path)


def test_a_folder_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(ForkmasterError, match=r"cannot write .*web.pid: No such file or directory"):
        Pidfile.write(tmp_path / "missing" / "web.pid")


def test_a_file_that_cannot_be_replaced_leaves_nothing_behind(path: Path) -> None:
    path.mkdir()

    with pytest.raises(ForkmasterError, match="Is a directory"):
        Pidfile.write(path)

    assert list(path.parent.iterdir()) == [path]


def test_our_file_is_removed_from_whatever_folder_we_are_in(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(path.parent)
    written = Pidfile.write(Path("web.pid"))

    monkeypatch.chdir("/")

    assert written.remove()
    assert not path.exists()
    assert not written.remove()


def test_a_file_that_names_another_by_now_is_left(path: Path) -> None:
    written = Pidfile.write(path)
    path.write_text("1\n")

    assert not written.remove()

    assert read_pid(path) == 1


def test_a_file_that_may_not_be_removed_is_no_error(public_folder: Path) -> None:
    path = public_folder / "web.pid"

    path.touch()
    path.chmod(0o666)
    public_folder.chmod(0o555)

    def child() -> None:
        path.write_text(f"{os.getpid()}")
        assert not Pidfile(path, os.getpid()).remove()

    assert in_child(child, as_nobody=True) == 0
    assert path.exists()

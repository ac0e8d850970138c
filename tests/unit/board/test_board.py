"""The folder of heartbeat files: made, forked, folded, removed, and found again."""

from __future__ import annotations

import errno
import faulthandler
import fcntl
import logging
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from forkmaster.board import board as board_module
from forkmaster.board import layout
from forkmaster.board.board import Board, remove_stale
from forkmaster.board.reader import find_boards, read_board, read_slot, totals


@pytest.fixture
def board(tmp_path: Path) -> Iterator[Board]:
    made = Board.create(tmp_path, records=2)
    yield made
    if made.path.exists():
        made.remove()


def dead_board(root: Path, name: str = "") -> Path:
    """A board whose master died without a word."""
    folder = root / (name or f"forkmaster-{os.geteuid()}-1234-aa")
    folder.mkdir()
    (folder / "lock").touch()
    return folder


def test_a_board_is_private_and_named_after_its_master(board: Board, tmp_path: Path) -> None:
    (found,) = find_boards(tmp_path)

    assert board.path.stat().st_mode & 0o777 == 0o700
    assert (found.path, found.uid, found.pid) == (board.path, os.geteuid(), os.getpid())
    assert found.is_alive
    assert read_slot(board.master).kind == "master"


def test_counters_never_go_back_when_a_child_dies(board: Board) -> None:
    dies, lives = board.new_slot(1, 0), board.new_slot(2, 0)
    dies.count(200, 100, 5_000_000)
    lives.count(500, 10, 7_000_000)
    dies.words[layout.CONNECTIONS] = 3
    before = totals(board.path)

    board.drop(1)

    after = totals(board.path)
    assert before.counters["connections"] == 3
    assert after.counters["connections"] == 0  # a level of the living
    assert {**before.counters, "connections": 0} == after.counters
    assert after.histogram == before.histogram
    assert after.requests == 2
    assert [child.serial for child in read_board(board.path).children] == [2]


def test_a_reader_never_sees_a_counter_go_back_while_children_come_and_go(board: Board) -> None:
    told, tell = os.pipe()
    pid = os.fork()
    if pid == 0:
        seen = [0]
        while len(seen) <= 50 and seen[-1] >= max(seen):
            seen.append(totals(board.path).counters["status_2xx"])
            os.write(tell, b"!")  # so that the children come and go as long as somebody looks
        os._exit(0 if seen == sorted(seen) else 1)
    os.close(tell)
    serial = 0
    while os.read(told, 1):
        serial += 1
        slot = board.new_slot(serial, 0)
        for _ in range(50):
            slot.count(200, 1, 1000)
        if serial > 3:
            board.drop(serial - 3)

    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    os.close(told)
    assert status == 0
    assert serial == 50
    assert totals(board.path).counters["status_2xx"] == 50 * 50


def test_what_the_monitor_serves_is_not_the_applications_traffic(board: Board) -> None:
    monitor = board.new_slot(1, 0)
    monitor.words[layout.KIND] = layout.KINDS.index("monitor")
    monitor.count(200, 1, 1)
    assert totals(board.path).requests == 0

    board.drop(1)

    assert totals(board.path).requests == 0


def test_a_reader_that_meets_a_fold_without_end_shows_what_it_has(board: Board) -> None:
    board.new_slot(1, 0).count(200, 1, 1)
    board.master.words[layout.FOLDS] = 1  # the master was killed in it

    assert totals(board.path).requests == 1


def test_a_slot_that_is_being_made_is_not_shown(board: Board) -> None:
    (board.path / "worker-9").touch()

    assert read_board(board.path).children == ()


def test_a_child_keeps_its_own_slot_and_stacks_and_nothing_else(board: Board) -> None:
    mine, sibling = board.new_slot(1, 0), board.new_slot(2, 0)
    my_stacks, its_stacks = board.stacks_file(1), board.stacks_file(2)

    pid = os.fork()
    if pid == 0:
        board.close_in_child(keep=1)
        mine.beat()
        faulthandler.dump_traceback(my_stacks)
        closed = 0
        for fd in (its_stacks, board.lock_fd):
            try:
                os.fstat(fd)
            except OSError as exc:
                closed += exc.errno == errno.EBADF
        for slot in (sibling, board.master):
            try:
                slot.beat()
            except ValueError:
                closed += 1
        os._exit(0 if closed == 4 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0

    assert mine.last_beat() > 0
    assert sibling.last_beat() == 0
    dump = board.take_stacks(1)
    assert "test_a_child_keeps_its_own_slot" in dump
    assert board.take_stacks(1) == ""
    assert board.take_stacks(2) == ""
    assert board.take_stacks(3) == ""


def test_the_lock_is_the_masters_even_if_a_child_outlives_it(board: Board, tmp_path: Path) -> None:
    told, tell = os.pipe()
    wait, release = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(release)
        board.close_in_child(keep=0)
        os.write(tell, b"x")
        os.read(wait, 1)
        os._exit(0)
    os.read(told, 1)

    os.close(board.lock_fd)  # as when the master is killed
    (found,) = find_boards(tmp_path)

    os.close(release)
    os.waitpid(pid, 0)
    for fd in (told, tell, wait):
        os.close(fd)
    assert not found.is_alive
    board.lock_fd = os.open(board.path / "lock", os.O_RDWR)


def test_dropping_a_child_removes_its_files(board: Board) -> None:
    slot = board.new_slot(1, 0)
    fd = board.stacks_file(1)
    assert board.slot(1) is slot

    board.drop(1)

    assert sorted(os.listdir(board.path)) == ["lock", "master"]
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)


def test_removing_a_board_leaves_nothing(board: Board, tmp_path: Path) -> None:
    board.new_slot(1, 0)
    board.stacks_file(1)

    board.remove()

    assert list(tmp_path.iterdir()) == []


def test_an_upgraded_master_goes_on_with_its_board(board: Board, tmp_path: Path) -> None:
    board.new_slot(4, 1).count(200, 0, 0)
    lock_fd = os.dup(board.lock_fd)  # what an exec would leave

    again = Board.reopen(board.path, lock_fd=lock_fd, serials=[4], records=2)

    again.slot(4).count(200, 0, 0)
    again.drop(4)
    assert totals(board.path).requests == 2
    again.master.close()
    os.close(lock_fd)


def test_boards_of_dead_masters_are_removed_and_living_ones_kept(
    board: Board, tmp_path: Path
) -> None:
    dead = dead_board(tmp_path)
    (dead / "worker-1").touch()

    assert [found.is_alive for found in find_boards(tmp_path)].count(False) == 1
    assert remove_stale(tmp_path, os.geteuid()) == [dead]

    assert list(tmp_path.iterdir()) == [board.path]


def test_a_folder_that_is_being_made_is_left_alone(tmp_path: Path) -> None:
    fresh = dead_board(tmp_path)
    (fresh / "lock").unlink()
    assert remove_stale(tmp_path, os.geteuid()) == []
    assert find_boards(tmp_path) == []

    os.utime(fresh, (0, 0))

    assert remove_stale(tmp_path, os.geteuid()) == [fresh]


def test_folders_of_others_links_and_strangers_are_never_touched(tmp_path: Path) -> None:
    root, victim = tmp_path / "root", tmp_path / "victim"
    root.mkdir()
    dead_board(tmp_path, "victim")
    (root / "forkmaster-0-1-aa").symlink_to(victim)
    dead_board(root, "forkmaster-0-1-aa.backup")
    (root / "forkmaster-0-1-bb").touch()

    assert remove_stale(root, os.geteuid()) == []
    assert remove_stale(tmp_path / "missing", os.geteuid()) == []
    assert find_boards(root) == []

    assert (victim / "lock").exists()


def test_a_board_of_another_user_is_not_removed(tmp_path: Path) -> None:
    dead_board(tmp_path)

    assert remove_stale(tmp_path, os.geteuid() + 1) == []


def test_a_lock_that_cannot_be_judged_counts_as_held(tmp_path: Path) -> None:
    folder = dead_board(tmp_path)
    (folder / "lock").unlink()
    (folder / "lock").symlink_to("/dev/null")

    assert remove_stale(tmp_path, os.geteuid()) == []
    assert find_boards(tmp_path) == []


def test_without_shared_memory_the_board_is_made_elsewhere_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(board_module, "SHARED_MEMORY", tmp_path / "missing")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    with caplog.at_level(logging.WARNING, "forkmaster.error"):
        made = Board.create(None, records=1)

    assert made.path.parent == tmp_path
    assert "missing: No such file or directory; it is made in" in caplog.text
    made.remove()


def test_a_board_is_made_in_shared_memory_if_there_is_some(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(board_module, "SHARED_MEMORY", tmp_path)

    made = Board.create(None, records=1)

    assert made.path.parent == tmp_path
    made.remove()


def test_a_place_that_was_asked_for_and_is_missing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Board.create(tmp_path / "missing", records=1)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small tmpfs")
def test_a_full_place_fails_whole(tmp_path: Path) -> None:
    if os.system(f"mount -t tmpfs -o size=4k tmpfs {tmp_path} 2>/dev/null") != 0:
        pytest.skip("this machine does not let us mount")
    try:
        (tmp_path / "filler").write_bytes(b"x" * 4096)
        with pytest.raises(OSError, match="No space left"):
            Board.create(tmp_path, records=1)

        assert [path.name for path in tmp_path.iterdir()] == ["filler"]
    finally:
        os.system(f"umount {tmp_path}")


def test_a_place_without_locks_fails_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(fd: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)

    with pytest.raises(OSError, match="No locks available"):
        Board.create(tmp_path, records=1)

    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_vanishes_under_the_look_is_not_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = dead_board(tmp_path)
    (folder / "lock").unlink()

    def removed_by_somebody(path: Path) -> bool:
        shutil.rmtree(folder)
        raise FileNotFoundError

    monkeypatch.setattr(board_module, "is_held", removed_by_somebody)

    assert remove_stale(tmp_path, os.geteuid()) == []

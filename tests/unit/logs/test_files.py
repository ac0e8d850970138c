"""A descriptor to append to that never fails, and counts what it lost."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from forkmaster.errors import ForkmasterError
from forkmaster.logs import files
from forkmaster.logs.files import LogFile


def test_lines_of_many_processes_do_not_mix(tmp_path: Path) -> None:
    log = LogFile.open(tmp_path / "log")
    pids = []
    for letter in b"abcd":
        pid = os.fork()
        if pid == 0:
            for _ in range(200):
                log.write(bytes([letter]) * 999 + b"\n")
            os._exit(0)
        pids.append(pid)
    for pid in pids:
        os.waitpid(pid, 0)

    lines = (tmp_path / "log").read_bytes().splitlines()

    assert len(lines) == 800
    assert all(line == line[:1] * 999 for line in lines)
    log.close()


def test_what_was_there_is_kept(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(b"before\n")

    log = LogFile.open(tmp_path / "log")
    log.write(b"after\n")

    assert (tmp_path / "log").read_bytes() == b"before\nafter\n"
    log.close()


def test_lines_that_are_held_go_out_together(tmp_path: Path) -> None:
    log = LogFile.open(tmp_path / "log")

    log.write_held()
    hold = log.line_writer(hold=True)
    hold("one\n")
    hold("two \udcff\n")
    assert (tmp_path / "log").read_bytes() == b""
    log.write_held()
    log.write_held()
    log.line_writer(hold=False)("three\n")

    assert (tmp_path / "log").read_bytes() == b"one\ntwo \\udcff\nthree\n"
    log.close()


def test_every_line_that_was_held_and_lost_counts() -> None:
    log = LogFile.open(Path("/dev/full"))

    log.held += ["one\n", "two\n"]
    log.write_held()

    assert log.line_writer(hold=True) == log.write_text
    assert log.lost == 2
    log.close()


def test_after_a_rotation_lines_go_to_the_new_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    log = LogFile.open(Path("log"))
    number = log.fd
    log.write(b"one\n")
    os.rename("log", "log.1")
    log.write(b"two\n")
    monkeypatch.chdir("/")

    log.reopen()
    log.write(b"three\n")

    assert (tmp_path / "log.1").read_bytes() == b"one\ntwo\n"
    assert (tmp_path / "log").read_bytes() == b"three\n"
    assert log.fd == number
    assert not os.get_inheritable(log.fd)
    log.close()


def test_a_file_that_cannot_be_opened_is_named(tmp_path: Path) -> None:
    with pytest.raises(ForkmasterError, match=r"cannot open log file .*/log: No such file or dir"):
        LogFile.open(tmp_path / "missing" / "log")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_a_file_is_given_to_who_will_reopen_it(tmp_path: Path) -> None:
    log = LogFile.open(tmp_path / "log", owner=(65534, -1))

    assert (tmp_path / "log").stat().st_uid == 65534
    log.close()


def test_a_full_disk_costs_lines_and_nothing_else() -> None:
    log = LogFile.open(Path("/dev/full"))

    log.write(b"one\n")
    log.write(b"two\n")

    assert log.lost == 2
    log.close()


def test_a_reader_that_is_gone_costs_lines_and_nothing_else() -> None:
    read_fd, write_fd = os.pipe()
    log = LogFile(write_fd, None)
    os.close(read_fd)

    log.write(b"one\n")

    assert log.lost == 1
    log.close()


def test_a_reader_that_does_not_read_is_waited_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "STALL", 10)
    read_fd, write_fd = os.pipe()
    log = LogFile(write_fd, None)
    line = b"x" * 1023 + b"\n"
    while not log.lost:
        log.write(line)

    monkeypatch.setattr(files, "STALL", 60_000)  # would be the test's time limit
    log.write(line)
    assert log.lost == 2

    while len(os.read(read_fd, 65536)) == 65536:
        pass
    log.write(line)

    assert log.lost == 2
    assert os.read(read_fd, 65536).endswith(line)
    os.close(read_fd)
    log.close()


class InPieces:
    """os, on a disk that takes seven bytes at a time."""

    def __init__(self) -> None:
        self.taken = b""

    def write(self, fd: int, data: bytes) -> int:
        self.taken += data[:7]
        return len(data[:7])


def test_a_line_that_is_taken_in_pieces_is_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = LogFile.open(tmp_path / "log")
    disk = InPieces()

    with monkeypatch.context() as patched:
        patched.setattr(files, "os", disk)
        log.write(b"a line of some length\n")

    assert disk.taken == b"a line of some length\n"
    log.close()


def test_standard_output_is_copied(tmp_path: Path) -> None:
    read_fd, write_fd = os.pipe()

    log = LogFile.standard(write_fd)
    os.close(write_fd)  # as when it is replaced
    log.write(b"still\n")
    log.reopen()

    assert os.read(read_fd, 99) == b"still\n"
    os.close(read_fd)
    log.close()


def test_a_server_started_without_standard_output_writes_to_nobody() -> None:
    log = LogFile.standard(9999)

    log.write(b"hello\n")

    assert log.lost == 0
    log.close()

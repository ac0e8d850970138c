"""The notice on the board, written by one process and read by others."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from forkmaster.board.notice import NAME, Death, Listening, Notice, Outcome, read_notice

NOTICE = Notice(
    version="1",
    python="3.13",
    app="shop.wsgi",
    file="/etc/shop.toml",
    started=1000.5,
    state="serving",
    started_up=True,
    generation=2,
    wanted=3,
    needed=1,
    listeners=(Listening("127.0.0.1:8000", 7), Listening("unix:/run/shop.sock", 8)),
    monitor=(Listening("127.0.0.1:8001", 9),),
    outcome=Outcome("committed", 2, "", 1001.0),
    outcomes={"committed": 2},
    spawned=9,
    incidents="/dev/shm/forkmaster-0-1-a/incidents",
    deaths=(Death(3, 4711, "requested", "replaced; exited with status 0", 1001.0),),
)


@pytest.mark.parametrize("notice", [NOTICE, replace(NOTICE, outcome=None, deaths=())])
def test_a_notice_is_read_as_it_was_written(tmp_path: Path, notice: Notice) -> None:
    notice.write(tmp_path)

    assert read_notice(tmp_path) == notice
    assert (tmp_path / NAME).stat().st_mode & 0o777 == 0o600


def test_the_next_one_takes_its_place(tmp_path: Path) -> None:
    NOTICE.write(tmp_path)
    replace(NOTICE, state="stopping").write(tmp_path)

    found = read_notice(tmp_path)

    assert found is not None
    assert found.state == "stopping"
    assert [path.name for path in tmp_path.iterdir()] == [NAME]


def test_a_group_may_be_let_in(tmp_path: Path) -> None:
    NOTICE.write(tmp_path, os.getgid())

    assert (tmp_path / NAME).stat().st_mode & 0o777 == 0o640


def test_no_notice_and_no_board(tmp_path: Path) -> None:
    assert read_notice(tmp_path) is None
    with pytest.raises(FileNotFoundError):
        read_notice(tmp_path / "gone")


def test_what_a_newer_master_adds_is_left_out(tmp_path: Path) -> None:
    NOTICE.write(tmp_path)
    found = json.loads((tmp_path / NAME).read_text())
    (tmp_path / NAME).write_text(json.dumps({**found, "mood": "good"}))

    assert read_notice(tmp_path) == NOTICE

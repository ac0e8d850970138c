"""The folder of the application's metrics."""

from __future__ import annotations

import os
from pathlib import Path

from forkmaster.board import app_metrics


def test_the_folder_is_its_owners_alone_and_stays(tmp_path: Path) -> None:
    app_metrics.prepare(tmp_path, os.geteuid(), os.getegid())
    (tmp_path / "metrics" / "counter_1.db").touch()

    app_metrics.prepare(tmp_path, os.geteuid(), os.getegid())

    assert (tmp_path / "metrics").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "metrics" / "counter_1.db").exists()


def test_of_the_dead_only_what_was_true_while_they_lived_is_removed(tmp_path: Path) -> None:
    app_metrics.prepare(tmp_path, os.geteuid(), os.getegid())
    folder = tmp_path / "metrics"
    names = ("counter_1.db", "gauge_sum_1.db", "gauge_livesum_1.db", "gauge_liveall_11.db")
    for name in names:
        (folder / name).touch()

    app_metrics.mark_dead(tmp_path, 1)

    assert {path.name for path in folder.iterdir()} == set(names) - {"gauge_livesum_1.db"}


def test_without_the_folder_there_is_nothing_to_do(tmp_path: Path) -> None:
    app_metrics.mark_dead(tmp_path, 1)

    assert list(tmp_path.iterdir()) == []

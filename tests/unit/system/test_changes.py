"""Changes of files are noticed, each once, and those in which nobody edits are not looked for."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from importlib.util import cache_from_source
from pathlib import Path

import pytest

from forkmaster.system import changes
from forkmaster.system.changes import Places, Snapshot, Wait, Watch


def files(*names: str, of: Path) -> None:
    for name in names:
        path = of / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")


def seen(places: Places, folder: Path) -> list[str]:
    return sorted(os.path.relpath(path, folder) for path in Snapshot.take(places).stamps)


def test_modules_at_any_depth_are_watched_and_other_files_are_not(tmp_path: Path) -> None:
    files("a.py", "blog/b.py", "blog/deep/c.py", "blog/page.html", "d.pyc", of=tmp_path)

    assert seen(Places((str(tmp_path),)), tmp_path) == ["a.py", "blog/b.py", "blog/deep/c.py"]


def test_folders_in_which_nobody_edits_are_left_out(tmp_path: Path) -> None:
    files(".git/a.py", "__pycache__/b.py", "node_modules/x/c.py", "env/lib/d.py", of=tmp_path)
    files("env/pyvenv.cfg", "lib/site-packages/e.py", "mine.py", of=tmp_path)

    assert seen(Places((str(tmp_path),)), tmp_path) == ["mine.py"]


def test_a_hidden_folder_can_be_asked_for(tmp_path: Path) -> None:
    files(".project/a.py", of=tmp_path)

    assert seen(Places((str(tmp_path / ".project"),)), tmp_path) == [".project/a.py"]


def test_files_folders_and_patterns_can_be_named(tmp_path: Path) -> None:
    files(
        "t/one.html", "t/deep/two.html", "t/three.txt", "data/four.csv", "settings.ini", of=tmp_path
    )
    patterns = ("t/**/*.html", "data", "settings.ini", "not/there.ini", "*.nothing")

    places = Places(patterns=tuple(str(tmp_path / pattern) for pattern in patterns))

    assert seen(places, tmp_path) == [
        "data/four.csv",
        "settings.ini",
        "t/deep/two.html",
        "t/one.html",
    ]


def test_a_folder_that_is_not_there_has_no_files(tmp_path: Path) -> None:
    assert seen(Places((str(tmp_path / "nowhere"),)), tmp_path) == []


def test_a_symbolic_link_to_a_folder_above_is_no_endless_loop(tmp_path: Path) -> None:
    files("a.py", of=tmp_path)
    (tmp_path / "loop").symlink_to(tmp_path)

    assert seen(Places((str(tmp_path),)), tmp_path) == ["a.py"]


class Edits:
    """Stands in for the wait: makes the next of these edits, and ends the test after the last."""

    def __init__(self, *edits: Callable[[], object]) -> None:
        self.edits = list(edits)

    def __call__(self, folders: Iterable[str], took: float) -> None:
        if not self.edits:
            raise StopWatchingError
        self.edits.pop(0)()


class StopWatchingError(Exception):
    pass


def changed(folder: Path, *edits: Callable[[], object]) -> list[list[str]]:
    """What `watch` tells of these edits."""
    told = []
    try:
        for paths in Watch(Places((str(folder),)), Edits(*edits)):
            told.append([os.path.relpath(path, folder) for path in paths])
    except StopWatchingError:
        pass
    return told


def test_a_write_a_new_file_and_a_removal_are_changes(tmp_path: Path) -> None:
    files("a.py", "b.py", of=tmp_path)

    told = changed(
        tmp_path,
        lambda: (tmp_path / "a.py").write_text("x = 1"),
        lambda: files("new/c.py", of=tmp_path),
        (tmp_path / "b.py").unlink,
    )

    assert told == [["a.py"], ["new/c.py"], ["b.py"]]


def test_a_file_that_is_replaced_by_one_of_its_size_and_age_is_a_change(tmp_path: Path) -> None:
    files("a.py", "b", of=tmp_path)
    os.utime(tmp_path / "a.py", (1, 1))
    os.utime(tmp_path / "b", (1, 1))

    assert changed(tmp_path, lambda: (tmp_path / "b").rename(tmp_path / "a.py")) == [["a.py"]]


def test_files_that_change_together_are_told_together(tmp_path: Path) -> None:
    told = changed(tmp_path, lambda: files("b.py", "a.py", of=tmp_path))

    assert told == [["a.py", "b.py"]]


def test_nothing_is_told_of_what_changes_elsewhere(tmp_path: Path) -> None:
    files("a.py", of=tmp_path)

    assert changed(tmp_path, lambda: files("db.sqlite3", ".git/index.py", of=tmp_path)) == []


def test_what_python_has_compiled_of_a_changed_module_is_removed(tmp_path: Path) -> None:
    source = tmp_path / "a.py"
    source.write_text("x = 1")
    compiled = Path(cache_from_source(str(source)))
    compiled.parent.mkdir()
    compiled.write_bytes(b"")

    assert changed(tmp_path, lambda: source.write_text("x = 2")) == [["a.py"]]
    assert not compiled.exists()


@pytest.mark.parametrize("engine", [changes.poll, changes.Inotify()], ids=["poll", "inotify"])
def test_each_engine_returns_after_a_change(engine: Wait, tmp_path: Path) -> None:
    files("a.py", of=tmp_path)

    def wait(folders: Iterable[str], took: float) -> None:
        (tmp_path / "a.py").write_text("x = 1")
        engine(folders, took)

    watch = Watch(Places((str(tmp_path),)), wait)

    assert next(iter(watch)) == [str(tmp_path / "a.py")]


def test_what_was_not_told_yet_can_be_asked_for(tmp_path: Path) -> None:
    watch = Watch(Places((str(tmp_path),)), changes.poll)
    before = watch.untold()
    files("a.py", of=tmp_path)

    assert before == []
    assert watch.untold() == [str(tmp_path / "a.py")]
    told = iter(watch)
    next(told)
    assert watch.untold() == [str(tmp_path / "a.py")], "whoever was told may not have heard it"

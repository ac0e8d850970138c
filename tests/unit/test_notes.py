"""docs/notes.md has every row, and every test that it names exists."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
ROWS = re.findall(r"^\| (\d+) \| .+ \| (.+) \|$", (ROOT / "docs" / "notes.md").read_text(), re.M)


def test_every_row_is_there() -> None:
    assert [int(number) for number, _ in ROWS] == list(range(1, 56))


def test_a_row_is_done_by_a_test_or_says_why_not() -> None:
    assert [
        number for number, by in ROWS if not re.match("`(tests/|make )|documentation: ", by)
    ] == []


def test_the_tests_exist() -> None:
    named = [each for _, by in ROWS for each in re.findall(r"`(tests/[^`]+)`", by)]

    missing = []
    for each in named:
        path, _, name = each.partition("::")
        if not (ROOT / path).is_file() or f"def {name}" not in (ROOT / path).read_text():
            missing.append(each)
    assert named
    assert missing == []

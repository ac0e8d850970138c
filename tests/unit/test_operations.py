"""docs/operations.md knows every warning and error that the code writes."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
LEVELS = ("warning", "error", "critical", "exception")
PLACEHOLDER = re.compile(r"%[-+ 0-9.]*[a-zA-Z]")


def test_every_warning_and_error_is_on_the_page() -> None:
    page = (ROOT / "docs" / "operations.md").read_text()
    lines = set(re.findall(r"^\| `(.+?)` \|", page, re.M))

    missing = sorted(f"{where}: {line}" for where, line in logged() if line not in lines)

    assert not missing, "add these to docs/operations.md:\n" + "\n".join(missing)


def test_the_page_has_no_line_that_nobody_writes() -> None:
    page = (ROOT / "docs" / "operations.md").read_text()
    lines = set(re.findall(r"^\| `(.+?)` \|", page, re.M))

    assert lines - {line for _, line in logged()} == set()


def logged() -> Iterator[tuple[str, str]]:
    """Where each line is written, and the line with … for what changes."""
    for path in (ROOT / "forkmaster").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.Call(
                    func=ast.Attribute(value=ast.Name(id=name), attr=attr),
                    args=[ast.Constant(value=str(text)), *_],
                ) if attr in LEVELS and name.endswith("log"):
                    # A traceback follows below, and is no part of the line.
                    line = PLACEHOLDER.sub("…", text).replace("\n…", "…")
                    if re.search("[a-z]{2}", line):
                        yield f"{path.relative_to(ROOT)}:{node.lineno}", line

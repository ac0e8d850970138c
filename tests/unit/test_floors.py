"""Imports go down the floors of docs/design.md, section 2, or stay inside one folder."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import forkmaster

PACKAGE = Path(forkmaster.__file__).parent
FROM_THE_GROUND = (
    "settings_dict",
    "__init__ errors addresses typing",
    "board system config",
    "http logs",
    "worker monitor",
    "master django",
    "cli",
    "programs gunicorn",
    "__main__",
)
FLOORS = {name: floor for floor, names in enumerate(FROM_THE_GROUND) for name in names.split()}
MODULES = sorted(PACKAGE.rglob("*.py"))


def folder_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports_of(path: Path) -> Iterator[str]:
    """The folders of forkmaster that a module imports from, also where only a checker looks."""
    for node in ast.walk(ast.parse(path.read_text())):
        match node:
            case ast.Import(names=names):
                dotted = [alias.name for alias in names]
            case ast.ImportFrom(module="forkmaster", names=names):
                dotted = [f"forkmaster.{alias.name}" for alias in names]
            case ast.ImportFrom(module=str(module), level=0):
                dotted = [module]
            case ast.ImportFrom():
                raise AssertionError(f"{path}: a relative import")
            case _:
                continue
        for parts in (name.split(".") for name in dotted):
            if parts[0] == "forkmaster":
                yield parts[1] if len(parts) > 1 and parts[1] in FLOORS else "__init__"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_only_go_down(path: Path) -> None:
    here = folder_of(path)

    wrong = {there for there in imports_of(path) if there != here and FLOORS[there] >= FLOORS[here]}

    assert not wrong, f"{here} is on floor {FLOORS[here]} and may not import {', '.join(wrong)}"

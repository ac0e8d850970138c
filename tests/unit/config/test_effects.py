"""A setting that is said to work is read somewhere, and one that is not said to is not.

Whoever implements a setting flips its marker in forkmaster/config/sections/, and this test is
what reminds them.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import forkmaster
from forkmaster.config.settings import Effect
from forkmaster.config.table import SETTINGS

PACKAGE = Path(forkmaster.__file__).parent
READERS = ("cli", "http", "logs", "master", "monitor", "system", "worker")

# Read while the configuration is put together, and nowhere afterwards.
WITHIN = {"wsgi_app", "config", "worker_class"}


def _read() -> set[str]:
    """The settings that the code outside config/ reads from a Config."""
    found = set(WITHIN)
    for path in (path for folder in READERS for path in (PACKAGE / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.Attribute(value=ast.Name("config"), attr=name):
                    found.add(name)
                case ast.Attribute(value=ast.Attribute(attr="config"), attr=name):
                    found.add(name)
                # Hooks are called by their names.
                case ast.Constant(str(name)) if (
                    getattr(SETTINGS.get(name), "section", "") == "Hooks"
                ):
                    found.add(name)
    return found


READ = _read()


@pytest.mark.parametrize("name", SETTINGS)
def test_the_marker_of_a_setting_is_true(name: str) -> None:
    effect = SETTINGS[name].effect

    if name in READ:
        assert effect is Effect.WORKS, "it is read: say in its declaration that it works"
    else:
        assert effect is not Effect.WORKS, "nothing reads it: say so in its declaration"

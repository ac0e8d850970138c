"""Loads configurations the way the command line does, and leaves no import behind."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from forkmaster.config.origins import Given, Origin
from forkmaster.config.sources import Loaded, load

Load = Callable[..., Loaded]

STOOD_IN = ("gunicorn", "uvicorn_worker", "uvicorn.workers")


@pytest.fixture(autouse=True)
def _imports_of_its_own() -> Iterator[None]:
    """A configuration file imports things; the next test must not find them."""
    path, finders, modules = sys.path[:], sys.meta_path[:], set(sys.modules)
    real = {name: sys.modules.pop(name) for name in list(sys.modules) if _stood_in(name)}
    yield
    sys.path[:], sys.meta_path[:] = path, finders
    for name in set(sys.modules) - modules:
        # Not the rest: hypothesis and the like load parts of themselves as they go.
        file = getattr(sys.modules[name], "__file__", None) or ""
        if _stood_in(name) or name == "__config__" or "pytest-of-" in file:
            del sys.modules[name]
    sys.modules.update(real)
    sys.path_importer_cache.clear()


def _stood_in(name: str) -> bool:
    return name in STOOD_IN or name.startswith("gunicorn.")


@pytest.fixture
def load_file(tmp_path: Path) -> Load:
    """Loads a configuration file with this text; options become the command line."""

    def loaded(
        text: str = "",
        *,
        name: str = "gunicorn.py",
        environ: Mapping[str, str] | None = None,
        **options: object,
    ) -> Loaded:
        (tmp_path / name).write_text(text)
        line = [
            Given(option, value, Origin("command line", "--" + option.replace("_", "-")))
            for option, value in {"config": name, **options}.items()
        ]
        return load(line, environ=environ or {}, folder=tmp_path)

    return loaded

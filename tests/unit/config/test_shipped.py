"""The configuration files in conf/ are ones that forkmaster takes."""

from __future__ import annotations

import re
from pathlib import Path

from forkmaster.config.sources import load
from forkmaster.config.table import SETTINGS, Config

CONF = Path(__file__).parents[3] / "conf"
COMMENTED = re.compile(r"^#(\w+) = (.*)$", re.MULTILINE)


def test_the_toml_file_as_it_is_sets_nothing(tmp_path: Path) -> None:
    path = tmp_path / "forkmaster.toml"
    path.write_bytes((CONF / "forkmaster.toml").read_bytes())

    loaded = load(folder=tmp_path, environ={})

    assert loaded.warnings == []
    assert {each.source for name, each in loaded.origins.items() if name != "config"} == {"default"}


def test_the_toml_file_shows_the_defaults(tmp_path: Path) -> None:
    text = (CONF / "forkmaster.toml").read_text()
    names = [name for name, _ in COMMENTED.findall(text)]
    by_default = [
        f"{name} = {value}"
        for name, value in COMMENTED.findall(text)
        # The others are shown with an example, because not to be set is their default.
        if SETTINGS[name].kind.show(SETTINGS[name].default) is not None
    ]
    path = tmp_path / "forkmaster.toml"
    path.write_text("\n".join(by_default))

    loaded = load(folder=tmp_path, environ={})

    assert len(names) == len(set(names)) > 60
    assert loaded.warnings == []
    for line in by_default:
        name = line.partition(" ")[0]
        assert getattr(loaded.config, name) == getattr(Config(), name), name

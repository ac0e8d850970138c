"""What the documentation says, checked against the code."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from forkmaster.master.escalation import ESCALATION
from forkmaster.master.master import SIGNALS
from forkmaster.master.policy import State

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [*DOCS.glob("**/*.md"), ROOT / "README.md", ROOT / "CHANGELOG.md"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:|#)([^)#\s]+)", page.read_text())

    assert [link for link in links if not (page.parent / link).exists()] == []


def test_every_page_is_on_the_site() -> None:
    site = (ROOT / "zensical.toml").read_text()
    nav = re.findall(r'= "([^"]+\.md)"', site)

    assert sorted(nav) == sorted(path.name for path in DOCS.glob("*.md"))


def test_the_house_of_the_design_page_is_the_one_that_stands() -> None:
    house = (DOCS / "design.md").read_text()
    house = house[house.index("```\nforkmaster/") : house.index("Rules that keep it honest")]

    named = set(re.findall(r"\b([a-z_]+\.py|[a-z]+/)", house)) - {"forkmaster/"}
    exist = {path.name for path in (ROOT / "forkmaster").rglob("*.py")}
    exist |= {f"{path.name}/" for path in (ROOT / "forkmaster").rglob("*") if path.is_dir()}

    assert named - exist == set()
    wings = {f"{path.name}/" for path in (ROOT / "forkmaster").iterdir() if path.is_dir()}
    assert wings - named - {"__pycache__/"} == set()


def test_every_signal_of_the_master_is_documented() -> None:
    table = (DOCS / "signals.md").read_text()

    assert [each.name for each in SIGNALS if each.name.removeprefix("SIG") not in table] == []


def test_the_ladder_is_documented_as_it_is() -> None:
    rows = re.findall(r"^\| (\w+) \|.*\|(.*)\|$", (DOCS / "signals.md").read_text(), re.M)
    told = {state.upper(): what for state, what in rows}

    for state, (signal, _) in ESCALATION.items():
        assert signal.name in told[state.name]
    assert set(State.__members__) <= set(told)

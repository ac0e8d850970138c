"""Figures of several servers, and the table that compares them."""

from __future__ import annotations

from dataclasses import dataclass, field
from statistics import median

Figure = float | tuple[float, ...]


@dataclass
class Table:
    """One comparison, in one unit or several."""

    title: str
    about: str
    units: tuple[str, ...]
    figures: dict[str, list[tuple[float, ...]]] = field(default_factory=dict)
    """Of each server, one a round, each with a number for every unit."""
    more_is_better: bool = True

    def add(self, server: str, figure: Figure) -> None:
        numbers = figure if isinstance(figure, tuple) else (figure,)
        assert len(numbers) == len(self.units)
        self.figures.setdefault(server, []).append(numbers)

    def medians(self) -> dict[str, tuple[float, ...]]:
        return {
            server: tuple(median(column) for column in zip(*rounds, strict=True))
            for server, rounds in self.figures.items()
        }


def markdown(table: Table) -> str:
    """The table, with the ratio of forkmaster's figures to the other ones."""
    medians = table.medians()
    # Not simply the first: that one may have failed in the first round.
    us = next((each for each in medians if each.startswith("forkmaster")), next(iter(medians)))
    titles = "".join(f" {unit} | forkmaster is |" for unit in table.units)
    lines = [
        f"### {table.title}",
        "",
        table.about,
        "",
        f"| server |{titles}",
        "|---|" + "--:|--:|" * len(table.units),
    ]
    for server, figures in medians.items():
        cells = []
        for ours, figure in zip(medians[us], figures, strict=True):
            ratio = "" if server == us or not figure else f"{ours / figure:.2f} times"
            cells.append(f" {_shown(figure)} | {ratio} |")
        lines.append(f"| {server} |{''.join(cells)}")
    return "\n".join([*lines, ""])


def _shown(figure: float) -> str:
    return f"{figure:,.0f}" if figure >= 1000 else f"{figure:.4g}"

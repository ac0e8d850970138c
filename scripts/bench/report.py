"""Figures of several servers, and the table that compares them."""

from __future__ import annotations

from dataclasses import dataclass, field
from statistics import median


@dataclass
class Table:
    """One comparison."""

    title: str
    about: str
    unit: str
    figures: dict[str, list[float]] = field(default_factory=dict)
    """Of each server, one a round."""
    more_is_better: bool = True

    def add(self, server: str, figure: float) -> None:
        self.figures.setdefault(server, []).append(figure)

    def medians(self) -> dict[str, float]:
        return {server: median(figures) for server, figures in self.figures.items() if figures}


def markdown(table: Table) -> str:
    """The table, with the ratio of forkmaster's figure to each other one."""
    medians = table.medians()
    # Not simply the first: that one may have failed in the first round.
    ours = medians[
        next((each for each in medians if each.startswith("forkmaster")), next(iter(medians)))
    ]
    lines = [
        f"### {table.title}",
        "",
        table.about,
        "",
        f"| server | {table.unit} | forkmaster is |",
        "|---|--:|--:|",
    ]
    for server, figure in medians.items():
        ratio = f"{ours / figure:.2f} times" if figure else ""
        shown = f"{figure:,.0f}" if figure >= 1000 else f"{figure:.4g}"
        lines.append(f"| {server} | {shown} | {'' if figure is ours else ratio} |")
    return "\n".join([*lines, ""])

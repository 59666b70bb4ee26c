"""What a part of the validation hands over: sentences, tables and pictures, all made from the numbers of the run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from benchmarks.common import Verdict

# Told apart by readers who see no colours too: they differ in lightness, and lines in their strokes.
BLUE, RED, GREEN = "#1b4f72", "#c8553d", "#7cb342"


@dataclass(frozen=True)
class Table:
    """A table of the page; every cell is a text already."""

    caption: str
    header: tuple[str, ...]
    rows: list[tuple[str, ...]]

    def markdown(self) -> str:
        lines = [f"*{self.caption}*", ""]
        lines += [f"| {' | '.join(row)} |" for row in (self.header, ("---",) * len(self.header), *self.rows)]
        return "\n".join(lines)


@dataclass(frozen=True)
class Figure:
    """A picture of the page: `draw` gets the axes and the data, `alt` says in words what is to be seen."""

    name: str
    alt: str
    draw: Callable[[Any, Any], None]
    data: Any
    panels: int = 1


@dataclass(frozen=True)
class Part:
    """One of the five results: the question, an answer for readers who are no statisticians, and how it was found."""

    name: str
    title: str
    question: str
    answer: str
    method: str
    facts: dict[str, Any]
    verdicts: list[Verdict]
    tables: list[Table] = field(default_factory=list)
    figures: list[Figure] = field(default_factory=list)


def percent(share: float, decimals: int = 1) -> str:
    """0.934 as "93.4 %"."""
    return f"{100 * share:.{decimals}f} %"


def plus_minus(value: float, error: float, decimals: int = 3) -> str:
    """A number with its standard error."""
    return f"{value:.{decimals}f} ± {error:.{decimals}f}"

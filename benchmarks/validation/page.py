"""docs/validation.md and its pictures, from the numbers of a run. Nothing on the page is typed by hand."""

from __future__ import annotations

import platform
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

from benchmarks.validation.report import Figure, Part

DOCS: Final = Path(__file__).parents[2] / "docs"
PACKAGES: Final = ("numpy", "scipy", "scikit-learn", "torch", "opacus", "SurvSet")

HEAD: Final = """\
# Validation

Can the numbers on the boards be believed? This page shows what the arena's own scoring makes of cases whose answer is
known: where nothing leaks, where a leak of known size was planted, where one entry is truly better, where real models
are known to differ, and where somebody cheats. Each part begins with a paragraph for readers who are no statisticians;
figures and method follow. A *leak* of 0 % means that nobody can tell who was in the data, one of 100 % that everybody
is known.
"""

AGAIN: Final = """\
## Run it again

    make validation

It installs an optional extra and runs `python -m benchmarks validation`, which plays all five parts with fixed seeds,
each in processes of its own, writes this page and its pictures, and prints a verdict for each line; its status is 1 if
one is missed. `python -m benchmarks --quick validation` takes seconds: tiny sizes, no real data, nothing written.
SUPPORT2 comes with the package SurvSet (GPL-3, fetched by pip, never part of this project). No container takes part.
"""


def missing() -> str:
    """What pictures need and do not find: a sentence, empty if all is there."""
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        return "Pictures are drawn by matplotlib, an optional extra: pip install -e '.[validation]'"
    return ""


def write(parts: list[Part], seconds: dict[str, float], docs: Path = DOCS) -> None:
    """Writes the page and its pictures into `docs`."""
    (docs / "validation").mkdir(parents=True, exist_ok=True)
    for part in parts:
        for figure in part.figures:
            _paint(figure, docs / "validation" / f"{figure.name}.svg")
    (docs / "validation.md").write_text(text(parts, seconds), encoding="utf-8")


def text(parts: list[Part], seconds: dict[str, float]) -> str:
    """The page."""
    verdicts = [verdict for part in parts for verdict in part.verdicts if verdict.at_most is not None]
    met = sum(verdict.met for verdict in verdicts)
    versions = ", ".join(f"{name} {found}" for name in PACKAGES if (found := _version(name)))
    made = (
        f"Made on {date.today():%d %B %Y} with Python {platform.python_version()}, {versions}. "
        f"{met} of {len(verdicts)} lines were met. "
        f"Processor time: {sum(seconds.values()) / 60:.0f} minutes on one core ("
        + ", ".join(f"{part.name} {seconds[part.name]:.0f} s" for part in parts)
        + ")."
    )
    sections = [_section(number, part) for number, part in enumerate(parts, start=1)]
    return "\n".join([HEAD, made, "", *sections, AGAIN])


def _section(number: int, part: Part) -> str:
    blocks = [f"## {number}. {part.title}", f"**{part.question}**", part.answer]
    blocks += [f"![{figure.alt}](validation/{figure.name}.svg)" for figure in part.figures]
    blocks += [table.markdown() for table in part.tables]
    blocks.append(f"How: {part.method}")
    blocks.append("\n".join(f"* {_line(verdict)}" for verdict in part.verdicts))
    return "\n\n".join(blocks) + "\n"


def _line(verdict: Any) -> str:
    said = " ".join(str(verdict).split())
    return said.replace("met ", "**met** ", 1) if said.startswith("met") else said.replace("MISSED", "**MISSED**", 1)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _paint(figure: Figure, path: Path) -> None:
    """Draws a picture as SVG: text stays text, the background is white, and the same numbers give the same file."""
    import matplotlib

    matplotlib.use("svg")
    import matplotlib.pyplot as plt

    settings: dict[str, Any] = {"svg.fonttype": "none", "svg.hashsalt": figure.name, "font.size": 10}
    with matplotlib.rc_context(settings):
        drawing, axes = plt.subplots(1, figure.panels, figsize=(max(6.5, 3.4 * figure.panels), 3.8), squeeze=False)
        for axis in axes[0]:
            axis.spines[["top", "right"]].set_visible(False)
        figure.draw(list(axes[0]), figure.data)
        drawing.tight_layout()
        drawing.savefig(path, format="svg", facecolor="white", metadata={"Date": None, "Title": figure.alt})
        plt.close(drawing)

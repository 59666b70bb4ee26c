"""Anonymised tables in Python: writing cells that are intervals, sets or empty, reading them, guessing from them.

A cell is a value (`34`, `female`), an interval (`[20, 30)`, `(20, 30]`: round brackets leave the bound out), a set
(`{Asian, white}`, quoted as in CSV where a category holds a comma, a quotation mark or a brace), or empty. In the
release that attacks get all columns are texts. `column` is always a description from task.json.
"""

import csv
import json
import re
from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
from anomed_task import OUTPUT, Task

# A guessed number counts as right when it is at most this share of the truth away from it.
TOLERANCE = 0.05

Column = dict[str, Any]


def save_release(task: Task, table: pd.DataFrame, scheme: str) -> None:
    """Writes a defense's two files. `scheme`: "same", "generalization" or "microaggregation"; attacks get to see it."""
    task.save("release", table)
    (OUTPUT / "scheme.json").write_text(json.dumps({"scheme": scheme}), encoding="utf-8")


def interval(low: float, high: float) -> str:
    """The cell that stands for all numbers from `low` to `high`, both among them."""
    return f"[{low:.10g}, {high:.10g}]"


def choice(labels: Iterable[str]) -> str:
    """The cell that stands for any of these categories."""
    return "{" + ", ".join(quoted(label) for label in labels) + "}"


def quoted(label: str) -> str:
    plain = label == label.strip() and not set(label) & set(',"{}')
    return label if plain else '"' + label.replace('"', '""') + '"'


def spans(cells: pd.Series, column: Column) -> np.ndarray:
    """[rows, 2]: the least and the greatest number that each cell allows; the declared range where it is empty."""
    return by_distinct(cells, lambda text: span(text, column), [column["minimum"], column["maximum"]])


def span(text: str, column: Column) -> list[float]:
    low, high = (float(number) for number in re.findall(r"[-+.\deE]+", text) * (1 if "," in text else 2))
    step = 10.0 ** -column.get("decimals", 0)
    return [low + step * text.startswith("("), high - step * text.endswith(")")]


def shares(cells: pd.Series, column: Column) -> np.ndarray:
    """[rows, categories]: the chance of each declared category if all that a cell allows are alike."""
    categories = column["categories"]
    return by_distinct(cells, lambda text: share(text, categories), [1 / len(categories)] * len(categories))


def share(text: str, categories: list[str]) -> list[float]:
    allowed = [text]
    if text not in categories:
        allowed = [item.strip() if item not in categories else item for item in split(text)]
    return [(category in allowed) / len(allowed) for category in categories]


def split(text: str) -> list[str]:
    return next(csv.reader([text[1:-1].strip()], skipinitialspace=True))


def by_distinct(cells: pd.Series, read: Any, empty: list[float]) -> np.ndarray:
    """Each distinct text is read once."""
    codes, texts = pd.factorize(cells)
    return np.array([*(read(str(text)) for text in texts), empty], dtype=float)[codes]


def expected(table: pd.DataFrame, columns: list[Column]) -> np.ndarray:
    """An anonymised table as `Task.matrix` gives a plain one: intervals as their middle, sets as shares, empty NaN."""
    numbers, indicators = [], []
    for column in columns:
        cells = table[column["name"]]
        if column["type"] == "category":
            indicators.append(np.where(cells.isna().to_numpy()[:, None], 0, shares(cells, column)))
        else:
            numbers.append(np.where(cells.isna(), np.nan, spans(cells, column).mean(axis=1))[:, None])
    return np.hstack([*numbers, *indicators])


def secrets(table: pd.DataFrame, column: Column) -> np.ndarray:
    """What an anonymised table says about one column: numbers (NaN: nothing), or [rows, categories] chances."""
    return expected(table, [column])[:, 0] if column["type"] != "category" else expected(table, [column])


def most_likely(told: np.ndarray, weights: np.ndarray, column: Column) -> Any:
    """The guess that is right for most of the weight, from what `secrets` gave; None where it says nothing."""
    if column["type"] == "category":
        chances = weights @ told
        return column["categories"][int(chances.argmax())] if chances.sum() > 0 else None
    known = ~np.isnan(told) & (weights > 0)
    if not known.any():
        return None
    order = np.argsort(told[known])
    truths, mass = told[known][order], np.concatenate([[0], np.cumsum(weights[known][order])])
    # A guess g is right for truths from g / 1.05 to g / 0.95 (the other way round below 0); the truths are tried.
    ends = np.sort([truths / (1 + TOLERANCE), truths / (1 - TOLERANCE)], axis=0)
    right = mass[np.searchsorted(truths, ends[1], side="right")] - mass[np.searchsorted(truths, ends[0], side="left")]
    # Of guesses that are right equally often the middle one: it bears most error in the rest.
    best = np.flatnonzero(right >= right.max() - 1e-9)
    return float(truths[best[len(best) // 2]])

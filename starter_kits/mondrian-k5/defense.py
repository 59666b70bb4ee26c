"""Mondrian: divides the patients into groups of at least K who cannot be told apart by what others may know of them.

The quasi-identifiers span a space with one patient a point. It is cut in two at the median of the widest column, and so
on, as long as each side keeps K patients; then every quasi-identifier is told as the interval or set that the whole
group shares. All other columns stay as they are (LeFevre, DeWitt, Ramakrishnan, Mondrian Multidimensional K-Anonymity,
ICDE 2006).
"""

import os
from collections.abc import Iterator

import numpy as np
import pandas as pd
from anomed_cells import Column, choice, interval, save_release
from anomed_task import Task, run

# The thing to change first. The image sets it, see the Dockerfile.
K = int(os.environ.get("K", "5"))


def release(task: Task) -> None:
    table = task.table("table")
    known = task.with_role("quasi-identifier")
    points = np.column_stack([coordinates(table, column) for column in known])
    told = {column["name"]: np.full(len(table), None, dtype=object) for column in known}
    for group in groups(points, known):
        for column in known:
            told[column["name"]][group] = cell(table[column["name"]].iloc[group], column)
    save_release(task, table.assign(**told), "generalization")


def coordinates(table: pd.DataFrame, column: Column) -> np.ndarray:
    """The column as numbers: categories as their position, and missing cells below all others."""
    cells = table[column["name"]]
    if column["type"] == "category":
        return pd.Categorical(cells.astype("string"), categories=column["categories"]).codes.astype(float)
    return cells.fillna(column["minimum"] - 1).to_numpy(float)


def groups(points: np.ndarray, known: list[Column]) -> Iterator[np.ndarray]:
    """Positions of the patients of each group."""
    widths = np.maximum(np.ptp(points, axis=0), 1e-9)
    waiting = [np.arange(len(points))]
    while waiting:
        group = waiting.pop()
        spread = np.ptp(points[group], axis=0) / widths
        for column in np.argsort(-spread, kind="stable"):
            left = lower_half(points[group, column], known[column])
            if min(left.sum(), (~left).sum()) >= K:
                waiting += [group[left], group[~left]]
                break
        else:
            yield group


def lower_half(values: np.ndarray, column: Column) -> np.ndarray:
    """Who goes to the left: numbers below the median, or categories that make up about half of the group."""
    if column["type"] != "category":
        middle = np.median(values)
        below, up_to = values < middle, values <= middle
        return below if abs(below.mean() - 0.5) <= abs(up_to.mean() - 0.5) else up_to
    present, counts = np.unique(values, return_counts=True)
    left, size = [], 0
    for place in np.argsort(-counts, kind="stable"):
        if size + counts[place] <= len(values) / 2 or not left:
            left.append(present[place])
            size += counts[place]
    return np.isin(values, left)


def cell(values: pd.Series, column: Column) -> str | None:
    """The cell that a whole group shares; empty as soon as it is for one of them."""
    if values.isna().any():
        return None
    if column["type"] == "category":
        return choice(category for category in column["categories"] if (values == category).any())
    return interval(values.min(), values.max())


if __name__ == "__main__":
    run(release=release)

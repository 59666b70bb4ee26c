"""Microaggregation: patients who are alike form groups of K, and the mean of the group stands in for each of them.

Groups are found by MDAV (maximum distance to average vector): the patient farthest from the average and those nearest
to that one form a group, then the patient farthest from the first and those nearest, and so on (Domingo-Ferrer and
Torra, Ordinal, Continuous and Heterogeneous k-Anonymity Through Microaggregation, 2005, section 2). Both what others
may know of a patient and the secrets become means (categories: the commonest one); all other columns stay as they are.
"""

from collections.abc import Iterator

import numpy as np
import pandas as pd
from anomed_cells import save_release
from anomed_task import Task, run

# The thing to change first: larger groups hide better and blur more.
K = 5


def release(task: Task) -> None:
    table = task.table("table")
    columns = [*task.with_role("quasi-identifier"), *task.with_role("secret")]
    points = task.matrix(table, columns)
    points = (points - np.nanmean(points, axis=0)) / np.maximum(np.nanstd(points, axis=0), 1e-9)
    label = np.empty(len(table), dtype=int)
    for number, group in enumerate(groups(np.nan_to_num(points))):
        label[group] = number
    for column in columns:
        cells = table[column["name"]]
        if column["type"] == "category":
            table[column["name"]] = cells.groupby(label).transform(commonest)
        else:
            means = cells.astype(float).groupby(label).transform("mean")
            table[column["name"]] = means.round(column.get("decimals", 0))
    save_release(task, table, "microaggregation")


def groups(points: np.ndarray) -> Iterator[np.ndarray]:
    """Positions of the patients of each group: K of them, in the last one up to 2 K - 1."""
    left = np.arange(len(points))
    while len(left) >= 2 * K:
        first = farthest(points[left], points[left].mean(axis=0))
        around = [first] if len(left) < 3 * K else [first, farthest(points[left], points[left][first])]
        for centre in points[left][around]:
            nearest = np.argsort(distances(points[left], centre), kind="stable")[:K]
            yield left[nearest]
            left = np.delete(left, nearest)
    yield left


def farthest(points: np.ndarray, centre: np.ndarray) -> int:
    return int(distances(points, centre).argmax())


def distances(points: np.ndarray, centre: np.ndarray) -> np.ndarray:
    return ((points - centre) ** 2).sum(axis=1)


def commonest(cells: pd.Series) -> str | None:
    counts = cells.value_counts()
    return counts.index[0] if len(counts) else None


if __name__ == "__main__":
    run(release=release)

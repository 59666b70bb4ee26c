"""Suspects the records whose values turn up in the release more often than the population would explain.

A laboratory value of 6.83 that three people in a thousand share is in the release once more if one of them was in the
training data, and most generators hand on values as they are. One column says next to nothing; thirty say a lot. The
score sums over the columns how much commoner a record's value is in the release than in `aux`, as logarithms (Homer et
al., Resolving Individuals Contributing Trace Amounts of DNA to Highly Complex Mixtures, PLoS Genetics 2008).
"""

import numpy as np
import pandas as pd
from anomed_task import Task, run

# Counts per thousand to which nothing is given away: else a value that is in one table only would decide alone.
BACKGROUND = 0.5


def attack(task: Task) -> None:
    candidates, release, aux = (task.table(name) for name in ("candidates", "release", "aux"))
    scores = np.zeros(len(candidates))
    for column in task.columns:
        asked = texts(candidates, column)
        there, expected = (shares(texts(table, column)) for table in (release, aux))
        scores += np.log(asked.map(there).fillna(0) + BACKGROUND) - np.log(asked.map(expected).fillna(0) + BACKGROUND)
    task.save("scores", candidates[["row"]].assign(score=scores))


def texts(table: pd.DataFrame, column: dict) -> pd.Series:
    """The cells as texts that are equal where the values are; a missing one is a value too."""
    cells = table[column["name"]]
    if column["type"] != "category":
        cells = cells.astype(float).round(column.get("decimals", 0))
    return cells.astype("string").fillna("missing")


def shares(cells: pd.Series) -> pd.Series:
    """How often each value occurs, per thousand."""
    return cells.value_counts(normalize=True) * 1000


if __name__ == "__main__":
    run(attack=attack)

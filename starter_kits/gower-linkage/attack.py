"""Linkage: the row of the release that is most like what is known of a person tells the rest about them.

How unlike two are is measured as Gower proposed (A General Coefficient of Similarity, Biometrics 1971): numbers
by their distance as a share of the column's range, categories by whether they differ, and the sum over all columns.
Against a generalised cell it is the distance to the nearest number that the cell allows, or the chance to differ.
"""

import numpy as np
import pandas as pd
from anomed_cells import Column, most_likely, secrets, shares, spans
from anomed_task import Task, run

# Persons that are compared with the whole release at a time: bounds the memory.
AT_A_TIME = 200
# Rows count as equally near when they differ by less than that.
TIE = 1e-6
# A wide interval that holds the number is a little worse than a narrow one.
WIDTH = 1e-3


def attack(task: Task) -> None:
    release, aux, persons = task.table("release"), task.table("aux"), task.table("background")
    known = task.with_role("quasi-identifier")
    guesses = persons[["row"]].copy()
    told = {column["name"]: secrets(release, column) for column in task.with_role("secret")}
    found: dict[str, list] = {name: [] for name in told}
    for start in range(0, len(persons), AT_A_TIME):
        some = persons.iloc[start : start + AT_A_TIME]
        unlike = sum(distances(some[column["name"]], release[column["name"]], column) for column in known)
        nearest = unlike <= unlike.min(axis=1, keepdims=True) + TIE
        for column in task.with_role("secret"):
            name = column["name"]
            found[name] += [most_likely(told[name][rows], np.ones(rows.sum()), column) for rows in nearest]
    for column in task.with_role("secret"):
        name = column["name"]
        # Where the release keeps a secret to itself, what is commonest in the population is the best guess.
        common = most_likely(secrets(aux, column), np.ones(len(aux)), column)
        guesses[name] = [common if guess is None else guess for guess in found[name]]
    task.save("guesses", guesses)


def distances(persons: pd.Series, cells: pd.Series, column: Column) -> np.ndarray:
    """[persons, rows] between 0 and 1; 0.5 where nothing is known of the person."""
    if column["type"] == "category":
        differ = 1 - shares(cells, column)
        codes = pd.Categorical(persons.astype("string"), categories=column["categories"]).codes
        return np.where(codes[:, None] >= 0, differ.T[codes], 0.5)
    (low, high), values = spans(cells, column).T, persons.to_numpy(float, na_value=np.nan)[:, None]
    gap = np.maximum(low - values, 0) + np.maximum(values - high, 0) + WIDTH * (high - low)
    return np.nan_to_num(gap / max(column["maximum"] - column["minimum"], 1e-9), nan=0.5)


if __name__ == "__main__":
    run(attack=attack)

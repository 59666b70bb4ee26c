"""Invents one column after the other, each by a tree on the columns before it: what most synthetic tables are made by.

A tree sorts the patients into leaves. An invented patient walks down the tree by the cells that it has already, and is
given the cell of one of the patients in the leaf where it ends (Reiter, Using CART to Generate Partially Synthetic
Public Use Microdata, Journal of Official Statistics 2005; Nowok, Raab and Dibben, synthpop, Journal of Statistical
Software 2016).
"""

import os
from collections.abc import Callable

import numpy as np
import pandas as pd
from anomed_task import Task, run
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

# The thing to change first: the fewer patients share a leaf, the better the table, and the more it says of each.
PATIENTS_IN_A_LEAF = 5
# Whether a number is drawn from between two neighbours in the leaf: else patients' own values are handed on as they
# are, which is what the attack `shared-values` lives on.
SMOOTH = os.environ.get("SMOOTH", "0") == "1"

Draw = Callable[[np.ndarray, int], np.ndarray]


def release(task: Task) -> None:
    train = task.table("train")
    random = np.random.default_rng(task.seed)
    first, *others = task.columns
    invented = pd.DataFrame({first["name"]: random.choice(train[first["name"]].astype(object), task.rows)})
    for number, column in enumerate(others, start=1):
        before = task.columns[:number]
        known, asked = task.matrix(train, before), task.matrix(invented, before)
        cells = train[column["name"]].astype(object).to_numpy()
        invented[column["name"]] = grown(column["type"] == "category", cells, known, asked, random)
    task.save_release(invented)


def grown(
    category: bool, cells: np.ndarray, known: np.ndarray, asked: np.ndarray, random: np.random.Generator
) -> np.ndarray:
    """A cell for each row of `asked`, by what goes with which row of `known` in the patients' `cells`."""
    empty = pd.isna(cells)
    if empty.all():
        return np.full(len(asked), None)
    # Whether there is a cell at all comes first, then which one.
    gaps = from_leaves(tree_for(True, random).fit(known, empty), known, empty, asked, random.choice)
    known, cells = known[~empty], cells[~empty]
    tree = tree_for(category, random).fit(known, cells.astype(str if category else float))
    draw = random.choice if category or not SMOOTH else lambda values, count: between_neighbours(values, count, random)
    return np.where(gaps.astype(bool), None, from_leaves(tree, known, cells, asked, draw))


def tree_for(category: bool, random: np.random.Generator) -> DecisionTreeClassifier | DecisionTreeRegressor:
    kind = DecisionTreeClassifier if category else DecisionTreeRegressor
    return kind(min_samples_leaf=PATIENTS_IN_A_LEAF, random_state=int(random.integers(2**31)))


def from_leaves(tree: object, known: np.ndarray, cells: np.ndarray, asked: np.ndarray, draw: Draw) -> np.ndarray:
    """For each asked row what is drawn from the cells of the patients in its leaf."""
    there, wanted = tree.apply(known), tree.apply(asked)
    drawn = np.empty(len(asked), dtype=object)
    for leaf in np.unique(wanted):
        here = wanted == leaf
        drawn[here] = draw(cells[there == leaf], here.sum())
    return drawn


def between_neighbours(values: np.ndarray, count: int, random: np.random.Generator) -> np.ndarray:
    """Numbers between two of the values that are neighbours in order."""
    ordered = np.sort(values.astype(float))
    return np.interp(random.random(count) * (len(ordered) - 1), np.arange(len(ordered)), ordered)


if __name__ == "__main__":
    run(release=release)

"""Attribute inference: gradient boosting learns the secrets from what is known, on the release and on other people.

The trees are grown so far that they know the rows of the release by heart: of a person who is in it they say more than
the population would tell. Generalised cells are read as their middle, sets as equal shares.
"""

from typing import Any

import numpy as np
from anomed_cells import Column, expected, most_likely, secrets
from anomed_task import Task, run
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from threadpoolctl import threadpool_limits

# The things to change first: how deep the trees go, and how much a row of the release counts beside one of aux.
ROUNDS, LEAVES, SMALLEST_LEAF = 100, 63, 2
WEIGHT = 5.0


def attack(task: Task) -> None:
    release, aux, persons = task.table("release"), task.table("aux"), task.table("background")
    known = task.with_role("quasi-identifier")
    inputs = np.vstack([expected(release, known), task.matrix(aux, known)])
    weights = np.repeat([WEIGHT, 1.0], [len(release), len(aux)])
    guesses = persons[["row"]].copy()
    for column in task.with_role("secret"):
        told = np.concatenate([secrets(release, column), secrets(aux, column)])
        with threadpool_limits(limits=1):  # of more threads than processors each waits for the other
            guesses[column["name"]] = guess(task, inputs, told, weights, task.matrix(persons, known), column)
    task.save("guesses", guesses)


def guess(
    task: Task, inputs: np.ndarray, told: np.ndarray, weights: np.ndarray, asked: np.ndarray, column: Column
) -> Any:
    """One value per row of `asked`, from rows of which `told` is known (see `secrets`)."""
    how = {"max_iter": ROUNDS, "max_leaf_nodes": LEAVES, "min_samples_leaf": SMALLEST_LEAF, "random_state": task.seed}
    if column["type"] == "category":
        # A set stands for each of its categories in equal parts.
        rows, labels = np.nonzero(told)
        if len(np.unique(labels)) < 2:
            return most_likely(told, weights, column)
        model: Any = HistGradientBoostingClassifier(early_stopping=False, **how)
        model.fit(inputs[rows], labels, sample_weight=weights[rows] * told[rows, labels])
        return np.array(column["categories"], dtype=object)[model.predict(asked)]
    rows = np.flatnonzero(~np.isnan(told))
    if not len(rows):
        return None
    model = HistGradientBoostingRegressor(loss="absolute_error", early_stopping=False, **how)
    return model.fit(inputs[rows], told[rows], sample_weight=weights[rows]).predict(asked)


if __name__ == "__main__":
    run(attack=attack)

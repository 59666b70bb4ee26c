"""A linear model trained with differential privacy: whatever an attacker does, one person's data hardly shows in it.

The guarantee holds for all that `fit` does with the data, so nothing else may be learned from them: numbers are scaled
by the ranges that task.json declares, not by the means of the patients at hand.
"""

import os

import numpy as np
import pandas as pd
from anomed_task import INPUT, OUTPUT, Task, run

MODEL = "model/weights.npy"
# No statistical test tells with more than a small edge whether a person took part: the smaller, the smaller the edge.
# (The kits dp-sgd-8 and dp-sgd-1 are this one with another number in the environment.)
EPSILON = float(os.environ.get("EPSILON", "2"))
# The chance that the promise above fails: well below one in the number of patients.
DELTA = 1e-5


def fit(task: Task) -> None:
    from training import train  # takes seconds to import, and only this step needs it

    table = task.table("train")
    targets = task.targets(table) if task.labels else to_unit(task.targets(table), *target_range(task))
    weights = train(scaled(task, table), targets, max(len(task.labels), 1), EPSILON, DELTA, task.seed)
    (OUTPUT / MODEL).parent.mkdir(exist_ok=True)
    np.save(OUTPUT / MODEL, weights)


def predict(task: Task) -> None:
    weights = np.load(INPUT / MODEL)
    queries = task.table("queries")
    values = scaled(task, queries) @ weights[:, :-1].T + weights[:, -1]
    if task.labels:
        odds = np.exp(values - values.max(axis=1, keepdims=True))
        answers = odds / odds.sum(axis=1, keepdims=True)
    else:
        lowest, highest = target_range(task)
        answers = (values + 1) / 2 * (highest - lowest) + lowest
    task.save("predictions", task.answers(queries, answers))


def scaled(task: Task, table: pd.DataFrame) -> np.ndarray:
    """The features between -1 and 1; 0 stands for a missing number."""
    features = task.features(table)
    ranges = [(column["minimum"], column["maximum"]) for column in task.inputs if column["type"] != "category"]
    lowest, highest = np.array(ranges + [(0, 1)] * (features.shape[1] - len(ranges)), dtype=float).T
    return np.nan_to_num(to_unit(features, lowest, highest))


def to_unit(values: np.ndarray, lowest: np.ndarray | float, highest: np.ndarray | float) -> np.ndarray:
    width = np.maximum(np.subtract(highest, lowest), 1e-9)
    return np.clip((values - lowest) / width * 2 - 1, -1, 1)


def target_range(task: Task) -> tuple[float, float]:
    target = next(column for column in task.description["columns"] if column["name"] == task.target)
    return target["minimum"], target["maximum"]


if __name__ == "__main__":
    run(fit=fit, predict=predict)

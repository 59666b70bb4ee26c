"""Hands out group portraits: persons with like traces form groups of five or more, and each gets the group's mean.

Microaggregation by the rule of the maximum distance to the average (Domingo-Ferrer and Torra, Data Mining and Knowledge
Discovery 2005): the person farthest from the mean of all gathers the nearest ones, again and again.
"""

import numpy as np
import pandas as pd
from anomed_task import Task, run

SIZE = 5  # the thing to change first


def release(task: Task) -> None:
    traces = task.table("traces")
    names = [name for name in traces if name != "row"]
    values = traces[names].to_numpy(float)
    released = values.copy()
    for group in groups(coarse(values)):
        released[group] = values[group].mean(axis=0)
    task.save("release", traces[["row"]].join(pd.DataFrame(released.round(), columns=names)))


def coarse(values: np.ndarray) -> np.ndarray:
    """What traces are compared by: means of 12 stretches of the day, so that a meal a little later is no difference."""
    return np.column_stack([part.mean(axis=1) for part in np.array_split(values, min(12, values.shape[1]), axis=1)])


def groups(points: np.ndarray) -> list[np.ndarray]:
    left, found = np.arange(len(points)), []
    while len(left) >= 2 * SIZE:
        centre = points[left].mean(axis=0)
        farthest = points[left[distances(points[left], centre).argmax()]]
        nearest = left[np.argsort(distances(points[left], farthest))[:SIZE]]
        found.append(nearest)
        left = np.setdiff1d(left, nearest)
    return [*found, left]


def distances(points: np.ndarray, centre: np.ndarray) -> np.ndarray:
    return ((points - centre) ** 2).sum(axis=1)


if __name__ == "__main__":
    run(release=release)

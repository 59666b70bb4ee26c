"""Hands out noisy traces: means of a few stretches of the day, each with Laplace noise of a stated budget.

Metric differential privacy (Chatzikokolakis et al., Broadening the Scope of Differential Privacy Using Metrics, PETS
2013): if the means of two traces differ by d in sum, their chances of any release differ by a factor of at most
exp(EPSILON * d / SIZE). So differences up to SIZE are hidden at a budget of EPSILON, larger ones at a larger one.
"""

import numpy as np
import pandas as pd
from anomed_task import Task, run

# The things to change first. SIZE is in the unit of the traces, summed over all stretches.
EPSILON = 4.0
SIZE = 120.0
STRETCHES = 6


def release(task: Task) -> None:
    traces = task.table("traces")
    names = [name for name in traces if name != "row"]
    values = np.array(traces[names], float)
    # Noise must not be foretold: it is drawn from the machine's own randomness, not from the task's seed.
    random = np.random.default_rng()
    for stretch in np.array_split(np.arange(len(names)), STRETCHES):
        noise = random.laplace(0, SIZE / EPSILON, (len(values), 1))
        values[:, stretch] = values[:, stretch].mean(axis=1, keepdims=True) + noise
    values = np.clip(values, *bounds(task, names)).round()
    task.save("release", traces[["row"]].join(pd.DataFrame(values, columns=names)))


def bounds(task: Task, names: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """What each column may hold: part of the published rules, so that it tells nothing about these persons."""
    described = {column["name"]: column for column in task.columns}
    return tuple(np.array([described[name][end] for name in names], float) for end in ("minimum", "maximum"))


if __name__ == "__main__":
    run(release=release)

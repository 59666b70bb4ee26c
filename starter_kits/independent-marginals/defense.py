"""Draws every column on its own: each keeps its distribution, and how columns hang together is lost.

Numbers are drawn between steps of their distribution, not from the patients' own values. That makes the difference: of
thirty columns of values as they are, the attack `shared-values` takes most.
"""

import numpy as np
import pandas as pd
from anomed_task import Task, run

# The distribution of a number is kept in so many steps, each with equally many patients.
STEPS = 20


def release(task: Task) -> None:
    train = task.table("train")
    random = np.random.default_rng(task.seed)
    invented = {}
    for column in task.columns:
        cells = train[column["name"]]
        seen = cells.dropna().to_numpy()
        if len(seen) == 0:
            drawn = pd.Series(np.nan, index=range(task.rows))
        elif column["type"] == "category":
            drawn = pd.Series(random.choice(seen, task.rows))
        else:
            # From the middle of the first step to that of the last: the heaviest patient of all does not show.
            places = (np.arange(STEPS) + 0.5) / STEPS
            steps = np.quantile(seen.astype(float), places)
            drawn = pd.Series(np.interp(random.random(task.rows), places, steps))
        invented[column["name"]] = drawn.mask(random.random(task.rows) < cells.isna().mean())
    task.save_release(pd.DataFrame(invented))


if __name__ == "__main__":
    run(release=release)

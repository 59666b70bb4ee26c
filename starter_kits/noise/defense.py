"""Noise: every number is shifted by chance, every category exchanged now and then. No row is anybody's any more."""

import numpy as np
import pandas as pd
from anomed_cells import save_release
from anomed_task import Task, run

# The two things to change first: the noise on numbers in standard deviations of their column, and the share of
# categories that are drawn anew. The target is left alone: it is nobody's secret here, and noise in it costs most.
SPREAD = 0.3
EXCHANGED = 0.2


def release(task: Task) -> None:
    table = task.table("table")
    random = np.random.default_rng(task.seed)
    for column in task.inputs:
        cells = table[column["name"]]
        if column["type"] == "category":
            drawn = pd.Series(random.choice(column["categories"], len(table)), dtype=object)
            exchanged = (random.random(len(table)) < EXCHANGED) & cells.notna()
            table[column["name"]] = cells.astype(object).mask(exchanged, drawn)
        else:
            numbers = cells.astype(float)
            # Laplace's distribution has this scale for a standard deviation of 1.
            noisy = numbers + random.laplace(0, SPREAD * np.nan_to_num(numbers.std()) / np.sqrt(2), len(table))
            table[column["name"]] = noisy.clip(column["minimum"], column["maximum"]).round(column.get("decimals", 0))
    save_release(task, table, "same")


if __name__ == "__main__":
    run(release=release)

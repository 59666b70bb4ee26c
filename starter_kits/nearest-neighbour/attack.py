"""Suspects the records to which an invented patient comes too close.

A generator that repeats its patients leaves rows near them. But some people have near look-alikes anyway: so the
distance to the nearest row of the release is compared with the distance to the nearest person in `aux`, who was
certainly not in the training data (as in the distances of Chen et al., GAN-Leaks, CCS 2020, section 4.5).
"""

import numpy as np
from anomed_task import Task, run
from sklearn.impute import SimpleImputer
from sklearn.neighbors import NearestNeighbors
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import QuantileTransformer

# How many spreads apart counts as the same: a copy and a copy rounded a little should look alike.
SAME = 0.05


def attack(task: Task) -> None:
    tables = [task.table(name) for name in ("candidates", "release", "aux")]
    candidates, release, aux = (task.matrix(table, task.columns) for table in tables)
    gaps = SimpleImputer(strategy="median", add_indicator=True, keep_empty_features=True)
    # By ranks, so that neither a column's unit nor its outliers decide who is near.
    scale = make_pipeline(gaps, QuantileTransformer(n_quantiles=min(200, len(aux)), subsample=None)).fit(aux)
    candidates, release, aux = (scale.transform(table) for table in (candidates, release, aux))
    scores = np.log(nearest(candidates, aux) + SAME) - np.log(nearest(candidates, release) + SAME)
    task.save("scores", tables[0][["row"]].assign(score=scores))


def nearest(candidates: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Each candidate's distance to the nearest of the rows: the sum of what they differ by in each column."""
    return NearestNeighbors(n_neighbors=1, metric="manhattan").fit(rows).kneighbors(candidates)[0][:, 0]


if __name__ == "__main__":
    run(attack=attack)

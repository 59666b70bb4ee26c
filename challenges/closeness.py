"""How close invented records come to real ones: a warning to their makers, never a measure of privacy.

A table can leak and hold no record near a real one, and hold copies of what everybody has in common and not leak; hence
every number stands beside the same one for real records that were not in the training data. Holding the training part
against such a part: Platzer and Reutterer, Holdout-based empirical assessment of mixed-type synthetic data, Frontiers
in Big Data 4, 2021. That distances say little about privacy: Yao et al., The DCR delusion, 2025.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.neighbors import NearestNeighbors

from challenges import overlap
from challenges.features import matrix
from challenges.schema import Schema

Floats = NDArray[np.float64]

# So many records say what more would: the shares' standard error is one in a hundred.
_MOST: Final = 2_500
_SEED: Final = 0


def compare(released: pd.DataFrame, train: pd.DataFrame, others: pd.DataFrame, schema: Schema) -> dict[str, float]:
    """How close a released table comes to its training part, and to real records that were not in it (`others`).

    `copies`: the share of released records that equal a training record in every column; `copies_by_chance`: the share
    of the other real records that do. `nearest_train`, `nearest_others`: medians over released records of the distance
    to the closest record of either part, taken equally large; `nearer_train`: the share that is nearer to the training
    part, 0.5 for a table that knows no more of it (a tie counts half). Distance is Euclidean, over numbers in standard
    deviations of the training part and categories that differ by 1; an empty cell is the mean.
    """
    seen = overlap.fingerprints(train, schema)
    random = np.random.default_rng(_SEED)
    size = min(len(train), len(others), _MOST)
    points = _scaled(
        train, schema, (_drawn(train, size, random), _drawn(others, size, random), _drawn(released, _MOST, random))
    )
    to_train, to_others = _nearest(points[0], points[2]), _nearest(points[1], points[2])
    return {
        "copies": float(np.isin(overlap.fingerprints(released, schema), seen).mean()),
        "copies_by_chance": float(np.isin(overlap.fingerprints(others, schema), seen).mean()),
        "nearest_train": float(np.median(to_train)),
        "nearest_others": float(np.median(to_others)),
        "nearer_train": float(np.mean(to_train < to_others) + np.mean(to_train == to_others) / 2),
    }


def _drawn(table: pd.DataFrame, most: int, random: np.random.Generator) -> pd.DataFrame:
    if len(table) <= most:
        return table
    return table.iloc[random.choice(len(table), size=most, replace=False)]


def _scaled(train: pd.DataFrame, schema: Schema, parts: tuple[pd.DataFrame, ...]) -> list[Floats]:
    """The parts as points of a space in which one step is as far in each column."""
    known = matrix(train, schema, schema.shared)
    present = ~np.isnan(known)
    number = np.maximum(present.sum(axis=0), 1)
    mean = np.where(present, known, 0).sum(axis=0) / number
    spread = np.sqrt((np.where(present, known - mean, 0) ** 2).sum(axis=0) / number)
    categorical = np.concatenate(
        [[column.type == "category"] * (len(column.categories) or 1) for column in schema.shared]
    )
    scale = np.where(categorical, np.sqrt(2), np.where(spread > 0, spread, 1))  # two categories differ in two places
    shift = np.where(categorical, 0, mean)
    return [np.nan_to_num((matrix(part, schema, schema.shared) - shift) / scale, nan=0.0) for part in parts]


def _nearest(real: Floats, points: Floats) -> Floats:
    """The distance of each point to the closest real record."""
    found: Floats = NearestNeighbors(n_neighbors=1, algorithm="brute", n_jobs=1).fit(real).kneighbors(points)[0][:, 0]
    return found

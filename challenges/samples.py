"""A public sample that looks like the private table and holds no real patient: every column is drawn on its own."""

from __future__ import annotations

from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from challenges.schema import Column, Schema, TableError

Floats = NDArray[np.float64]

# Enough for a deal with all classes in each part, small enough to download and rehearse on at once.
DEFAULT_ROWS: Final = 400
# Values outside these quantiles belong to few people: the sample keeps away from them.
_LOW, _HIGH = 0.01, 0.99
# The quantiles between which values are interpolated; coarse, so that no single value of the table shows through.
_GRID: Final = 21
# Whole numbers with at most this many values are codes or counts: drawn as they are, if enough people share them.
_FEW_VALUES, _SHARED_BY = 20, 5
# Each class gets at least this share of the rows (and no less than that many), as far as they reach.
_CLASS_SHARE, _CLASS_ROWS = 25, 8
_ATTEMPTS: Final = 50


def generate(table: pd.DataFrame, schema: Schema, rows: int = DEFAULT_ROWS, seed: int = 0) -> pd.DataFrame:
    """`rows` made-up records with the schema's columns but no patient id; the same seed gives the same sample.

    Columns are independent of each other, so nothing can be learnt from the sample but its shape. Numbers are
    interpolated between quantiles 1 % and 99 %, all classes of the target occur, and no record equals one of `table`.
    Raises TableError if the columns are too coarse for that: then the organiser must provide a sample.
    """
    random = np.random.default_rng(seed)
    if schema.target and len(schema.labels) * _CLASS_ROWS > rows:
        raise TableError(f"A sample of {rows} rows is too small for {len(schema.labels)} classes.")
    real = table[[column.name for column in schema.shared]]
    sample = _draw(real, schema, rows, random)
    for _attempt in range(_ATTEMPTS):
        equal = _found_in(sample, real)
        if not equal.any():
            return sample
        again = _draw(real, schema, rows, random)
        replaced = sample.copy()
        if schema.target:  # the classes stay as they are: all must occur
            again[schema.target] = sample[schema.target]
        replaced.loc[equal] = again.loc[equal]
        sample = replaced
    raise TableError(
        "The table's columns are so coarse that made-up records equal real ones. Upload a sample of your own."
    )


def _draw(real: pd.DataFrame, schema: Schema, rows: int, random: np.random.Generator) -> pd.DataFrame:
    columns: dict[str, pd.Series] = {}
    for column in schema.shared:
        present = real[column.name].dropna()
        if column.name == schema.target and column.type == "category":
            columns[column.name] = _classes(column, present, rows, random)
        elif column.type == "category":
            counts = present.value_counts().reindex(list(column.categories), fill_value=0).to_numpy(dtype=np.float64)
            drawn = random.choice(np.array(column.categories), size=rows, p=counts / counts.sum())
            columns[column.name] = pd.Series(drawn, dtype="str")
        else:
            columns[column.name] = _quantities(column, present.to_numpy(dtype=np.float64), rows, random)
        if column.missing:
            gaps = random.random(rows) < 1 - len(present) / len(real)
            columns[column.name] = columns[column.name].mask(gaps)
    return pd.DataFrame(columns)


def _classes(column: Column, present: pd.Series, rows: int, random: np.random.Generator) -> pd.Series:
    """Classes in about their proportions, each often enough that every part of a deal has a chance of it."""
    labels = list(column.categories)
    shares = present.value_counts().reindex(labels, fill_value=0).to_numpy(dtype=np.float64)
    least = min(rows // len(labels), max(_CLASS_ROWS, rows // _CLASS_SHARE))
    sure = np.repeat(np.array(labels), least)
    rest = random.choice(np.array(labels), size=rows - len(sure), p=shares / shares.sum())
    return pd.Series(random.permutation(np.concatenate([sure, rest])), dtype="str")


def _quantities(column: Column, present: Floats, rows: int, random: np.random.Generator) -> pd.Series:
    values, counts = np.unique(present, return_counts=True)
    if column.type == "integer" and len(values) <= _FEW_VALUES and (counts >= _SHARED_BY).any():
        shared = counts >= _SHARED_BY
        drawn = random.choice(values[shared], size=rows, p=counts[shared] / counts[shared].sum())
    else:
        grid = np.linspace(_LOW, _HIGH, _GRID)
        drawn = np.interp(random.uniform(_LOW, _HIGH, rows), grid, np.quantile(present, grid))
    rounded = np.round(drawn, column.decimals or 0) + 0.0
    return pd.Series(rounded, dtype="float64")


def _found_in(sample: pd.DataFrame, real: pd.DataFrame) -> NDArray[np.bool_]:
    """Which records of the sample equal a real one in every column (empty cells equal each other)."""
    both = pd.concat([real.astype(sample.dtypes.to_dict()), sample], ignore_index=True)
    return both.duplicated(keep="first").to_numpy()[len(real) :]

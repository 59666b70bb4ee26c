"""How alike two tables are, column by column and pair by pair. Pure numpy, so that a number can be recomputed anywhere.

The measures are those that SDMetrics defines (documentation of DataCebo, "Data metrics: quality", 2024): every one is 1
where the two tables agree and 0 where they could not differ more. They are shown to readers and never ranked by.

Columns come as arrays: float64 with NaN for an empty cell, or codes of categories as int64 with -1 for one.
"""

from __future__ import annotations

from itertools import combinations
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from challenges.schema import Schema

Floats = NDArray[np.float64]
Codes = NDArray[np.int64]

# Where a number meets a category it is cut into as many parts of equal width, as SDMetrics' quality report does.
BINS: Final = 10
# The mean over so many pairs is known to about one in a thousand; the pairs of 500 columns would take half an hour.
_MOST_PAIRS: Final = 2_000
_SEED: Final = 0


def ks_complement(real: Floats, made: Floats) -> float:
    """1 minus the largest difference between the two distribution functions; empty cells are left out (KSComplement).

    NaN if either has no number at all.
    """
    first, second = np.sort(real[~np.isnan(real)]), np.sort(made[~np.isnan(made)])
    if not len(first) or not len(second):
        return float("nan")
    points = np.concatenate([first, second])
    below = np.searchsorted(first, points, side="right") / len(first)
    return 1 - float(np.abs(below - np.searchsorted(second, points, side="right") / len(second)).max())


def tv_complement(real: Codes, made: Codes) -> float:
    """1 minus half the summed differences of the categories' shares, an empty cell being one more (TVComplement)."""
    return contingency_similarity(real, np.zeros_like(real), made, np.zeros_like(made))


def missing_similarity(real: NDArray[np.bool_], made: NDArray[np.bool_]) -> float:
    """1 minus the difference of the shares of empty cells (MissingValueSimilarity)."""
    return 1 - abs(float(real.mean()) - float(made.mean()))


def correlation_similarity(real_a: Floats, real_b: Floats, made_a: Floats, made_b: Floats) -> float:
    """1 minus half the difference of Pearson's correlations, over rows without an empty cell (CorrelationSimilarity).

    NaN if a correlation does not exist, as of a column that never varies.
    """
    return 1 - abs(_correlation(real_a, real_b) - _correlation(made_a, made_b)) / 2


def contingency_similarity(real_a: Codes, real_b: Codes, made_a: Codes, made_b: Codes) -> float:
    """1 minus half the summed differences of the shares of all combinations; empty cells count (ContingencySimilarity).

    Codes are -1 (an empty cell) or more.
    """
    width = int(max(real_b.max(initial=0), made_b.max(initial=0))) + 2
    first, second = (real_a + 1) * width + real_b + 1, (made_a + 1) * width + made_b + 1
    length = int(max(first.max(initial=0), second.max(initial=0))) + 1
    shares = [np.bincount(cells, minlength=length) / len(cells) for cells in (first, second)]
    return 1 - float(np.abs(shares[0] - shares[1]).sum()) / 2


def bins(real: Floats, values: Floats) -> Codes:
    """The number of the part of the real column's range that each value lies in, -1 for an empty cell."""
    present = real[~np.isnan(real)]
    if not len(present):
        return np.where(np.isnan(values), -1, 0).astype(np.int64)
    edges = np.linspace(present.min(), present.max(), BINS + 1)[1:-1]
    return np.where(np.isnan(values), -1, np.searchsorted(edges, values, side="right")).astype(np.int64)


def compare(real: pd.DataFrame, made: pd.DataFrame, schema: Schema) -> dict[str, Any]:
    """How alike a made table is to a real one, over the schema's columns but the patient id.

    `columns` is the mean over columns of their likeness (kinds: number by KSComplement, category by TVComplement),
    `missing` that of MissingValueSimilarity over columns that may be empty (absent if none may), `pairs` the mean over
    pairs of columns (at most 2,000 of them); `by_column` gives each column's. Likeness that cannot be computed is left
    out (None in `by_column`).
    """
    numbers: dict[str, tuple[Floats, Floats]] = {}
    codes: dict[str, tuple[Codes, Codes]] = {}
    likeness: dict[str, float] = {}
    for column in schema.shared:
        name = column.name
        if column.type == "category":
            codes[name] = _codes(real[name], column.categories), _codes(made[name], column.categories)
            likeness[name] = tv_complement(*codes[name])
        else:
            first, second = numbers[name] = _numbers(real[name]), _numbers(made[name])
            codes[name] = bins(first, first), bins(first, second)
            likeness[name] = ks_complement(first, second)
    pairs = [_pair(a, b, numbers, codes) for a, b in _compared(list(likeness))]
    gaps = [
        missing_similarity(real[column.name].isna().to_numpy(), made[column.name].isna().to_numpy())
        for column in schema.shared
        if column.missing
    ]
    found: dict[str, Any] = {"columns": _mean(list(likeness.values())), "pairs": _mean(pairs)}
    if gaps:
        found["missing"] = _mean(gaps)
    found["by_column"] = {name: None if np.isnan(value) else value for name, value in likeness.items()}
    return found


def _compared(names: list[str]) -> list[tuple[str, str]]:
    """All pairs of columns; of a wide table a random part, always the same."""
    every = list(combinations(names, 2))
    if len(every) <= _MOST_PAIRS:
        return every
    chosen = np.random.default_rng(_SEED).choice(len(every), size=_MOST_PAIRS, replace=False)
    return [every[number] for number in sorted(chosen)]


def _pair(a: str, b: str, numbers: dict[str, tuple[Floats, Floats]], codes: dict[str, tuple[Codes, Codes]]) -> float:
    """Two numbers are compared by their correlation, any other pair by its combinations."""
    if a in numbers and b in numbers:
        return correlation_similarity(numbers[a][0], numbers[b][0], numbers[a][1], numbers[b][1])
    return contingency_similarity(codes[a][0], codes[b][0], codes[a][1], codes[b][1])


def _numbers(column: pd.Series) -> Floats:
    values: Floats = column.to_numpy(dtype=np.float64, na_value=np.nan)
    return values


def _codes(column: pd.Series, categories: tuple[str, ...]) -> Codes:
    return pd.Index(categories, dtype="object").get_indexer(pd.Index(column.astype("object"))).astype(np.int64)


def _correlation(a: Floats, b: Floats) -> float:
    both = ~(np.isnan(a) | np.isnan(b))
    if not both.any():
        return float("nan")
    x, y = a[both] - a[both].mean(), b[both] - b[both].mean()
    spread = float(np.sqrt((x**2).sum() * (y**2).sum()))
    return float((x * y).sum() / spread) if spread > 0 else float("nan")


def _mean(values: list[float]) -> float | None:
    """The mean of those that exist, or None."""
    known = [value for value in values if not np.isnan(value)]
    return float(np.mean(known)) if known else None

"""A part of a large table, for the platform's own models: they run beside all else and must stay small and quick."""

from typing import Final

import numpy as np

from challenges.schema import Schema, TableError
from challenges.splits import Deal, Positions

# An AUROC over the 4,400 test records among so many has a standard error below 0.01: more would tell nothing new.
MOST_ROWS: Final = 20_000
# Inputs times records, times the sets of trees that boosting grows (one for two classes, else one for each): at most
# 32 MB of floats and a few minutes of fitting.
MOST_CELLS: Final = 4_000_000
# With fewer records than this the models could not be trusted.
_LEAST_ROWS: Final = 400
_SEED: Final = 0  # the same table must give the same anchors


def choose(total: int, schema: Schema) -> Positions:
    """The row positions to fit models on, ascending: all of a table of `total` rows, or a random part of it.

    It refuses nothing: a release may have more rows than the table that was checked, and is no worse for it.
    """
    most = _most(schema)
    if total <= most:
        return np.arange(total)
    return np.sort(np.random.default_rng(_SEED).choice(total, size=most, replace=False))


def check(total: int, schema: Schema) -> None:
    """Whether models can be fitted on a table of `total` rows before anybody plays with it.

    Raises TableError if the columns are so many, or have so many categories, that too few records could be used.
    """
    if _most(schema) < min(total, _LEAST_ROWS):
        raise TableError(
            f"The columns and their categories make {_inputs(schema)} inputs, which are too many for the models."
        )


def _most(schema: Schema) -> int:
    trees = len(schema.labels) if len(schema.labels) > 2 else 1
    return max(1, min(MOST_ROWS, MOST_CELLS // (_inputs(schema) * trees)))


def _inputs(schema: Schema) -> int:
    return sum(len(column.categories) or 1 for column in schema.shared)


def restricted(deal: Deal, rows: Positions) -> Deal:
    """The deal among these rows alone, with positions in `table.iloc[rows]`."""
    aux, core, test = (np.searchsorted(rows, part[np.isin(part, rows)]) for part in (deal.aux, deal.core, deal.test))
    kept = np.isin(deal.candidates, rows)
    candidates = np.searchsorted(rows, deal.candidates[kept])
    return Deal(aux, core, candidates, test, member=deal.member[kept], known=deal.known[kept], fold=deal.fold[kept])

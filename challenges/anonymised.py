"""Anonymised tables: columns of cells that may be generalised, as they are stored, trained on and described."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from challenges import tables
from challenges.generalised import Cells, Choice, Interval, decimals, render
from challenges.schema import Column, Schema
from challenges.splits import Positions

Floats = NDArray[np.float64]
# The columns of an anonymised table by name, all with the same rows.
Anonymised = Mapping[str, Cells]

# The intervals that `coarsened` cuts numbers into.
_PARTS: Final = 5


def write(anonymised: Anonymised, schema: Schema, order: Positions, path: Path) -> None:
    """Writes the canonical form: every column as texts, empty cells as nulls, the rows in the given order."""
    columns = {column.name: pa.array(anonymised[column.name].texts, type=pa.string()) for column in schema.shared}
    tables.write_arrow(pa.table(columns).take(pa.array(order)), path)


def read(path: Path, schema: Schema) -> dict[str, Cells]:
    """A table that `write` wrote."""
    table = tables.read_arrow(path)
    return {column.name: from_texts(table.column(column.name).combine_chunks(), column) for column in schema.shared}


def from_texts(words: pa.Array, column: Column) -> Cells:
    """Cells from an Arrow array of texts, dictionary-encoded or not. Raises TableError."""
    coded = words if pa.types.is_dictionary(words.type) else words.dictionary_encode()
    codes = coded.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
    return Cells.from_texts(coded.dictionary.to_pylist(), codes, column)


def of(frame: pd.DataFrame, schema: Schema) -> dict[str, Cells]:
    """A table as it is, with nothing generalised."""
    return {column.name: _plain(frame[column.name], column) for column in schema.shared}


def suppressed(rows: int, schema: Schema) -> dict[str, Cells]:
    """So many rows of empty cells."""
    return {column.name: Cells.from_texts([], np.full(rows, -1), column) for column in schema.shared}


def training(anonymised: Anonymised, schema: Schema) -> tuple[Floats, NDArray[Any], Floats]:
    """Inputs [n, features], targets [n] and weights [n] for a model that reads cells by their expectation.

    An interval counts as its mean, a set as equal shares of its categories, an empty cell as missing. Where the target
    is a set (or empty: any class), the row stands once for each class, with weights that add up to 1; an interval is
    its mean, an empty number the middle of the declared range.
    """
    inputs = np.hstack([anonymised[column.name].expected for column in schema.features])
    cells = anonymised[schema.target]
    if not schema.labels:
        return inputs, cells.bounds.mean(axis=1), np.ones(len(inputs))
    shares = np.where(cells.shares.any(axis=1, keepdims=True), cells.shares, 1 / len(schema.labels))
    rows, classes = np.nonzero(shares)
    return inputs[rows], np.array(schema.labels)[classes], shares[rows, classes]


def drawn(anonymised: Anonymised, schema: Schema, seed: int = 0) -> pd.DataFrame:
    """A table of plain values, each drawn from what its cell allows: so the columns are distributed as read."""
    random = np.random.default_rng(seed)
    return pd.DataFrame({column.name: anonymised[column.name].draw(random) for column in schema.shared})


def facts(anonymised: Anonymised, schema: Schema, rows: int) -> dict[str, float]:
    """What can be told at a glance of an anonymised version of a table with `rows` rows.

    `rows`: the share that was released; `plain` and `empty`: shares of cells; `smallest_group`: the fewest rows that
    share their quasi-identifiers, as they are written (the k of k-anonymity); `unique`: the share of rows that share
    them with no other.
    """
    cells = [anonymised[column.name] for column in schema.shared]
    known = [anonymised[column.name].codes for column in schema.columns if column.role == "quasi-identifier"]
    groups = pd.DataFrame(dict(enumerate(known)), index=range(len(cells[0]))).groupby(list(range(len(known))))
    sizes = groups.size().to_numpy() if known else np.array([len(cells[0])])
    return {
        "rows": len(cells[0]) / rows,
        "plain": float(np.mean([column.plain.mean() for column in cells])),
        "empty": float(np.mean([column.empty.mean() for column in cells])),
        "smallest_group": int(sizes.min()),
        "unique": float((sizes == 1).sum() / len(cells[0])),
    }


def coarsened(frame: pd.DataFrame, schema: Schema) -> dict[str, Cells]:
    """The table with its quasi-identifiers told roughly: numbers in fifths, all but the commonest category as a set."""
    result = of(frame, schema)
    for column in schema.columns:
        if column.role == "quasi-identifier":
            values = frame[column.name]
            texts = _rough_categories(values, column) if column.type == "category" else _rough_numbers(values, column)
            result[column.name] = from_texts(pa.array(texts, type=pa.string()), column)
    return result


def _plain(values: pd.Series, column: Column) -> Cells:
    if column.type == "category":
        return from_texts(pa.array(values, type=pa.string(), from_pandas=True), column)
    return Cells.from_numbers(values.to_numpy(dtype=np.float64, na_value=np.nan), column)


def _rough_numbers(values: pd.Series, column: Column) -> list[str | None]:
    numbers = values.to_numpy(dtype=np.float64, na_value=np.nan)
    inner = np.nanquantile(numbers, np.arange(1, _PARTS) / _PARTS) if not np.isnan(numbers).all() else np.array([])
    edges = np.unique(np.round([np.nanmin(numbers), *inner, np.nanmax(numbers)], decimals(column)))
    parts = [
        render(Interval(low, high, True, high == edges[-1]), column)
        for low, high in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True)
    ] or [render(Interval(edges[0], edges[0]), column)]
    place = np.clip(np.searchsorted(edges, numbers, side="right") - 1, 0, len(parts) - 1)
    return [None if np.isnan(number) else parts[at] for number, at in zip(numbers, place, strict=True)]


def _rough_categories(values: pd.Series, column: Column) -> list[str | None]:
    commonest = values.value_counts().idxmax()
    others = Choice(tuple(n for n, category in enumerate(column.categories) if category != commonest))
    return [None if pd.isna(label) else label if label == commonest else render(others, column) for label in values]

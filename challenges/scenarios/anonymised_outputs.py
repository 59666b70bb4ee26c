"""Reading what containers write in games about anonymised tables: tables of cells, and guesses at single ones."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd
import pyarrow as pa

from challenges.anonymised import from_texts
from challenges.generalised import Cells, longest
from challenges.scenarios.base import Floats, OutputProblem
from challenges.scenarios.outputs import TOKEN_LENGTH, caps_for, find, told
from challenges.schema import Column, TableError
from challenges.splits import Positions
from challenges.untrusted import read_cells

# Bytes of a release's cells: 64 MB, in large tables as many for each cell as a long interval takes. A small file can
# repeat a set of hundreds of categories in every row; workers and attacks would hold gigabytes of it.
_MOST_TEXT: Final = 64 << 20
_TEXT_PER_CELL: Final = 64


def read_anonymised(folder: Path, name: str, columns: tuple[Column, ...], rows: int) -> dict[str, Cells]:
    """The columns of `name.parquet` or `name.csv`, whose cells may be generalised; between 1 and `rows` rows.

    Raises OutputProblem as `outputs.read_rows` does.
    """
    path = find(folder, name)
    caps = caps_for(path, rows, len(columns), cell=max(longest(column) for column in columns))
    with told(path):
        values = read_cells(path, tuple(column.name for column in columns), caps)
        read = {column.name: _cells(values[column.name], column) for column in columns}
        if not len(read[columns[0].name]):
            raise TableError("There are no rows; at least one is needed.")
    check_text(read, rows, path.name)
    return read


def check_text(table: Mapping[str, Cells], rows: int, what: str) -> None:
    """Raises OutputProblem if the canonical texts of a table for so many rows take too many bytes."""
    if sum(cells.text_bytes for cells in table.values()) > max(_MOST_TEXT, _TEXT_PER_CELL * rows * len(table)):
        raise OutputProblem("too_large", f"The cells of {what} are too long together. Use smaller sets.")


def read_guesses(folder: Path, name: str, names: list[str], columns: tuple[Column, ...]) -> dict[str, Cells]:
    """A plain value or nothing for each entry of `names` and each column; a row that is not there holds nothing.

    Raises OutputProblem as `outputs.read_rows` does.
    """
    path = find(folder, name)
    cell = max(TOKEN_LENGTH, *(longest(column) for column in columns))
    caps = caps_for(path, len(names), len(columns) + 1, cell=cell)
    with told(path):
        values = read_cells(path, ("row", *(column.name for column in columns)), caps)
        source = sources(values["row"], names)
        guesses = {column.name: _cells(values[column.name], column) for column in columns}
        for column in columns:
            if not (guesses[column.name].plain | guesses[column.name].empty).all():
                raise TableError(f"Column “{column.name}” must hold plain values.")
    return {column.name: guesses[column.name].take(source) for column in columns}


def _cells(values: pa.DictionaryArray | Floats, column: Column) -> Cells:
    if isinstance(values, pa.DictionaryArray):
        return from_texts(values, column)
    if column.type == "category":
        if not np.isnan(values).all():
            raise TableError(f"Column “{column.name}” holds numbers; categories are texts.")
        return Cells.from_texts([], np.full(len(values), -1), column)
    return Cells.from_numbers(values, column)


def sources(words: pa.DictionaryArray | Floats, names: list[str]) -> Positions:
    """For each of `names` the row of the file that is about it, -1 if there is none."""
    if not isinstance(words, pa.DictionaryArray):
        raise TableError("Column “row” must hold plain texts.")
    place = pd.Index(names).get_indexer(pd.Index(words.dictionary.to_pylist(), dtype="str"))
    known = place[words.indices.fill_null(0).to_numpy(zero_copy_only=False)]
    if words.null_count or (known < 0).any():
        raise TableError("There are rows that were not asked about.")
    if len(np.unique(known)) != len(known):
        raise TableError("Some rows are there more than once.")
    source = np.full(len(names), -1, dtype=np.int64)
    source[known] = np.arange(len(known))
    return source

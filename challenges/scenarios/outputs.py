"""Reading a container's table: exactly the rows and columns that were asked for, nothing in them but plain values."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from challenges.scenarios.base import Floats, OutputProblem
from challenges.schema import Column, Schema, TableError
from challenges.untrusted import Caps, read_output, read_typed

# A number takes at most 25 characters in CSV; Parquet pages may add a header each. Twice that is generous.
_BYTES_PER_CELL: Final = 64
_BYTES_BESIDES: Final = 1 << 20
TOKEN_LENGTH: Final = 64
# Surplus columns are refused with a sentence of their own; a file with thousands is not even opened.
_SURPLUS: Final = 100


def read_rows(folder: Path, name: str, names: list[str], columns: tuple[str, ...]) -> Floats:
    """The numbers of `name.parquet` or `name.csv`, one row per entry of `names` in that order.

    Raises OutputProblem: "missing" if there is no file, "too_large" if it is bigger than such a table can be,
    "invalid" for anything else; the sentence says what was expected.
    """
    path = find(folder, name)
    caps = caps_for(path, len(names), len(columns) + 1, cell=TOKEN_LENGTH)
    with told(path):
        words, values = read_output(path, "row", columns, caps)
    rows = len(words)
    check_rows(path, rows, len(names))
    place = pd.Index(names).get_indexer(pd.Index(words.dictionary.to_pylist(), dtype="str"))
    codes = words.indices.to_numpy(zero_copy_only=False)
    if words.null_count or (place[codes] < 0).any():
        raise OutputProblem("invalid", f"{path.name} holds rows that were not asked about.")
    if len(np.unique(place[codes])) != rows:
        raise OutputProblem("invalid", f"{path.name} holds some rows more than once.")
    ordered = np.empty_like(values)
    ordered[place[codes]] = values
    return ordered


def read_table(folder: Path, name: str, schema: Schema, rows: int) -> pd.DataFrame:
    """The table `name.parquet` or `name.csv` with the schema's shared columns and `rows` rows, in canonical form.

    Numbers are rounded to the declared decimals and lie in the declared range, categories are declared ones, cells are
    empty (NaN, None) only where the schema has gaps. Rows keep the container's order: shuffle them before anybody sees
    it. Raises OutputProblem as `read_rows` does.
    """
    path = find(folder, name)
    columns = schema.shared
    longest = max((len(label.encode()) for column in columns for label in column.categories), default=0)
    caps = caps_for(path, rows, len(columns), cell=longest)
    kinds: dict[str, type[str] | type[float]] = {
        column.name: str if column.type == "category" else float for column in columns
    }
    with told(path):
        words, values = read_typed(path, kinds, caps)
        check_rows(path, len(values) if values.shape[1] else len(next(iter(words.values()))), rows)
        numbers = iter(values.T)
        return pd.DataFrame(
            {
                column.name: _labels(column, words[column.name])
                if column.type == "category"
                else _numbers(column, next(numbers))
                for column in columns
            }
        )


def _numbers(column: Column, values: Floats) -> Floats:
    """A column of numbers, rounded; one zero only: the sign of another would be a hidden channel."""
    if np.isinf(values).any():
        raise TableError(f"Column “{column.name}” holds infinite numbers.")
    rounded: Floats = np.round(values, column.decimals or 0) + 0.0
    empty = np.isnan(rounded)
    if empty.any() and not column.missing:
        raise TableError(f"Column “{column.name}” has empty cells, but every row needs a value there.")
    low = -np.inf if column.minimum is None else column.minimum
    high = np.inf if column.maximum is None else column.maximum
    if ((rounded < low) | (rounded > high)).any():
        raise TableError(f"Column “{column.name}” holds numbers outside its range, {low:g} to {high:g}.")
    rounded[empty] = np.nan  # one kind of NaN, for the same reason
    return rounded


def _labels(column: Column, words: pa.DictionaryArray) -> NDArray[np.object_]:
    """A column of declared categories; None where a cell is empty."""
    place = pd.Index(column.categories, dtype="object").get_indexer(
        pd.Index([word or None for word in words.dictionary.to_pylist()], dtype="object")
    )
    blank = np.array([not word for word in words.dictionary.to_pylist()], dtype=bool)
    if (place[~blank] < 0).any():
        raise TableError(f"Column “{column.name}” holds a text that is none of its categories.")
    codes = words.indices.fill_null(-1).to_numpy(zero_copy_only=False)
    known = np.append(np.where(blank, -1, place), -1)[codes]  # an index of -1 is the last: an empty cell
    if (known < 0).any() and not column.missing:
        raise TableError(f"Column “{column.name}” has empty cells, but every row needs a value there.")
    labels: NDArray[np.object_] = np.array([*column.categories, None], dtype=object)[known]
    return labels


def caps_for(path: Path, rows: int, columns: int, *, cell: int) -> Caps:
    """What a table of that many cells can be at most, with texts of up to `cell` bytes.

    Raises OutputProblem if the file is larger.
    """
    size = _BYTES_BESIDES + (_BYTES_PER_CELL + (cell if cell > TOKEN_LENGTH else 0)) * (rows + 1) * columns
    if path.is_file() and not path.is_symlink() and path.stat().st_size > size:
        raise OutputProblem("too_large", f"The file {path.name} is much larger than {rows:,} rows need.")
    return Caps(size=size, rows=rows, columns=columns + _SURPLUS, unpacked=size, cell=cell)


def check_rows(path: Path, found: int, wanted: int) -> None:
    """Raises OutputProblem unless a file has as many rows as were asked for."""
    if found != wanted:
        said = f"more than {wanted:,}" if found > wanted else f"{found:,}"
        raise OutputProblem("invalid", f"{path.name} has {said} rows; {wanted:,} were asked for.")


@contextmanager
def told(path: Path) -> Iterator[None]:
    """What is wrong with a table is told with the name of its file."""
    try:
        yield
    except TableError as error:
        raise OutputProblem("invalid", f"{path.name}: {error}") from error


def find(folder: Path, name: str) -> Path:
    found = [folder / f"{name}{suffix}" for suffix in (".parquet", ".csv")]
    found = [path for path in found if path.is_symlink() or path.exists()]
    if not found:
        raise OutputProblem("missing", f"Neither {name}.parquet nor {name}.csv was written to /output.")
    if len(found) > 1:
        raise OutputProblem("invalid", f"Both {name}.parquet and {name}.csv were written; only one can count.")
    return found[0]

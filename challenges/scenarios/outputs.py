"""Reading a container's table: exactly the rows that were asked about, exactly the columns, finite numbers only."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd

from challenges.scenarios.base import Floats, OutputProblem
from challenges.schema import TableError
from challenges.untrusted import Caps, read_output

# A number takes at most 25 characters in CSV; Parquet pages may add a header each. Twice that is generous.
_BYTES_PER_CELL: Final = 64
_BYTES_BESIDES: Final = 1 << 20
_TOKEN_LENGTH: Final = 64
# Surplus columns are refused with a sentence of their own; a file with thousands is not even opened.
_SURPLUS: Final = 100


def read_rows(folder: Path, name: str, names: list[str], columns: tuple[str, ...]) -> Floats:
    """The numbers of `name.parquet` or `name.csv`, one row per entry of `names` in that order.

    Raises OutputProblem: "missing" if there is no file, "too_large" if it is bigger than such a table can be,
    "invalid" for anything else; the sentence says what was expected.
    """
    path = _find(folder, name)
    cells = len(names) * (len(columns) + 1) + len(columns)
    size = _BYTES_BESIDES + _BYTES_PER_CELL * cells
    if path.is_file() and not path.is_symlink() and path.stat().st_size > size:
        raise OutputProblem("too_large", f"The file {path.name} is much larger than {len(names):,} rows need.")
    caps = Caps(size=size, rows=len(names), columns=len(columns) + _SURPLUS, unpacked=size, cell=_TOKEN_LENGTH)
    try:
        words, values = read_output(path, "row", columns, caps)
    except TableError as error:
        raise OutputProblem("invalid", f"{path.name}: {error}") from error
    rows = len(words)
    if rows != len(names):
        found = f"more than {len(names):,}" if rows > len(names) else f"{rows:,}"
        raise OutputProblem("invalid", f"{path.name} has {found} rows; {len(names):,} were asked for.")
    place = pd.Index(names).get_indexer(pd.Index(words.dictionary.to_pylist(), dtype="str"))
    codes = words.indices.to_numpy(zero_copy_only=False)
    if words.null_count or (place[codes] < 0).any():
        raise OutputProblem("invalid", f"{path.name} holds rows that were not asked about.")
    if len(np.unique(place[codes])) != rows:
        raise OutputProblem("invalid", f"{path.name} holds some rows more than once.")
    ordered = np.empty_like(values)
    ordered[place[codes]] = values
    return ordered


def _find(folder: Path, name: str) -> Path:
    found = [folder / f"{name}{suffix}" for suffix in (".parquet", ".csv")]
    found = [path for path in found if path.is_symlink() or path.exists()]
    if not found:
        raise OutputProblem("missing", f"Neither {name}.parquet nor {name}.csv was written to /output.")
    if len(found) > 1:
        raise OutputProblem("invalid", f"Both {name}.parquet and {name}.csv were written; only one can count.")
    return found[0]

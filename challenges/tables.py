"""Tables of patients: profiling what an organiser uploads, writing it in one canonical form, reading that form back.

The canonical form is a Parquet file without index, metadata or duplicates: whole numbers as int64, other numbers as
float64 rounded to the declared decimals, categories (and class labels) as strings, empty cells as nulls. Rows keep the
order of the upload. Whatever cannot be used is refused with a :class:`TableError`.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path
from typing import Final

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from challenges.cleaning import canonical
from challenges.profiling import Profile, profile
from challenges.schema import Column, Role, Schema, TableError, Task
from challenges.untrusted import read_raw

__all__ = [
    "Column",
    "Profile",
    "Role",
    "Schema",
    "TableError",
    "Task",
    "arrow_schema",
    "profile",
    "read",
    "read_arrow",
    "write_arrow",
    "write_canonical",
    "write_frame",
]

_ARROW_TYPES: Final = {"integer": pa.int64(), "number": pa.float64(), "category": pa.string()}
# Worker processes serve few tables at a time; NHANES takes 1 MB.
_CACHED_TABLES: Final = 8


def write_canonical(source: Path, schema: Schema, target_path: Path, suffix: str | None = None) -> str:
    """Writes the canonical form of an uploaded file; returns its SHA-256 in hexadecimal.

    `suffix` (default: that of `source`) tells CSV from Parquet. Call it in an isolated child.
    """
    cleaned = canonical(read_raw(source, suffix or source.suffix), schema)
    return write_frame(cleaned.frame, schema, target_path)


def write_frame(frame: pd.DataFrame, schema: Schema, target_path: Path) -> str:
    """Writes a frame whose values already fit the schema (a cleaned table, a generated sample); returns its SHA-256.

    A patient id column may be absent: samples have none.
    """
    columns = tuple(column for column in schema.columns if column.role != "patient" or column.name in frame.columns)
    arrays = [pa.array(frame[column.name], type=_ARROW_TYPES[column.type], from_pandas=True) for column in columns]
    write_arrow(pa.Table.from_arrays(arrays, schema=arrow_schema(columns)), target_path)
    return hashlib.sha256(target_path.read_bytes()).hexdigest()


def arrow_schema(columns: tuple[Column, ...]) -> pa.Schema:
    """The Arrow types of these columns in canonical files."""
    return pa.schema([pa.field(column.name, _ARROW_TYPES[column.type]) for column in columns])


def write_arrow(table: pa.Table, path: Path) -> None:
    """Writes Parquet with nothing in it but the values: no pandas or Arrow metadata, no statistics."""
    pq.write_table(table, path, compression="snappy", use_dictionary=False, write_statistics=False, store_schema=False)


def read_arrow(path: Path) -> pa.Table:
    """A canonical file as an Arrow table; kept in memory until the file changes."""
    facts = path.stat()
    return _read_arrow(str(path), facts.st_mtime_ns, facts.st_size)


def read(path: Path) -> pd.DataFrame:
    """A canonical file as a frame: categories are strings, whole numbers with gaps are floats with NaN.

    The frame may be changed: it shares its values with a cached one only until then.
    """
    facts = path.stat()
    return _read_frame(str(path), facts.st_mtime_ns, facts.st_size).copy(deep=False)


@lru_cache(maxsize=_CACHED_TABLES)
def _read_arrow(path: str, mtime: int, size: int) -> pa.Table:
    return pq.read_table(path, use_threads=False).combine_chunks()


@lru_cache(maxsize=_CACHED_TABLES)
def _read_frame(path: str, mtime: int, size: int) -> pd.DataFrame:
    frame: pd.DataFrame = _read_arrow(path, mtime, size).to_pandas()
    return frame

"""What is kept in `table-reconstruction`: an anonymised table with its scheme, and guesses at secrets."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Final

import pyarrow as pa

from challenges import anonymised, tables
from challenges.anonymised import Anonymised
from challenges.generalised import Cells
from challenges.scenarios.base import Board, OutputProblem
from challenges.scenarios.containers import order_of
from challenges.schema import Column, Schema

SCHEMES: Final = ("same", "generalization", "microaggregation")
RELEASE: Final = "release.parquet"
SCHEME: Final = "scheme.json"
SCHEME_BYTES: Final = 1024
GUESSES: Final = "guesses.parquet"
# Guesses are compared with the truth as they are: finer than any column's own decimals.
_GUESS_DECIMALS: Final = 9


def secrets(schema: Schema) -> tuple[Column, ...]:
    """The columns that attacks guess."""
    return tuple(column for column in schema.columns if column.role == "secret")


def quasi_identifiers(schema: Schema) -> tuple[Column, ...]:
    """The columns that attacks know of a person."""
    return tuple(column for column in schema.columns if column.role == "quasi-identifier")


def write_release(table: Anonymised, scheme: str, board: Board, folder: Path) -> None:
    schema = board.game.schema
    order = order_of(board, "release", len(table[schema.target]))
    anonymised.write(table, schema, order, folder / RELEASE)
    (folder / SCHEME).write_text(json.dumps({"scheme": scheme}) + "\n", encoding="utf-8")


def read_scheme(path: Path, what: str) -> str:
    """The scheme that a hostile file declares; sentences call it `what`. Raises OutputProblem."""
    if path.is_symlink() or not path.is_file():
        raise OutputProblem("missing", f"{what} is missing.")
    if path.stat().st_size > SCHEME_BYTES:
        raise OutputProblem("too_large", f"{what} is larger than {SCHEME_BYTES} bytes.")
    try:
        scheme = json.loads(path.read_bytes())
    except (ValueError, RecursionError):  # not UTF-8, no JSON, or nested beyond reason
        scheme = None
    if not isinstance(scheme, dict) or set(scheme) != {"scheme"} or scheme["scheme"] not in SCHEMES:
        allowed = " or ".join(f'{{"scheme": "{name}"}}' for name in SCHEMES)
        raise OutputProblem("invalid", f"{what} must hold {allowed}.")
    return str(scheme["scheme"])


def as_guessed(column: Column) -> Column:
    """A secret as guesses may hold it: any finite number, not only one that the column could hold."""
    if column.type == "category":
        return column
    return replace(column, type="number", minimum=None, maximum=None, decimals=_GUESS_DECIMALS)


def keep_guesses(guesses: Anonymised, result: Path) -> None:
    """Writes an attack's result, aligned to `deal.scored`."""
    tables.write_arrow(pa.table({name: _guessed(cells) for name, cells in guesses.items()}), result / GUESSES)


def _guessed(cells: Cells) -> pa.Array:
    if cells.column.type == "category":
        return pa.array(cells.texts, type=pa.string())
    return pa.array(cells.expected[:, 0], type=pa.float64(), from_pandas=True)

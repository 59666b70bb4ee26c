"""The tables that containers get: rows of the private table under the tokens, and in the order, of one run."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from challenges import tables
from challenges.scenarios.base import Board
from challenges.schema import Column
from challenges.splits import Flags, Positions, derive, shuffle, tokens


def names_of(board: Board, name: str, number: int) -> list[str]:
    """The tokens of the rows of the table `name` of this run: the i-th names the i-th position."""
    return tokens(derive(board.key, name), number)


def order_of(board: Board, name: str, number: int) -> Positions:
    """The order in which the rows of the table `name` are written in this run."""
    return shuffle(derive(board.key, name), number)


def write_shuffled(board: Board, folder: Path, name: str, rows: pa.Table) -> dict[str, str]:
    """Writes rows as `name.parquet`, in this run's order and without tokens; returns the entry for task.json."""
    order = order_of(board, name, rows.num_rows)
    tables.write_arrow(rows.take(pa.array(order)), folder / f"{name}.parquet")
    return {name: f"{name}.parquet"}


def write_named(board: Board, folder: Path, name: str, rows: pa.Table, *, under: str = "") -> dict[str, str]:
    """The same with the column `row` of tokens in front.

    `under` is the name of a table whose tokens and order these rows share (default: their own).
    """
    number = rows.num_rows
    named = rows.add_column(0, "row", pa.array(names_of(board, under or name, number), type=pa.string()))
    tables.write_arrow(named.take(pa.array(order_of(board, under or name, number))), folder / f"{name}.parquet")
    return {name: f"{name}.parquet"}


def people(board: Board, positions: Positions, columns: tuple[Column, ...], member: Flags | None = None) -> pa.Table:
    """These rows of the private table with these columns, and whether they are members where that is told."""
    rows = tables.read_arrow(board.table).select([column.name for column in columns]).take(pa.array(positions))
    return rows if member is None else rows.append_column("member", pa.array(member))

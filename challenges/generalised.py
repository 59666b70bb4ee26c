"""Cells of an anonymised table: a value, an interval, a set of categories, or nothing. Reading, writing, expectation.

A cell is written as `34`, `[20, 30)` or `(20, 30]` (square brackets take the bound in, round ones leave it out) in
columns of numbers, as `female` or `{Asian, "other, several"}` in columns of categories (quoted as in CSV where a
category holds a comma, a quotation mark or a brace), and empty in both. Pure and strict: what it refuses is told as a
TableError that quotes the column's name and nothing of the cell.
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, NoReturn

import numpy as np
from numpy.typing import NDArray

from challenges.schema import Column, TableError

Floats = NDArray[np.float64]
Positions = NDArray[np.int64]

# A decimal number, as short as one can be written that a double holds.
NUMBER_TEXT: Final = r"[-+]?[0-9]{1,20}(?:\.[0-9]{1,20})?(?:[eE][-+]?[0-9]{1,2})?"
_NUMBER: Final = re.compile(NUMBER_TEXT, re.ASCII)
_INTERVAL: Final = re.compile(rf"([\[(])\s*({NUMBER_TEXT})\s*,\s*({NUMBER_TEXT})\s*([\])])", re.ASCII)
# Two numbers of at most 47 characters each, brackets, and room for spaces.
_LONGEST_NUMBERS: Final = 120
_TO_BE_QUOTED: Final = frozenset(',"{}')


@dataclass(frozen=True)
class Interval:
    """Numbers from `low` to `high`; a single value is an interval without width."""

    low: float
    high: float
    with_low: bool = True
    with_high: bool = True

    @property
    def is_value(self) -> bool:
        """Whether the cell was not generalised."""
        return self.low == self.high


@dataclass(frozen=True)
class Choice:
    """One of several categories, by their positions in the column, ascending; a single category is a set of one."""

    positions: tuple[int, ...]

    @property
    def is_value(self) -> bool:
        """Whether the cell was not generalised."""
        return len(self.positions) == 1


Cell = Interval | Choice | None


def longest(column: Column) -> int:
    """The most bytes that a cell of this column can take, with some room for spaces."""
    if column.type != "category":
        return _LONGEST_NUMBERS
    return 16 + sum(2 * len(category.encode()) + 4 for category in column.categories)


def parse(text: str | None, column: Column) -> Cell:
    """The cell that a text stands for, rounded to the column's decimals. Raises TableError.

    Bounds lie inside the column's declared range, sets hold declared categories.
    """
    if text is None or len(text) > longest(column):
        return _refuse(column, "a text that is too long") if text else None
    stripped = text.strip()
    if column.type == "category":
        return _parse_choice(text if text in column.categories else stripped, column)
    return _parse_interval(stripped, column)


def value(number: float, column: Column) -> Cell:
    """The cell of a plain number, NaN for an empty one. Raises TableError for one outside the declared range."""
    if math.isnan(number):
        return None
    return _interval(number, number, True, True, column)


def render(cell: Cell, column: Column) -> str | None:
    """The canonical text of a cell that `parse` gave; None for an empty one. Parsing it gives the same cell again."""
    if cell is None:
        return None
    if isinstance(cell, Choice):
        return _render_choice([column.categories[position] for position in cell.positions], column)
    low, high = (f"{number:.{decimals(column)}f}" for number in (cell.low, cell.high))
    return low if cell.is_value else f"{'[' if cell.with_low else '('}{low}, {high}{']' if cell.with_high else ')'}"


def decimals(column: Column) -> int:
    """The decimals that numbers of this column are rounded to."""
    return column.decimals or 0 if column.type == "number" else 0


def _refuse(column: Column, what: str) -> NoReturn:
    raise TableError(f"The column “{column.name}” holds {what}.")


# Numbers --------------------------------------------------------------------------------------------------------------


def _parse_interval(text: str, column: Column) -> Cell:
    if not text:
        return None
    if _NUMBER.fullmatch(text):
        return value(float(text), column)
    found = _INTERVAL.fullmatch(text)
    if found is None:
        _refuse(column, "a cell that is neither a number, nor an interval like [20, 30), nor empty")
    opening, low, high, closing = found.groups()
    return _interval(float(low), float(high), opening == "[", closing == "]", column)


def _interval(low: float, high: float, with_low: bool, with_high: bool, column: Column) -> Interval:
    least, most = column.minimum, column.maximum
    if not (math.isfinite(low) and math.isfinite(high)):
        _refuse(column, "a number that is not finite")
    if (least is not None and low < least) or (most is not None and high > most):
        _refuse(column, "a number outside the declared range")
    if low > high:
        _refuse(column, "an interval whose upper bound is below its lower one")
    # No negative zero: its sign would be one more thing to read in a release.
    low, high = (round(number, decimals(column)) + 0.0 for number in (low, high))
    if low == high:  # also what rounding has made equal
        return Interval(low, high)
    rounded = Interval(low, high, with_low, with_high)
    if _inside(rounded, column)[0] > _inside(rounded, column)[1]:
        _refuse(column, "an interval with no possible value in it")
    return rounded


def _inside(cell: Interval, column: Column) -> tuple[float, float]:
    """The least and the greatest value of the column's own grid (whole numbers, tenths ...) in the interval."""
    step = 0.0 if cell.is_value else float(10.0 ** -decimals(column))
    # Rounded, since 0.3 - 0.1 must not end up above 0.2.
    low = round(cell.low + (0 if cell.with_low else step), decimals(column))
    return low, round(cell.high - (0 if cell.with_high else step), decimals(column))


# Categories -----------------------------------------------------------------------------------------------------------


def _parse_choice(text: str, column: Column) -> Cell:
    if text in column.categories:  # also one that looks like a set
        return Choice((column.categories.index(text),))
    if not text:
        return None
    if not (text.startswith("{") and text.endswith("}")):
        _refuse(column, "a cell that is neither a declared category, nor a set like {a, b}, nor empty")
    try:
        (items,) = csv.reader([text[1:-1]], skipinitialspace=True, strict=True)
    except (csv.Error, ValueError):
        _refuse(column, "a set that cannot be read")
    chosen = [item if item in column.categories else item.strip() for item in items]
    if not chosen or not set(chosen) <= set(column.categories):
        _refuse(column, "a set with something that is no declared category")
    if len(set(chosen)) < len(chosen):
        _refuse(column, "a set that names a category twice")
    return Choice(tuple(sorted(column.categories.index(item) for item in chosen)))


def _render_choice(chosen: list[str], column: Column) -> str:
    if len(chosen) == 1:
        return chosen[0]
    text = "{" + ", ".join(_quoted(category) for category in chosen) + "}"
    while text in column.categories:  # a category that looks like this set: a space more, and it does not
        text = "{ " + text[1:]
    return text


def _quoted(category: str) -> str:
    if _TO_BE_QUOTED.isdisjoint(category) and category == category.strip():
        return category
    return '"' + category.replace('"', '""') + '"'


# Columns --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Cells:
    """A column of cells: the distinct ones, and which of them each row holds."""

    column: Column
    distinct: tuple[Cell, ...]
    codes: Positions

    @classmethod
    def from_texts(cls, texts: Iterable[str | None], codes: Positions, column: Column) -> Cells:
        """Cells from distinct texts and each row's position among them (-1: empty). Raises TableError."""
        return cls.of([*(parse(text, column) for text in texts), None], codes, column)

    @classmethod
    def from_numbers(cls, numbers: Floats, column: Column) -> Cells:
        """Cells from plain numbers, NaN for empty ones. Raises TableError."""
        distinct, codes = np.unique(numbers, return_inverse=True)
        return cls.of([value(float(number), column) for number in distinct], codes.astype(np.int64), column)

    @classmethod
    def of(cls, parsed: list[Cell], codes: Positions, column: Column) -> Cells:
        """Cells and each row's position among them. Those that mean the same become one."""
        distinct = tuple(dict.fromkeys(parsed))
        place = {cell: position for position, cell in enumerate(distinct)}
        return cls(column, distinct, np.array([place[cell] for cell in parsed], dtype=np.int64)[codes])

    def __len__(self) -> int:
        return len(self.codes)

    def take(self, rows: Positions) -> Cells:
        """The cells of these rows; -1 stands for an empty one."""
        distinct = dict.fromkeys((*self.distinct, None))
        codes = np.where(rows < 0, list(distinct).index(None), self.codes[rows] if len(self) else 0)
        return Cells(self.column, tuple(distinct), codes)

    @property
    def texts(self) -> list[str | None]:
        """The canonical text of each row's cell."""
        rendered = [render(cell, self.column) for cell in self.distinct]
        return [rendered[code] for code in self.codes]

    @property
    def text_bytes(self) -> int:
        """How many bytes the canonical texts of all rows take together."""
        lengths = [len((render(cell, self.column) or "").encode()) for cell in self.distinct]
        return int(np.array(lengths, dtype=np.int64)[self.codes].sum())

    @property
    def plain(self) -> NDArray[np.bool_]:
        """Which rows hold a single value."""
        return np.array([cell is not None and cell.is_value for cell in self.distinct], dtype=np.bool_)[self.codes]

    @property
    def empty(self) -> NDArray[np.bool_]:
        """Which rows hold nothing."""
        return np.array([cell is None for cell in self.distinct], dtype=np.bool_)[self.codes]

    @cached_property
    def bounds(self) -> Floats:
        """[rows, 2]: the least and the greatest number that each cell allows; the declared range where it is empty."""
        width = (self.column.minimum or 0.0, self.column.maximum or 0.0)
        known = [_inside(cell, self.column) if isinstance(cell, Interval) else width for cell in self.distinct]
        return np.array(known, dtype=np.float64).reshape(-1, 2)[self.codes]

    @cached_property
    def shares(self) -> Floats:
        """[rows, categories]: the chance of each category if all that a cell allows are alike; 0 where it is empty."""
        table = np.zeros((len(self.distinct), len(self.column.categories)))
        for row, cell in zip(table, self.distinct, strict=True):
            if isinstance(cell, Choice):
                row[list(cell.positions)] = 1 / len(cell.positions)
        return np.asarray(table[self.codes])

    @property
    def expected(self) -> Floats:
        """[rows, 1] the mean number that each cell allows, or [rows, categories] shares.

        Empty cells are NaN, or a row of zeros. This is the form that `features.matrix` gives a table of plain values.
        """
        if self.column.type == "category":
            return self.shares
        return np.asarray(np.where(self.empty, np.nan, self.bounds.mean(axis=1))[:, None])

    def draw(self, random: np.random.Generator) -> NDArray[Any]:
        """One value for each row among those that its cell allows, all equally likely; NaN or None for an empty one."""
        if self.column.type != "category":
            low, high = self.bounds.T
            unit = 10.0 ** decimals(self.column)
            steps = np.floor(random.random(len(self)) * (np.round((high - low) * unit) + 1))
            drawn = np.round(low + steps / unit, decimals(self.column)) + 0.0
            return np.where(self.empty, np.nan, drawn)
        shares = self.shares
        place = (shares.cumsum(axis=1) < random.random(len(self))[:, None] * (1 - 1e-9)).sum(axis=1)
        labels = np.array([*self.column.categories, None], dtype=object)
        return np.asarray(labels[np.where(shares.any(axis=1), place, len(labels) - 1)])

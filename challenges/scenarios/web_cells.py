"""Anonymised tables as published AnoMed images hold them: ranges of numbers as pairs, categories one-hot.

Images of the web contract know no declared ranges and no declared categories. So numbers outside a range are brought
to its end here, where contract anomed/1 refuses them, and columns that do not belong to the game are passed over.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from challenges.anonymised import Anonymised
from challenges.generalised import NUMBER_TEXT, Cell, Cells, Choice, Interval, decimals, longest, parse
from challenges.scenarios.base import Floats
from challenges.schema import Column, Schema, TableError
from challenges.untrusted import Caps, is_text, read_columns, texts_of

_RANGE: Final = re.compile(
    rf"([\[(]?)\s*({NUMBER_TEXT}|-?inf|)\s*(?:,|\.\.|–|-|to)\s*({NUMBER_TEXT}|-?inf|)\s*([\])]?)", re.ASCII
)
_NUMBER: Final = re.compile(NUMBER_TEXT, re.ASCII)
# What stands for nothing where a table was made of texts: Python's own words, and the star of k-anonymity.
_NOTHING: Final = frozenset({"", "*", "nan", "NaN", "None", "NaT", "<NA>", "null"})
# What stands between the names of a column and of a category: that of pandas.get_dummies first.
_BETWEEN: Final = ("_", "=")
# An index, and columns that do not belong there.
_SURPLUS: Final = 100
# Where the names of rows may stand: an index is a column of its name, or of this one.
INDEX: Final = ("row", "__index_level_0__")
_BYTES_PER_CELL: Final = 64
_BYTES_BESIDES: Final = 1 << 20


def caps_for(columns: tuple[Column, ...], rows: int) -> Caps:
    """What a table with these columns can be at most, each written in whatever form takes most room."""
    widest = sum(max(2, len(column.categories)) for column in columns) + _SURPLUS
    cell = max(longest(column) for column in columns)
    text = sum(longest(column) for column in columns)
    size = _BYTES_BESIDES + (_BYTES_PER_CELL * widest + text) * (rows + 1)
    items = (rows + 1) * max(2, *(len(column.categories) for column in columns))
    return Caps(size=size, rows=rows, columns=widest, unpacked=size, cell=cell, items=items)


def read_published(
    path: Path, schema: Schema, columns: tuple[Column, ...], caps: Caps, *, gaps: bool = False
) -> tuple[dict[str, Cells], pa.Table]:
    """The cells of these columns of a hostile table by name, and those columns of INDEX that it has.

    With `gaps` columns may be missing, but not all of them. Raises TableError.
    """
    forms = _forms(columns, {column.name for column in schema.columns})
    wanted = {name for form in forms.values() for name in form}
    table = read_columns(path, lambda name: name in wanted or name in INDEX, caps)
    cells = {}
    for column in columns:
        if held := {name: place for name, place in forms[column.name].items() if name in table.column_names}:
            cells[column.name] = _read(table, column, held, caps)
        elif not gaps:
            raise TableError(f"The column “{column.name}” is missing.")
    if not cells:
        raise TableError(f"None of these columns is there: {', '.join(forms)}.")
    return cells, table.select([name for name in INDEX if name in table.column_names])


def published(table: Anonymised, schema: Schema) -> pa.Table:
    """A release as an attack gets it that speaks the web protocol.

    Columns without a generalised cell are as in the original table. In others numbers are pairs (least, greatest),
    and each category is a column `name_category` of flags: whether the cell allows it. An empty cell is null; of
    categories it allows none.
    """
    columns: dict[str, pa.Array] = {}
    for column in schema.shared:
        columns |= _published(table[column.name], {one.name for one in schema.columns})
    return pa.table(columns)


def _published(cells: Cells, taken: set[str]) -> dict[str, pa.Array]:
    column, empty = cells.column, cells.empty
    whole = bool((cells.plain | empty).all())
    if column.type == "category":
        flags = {f"{column.name}_{category}": cells.shares[:, n] > 0 for n, category in enumerate(column.categories)}
        if whole or not taken.isdisjoint(flags):
            return {column.name: pa.array(cells.texts, type=pa.string())}
        return {name: pa.array(flag) for name, flag in flags.items()}
    if whole:
        kind = pa.int64() if column.type == "integer" else pa.float64()
        return {column.name: pa.array(cells.bounds[:, 0], mask=empty).cast(kind)}
    pairs = pa.ListArray.from_arrays(
        np.arange(0, 2 * len(cells) + 1, 2, dtype=np.int32), cells.bounds.ravel(), mask=pa.array(empty)
    )
    return {column.name: pairs}


# Reading --------------------------------------------------------------------------------------------------------------


def _forms(columns: tuple[Column, ...], taken: set[str]) -> dict[str, dict[str, int]]:
    """For each column the names that it may be told by, and what they tell: all of it (-1), or the n-th category;
    of numbers the least (0) and the greatest (1). Names that would tell of two columns are left out.
    """
    forms: dict[str, dict[str, int]] = {}
    for column in columns:
        parts = {f"{column.name}_min": 0, f"{column.name}_max": 1}
        if column.type == "category":
            parts = {f"{column.name}{sign}{name}": n for sign in _BETWEEN for n, name in enumerate(column.categories)}
        forms[column.name] = {column.name: -1, **{name: n for name, n in parts.items() if name not in taken}}
    often = Counter(name for form in forms.values() for name in form)
    return {column: {name: n for name, n in form.items() if often[name] == 1} for column, form in forms.items()}


def _read(table: pa.Table, column: Column, held: dict[str, int], caps: Caps) -> Cells:
    if column.name not in held:
        return (_one_hot if column.type == "category" else _two_columns)(table, column, held)
    values = table.column(column.name).combine_chunks()
    closed = "both"
    if isinstance(values.type, pa.BaseExtensionType):
        closed, values = _closed(values.type, column), values.storage
    if _holds_text(values.type):
        return _of_texts(texts_of(column.name, values, caps), column)
    if _is_list(values.type):
        return (_of_sets if column.type == "category" else _of_pairs)(values, column)
    if pa.types.is_struct(values.type):
        return _of_structs(values, column, closed)
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    distinct, codes = np.unique(_plain(values, column.name), return_inverse=True)
    read = _named if column.type == "category" else _point
    return _coded([read(number, column) for number in distinct.tolist()], codes, column)


def _closed(kind: Any, column: Column) -> str:
    """Which ends a column of pd.Interval holds. Raises TableError for other types that pandas adds."""
    if kind.extension_name != "pandas.interval":
        raise TableError(
            f"The column “{column.name}” holds neither numbers nor flags nor texts, nor ranges of numbers."
        )
    return str(kind.closed)


def _coded(distinct: Iterable[Cell], codes: NDArray[Any], column: Column) -> Cells:
    """Cells from distinct ones and each row's position among them; -1 stands for an empty one."""
    return Cells.of([*distinct, None], np.asarray(codes, dtype=np.int64), column)


def _of_texts(words: pa.DictionaryArray, column: Column) -> Cells:
    codes = words.indices.fill_null(-1).to_numpy(zero_copy_only=False)
    read = _choice if column.type == "category" else _range
    return _coded([read(text, column) for text in words.dictionary.to_pylist()], codes, column)


def _choice(text: str, column: Column) -> Cell:
    if text in column.categories or text.strip() not in _NOTHING:
        return parse(text, column)
    return None


def _range(text: str, column: Column) -> Cell:
    stripped = text.strip()
    if stripped in _NOTHING:
        return None
    if len(stripped) > longest(column):
        raise TableError(f"The column “{column.name}” holds a text that is too long.")
    if _NUMBER.fullmatch(stripped):
        return _point(float(stripped), column)
    found = _RANGE.fullmatch(stripped)
    if found is None:
        raise TableError(f"The column “{column.name}” holds a text that is neither a number nor a range of numbers.")
    opening, low, high, closing = found.groups()
    # A Python tuple (least, greatest) holds both. An interval that leaves both out is written by nobody.
    pair = (opening, closing) == ("(", ")")
    ends = (float(low or "-inf"), float(high or "inf"))
    return _interval(*ends, column, with_low=pair or opening != "(", with_high=pair or closing != ")")


def _of_pairs(values: pa.Array, column: Column) -> Cells:
    """Lists (least, greatest); of one number: that one; of none: nothing."""
    lengths = np.asarray(pc.fill_null(pc.list_value_length(values), 0))
    if len(lengths) and lengths.max() > 2:
        raise TableError(f"The column “{column.name}” holds lists of more than two numbers.")
    flat = _plain(pc.list_flatten(values), column.name)
    ends = np.cumsum(lengths)
    filled = np.append(flat, np.nan)  # rows without numbers may point behind the last one
    low, high = filled[np.minimum(ends - lengths, len(flat))], filled[ends - 1]
    return _intervals(np.where(lengths > 0, low, np.nan), np.where(lengths > 0, high, np.nan), column)


def _of_structs(values: pa.Array, column: Column, closed: str) -> Cells:
    if column.type == "category" or values.type.num_fields != 2:
        raise TableError(f"The column “{column.name}” holds cells of several parts that cannot be read.")
    low, high = (_plain(field, column.name) for field in values.flatten())
    return _intervals(low, high, column, closed)


def _two_columns(table: pa.Table, column: Column, held: dict[str, int]) -> Cells:
    if len(held) != 2:
        raise TableError(f"Of the columns “{column.name}_min” and “{column.name}_max” one is missing.")
    low, high = (_plain(table.column(name).combine_chunks(), name) for name in sorted(held, key=held.__getitem__))
    return _intervals(low, high, column)


def _intervals(low: Floats, high: Floats, column: Column, closed: str = "both") -> Cells:
    """Ranges of numbers; a bound that is not there is the declared one, and without both there is nothing."""
    nothing = np.isnan(low) & np.isnan(high)
    pairs = np.column_stack([np.where(np.isnan(low), -np.inf, low), np.where(np.isnan(high), np.inf, high)])
    distinct, codes = np.unique(pairs, axis=0, return_inverse=True)
    with_low, with_high = closed in ("both", "left"), closed in ("both", "right")
    cells = [
        _interval(least, most, column, with_low=with_low, with_high=with_high) for least, most in distinct.tolist()
    ]
    return _coded(cells, np.where(nothing, -1, codes.ravel()), column)


def _one_hot(table: pa.Table, column: Column, held: dict[str, int]) -> Cells:
    """A column of flags, or of shares, for each category: the cell allows those with more than nothing."""
    allowed = np.zeros((table.num_rows, len(column.categories)), dtype=np.bool_)
    for name, place in held.items():
        shares = np.nan_to_num(_plain(table.column(name).combine_chunks(), name))
        if ((shares < 0) | (shares > 1)).any():
            raise TableError(f"The column “{name}” must hold flags, or 0 and 1.")
        allowed[:, place] |= shares > 0
    distinct, codes = np.unique(allowed, axis=0, return_inverse=True)
    return _coded([_among(row, column) for row in distinct], codes.ravel(), column)


def _of_sets(values: pa.Array, column: Column) -> Cells:
    """Lists of categories: the cell allows those that it names."""
    texts, parents = pc.list_flatten(values), pc.list_parent_indices(values)
    if not (_holds_text(texts.type) or pa.types.is_null(texts.type)):
        raise TableError(f"The column “{column.name}” holds lists of something else than categories.")
    place = pc.index_in(texts.cast(pa.string()), value_set=pa.array(column.categories, type=pa.string()))
    if place.null_count:
        raise TableError(f"The column “{column.name}” holds something that is no declared category.")
    allowed = np.zeros((len(values), len(column.categories)), dtype=np.bool_)
    allowed[parents.to_numpy(), place.to_numpy()] = True
    distinct, codes = np.unique(allowed, axis=0, return_inverse=True)
    return _coded([_among(row, column) for row in distinct], codes.ravel(), column)


def _among(allowed: NDArray[np.bool_], column: Column) -> Cell:
    return Choice(tuple(np.flatnonzero(allowed).tolist())) if allowed.any() else None


def _named(number: float, column: Column) -> Cell:
    """A category that is called like a number."""
    if not math.isfinite(number):
        return None
    names = {str(number), str(int(number)) if number == int(number) else ""}
    found = [place for place, category in enumerate(column.categories) if category in names]
    if not found:
        raise TableError(f"Column “{column.name}” holds numbers; its categories are texts.")
    return Choice((found[0],))


def _point(number: float, column: Column) -> Cell:
    return None if math.isnan(number) else _interval(number, number, column)


def _interval(low: float, high: float, column: Column, *, with_low: bool = True, with_high: bool = True) -> Interval:
    """The values of the column's own grid (whole numbers, tenths ...) in a range, which is then closed.

    It is cut to the declared range. One that lies between two neighbours of the grid becomes the nearer one.
    """
    if low > high:
        raise TableError(f"The column “{column.name}” holds a range whose upper bound is below its lower one.")
    least, most = (_cut(bound, column) for bound in (low, high))
    first = last = round((least + most) / 2, decimals(column))
    if least < most:
        unit = 10.0 ** decimals(column)
        # Rounded first, since 0.3 * 10 must not end up above 3.
        start, end = round(least * unit, 6), round(most * unit, 6)
        lower = math.floor(start) + 1 if least == low and not with_low else math.ceil(start)
        upper = math.ceil(end) - 1 if most == high and not with_high else math.floor(end)
        if lower <= upper:
            first, last = (round(bound / unit, decimals(column)) for bound in (lower, upper))
    return Interval(first + 0.0, last + 0.0)  # no negative zero: its sign would be one more thing to read


def _cut(number: float, column: Column) -> float:
    """A number brought into the declared range. Raises TableError for an infinite one where none is declared."""
    low = -math.inf if column.minimum is None else column.minimum
    high = math.inf if column.maximum is None else column.maximum
    cut = min(max(number, low), high)
    if math.isinf(cut):
        raise TableError(f"The column “{column.name}” holds a number that is not finite.")
    return cut


def _plain(values: pa.Array, name: str) -> Floats:
    """A column of numbers or flags as float64, with NaN for nothing."""
    kind = values.type
    known = (pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean, pa.types.is_null)
    if not any(is_kind(kind) for is_kind in known):
        raise TableError(f"The column “{name}” holds neither numbers nor flags nor texts, nor pairs of numbers.")
    if pa.types.is_boolean(kind):
        values = values.cast(pa.uint8())
    numbers: Floats = values.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    return numbers


def _holds_text(kind: pa.DataType) -> bool:
    return is_text(kind.value_type if pa.types.is_dictionary(kind) else kind)


def _is_list(kind: pa.DataType) -> bool:
    return any(check(kind) for check in (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list))

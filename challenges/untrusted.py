"""Reading table files that a stranger wrote: sizes are capped before anything is unpacked, types listed, not guessed.

Call it in an isolated child: the caps keep honest mistakes cheap, the child's limits stop what lies about its size.
All problems are raised as TableError with a plain sentence that quotes names of columns but no values.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
from numpy.typing import NDArray

from challenges.schema import TableError

_MEGABYTE: Final = 1 << 20
_DELIMITERS: Final = ",;\t"
# A line of a CSV file must fit into one block.
_CSV_BLOCK: Final = 8 * _MEGABYTE
# Bounds for the Parquet footer's own strings and lists: far above any honest table, far below a bomb.
_THRIFT_STRINGS, _THRIFT_ITEMS = 16 * _MEGABYTE, 1_000_000
_FOREIGN: Final = {
    b"PK\x03\x04": "This is a spreadsheet or a zip archive",
    b"\xff\xfe": "This text is coded as UTF-16",
    b"\xfe\xff": "This text is coded as UTF-16",
    b"\x1f\x8b": "This file is compressed",
    b"PAR1": "This is a Parquet file, although its name says otherwise",
    b"\x80\x04": "This is a Python pickle",
    b"\x80\x05": "This is a Python pickle",
}
# More names than this would bury the sentence that lists them.
_LISTED: Final = 30
_NOT_UTF8: Final = "The file is not coded as UTF-8. Save it as “CSV UTF-8” or as Parquet."

Kinds = Mapping[str, type[str] | type[float]]


@dataclass(frozen=True)
class Caps:
    """The most that a file may hold: bytes on disk, rows, columns, bytes when unpacked, characters in one cell; items
    of lists in one column.
    """

    size: int
    rows: int
    columns: int
    unpacked: int
    cell: int = 10_000
    items: int = 1_000_000


# What an organiser may upload; one column of a million rows is still read in a second or two.
ORGANISER_CAPS: Final = Caps(size=256 * _MEGABYTE, rows=1_000_000, columns=500, unpacked=1024 * _MEGABYTE)


@dataclass(frozen=True, eq=False)
class RawTable:
    """Columns as they were written: texts (CSV, text columns) or numbers; `delimiter` is "" for Parquet."""

    columns: dict[str, pd.Series]
    rows: int
    delimiter: str = ""

    @property
    def decimal_comma(self) -> bool:
        """Whether 1,5 may be a number: not where the comma separates cells."""
        return self.delimiter in (";", "\t")


def read_raw(path: Path, suffix: str, caps: Caps = ORGANISER_CAPS) -> RawTable:
    """An organiser's CSV (comma, semicolon or tab; UTF-8) or Parquet file, column by column."""
    kind = suffix.lower().lstrip(".")
    _check_size(path, caps)
    if kind in ("csv", "tsv", "txt"):
        return _read_text(path, caps)
    if kind in ("parquet", "pq"):
        return _read_organisers_parquet(path, caps)
    raise TableError("Only CSV and Parquet files can be read. Save the table in one of these formats.")


def read_output(path: Path, text: str, numbers: tuple[str, ...], caps: Caps) -> tuple[pa.Array, NDArray[np.float64]]:
    """One column of texts and a matrix of finite numbers from a container's Parquet or CSV file (by its suffix).

    The file must hold exactly these columns, in any order. The texts come back dictionary-encoded, so that a long
    text repeated in every row costs its length once.
    """
    words, values = read_typed(path, {text: str, **dict.fromkeys(numbers, float)}, caps)
    if not np.isfinite(values).all():
        raise TableError("The numbers must be finite: there are empty, NaN or infinite cells.")
    return words[text], values


def read_typed(path: Path, kinds: Kinds, caps: Caps) -> tuple[dict[str, pa.Array], NDArray[np.float64]]:
    """The columns of texts by name, and a matrix of the numbers in the order of `kinds`, from a container's file.

    The file must hold exactly the columns of `kinds`, in any order, as plain texts and plain numbers. An empty cell is
    null or "" among the texts, which are dictionary-encoded, and NaN among the numbers, which may be infinite.
    """
    _check_size(path, caps)
    return (_output_from_parquet if path.suffix == ".parquet" else _output_from_csv)(path, kinds, caps)


def read_cells(path: Path, names: tuple[str, ...], caps: Caps) -> dict[str, pa.DictionaryArray | NDArray[np.float64]]:
    """Columns of cells that may be texts, numbers or empty, from a container's file.

    The file must hold exactly these columns, in any order. Each comes as texts (dictionary-encoded, so that each
    distinct one is looked at once) or, from Parquet's numeric columns, as numbers with NaN for empty cells.
    """
    _check_size(path, caps)
    table = _cells_from_parquet(path, names, caps) if path.suffix == ".parquet" else _cells_from_csv(path, names, caps)
    return {name: _cells(name, table.column(name).combine_chunks(), caps) for name in names}


def read_columns(path: Path, wanted: Callable[[str], bool], caps: Caps) -> pa.Table:
    """Those columns of a container's Parquet file whose names are `wanted`, of whatever types, with no metadata.

    Texts are dictionary-encoded where they stand by themselves. The caller looks at types before values.
    """
    _check_size(path, caps)
    file = _open_parquet(path, caps)
    schema, facts = file.schema_arrow, file.metadata
    groups = [facts.row_group(index) for index in range(facts.num_row_groups)]
    # A few bytes can repeat an item of a list for ever.
    if any(sum(group.column(at).num_values for group in groups) > caps.items for at in range(facts.num_columns)):
        raise TableError("The file holds lists that are too long.")
    names = [name for name in schema.names if wanted(name)]
    for name in names:
        if schema.names.count(name) > 1:
            raise TableError(f"Two columns are called “{name}”.")
    texts = tuple(name for name in names if is_text(schema.field(name).type))
    return _load(_open_parquet(path, caps, dictionaries=texts), names)


def texts_of(name: str, values: pa.Array, caps: Caps) -> pa.DictionaryArray:
    """A column of texts, dictionary-encoded or not, once it is known to be UTF-8 and not too long."""
    words = values if pa.types.is_dictionary(values.type) else values.dictionary_encode()
    try:
        words.dictionary.validate(full=True)
    except pa.ArrowException as error:
        raise TableError(f"Column “{name}” holds texts that are not coded as UTF-8.") from error
    if len(words.dictionary) and (pc.max(pc.binary_length(words.dictionary)).as_py() or 0) > caps.cell:
        raise TableError(f"Column “{name}” holds texts that are too long.")
    return words


def _cells(name: str, values: pa.Array, caps: Caps) -> pa.DictionaryArray | NDArray[np.float64]:
    if pa.types.is_null(values.type) or pa.types.is_integer(values.type) or pa.types.is_floating(values.type):
        numbers: NDArray[np.float64] = values.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
        return numbers
    coded = pa.types.is_dictionary(values.type)
    if not is_text(values.type.value_type if coded else values.type):
        raise TableError(f"Column “{name}” holds neither plain numbers nor plain texts.")
    return texts_of(name, values, caps)


def _check_size(path: Path, caps: Caps) -> None:
    if path.is_symlink() or not path.is_file():
        raise TableError("This is not a regular file.")
    size = path.stat().st_size
    if size == 0:
        raise TableError("The file is empty.")
    if size > caps.size:
        raise TableError(f"The file is larger than {max(1, caps.size // _MEGABYTE)} MB, the most that is read.")


# CSV ------------------------------------------------------------------------------------------------------------------


def _header(path: Path, caps: Caps, wanted: tuple[str, ...] = ()) -> tuple[list[str], str]:
    """The column names of a CSV file and its delimiter. `wanted` are the names it should have, where they are known."""
    start = path.open("rb").read(4)
    for magic, sentence in _FOREIGN.items():
        if start.startswith(magic):
            raise TableError(f"{sentence}. Save the table as “CSV UTF-8” or as Parquet.")
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            line = file.readline(_MEGABYTE)
            delimiter = _delimiter(line, wanted)
            file.seek(0)
            names = next(csv.reader(file, delimiter=delimiter, strict=True), [])
            only_header = not file.read(1)
    except UnicodeDecodeError as error:
        raise TableError(_NOT_UTF8) from error
    except csv.Error as error:
        raise TableError("The first line of the file cannot be read as column names.") from error
    if "\0" in line:
        raise TableError("The file holds zero bytes: it is no text.")
    if only_header:
        raise TableError("The file has no rows.")
    return _check_names(names, caps), delimiter


def _delimiter(line: str, wanted: tuple[str, ...]) -> str:
    """The sign that splits the first line into the wanted names: they may hold such signs too. Or the commonest."""
    for delimiter in _DELIMITERS if wanted else "":
        names = next(csv.reader([line], delimiter=delimiter), [])
        if sorted(name.strip() for name in names) == sorted(wanted):
            return delimiter
    return max(_DELIMITERS, key=line.count)


def _check_names(names: Iterable[str], caps: Caps) -> list[str]:
    stripped = [name.strip() for name in names]
    if not stripped or stripped == [""]:
        raise TableError("The file has no column names. The first line must name the columns.")
    if len(stripped) > caps.columns:
        raise TableError(f"The file has {len(stripped):,} columns; at most {caps.columns:,} are read.")
    seen: set[str] = set()
    for name in stripped:
        if name in seen:
            raise TableError(f"Two columns are called “{name[:64]}”. Rename one of them.")
        seen.add(name)
    return stripped


def _parse_csv(path: Path, names: list[str], delimiter: str, types: dict[str, pa.DataType]) -> pa.Table:
    """The body of a CSV file; every way in which its lines can be crooked becomes a sentence."""
    try:
        return pa_csv.read_csv(
            path,
            read_options=pa_csv.ReadOptions(
                use_threads=False, column_names=names, skip_rows_after_names=1, block_size=_CSV_BLOCK
            ),
            parse_options=pa_csv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
            convert_options=pa_csv.ConvertOptions(column_types=types, null_values=[""], strings_can_be_null=False),
        )
    except pa.ArrowMemoryError:  # an ArrowException too, but it says nothing of the file
        raise
    except pa.ArrowException as error:
        raise TableError(_csv_sentence(str(error))) from error


def _csv_sentence(error: str) -> str:
    """The parser's complaint in plain words; what it quotes from the file is left out."""
    if wrong := re.search(r"Row #(\d+): Expected (\d+) columns, got (\d+)", error):
        line, expected, found = wrong.groups()
        return f"Line {line} has {found} cells, but the first line names {expected} columns. Correct this line."
    if "UTF8" in error:
        return _NOT_UTF8
    if wrong := re.search(r"In CSV column #\d+: Row #(\d+): CSV conversion error to double", error):
        return f"Line {wrong.group(1)} holds something that is no number in a column of numbers."
    return "The lines of the file cannot be told apart: perhaps a quotation mark is never closed."


def _read_text(path: Path, caps: Caps) -> RawTable:
    names, delimiter = _header(path, caps)
    table = _parse_csv(path, names, delimiter, dict.fromkeys(names, pa.string()))
    if table.num_rows > caps.rows:
        raise TableError(f"The file has more than {caps.rows:,} rows, the most that is read.")
    columns = {name: pd.Series(table.column(name).to_pandas(), dtype="str") for name in names}
    return RawTable(columns, table.num_rows, delimiter)


def _output_from_csv(path: Path, kinds: Kinds, caps: Caps) -> tuple[dict[str, pa.Array], NDArray[np.float64]]:
    names, delimiter = _header(path, caps, tuple(kinds))
    _check_columns(names, tuple(kinds))
    types = {name: pa.string() if kinds[name] is str else pa.float64() for name in names}
    return _parts(_parse_csv(path, names, delimiter, types), kinds, caps)


def _cells_from_csv(path: Path, wanted: tuple[str, ...], caps: Caps) -> pa.Table:
    names, delimiter = _header(path, caps, wanted)
    _check_columns(names, wanted)
    table = _parse_csv(path, names, delimiter, dict.fromkeys(names, pa.string()))
    if table.num_rows > caps.rows:
        raise TableError(f"The file has more than {caps.rows:,} rows, the most that is read.")
    return table


# Parquet --------------------------------------------------------------------------------------------------------------


def _open_parquet(path: Path, caps: Caps, dictionaries: tuple[str, ...] = ()) -> pq.ParquetFile:
    """Opens a Parquet file after its footer has been weighed against the caps."""
    try:
        file = pq.ParquetFile(
            path,
            read_dictionary=list(dictionaries),
            thrift_string_size_limit=_THRIFT_STRINGS,
            thrift_container_size_limit=_THRIFT_ITEMS,
            arrow_extensions_enabled=False,
        )
        facts = file.metadata
        unpacked = sum(facts.row_group(index).total_byte_size for index in range(facts.num_row_groups))
    except (pa.ArrowException, OSError, ValueError) as error:
        raise TableError("The file is no readable Parquet file.") from error
    if facts.num_rows > caps.rows:
        raise TableError(f"The file has more than {caps.rows:,} rows, the most that is read.")
    if facts.num_columns > caps.columns:
        raise TableError(f"The file has {facts.num_columns:,} columns; at most {caps.columns:,} are read.")
    if unpacked > caps.unpacked or facts.num_row_groups > max(16, facts.num_rows):
        raise TableError("The file unpacks to more than what is read.")
    return file


def _load(file: pq.ParquetFile, names: list[str]) -> pa.Table:
    try:
        table = file.read(columns=names, use_threads=False, use_pandas_metadata=False)
        return table.replace_schema_metadata(None)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise TableError("The file is no readable Parquet file.") from error


def _read_organisers_parquet(path: Path, caps: Caps) -> RawTable:
    file = _open_parquet(path, caps)
    names = file.schema_arrow.names
    _check_names(names, caps)
    table = _load(file, names)
    columns = {name.strip(): _series(name, table.column(name)) for name in names}
    return RawTable(columns, table.num_rows)


def _series(name: str, values: pa.ChunkedArray) -> pd.Series:
    """A column as texts or numbers. Raises TableError for any other type."""
    kind = values.type
    if pa.types.is_dictionary(kind):
        values, kind = values.cast(kind.value_type), kind.value_type
    if pa.types.is_null(kind):
        return pd.Series([None] * len(values), dtype="str")
    if pa.types.is_temporal(kind):
        raise TableError(
            f"Column “{name}” holds dates or times. Give numbers instead (age in years, days since admission), "
            "or remove it."
        )
    if pa.types.is_boolean(kind):
        return pd.Series(values.cast(pa.string()).to_pandas(), dtype="str")
    if pa.types.is_decimal(kind) or pa.types.is_floating(kind):
        return pd.Series(values.cast(pa.float64()).to_numpy(), dtype="float64")
    if pa.types.is_integer(kind):
        return pd.Series(values.to_pandas(integer_object_nulls=True)).astype(
            "UInt64" if pa.types.is_unsigned_integer(kind) else "Int64"
        )
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return pd.Series(values.to_pandas(), dtype="str")
    raise TableError(f"Column “{name}” holds neither numbers nor texts. Change its type or remove it.")


def _output_from_parquet(path: Path, kinds: Kinds, caps: Caps) -> tuple[dict[str, pa.Array], NDArray[np.float64]]:
    schema = _open_parquet(path, caps).schema_arrow
    _check_columns(schema.names, tuple(kinds))
    for name, kind in kinds.items():
        found = schema.field(name).type
        if kind is str and not is_text(found):
            raise TableError(f"Column “{name}” must hold plain texts.")
        if kind is float and not (pa.types.is_integer(found) or pa.types.is_floating(found)):
            raise TableError(f"Column “{name}” must hold plain numbers.")
    words = tuple(name for name, kind in kinds.items() if kind is str)
    return _parts(_load(_open_parquet(path, caps, dictionaries=words), list(kinds)), kinds, caps)


def _parts(table: pa.Table, kinds: Kinds, caps: Caps) -> tuple[dict[str, pa.Array], NDArray[np.float64]]:
    """A table of known types as its texts, dictionary-encoded, and the matrix of its numbers."""
    words: dict[str, pa.Array] = {}
    columns = [np.empty((table.num_rows, 0))]
    for name, kind in kinds.items():
        column = table.column(name)
        if kind is float:
            columns.append(column.cast(pa.float64(), safe=False).to_numpy()[:, None])
            continue
        words[name] = column.combine_chunks()
        if not pa.types.is_dictionary(words[name].type):
            words[name] = words[name].dictionary_encode()
        lengths = pc.binary_length(words[name].dictionary)
        if len(lengths) and (pc.max(lengths).as_py() or 0) > caps.cell:
            raise TableError(f"Column “{name}” holds texts that are too long.")
    return words, np.hstack(columns).astype(np.float64, copy=False)


def _cells_from_parquet(path: Path, wanted: tuple[str, ...], caps: Caps) -> pa.Table:
    schema = _open_parquet(path, caps).schema_arrow
    _check_columns(schema.names, wanted)
    # Texts are read as dictionaries: one that is repeated in every row costs its length once.
    texts = tuple(name for name in wanted if is_text(schema.field(name).type))
    return _load(_open_parquet(path, caps, dictionaries=texts), list(wanted))


def is_text(kind: pa.DataType) -> bool:
    """Whether a column of this type holds plain texts."""
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _check_columns(names: list[str], wanted: tuple[str, ...]) -> None:
    expected = f" Expected columns: {', '.join(wanted)}." if len(wanted) <= _LISTED else ""
    lacking = [name for name in wanted if name not in names]
    if lacking:
        raise TableError(f"The column “{lacking[0]}” is missing.{expected}")
    if any(name in ("", "__index_level_0__") for name in names):
        raise TableError("The table was written with its index as a column. Write it without (index=False).")
    if len(names) != len(wanted):
        raise TableError(f"There are columns that do not belong there.{expected}")

"""From the cells of an uploaded file to canonical values: what counts as a number, as empty, as the same row."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from challenges.schema import Column, Schema, TableError
from challenges.untrusted import RawTable

_MISSING: Final = ("", "na", "n/a", "nan", "null", "#n/a", "<na>", ".", "?")
# In a column of numbers these mean "empty" too; in a column of texts they may be an answer ("smoking: none").
_MISSING_NUMBERS: Final = (*_MISSING, "none", "-")
_NUMBER: Final = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d{1,3})?"
_WHOLE: Final = r"[+-]?\d+(?:\.0*)?"
_ZERO_FRACTION: Final = r"\.0*$"
_LEADING_ZERO: Final = r"0\d+"
_THOUSANDS: Final = r"[+-]?[1-9]\d{0,2}(?:,\d{3})+(?:\.\d*)?"
# A text column with at least this share of numbers is a column of numbers with junk in it.
MOSTLY: Final = 0.95
# Whole numbers beyond 2^53 are not exact as floating-point numbers: they are identifiers, not measurements.
_LARGEST: Final = float(2**53)

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Cleaned:
    """A canonical frame, and what was removed on the way to it."""

    frame: pd.DataFrame
    without_target: int
    duplicates: int
    repeated_patients: int


def canonical(raw: RawTable, schema: Schema) -> Cleaned:
    """The table in its canonical form: the schema's columns only, no row without target, no row twice.

    Rows are the same if all values but the patient id agree; of a patient's rows the first is kept (SCORING 1).
    """
    lacking = [column.name for column in schema.columns if column.name not in raw.columns and column.role != "patient"]
    if lacking:
        raise TableError(f"The table lacks the column “{lacking[0]}”.")
    present = [column for column in schema.columns if column.name in raw.columns]
    frame = pd.DataFrame({column.name: _values(column, raw) for column in present})
    kept = frame if not schema.target else frame[frame[schema.target].notna()]
    without_target = len(frame) - len(kept)
    frame = kept.drop_duplicates(subset=[column.name for column in schema.shared])
    duplicates = len(kept) - len(frame)
    repeated = 0
    if schema.patient_id is not None and schema.patient_id in frame:
        if frame[schema.patient_id].isna().any():
            raise TableError(f"The patient id “{schema.patient_id}” is empty in some rows. Fill it in, or choose none.")
        once = frame.drop_duplicates(subset=[schema.patient_id])
        repeated, frame = len(frame) - len(once), once
    if frame.empty:
        raise TableError("No row is left: the table is empty, or the target is missing everywhere.")
    for column in present:
        _check_values(column, frame[column.name])
    return Cleaned(frame.reset_index(drop=True), without_target, duplicates, repeated)


def as_text(values: pd.Series) -> pd.Series:
    """The cells as texts without surrounding space; missing ones as NA. Numbers are written without a trailing .0."""
    if pd.api.types.is_numeric_dtype(values.dtype):
        found = values.to_numpy(dtype=np.float64, na_value=np.nan)
        if pd.api.types.is_integer_dtype(values.dtype):  # exact, also beyond 2^53
            return values.astype("str").where(values.notna())
        written = [None if math.isnan(x) else str(int(x)) if x.is_integer() else repr(x) for x in found.tolist()]
        return pd.Series(written, dtype="str", index=values.index)
    stripped = values.str.strip()
    words = stripped.mask(stripped.str.lower().isin(_MISSING))
    if words.dropna().str.fullmatch(_WHOLE).all():  # 1.0 is how a program writes the class 1 beside empty cells
        words = words.str.replace(_ZERO_FRACTION, "", regex=True)
    return words


def _numeric_words(values: pd.Series, comma: bool) -> tuple[pd.Series, pd.Series]:
    """Texts prepared for reading as numbers (missing ones NA), and which of them are numbers."""
    words = values.str.strip()
    words = words.mask(words.str.lower().isin(_MISSING_NUMBERS))
    if comma:
        words = words.str.replace(",", ".", n=1, regex=False)
    codes = bool(words.str.fullmatch(_LEADING_ZERO).fillna(False).any())  # "007" is a code, not a 7
    readable = words.str.fullmatch(_NUMBER).fillna(False).astype(bool)
    return words, readable & (not codes)


def as_numbers(name: str, values: pd.Series, comma: bool) -> Floats | None:
    """The cells as numbers (NaN where empty), or None if this is a column of texts. Raises TableError for junk."""
    if pd.api.types.is_numeric_dtype(values.dtype):
        found = values.to_numpy(dtype=np.float64, na_value=np.nan)
    else:
        if comma:
            _refuse_thousands(name, values)
        words, readable = _numeric_words(values, comma)
        present = int(words.notna().sum())
        if readable.sum() < present:
            if readable.sum() >= MOSTLY * present and readable.any():
                _refuse_junk(name, words, readable)
            return None
        if present == 0:
            return None
        found = words.astype("float64").to_numpy(dtype=np.float64)
    if np.isinf(found).any():
        raise TableError(f"Column “{name}” holds infinite values. Remove them or leave these cells empty.")
    if (np.abs(found[~np.isnan(found)]) > _LARGEST).any():
        raise TableError(
            f"Column “{name}” holds numbers with more than 15 digits. If they are identifiers, choose the column as "
            "patient id or remove it."
        )
    return found


def _refuse_thousands(name: str, values: pd.Series) -> None:
    """Refuses a column in which 1,234 may be a thousand or a bit more than one."""
    with_comma = values[values.str.contains(",", regex=False).fillna(False).astype(bool)].str.strip()
    if len(with_comma) and with_comma.str.fullmatch(_THOUSANDS).all():
        raise TableError(
            f"In column “{name}” every comma stands before three digits: it may separate thousands or decimals. "
            "Write the thousands without a sign between them, and decimals behind a point."
        )


def _refuse_junk(name: str, words: pd.Series, readable: pd.Series) -> None:
    wrong = words.notna().to_numpy() & ~readable.to_numpy()
    first = int(np.flatnonzero(wrong)[0])
    raise TableError(
        f"Column “{name}” is a column of numbers, but {int(wrong.sum())} of its cells are not; the first is "
        f"{str(words.iloc[first])[:40]!r} in row {first + 1}. Correct these cells or leave them empty."
    )


def _values(column: Column, raw: RawTable) -> pd.Series | Floats:
    """A column's canonical values."""
    values = raw.columns[column.name]
    if column.type == "category":
        return as_text(values)
    numbers = as_numbers(column.name, values, raw.decimal_comma)
    if numbers is None:
        if as_text(values).notna().any():
            raise TableError(f"Column “{column.name}” must hold numbers, but it holds texts.")
        numbers = np.full(len(values), np.nan)
    return np.round(numbers, column.decimals or 0) + 0.0  # no negative zero


def _check_values(column: Column, values: pd.Series) -> None:
    """Refuses canonical values that the schema does not declare. Rows that are left out may hold anything."""
    if column.type == "category":
        if column.role != "patient" and not values.dropna().isin(column.categories).all():
            raise TableError(f"Column “{column.name}” holds categories that are not among those declared for it.")
        return
    low, high = column.minimum, column.maximum
    if (low is not None and (values < low).any()) or (high is not None and (values > high).any()):
        raise TableError(f"Column “{column.name}” holds numbers outside the declared range {low} to {high}.")

"""From raw columns to a schema, a cleaned table and a report that an organiser can act upon.

Used through `challenges.tables`. Everything that is dropped or looks odd becomes a note in plain English.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final, cast

import numpy as np
import pandas as pd

from challenges.cleaning import MOSTLY, Cleaned, Floats, as_numbers, as_text, canonical
from challenges.schema import (
    MAXIMUM_CATEGORIES,
    TASKS,
    Column,
    ColumnType,
    Role,
    Schema,
    TableError,
    Task,
    check_label,
    check_name,
)
from challenges.untrusted import RawTable, read_raw

_DATE: Final = r"\d{4}-\d{1,2}-\d{1,2}(?:[T ].*)?|\d{1,2}[./]\d{1,2}[./]\d{2,4}"
_MAXIMUM_DECIMALS: Final = 6
# A whole-number target with more values than this is a quantity to be estimated, not a class.
_GUESSED_CLASSES: Final = 10
# What fewer patients share could identify somebody.
_FEW: Final = 5
# Differences below this share of a column's range come from the way computers store numbers.
_NOISE: Final = 1e-4
# Rounding may cost this many of the different values, or more where plenty are left.
_VALUES_KEPT, _VALUES_ENOUGH = 0.95, 1000


@dataclass(frozen=True)
class Profile:
    """What an uploaded file holds.

    `rows` counts the records that are kept, `duplicates` those that were removed (exact ones and further rows of the
    same patient); `notes` are sentences; `columns` holds one summary per column: `name, type, role, missing, distinct`
    and `minimum, maximum, mean` (exact, for the organiser only) or `counts` (per category).
    """

    schema: Schema
    rows: int
    duplicates: int
    notes: tuple[str, ...]
    columns: tuple[dict[str, Any], ...]

    def to_json(self) -> dict[str, Any]:
        """Plain data, to cross a process border or be stored."""
        return {**asdict(self), "schema": self.schema.to_json()}

    @classmethod
    def from_json(cls, facts: Mapping[str, Any]) -> Profile:
        """The profile again, from what `to_json` gave."""
        return cls(
            schema=Schema.from_json(facts["schema"]),
            rows=facts["rows"],
            duplicates=facts["duplicates"],
            notes=tuple(facts["notes"]),
            columns=tuple(facts["columns"]),
        )


def profile(
    path: Path,
    suffix: str,
    target: str | None = None,
    patient: str | None = None,
    roles: Mapping[str, Role] | None = None,
    task: Task | None = None,
) -> Profile:
    """Reads an organiser's CSV or Parquet file and says what is in it.

    `target` may be left open at first, `task` is guessed from the target if it is not given, `patient` names the column
    that tells patients apart, `roles` gives roles to other columns ("day_*": to all whose names begin so). Call it in
    an isolated child; raises TableError.
    """
    raw = read_raw(path, suffix)
    if raw.rows == 0:
        raise TableError("The file has no rows.")
    if task is not None and task not in TASKS:
        raise TableError(f"The task {task!r} is unknown. Use one of {', '.join(TASKS)}.")
    roles = _roles(raw, target, patient, roles or {})
    notes: list[str] = []
    columns: list[Column] = []
    for name in _kept(raw, roles, notes):
        if roles.get(name) == "target":
            columns.append(_target(name, raw, task))
        else:
            columns.append(_infer(name, raw, roles.get(name, "feature")))
    cleaned = canonical(raw, _with_features(columns, target))
    # What is published of a column comes from the rows that are kept.
    schema = _with_features(_published(columns, cleaned.frame, notes), target)
    summaries = tuple(_summary(column, cleaned.frame[column.name]) for column in schema.columns)
    notes += _notes(schema, cleaned, summaries)
    removed = cleaned.duplicates + cleaned.repeated_patients
    return Profile(schema, len(cleaned.frame), removed, tuple(notes), summaries)


def _with_features(columns: Iterable[Column], target: str | None) -> Schema:
    schema = Schema(tuple(columns), target or "")
    if not schema.features:
        raise TableError("The table has no column to learn from besides the target.")
    return schema


# Inference ------------------------------------------------------------------------------------------------------------


def _roles(raw: RawTable, target: str | None, patient: str | None, roles: Mapping[str, Role]) -> dict[str, Role]:
    """The chosen role of each column that has one. A name with `*` stands for all columns that fit; plain names win."""
    chosen: dict[str, Role] = {}
    for pattern, wanted in sorted(roles.items(), key=lambda item: "*" not in item[0]):
        fitting = [column for column in raw.columns if _fits(column, pattern)] if "*" in pattern else [pattern]
        if not fitting:
            raise TableError(f"No column of the table fits “{pattern}”.")
        chosen |= dict.fromkeys(fitting, wanted)
    if target and target == patient:
        raise TableError("The target cannot be the patient id as well.")
    for name, role in ((target, "target"), (patient, "patient")):
        chosen = {other: given for other, given in chosen.items() if given != role}
        if name:
            chosen[name] = cast(Role, role)
    for name in chosen:
        if name not in raw.columns:
            raise TableError(f"There is no column “{name}” in the table.")
    return chosen


def _fits(name: str, pattern: str) -> bool:
    """Whether a column is among those that a name with `*` stands for."""
    return re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), name) is not None


def _kept(raw: RawTable, roles: Mapping[str, Role], notes: list[str]) -> list[str]:
    """The names of the columns that are of use; a row number without a name and empty columns are left out."""
    kept = []
    for position, (name, values) in enumerate(raw.columns.items()):
        if name == "":
            if position != 0 or not _is_row_number(values):
                raise TableError(f"Column {position + 1} has no name. The first line must name every column.")
            notes.append("The first column has no name and numbers the rows: it is left out.")
            continue
        check_name(name)
        if as_text(values).notna().any():
            kept.append(name)
        elif roles.get(name) in ("target", "patient"):
            raise TableError(f"Column “{name}” is empty.")
        else:
            notes.append(f"Column “{name}” is empty: it is left out.")
    return kept


def _is_row_number(values: pd.Series) -> bool:
    words = [str(word) for word in as_text(values)]
    return words in ([str(n) for n in range(len(words))], [str(n + 1) for n in range(len(words))])


def _infer(name: str, raw: RawTable, role: Role) -> Column:
    values = raw.columns[name]
    if role == "patient":
        return Column(name, "category", role)
    numbers = as_numbers(name, values, raw.decimal_comma)
    return _category(name, as_text(values), role) if numbers is None else _quantity(name, numbers, role)


def _category(name: str, words: pd.Series, role: Role) -> Column:
    present = words.dropna()
    categories = sorted(str(word) for word in present.unique())
    if present.str.fullmatch(_DATE).mean() >= MOSTLY:
        raise TableError(
            f"Column “{name}” holds dates. Give numbers instead (age in years, days since admission), or remove it."
        )
    if len(categories) > MAXIMUM_CATEGORIES:
        raise TableError(
            f"Column “{name}” holds {len(categories)} different texts; at most {MAXIMUM_CATEGORIES} are possible. "
            "Group them, choose the column as patient id, or remove it."
        )
    for label in categories:
        check_label(name, label)
    return Column(name, "category", role, categories=tuple(categories), missing=bool(words.isna().any()))


def _quantity(name: str, numbers: Floats, role: Role) -> Column:
    decimals = _decimals(name, numbers[~np.isnan(numbers)])
    kind: ColumnType = "number" if decimals else "integer"
    return Column(name, kind, role, decimals=decimals or None, missing=bool(np.isnan(numbers).any()))


def _decimals(name: str, numbers: Floats) -> int:
    """The digits behind the point that the values really use, at most six."""
    width = float(np.ptp(numbers))
    for decimals in range(_MAXIMUM_DECIMALS + 1):
        noise = min(10.0 ** -(decimals + 4), _NOISE * width)
        if np.allclose(numbers, np.round(numbers, decimals), rtol=1e-12, atol=noise):
            return decimals
    left = len(np.unique(np.round(numbers, _MAXIMUM_DECIMALS)))
    if left < min(_VALUES_ENOUGH, _VALUES_KEPT * len(np.unique(np.round(numbers / (width or 1), 9)))):
        raise TableError(
            f"Column “{name}” holds numbers so small that rounding them to {_MAXIMUM_DECIMALS} decimals would make "
            "different ones equal. Give them in another unit."
        )
    return _MAXIMUM_DECIMALS


def _target(name: str, raw: RawTable, task: Task | None) -> Column:
    """The target column: classes as texts, or a quantity; which of them follows from the task."""
    values = raw.columns[name]
    numbers = as_numbers(name, values, raw.decimal_comma)
    if task == "regression" or (task is None and numbers is not None and _is_quantity(numbers)):
        if numbers is None:
            raise TableError(f"The target “{name}” holds texts, but the task is to estimate a number.")
        return replace(_quantity(name, numbers, "target"), missing=False)
    words = as_text(values)
    labels = sorted(str(word) for word in words.dropna().unique())
    if numbers is not None:
        labels.sort(key=float)
    if task == "binary" and len(labels) != 2:
        raise TableError(f"The target “{name}” has {len(labels)} classes, but the task is to tell two apart.")
    if len(labels) > MAXIMUM_CATEGORIES:
        raise TableError(
            f"The target “{name}” has {len(labels)} classes; at most {MAXIMUM_CATEGORIES} are possible. "
            "Group them, or choose regression if it is a number."
        )
    for label in labels:
        check_label(name, label)
        if label == "row":
            raise TableError("A class cannot be called “row”: predictions use this name for their row tokens.")
    return Column(name, "category", "target", categories=tuple(labels))


def _is_quantity(numbers: Floats) -> bool:
    """Whether a target of numbers, for which no task was chosen, is better estimated than classified."""
    present = np.unique(numbers[~np.isnan(numbers)])
    whole = bool((present == np.round(present)).all())
    return len(present) > (_GUESSED_CLASSES if whole else 2)


# Publication ----------------------------------------------------------------------------------------------------------


def _published(columns: list[Column], frame: pd.DataFrame, notes: list[str]) -> Iterator[Column]:
    """The columns as participants see them: ranges, categories and gaps of the rows that are kept."""
    for column in columns:
        values = frame[column.name]
        present = values.dropna()
        if column.role == "patient":
            yield column
        elif present.empty:
            notes.append(f"Column “{column.name}” is empty in the rows that are kept: it is left out.")
        else:
            if column.role == "target":
                _check_varies(column, present)
            yield _described(replace(column, missing=len(present) < len(values)), present)


def _check_varies(target: Column, values: pd.Series) -> None:
    if values.nunique() > 1:
        return
    if target.type == "category":
        raise TableError(f"The target “{target.name}” has one class only; there is nothing to predict.")
    raise TableError(f"The target “{target.name}” has the same value in every row.")


def _described(column: Column, values: pd.Series) -> Column:
    if column.type == "category":
        found = set(values)
        return replace(column, categories=tuple(label for label in column.categories if label in found))
    low, high = _range(values.to_numpy(dtype=np.float64), column.decimals or 0)
    return replace(column, minimum=low, maximum=high)


def _range(values: Floats, decimals: int) -> tuple[float, float]:
    """Public bounds around the values: an end that many share as it is, else the next round number beyond it.

    A round number here is a multiple of a tenth of the range or of five units, so that it does not tell which value
    lies before it. Bounds do not cross 0 where no value does.
    """
    lowest, highest = float(values.min()), float(values.max())
    step = _step(highest - lowest, 10.0**-decimals)
    low, high = (math.ceil(lowest / step - 1e-9) - 1) * step, (math.floor(highest / step + 1e-9) + 1) * step
    low = lowest if (values == lowest).sum() >= _FEW else max(low, 0.0) if lowest >= 0 else low
    high = highest if (values == highest).sum() >= _FEW else min(high, 0.0) if highest <= 0 else high
    low, high = (round(bound, decimals) + 0.0 for bound in (low, high))
    return (low, high) if decimals else (int(low), int(high))


def _step(width: float, unit: float) -> float:
    """1, 2 or 5 times a power of ten: at least a tenth of the width and at least five units."""
    if width <= 10 * 5 * unit:
        return 5 * unit
    power = 10.0 ** math.floor(math.log10(width / 10))
    return next(digit * power for digit in (1, 2, 5, 10) if digit * power >= width / 10 * (1 - 1e-9))


# Report ---------------------------------------------------------------------------------------------------------------


def _summary(column: Column, values: pd.Series) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "name": column.name,
        "type": column.type,
        "role": column.role,
        "missing": int(values.isna().sum()),
        "distinct": int(values.nunique()),
    }
    if column.type == "category":
        counts = values.value_counts()
        facts["counts"] = {label: int(counts.get(label, 0)) for label in column.categories}
    elif facts["distinct"]:
        facts |= {
            "minimum": float(values.min()),
            "maximum": float(values.max()),
            "mean": float(f"{float(values.mean()):.4g}"),
        }
    return facts


def _notes(schema: Schema, cleaned: Cleaned, summaries: tuple[dict[str, Any], ...]) -> list[str]:
    rows = len(cleaned.frame)
    notes = []
    if cleaned.without_target:
        notes.append(f"{cleaned.without_target} rows have no value of the target: they are left out.")
    if cleaned.duplicates:
        notes.append(f"{cleaned.duplicates} rows occur more than once: the repetitions are left out.")
    if cleaned.repeated_patients:
        notes.append(f"{cleaned.repeated_patients} further rows of the same patients are left out.")
    for column, facts in zip(schema.columns, summaries, strict=True):
        if column.role == "patient":
            continue
        if facts["distinct"] <= 1 and column.role != "target":
            notes.append(f"Column “{column.name}” has the same value in every row: nothing can be learnt from it.")
        if column.type == "integer" and column.role != "target" and facts["distinct"] == rows:
            notes.append(
                f"Column “{column.name}” has another whole number in every row and looks like an identifier. "
                "Choose it as patient id or remove it."
            )
        rare = [label for label, count in facts.get("counts", {}).items() if count < _FEW]
        if rare:
            notes.append(
                f"Column “{column.name}” has {len(rare)} categories with fewer than {_FEW} patients. Names of "
                "categories are public: group them if that could identify somebody."
            )
    return notes

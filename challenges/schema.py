"""What a table of patients looks like: its columns, their types and roles, and the task that its target sets.

Pure: needs neither Django nor a database, because it is used inside isolated children too. Sentences are therefore
plain English here (translation needs configured settings); they are raised as :class:`TableError`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Final, Literal, cast, get_args

ColumnType = Literal["integer", "number", "category"]
Role = Literal["feature", "quasi-identifier", "secret", "target", "patient"]
Task = Literal["binary", "multiclass", "regression"]

TYPES: Final[tuple[ColumnType, ...]] = get_args(ColumnType)
ROLES: Final[tuple[Role, ...]] = get_args(Role)
TASKS: Final[tuple[Task, ...]] = get_args(Task)

# `row` carries the tokens and `member` the truth about known records in the files that containers read.
RESERVED_NAMES: Final = frozenset({"row", "member"})
MAXIMUM_CATEGORIES: Final = 50
MAXIMUM_NAME_LENGTH: Final = 64
_NAME: Final = re.compile(r"\w[\w .\-]*")


class TableError(ValueError):
    """A table cannot be used; the message is a plain sentence that says why and what to do."""


def check_name(name: str) -> None:
    """Refuses a column name that could not be a CSV header, a key in task.json and a word on a page alike."""
    if len(name) > MAXIMUM_NAME_LENGTH:
        raise TableError(f"The column name “{name[:30]}…” is longer than {MAXIMUM_NAME_LENGTH} characters. Shorten it.")
    if not _NAME.fullmatch(name) or name != name.strip():
        raise TableError(
            f"The column name {name!r} holds characters that cannot be used. "
            "Names are made of letters, digits, spaces and the signs _ - . and begin with a letter, a digit or _."
        )
    if name.lower() in RESERVED_NAMES:
        raise TableError(f"The column name “{name}” is reserved. Rename this column.")


def check_label(name: str, label: str) -> None:
    """Refuses a category that could not be a CSV header: class labels become columns of the predictions."""
    if len(label) > MAXIMUM_NAME_LENGTH:
        raise TableError(
            f"Column “{name}” holds a text longer than {MAXIMUM_NAME_LENGTH} characters. Shorten its categories."
        )
    if not label.isprintable() or not label.strip():
        raise TableError(f"Column “{name}” holds a text with line breaks or invisible characters. Remove them.")


@dataclass(frozen=True)
class Column:
    """One column.

    `minimum` and `maximum` bound every value of an integer or number column (rounded outwards, so that they need not
    be any patient's value); `decimals` is the number of digits a number column is rounded to; `categories` are the
    texts a category column may hold; `missing` says whether cells may be empty.
    """

    name: str
    type: ColumnType
    role: Role = "feature"
    minimum: float | None = None
    maximum: float | None = None
    decimals: int | None = None
    categories: tuple[str, ...] = ()
    missing: bool = False

    def __post_init__(self) -> None:
        check_name(self.name)
        if self.type not in TYPES:
            raise TableError(f"Column “{self.name}” has the unknown type {self.type!r}. Use one of {', '.join(TYPES)}.")
        if self.role not in ROLES:
            raise TableError(f"Column “{self.name}” has the unknown role {self.role!r}. Use one of {', '.join(ROLES)}.")

    def to_json(self) -> dict[str, Any]:
        """The column as in task.json: keys without a value are left out."""
        facts = {
            "name": self.name,
            "type": self.type,
            "role": self.role,
            "minimum": self.minimum,
            "maximum": self.maximum,
            "decimals": self.decimals,
            "categories": list(self.categories) or None,
            "missing": self.missing or None,
        }
        return {key: value for key, value in facts.items() if value is not None}

    @classmethod
    def from_json(cls, facts: Mapping[str, Any]) -> Column:
        """The column again. Raises TableError if the name or the type is missing or a key is unknown."""
        try:
            return cls(**{**facts, "categories": tuple(facts.get("categories") or ())})
        except TypeError as error:
            raise TableError("The description of a column has unknown or missing keys.") from error


@dataclass(frozen=True)
class Schema:
    """The columns of a table in order, and the name of its target ("" while the organiser has not chosen one)."""

    columns: tuple[Column, ...]
    target: str = ""

    def __post_init__(self) -> None:
        names = [column.name for column in self.columns]
        for name in names:
            if names.count(name) > 1:
                raise TableError(f"Two columns are called “{name}”. Rename one of them.")
        if self.target and self.target not in names:
            raise TableError(f"The target “{self.target}” is no column of the table.")

    @cached_property
    def features(self) -> tuple[Column, ...]:
        """What a model may look at: neither the target nor the patient id."""
        return tuple(column for column in self.columns if column.role not in ("target", "patient"))

    @cached_property
    def target_column(self) -> Column:
        """The column to predict. Raises TableError while none is chosen."""
        if not self.target:
            raise TableError("No target column is chosen yet.")
        return self.column(self.target)

    @cached_property
    def shared(self) -> tuple[Column, ...]:
        """What containers may get: all columns but the patient id, which never leaves the platform."""
        return tuple(column for column in self.columns if column.role != "patient")

    @cached_property
    def patient_id(self) -> str | None:
        """The name of the column that tells patients apart, if there is one."""
        return next((column.name for column in self.columns if column.role == "patient"), None)

    @cached_property
    def task(self) -> Task:
        """What is to be predicted: one of two classes, one of several, or a number."""
        if self.target_column.type != "category":
            return "regression"
        return "binary" if len(self.target_column.categories) == 2 else "multiclass"

    @cached_property
    def labels(self) -> tuple[str, ...]:
        """The class labels, in the order of the probability columns; empty for regression."""
        return self.target_column.categories

    @cached_property
    def answer_columns(self) -> tuple[str, ...]:
        """The columns of a model's predictions: one probability per class label, or `prediction`."""
        return self.labels or ("prediction",)

    @cached_property
    def answer_decimals(self) -> int:
        """Digits that answers are rounded to: 4 for probabilities, for regression those of the target.

        Where the target declares none (whole numbers), a thousandth of its range is kept: a model's expectation
        of a whole number is not a whole number.
        """
        if self.labels:
            return 4
        column = self.target_column
        if column.decimals is not None:
            return column.decimals
        width = (column.maximum or 0) - (column.minimum or 0)
        return max(0, 3 - math.ceil(math.log10(width))) if width > 0 else 3

    def column(self, name: str) -> Column:
        """The column of this name. Raises TableError if there is none."""
        for column in self.columns:
            if column.name == name:
                return column
        raise TableError(f"There is no column “{name}” in the table.")

    def with_role(self, name: str, role: Role) -> Schema:
        """The same schema, with another role for one column; use `tables.profile` to change target or patient id."""
        if "target" in (role, self.column(name).role) or "patient" in (role, self.column(name).role):
            raise TableError("The target and the patient id are chosen when the table is read.")
        columns = tuple(replace(column, role=role) if column.name == name else column for column in self.columns)
        return Schema(columns, self.target)

    def to_json(self) -> dict[str, Any]:
        """`{"target": name, "columns": [...]}`."""
        return {"target": self.target, "columns": [column.to_json() for column in self.columns]}

    @classmethod
    def from_json(cls, facts: Mapping[str, Any]) -> Schema:
        """The schema again, from what `to_json` gave."""
        return cls(tuple(Column.from_json(column) for column in facts["columns"]), cast(str, facts.get("target", "")))

"""What the platform hands to a step and what it takes back: the container contract `anomed/1`, in Python.

    def fit(task):
        train = task.table("train")
        model.fit(task.features(train), task.targets(train))

    run(fit=fit, predict=predict)

Every starter kit uses this module, and the image anomed/base has it installed. It knows nothing but task.json: no data
set, no column name. Copy it into an image of your own, or do without: the contract is JSON and Parquet, no more.
"""

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

INPUT = Path(os.environ.get("ANOMED_INPUT", "/input"))
OUTPUT = Path(os.environ.get("ANOMED_OUTPUT", "/output"))

# The platform rounds answers to 4 decimals: a probability of 0 may stand for anything up to this.
SMALLEST = 5e-5


@dataclass(frozen=True)
class Task:
    """One step's task.json. Arrays have one row per table row; `labels` gives the order of the classes everywhere."""

    description: dict[str, Any]

    @classmethod
    def load(cls) -> "Task":
        return cls(json.loads((INPUT / "task.json").read_text(encoding="utf-8")))

    @property
    def step(self) -> str:
        return self.description["step"]

    @property
    def seed(self) -> int:
        return self.description["seed"]

    @property
    def target(self) -> str:
        return self.description["target"]

    @property
    def rows(self) -> int:
        """How many rows a released table must have."""
        return self.description["rows"]

    @cached_property
    def columns(self) -> list[dict[str, Any]]:
        """Descriptions of all columns, the target among them, in their order."""
        return list(self.description["columns"])

    @cached_property
    def labels(self) -> list[str]:
        """The class labels; empty when the target is a number (regression)."""
        target = next(column for column in self.columns if column["name"] == self.target)
        return list(target.get("categories", []))

    @cached_property
    def inputs(self) -> list[dict[str, Any]]:
        """Descriptions of the columns that a model may use: all but the target and a patient's number."""
        return [column for column in self.columns if column["role"] not in ("target", "patient")]

    def with_role(self, role: str) -> list[dict[str, Any]]:
        """Descriptions of the columns with this role: "quasi-identifier" (others may know it), "secret", ..."""
        return [column for column in self.columns if column["role"] == role]

    def table(self, name: str) -> pd.DataFrame:
        return pd.read_parquet(INPUT / self.description["files"][name])

    def features(self, table: pd.DataFrame) -> np.ndarray:
        """What a model may use, as a matrix."""
        return self.matrix(table, self.inputs)

    def matrix(self, table: pd.DataFrame, columns: Sequence[dict[str, Any]]) -> np.ndarray:
        """Numbers as they are (missing: NaN), then a 0/1 column for each declared category (missing: all 0)."""
        numbers = [column["name"] for column in columns if column["type"] != "category"]
        indicators = [
            (table[column["name"]].astype("string") == category).fillna(False).to_numpy(float)
            for column in columns
            if column["type"] == "category"
            for category in column["categories"]
        ]
        return np.column_stack([table[numbers].to_numpy(float, na_value=np.nan), *indicators])

    def targets(self, table: pd.DataFrame) -> np.ndarray:
        """Positions in `labels`, or the numbers themselves in a regression."""
        if not self.labels:
            return table[self.target].to_numpy(float)
        return pd.Categorical(table[self.target].astype("string"), categories=self.labels).codes.astype(int)

    def predict(self, model: Any, features: np.ndarray) -> np.ndarray:
        """A scikit-learn model's probabilities [rows, labels] (0 for a class it never saw), or its numbers [rows]."""
        if not self.labels:
            return model.predict(features)
        probabilities = np.zeros((len(features), len(self.labels)))
        probabilities[:, model.classes_] = model.predict_proba(features)
        return probabilities

    def answers(self, table: pd.DataFrame, predicted: np.ndarray) -> pd.DataFrame:
        """The table that a defense answers with: `row`, and a column per label or one named `prediction`."""
        columns = self.labels or ["prediction"]
        frame = pd.DataFrame(np.reshape(predicted, (len(table), len(columns))), columns=columns)
        frame.insert(0, "row", table["row"].to_numpy())
        return frame

    def read_answers(self, name: str, table: pd.DataFrame) -> np.ndarray:
        """A defense's answers for the rows of `table`, in their order: the inverse of `answers`."""
        answers = self.table(name).set_index("row").loc[table["row"]]
        return answers[self.labels].to_numpy(float) if self.labels else answers["prediction"].to_numpy(float)

    def confidence(self, table: pd.DataFrame, predicted: np.ndarray) -> np.ndarray:
        """How sure and right a model is about each record: the log-odds it gives to the true class, or minus its error.

        What attacks compare: members tend to have more of it than strangers. Log-odds are nearly normal where losses
        pile up at 0 (Carlini et al., Membership Inference Attacks From First Principles, S&P 2022, section IV.C).
        """
        targets = self.targets(table)
        if not self.labels:
            return -np.abs(targets - predicted)
        given = predicted[np.arange(len(table)), targets].clip(SMALLEST, 1 - SMALLEST)
        return np.log(given) - np.log1p(-given)

    def save_release(self, table: pd.DataFrame) -> None:
        """Writes an invented table as declared: its columns in order, numbers rounded and inside their ranges."""
        columns = {}
        for column in self.columns:
            cells = table[column["name"]]
            if column["type"] == "category":
                cells = cells.astype("string")
            else:
                cells = cells.astype(float).clip(column["minimum"], column["maximum"]).round(column.get("decimals", 0))
                cells = cells.astype("Int64") if column["type"] == "integer" else cells
            columns[column["name"]] = cells.reset_index(drop=True)
        self.save("release", pd.DataFrame(columns))

    def save(self, name: str, table: pd.DataFrame) -> None:
        table.to_parquet(OUTPUT / f"{name}.parquet", index=False)


def run(**steps: Callable[[Task], None]) -> None:
    """Does what this start of the container is for: `run(fit=fit, predict=predict)`."""
    task = Task.load()
    steps[task.step](task)

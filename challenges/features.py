"""Tables as matrices for the platform's own models: anchors, the blind check, the reference release."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from challenges.schema import Column, Schema

Floats = NDArray[np.float64]


def one_thread() -> AbstractContextManager[Any]:
    """Keeps linear algebra and boosting to one thread inside.

    On tables of this size more threads gain little, and next to busy workers they wait for each other: measured 0.4 s
    against 24 s for the blind check with both processors taken.
    """
    limits: AbstractContextManager[Any] = threadpool_limits(limits=1)
    return limits


def matrix(frame: pd.DataFrame, schema: Schema, columns: tuple[Column, ...] | None = None) -> Floats:
    """The columns (default: the features) as numbers: categories one-hot by the schema's order, empty cells NaN.

    An empty category is a row of zeros.
    """
    blocks: list[Floats] = []
    for column in schema.features if columns is None else columns:
        values = frame[column.name]
        if column.type == "category":
            known = np.array(column.categories, dtype=object)
            blocks.append((values.to_numpy(dtype=object)[:, None] == known[None, :]).astype(np.float64))
        else:
            blocks.append(values.to_numpy(dtype=np.float64, na_value=np.nan)[:, None])
    return np.hstack(blocks)


def linear_model(schema: Schema, strength: float = 1.0) -> Pipeline:
    """Logistic or ridge regression on imputed, standardised features; `strength` is the inverse of the penalty."""
    last: Any = Ridge(alpha=1 / strength)
    if schema.labels:
        last = LogisticRegression(C=strength, max_iter=1000)
    return make_pipeline(SimpleImputer(strategy="median", keep_empty_features=True), StandardScaler(), last)


def answers(model: Any, inputs: Floats, schema: Schema) -> Floats:
    """A fitted model's answers, one column per `schema.answer_columns`; classes it never met get probability 0."""
    if not schema.labels:
        return np.asarray(model.predict(inputs), dtype=np.float64)[:, None]
    given = model.predict_proba(inputs)
    result = np.zeros((len(inputs), len(schema.labels)))
    result[:, [schema.labels.index(str(label)) for label in model.classes_]] = given
    return result

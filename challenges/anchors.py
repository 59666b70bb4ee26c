"""The two ends of the utility scale: an answer that ignores the patient, and the best model without any privacy.

Both are published with a challenge and fixed once it opens (SCORING 2).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd
from sklearn.base import clone
from sklearn.model_selection import KFold

from challenges import zoo
from challenges.features import Floats, answers, linear_model, matrix, one_thread
from challenges.metrics.utility import HIGHER_IS_BETTER, score
from challenges.schema import Schema, TableError
from challenges.splits import Deal

_FOLDS: Final = 4
_SEED: Final = 0  # the anchors are published: the same table and deal must give the same ones


@dataclass(frozen=True)
class Anchors:
    """Raw utilities of the trivial (`u0`) and the best tuned (`u1`) release, and each model tried in `detail`.

    `detail` holds `metric`, the sizes of `train` and `test`, the name of the `best` model and, for each of `models`
    its `name` and `validated`, the metric by cross-validation on the training part.
    """

    u0: float
    u1: float
    detail: dict[str, Any]


def compute(table: pd.DataFrame, schema: Schema, deal: Deal, metric: str) -> Anchors:
    """Both anchors on the test part of a deal, by the challenge's metric.

    u0 answers the same to everybody: the classes' shares in the training part, or its mean (for `mae`: median).
    u1 is tuned by cross-validation on the training part alone, then trained on all of it. Takes some seconds.
    """
    truth = table[schema.target].to_numpy()
    try:
        with one_thread():
            return _compute(matrix(table, schema), truth, schema, deal, metric)
    except ValueError as error:
        raise TableError(f"The anchors cannot be computed: {error}") from error


def _compute(inputs: Floats, truth: Any, schema: Schema, deal: Deal, metric: str) -> Anchors:
    train, test = deal.train, deal.test
    u0 = constant(truth[train], truth[test], schema, metric)
    models = dict(_models(schema, len(train)))
    validated = {name: _validated(model, inputs[train], truth[train], schema, metric) for name, model in models.items()}
    best = (max if HIGHER_IS_BETTER[metric] else min)(validated, key=validated.__getitem__)
    fitted = clone(models[best]).fit(inputs[train], truth[train])
    u1 = score(metric, schema, truth[test], answers(fitted, inputs[test], schema))
    tried = [{"name": name, "validated": value} for name, value in validated.items()]
    return Anchors(u0, u1, {"metric": metric, "best": best, "train": len(train), "test": len(test), "models": tried})


def constant(train: Any, test: Any, schema: Schema, metric: str) -> float:
    """The metric of the best answer that looks at nobody, from the targets of the training and the test part."""
    if schema.labels:
        answer = np.array([np.mean(train == label) for label in schema.labels])
    else:
        values = train.astype(np.float64)
        answer = np.array([np.median(values) if metric == "mae" else values.mean()])
    return score(metric, schema, test, np.tile(answer, (len(test), 1)))


def _validated(model: Any, inputs: Floats, truth: Any, schema: Schema, metric: str) -> float:
    """The metric over answers to each record by a model that was not trained on it."""
    given = np.empty((len(inputs), len(schema.answer_columns)))
    for train, test in KFold(_FOLDS, shuffle=True, random_state=_SEED).split(inputs):
        fitted = clone(model).fit(inputs[train], truth[train])
        given[test] = answers(fitted, inputs[test], schema)
    return score(metric, schema, truth, given)


def _models(schema: Schema, rows: int) -> Iterator[tuple[str, Any]]:
    """A small grid over three families, each a sound choice for tables of this kind."""
    for strength in (0.01, 0.1, 1.0):
        yield f"linear model, C={strength}", linear_model(schema, strength)
    leaf = max(1, rows // 200)
    for smallest in sorted({1, leaf, 3 * leaf}):
        yield f"random forest, leaves of {smallest}", zoo.forest(schema, smallest)
    for rounds in (60, 150):
        yield f"gradient boosting, {rounds} rounds", zoo.boosting(schema, rounds)

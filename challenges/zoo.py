"""What a released table is worth: a fixed set of small models learns from it and is tested on real records (TSTR).

"Train on synthetic, test on real": Esteban, Hyland and Rätsch, Real-valued (medical) time series generation with
recurrent conditional GANs, 2017, section 4.1. Several families, because a table may please one of them by chance.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import (
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline

from challenges import subsample
from challenges.features import Floats, answers, linear_model, one_thread
from challenges.metrics import bootstrap
from challenges.metrics.utility import score
from challenges.scenarios.base import Utility
from challenges.schema import Schema
from challenges.splits import derive

SEED: Final = 0  # the same table must be worth the same on every machine
_STRENGTH: Final = 0.1
_TREES: Final = 100
_ROUNDS: Final = 100


def forest(schema: Schema, smallest: int) -> Any:
    """A random forest with leaves of at least `smallest` records."""
    kind = RandomForestClassifier if schema.labels else RandomForestRegressor
    grown = kind(n_estimators=_TREES, min_samples_leaf=smallest, random_state=SEED)
    return make_pipeline(SimpleImputer(strategy="median", keep_empty_features=True), grown)


def boosting(schema: Schema, rounds: int, rate: float = 0.05) -> Any:
    """Gradient boosting of small trees; takes empty cells as they are."""
    kind = HistGradientBoostingClassifier if schema.labels else HistGradientBoostingRegressor
    boosted = kind(max_iter=rounds, learning_rate=rate, max_leaf_nodes=8, early_stopping=False, random_state=SEED)
    return make_pipeline(boosted)


def models(schema: Schema, rows: int) -> dict[str, Any]:
    """The zoo for a table of `rows` records, by name, not fitted."""
    return {
        "linear model": linear_model(schema, _STRENGTH),
        "random forest": forest(schema, max(1, rows // 200)),
        "gradient boosting": boosting(schema, _ROUNDS),
    }


def tstr(
    inputs: Floats,
    targets: NDArray[Any],
    test_inputs: Floats,
    test_truth: NDArray[Any],
    *,
    schema: Schema,
    metric: str,
    resample: bytes,
    weights: Floats | None = None,
) -> Utility:
    """The mean over the zoo of the challenge's metric on `test`, after training on a released table.

    `inputs` [rows, features] as of `features.matrix` (NaN is an empty cell; generalised cells are given by their
    expected values), `targets` [rows] labels or numbers, `weights` [rows] how much each row counts (default: all the
    same), `test_inputs` and `test_truth` the same of the test part. `resample` is `Board.resample`: replicates are over
    test records, drawn within each class. `facts` holds the metric of each model by name. A table whose target never
    varies teaches its one answer. The order of the rows does not matter; of a very large table a random part is taken.
    Takes some seconds.
    """
    order = np.lexsort([*inputs.T, *([] if weights is None else [weights]), np.unique(targets, return_inverse=True)[1]])
    rows = order[subsample.choose(len(order), schema)]
    inputs, targets = inputs[rows], targets[rows]
    weights = None if weights is None else weights[rows]
    unknown = np.isnan(inputs).all(axis=0)  # gradient boosting does not bear columns without any value
    inputs, test_inputs = np.where(unknown, 0.0, inputs), np.where(unknown, 0.0, test_inputs)
    given: dict[str, Floats] = {}
    with one_thread():
        for name, model in models(schema, len(inputs)).items():
            given[name] = answers_of(model, inputs, targets, weights, test_inputs, schema)
    strata = np.unique(test_truth, return_inverse=True)[1] if schema.labels else np.zeros(len(test_truth), np.int64)
    counts = bootstrap.draw(derive(resample, "test"), strata)
    facts = {name: score(metric, schema, test_truth, values) for name, values in given.items()}
    replicates = [bootstrap.metric(metric, schema, test_truth, values, counts) for values in given.values()]
    return Utility(float(np.mean(list(facts.values()))), np.mean(replicates, axis=0), {"models": facts})


def answers_of(
    model: Any, inputs: Floats, targets: NDArray[Any], weights: Floats | None, test_inputs: Floats, schema: Schema
) -> Floats:
    """A model's answers to the test part: [tests, answer columns]."""
    if schema.labels and len(np.unique(targets)) < 2:  # nothing can be told apart by it
        right = np.array([label == targets[0] for label in schema.labels], dtype=np.float64)
        return np.tile(right, (len(test_inputs), 1))
    last = model.steps[-1][0]
    how: Mapping[str, Any] = {} if weights is None else {f"{last}__sample_weight": weights}
    known = targets.astype(str) if schema.labels else targets.astype(np.float64)
    return answers(model.fit(inputs, known, **how), test_inputs, schema)

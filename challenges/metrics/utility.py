"""How useful a model's answers are. Pure numpy, so that a number can be recomputed anywhere."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from challenges.metrics.arrays import as_numbers
from challenges.metrics.membership import roc_auc
from challenges.schema import Schema, Task

Floats = NDArray[np.float64]

HIGHER_IS_BETTER: Final = {"auroc": True, "balanced_accuracy": True, "log_loss": False, "r2": True, "mae": False}
METRICS: Final = tuple(HIGHER_IS_BETTER)
# The first one is a task's default.
METRICS_OF: Final[dict[Task, tuple[str, ...]]] = {
    "binary": ("auroc", "balanced_accuracy", "log_loss"),
    "multiclass": ("auroc", "balanced_accuracy", "log_loss"),
    "regression": ("r2", "mae"),
}
# Probabilities are rounded to 4 decimals, so that a 0 stands for anything below half a unit of the last.
SMALLEST_PROBABILITY: Final = 0.00005


def score(metric: str, schema: Schema, y_true: ArrayLike, answers: ArrayLike) -> float:
    """The utility u of answers to questions whose truth is known.

    `y_true` holds class labels (or numbers for regression), `answers` one row per question: a probability per class
    of `schema.labels` in that order, or the prediction. Several classes: AUROC is the mean over one-against-rest
    problems, balanced accuracy the mean recall, both over the classes that occur. Raises ValueError if shapes, metric
    and task do not fit, or if fewer than two classes occur.
    """
    if metric not in METRICS_OF[schema.task]:
        raise ValueError(
            f"The metric {metric!r} does not fit the task. Use one of {', '.join(METRICS_OF[schema.task])}."
        )
    truth = np.asarray(y_true)
    values = np.asarray(answers, dtype=np.float64)
    values = as_numbers(values[:, None] if values.ndim == 1 else values, "The answers", ndim=2)
    if truth.ndim != 1 or values.shape != (len(truth), len(schema.answer_columns)):
        raise ValueError("There must be one row of answers per question, with one column per class.")
    if schema.task == "regression":
        return _REGRESSION[metric](as_numbers(truth.astype(np.float64), "The true values"), values[:, 0])
    truth_codes = _codes(truth, schema.labels)
    return _CLASSIFICATION[metric](truth_codes, values)


def _codes(truth: NDArray[Any], labels: tuple[str, ...]) -> NDArray[np.int64]:
    """Labels as their positions in the schema."""
    place = {label: position for position, label in enumerate(labels)}
    try:
        codes = np.array([place[label] for label in truth.tolist()], dtype=np.int64)
    except KeyError:
        raise ValueError("A true class is not among the labels of the target.") from None
    if len(np.unique(codes)) < 2:
        raise ValueError("The truth holds one class only: nothing can be told apart.")
    return codes


def _auroc(truth: NDArray[np.int64], answers: Floats) -> float:
    if answers.shape[1] == 2:
        return roc_auc(truth == 1, answers[:, 1])
    return float(np.mean([roc_auc(truth == code, answers[:, code]) for code in np.unique(truth)]))


def _balanced_accuracy(truth: NDArray[np.int64], answers: Floats) -> float:
    right = answers.argmax(axis=1) == truth
    return float(np.mean([right[truth == code].mean() for code in np.unique(truth)]))


def _log_loss(truth: NDArray[np.int64], answers: Floats) -> float:
    given = answers[np.arange(len(truth)), truth]
    return float(-np.log(np.clip(given, SMALLEST_PROBABILITY, 1)).mean())


def _r2(truth: Floats, answers: Floats) -> float:
    spread = float(((truth - truth.mean()) ** 2).sum()) if len(truth) else 0.0
    if spread == 0:
        raise ValueError("The true values are all the same: nothing can be explained.")
    return 1 - float(((truth - answers) ** 2).sum()) / spread


def _mae(truth: Floats, answers: Floats) -> float:
    if not len(truth):
        raise ValueError("There is no question to be scored.")
    return float(np.abs(truth - answers).mean())


_CLASSIFICATION: Final[dict[str, Callable[[NDArray[np.int64], Floats], float]]] = {
    "auroc": _auroc,
    "balanced_accuracy": _balanced_accuracy,
    "log_loss": _log_loss,
}
_REGRESSION: Final[dict[str, Callable[[Floats, Floats], float]]] = {"r2": _r2, "mae": _mae}

"""Utility metrics against scikit-learn's."""

from typing import Any

import numpy as np
import pytest
from sklearn import metrics

from challenges.metrics.utility import HIGHER_IS_BETTER, METRICS, METRICS_OF, score
from challenges.schema import Column, Schema

BINARY = Schema((Column("y", "category", "target", categories=("no", "yes")),), "y")
STAGES = Schema((Column("y", "category", "target", categories=("I", "II", "III")),), "y")
DAYS = Schema((Column("y", "number", "target", 0, 30, decimals=1),), "y")


def _answers(schema: Schema, rows: int = 300) -> tuple[Any, Any]:
    random = np.random.default_rng(0)
    codes = random.integers(0, len(schema.labels), rows)
    raw = random.random((rows, len(schema.labels)))
    raw[np.arange(rows), codes] += 0.4
    return np.array(schema.labels)[codes], raw / raw.sum(axis=1, keepdims=True)


def test_binary_metrics_agree_with_scikit_learn() -> None:
    truth, answers = _answers(BINARY)
    assert score("auroc", BINARY, truth, answers) == pytest.approx(metrics.roc_auc_score(truth == "yes", answers[:, 1]))
    chosen = np.array(BINARY.labels)[answers.argmax(axis=1)]
    assert score("balanced_accuracy", BINARY, truth, answers) == pytest.approx(
        metrics.balanced_accuracy_score(truth, chosen)
    )
    assert score("log_loss", BINARY, truth, answers) == pytest.approx(metrics.log_loss(truth, answers))


def test_metrics_of_several_classes_agree_with_scikit_learn() -> None:
    truth, answers = _answers(STAGES)
    assert score("auroc", STAGES, truth, answers) == pytest.approx(
        metrics.roc_auc_score(truth, answers, multi_class="ovr", average="macro")
    )
    assert score("log_loss", STAGES, truth, answers) == pytest.approx(metrics.log_loss(truth, answers))


def test_classes_that_do_not_occur_are_not_counted() -> None:
    truth, answers = _answers(STAGES)
    some = truth != "III"
    assert score("balanced_accuracy", STAGES, truth[some], answers[some]) > 0.5
    assert score("auroc", STAGES, truth[some], answers[some]) > 0.5


def test_regression_metrics_agree_with_scikit_learn() -> None:
    random = np.random.default_rng(0)
    truth = random.normal(10, 3, 200)
    answers = truth + random.normal(0, 1, 200)
    assert score("r2", DAYS, truth, answers) == pytest.approx(metrics.r2_score(truth, answers))
    assert score("mae", DAYS, truth, answers[:, None]) == pytest.approx(metrics.mean_absolute_error(truth, answers))


def test_a_constant_answer_is_worth_nothing() -> None:
    truth, _ = _answers(BINARY)
    assert score("auroc", BINARY, truth, np.tile([0.3, 0.7], (len(truth), 1))) == 0.5
    values = np.array([1.0, 2.0, 6.0])
    assert score("r2", DAYS, values, np.full(3, 3.0)) == 0


def test_a_certain_error_costs_much_but_not_everything() -> None:
    loss = score("log_loss", BINARY, ["no", "yes"], [[0.0, 1.0], [0.0, 1.0]])
    assert loss == pytest.approx(-np.log(0.00005) / 2)


def test_every_metric_has_a_direction_and_a_task() -> None:
    assert set(METRICS) == set(HIGHER_IS_BETTER) == {name for names in METRICS_OF.values() for name in names}


@pytest.mark.parametrize(
    ("metric", "schema", "truth", "answers", "sentence"),
    [
        ("r2", BINARY, ["no", "yes"], [[1, 0], [0, 1]], "does not fit the task"),
        ("auroc", DAYS, [1.0, 2.0], [1.0, 2.0], "does not fit the task"),
        ("auroc", BINARY, ["no", "yes"], [[1, 0]], "one row of answers"),
        ("auroc", BINARY, ["no", "yes"], [1.0, 0.0], "one row of answers"),
        ("auroc", BINARY, ["no", "no"], [[1, 0], [0, 1]], "one class only"),
        ("auroc", BINARY, ["no", "maybe"], [[1, 0], [0, 1]], "not among the labels"),
        ("auroc", BINARY, ["no", "yes"], [[1, 0], [0, np.nan]], "finite"),
        ("r2", DAYS, [1.0, 1.0], [1.0, 2.0], "all the same"),
        ("mae", DAYS, [], [], "no question"),
    ],
)
def test_questions_without_a_meaning_are_refused(
    metric: str, schema: Schema, truth: Any, answers: Any, sentence: str
) -> None:
    with pytest.raises(ValueError, match=sentence):
        score(metric, schema, truth, answers)

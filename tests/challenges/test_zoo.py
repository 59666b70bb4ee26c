"""What a released table teaches: on the clinic of conftest, learnt from tables that keep more or less of it."""

from typing import Any

import numpy as np
import pandas as pd
import pytest

from challenges import features, subsample, zoo
from challenges.metrics import bootstrap
from challenges.metrics.utility import score
from challenges.scenarios.base import Utility
from challenges.schema import Column, Schema, TableError
from challenges.splits import derive
from tests.challenges.conftest import clinic

AGE = Column("age", "integer", minimum=20, maximum=80)
GLUCOSE = Column("glucose", "number", minimum=0, maximum=300, decimals=1, missing=True)
SMOKING = Column("smoking", "category", categories=("never", "former", "current"), missing=True)
BINARY = Schema((AGE, GLUCOSE, SMOKING, Column("diabetes", "category", "target", categories=("no", "yes"))), "diabetes")
STAGES = Schema((AGE, GLUCOSE, SMOKING, Column("stage", "category", "target", categories=("I", "II", "III"))), "stage")
DAYS = Schema((AGE, GLUCOSE, SMOKING, Column("days", "number", "target", minimum=-9, maximum=30, decimals=2)), "days")


def taught(released: pd.DataFrame, schema: Schema, metric: str = "auroc", **more: Any) -> Utility:
    test = clinic().tail(200)
    return zoo.tstr(
        features.matrix(released, schema), released[schema.target].to_numpy(),
        features.matrix(test, schema), test[schema.target].to_numpy(),
        schema=schema, metric=metric, resample=b"key", **more,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("schema", "metric", "least"), [(BINARY, "auroc", 0.8), (STAGES, "auroc", 0.7), (DAYS, "r2", 0.3)]
)
def test_real_records_teach_and_shuffled_ones_do_not(schema: Schema, metric: str, least: float) -> None:
    real = clinic().head(400)
    learnt = taught(real, schema, metric)
    shuffled = real.assign(**{schema.target: real[schema.target].sample(frac=1, random_state=0).to_numpy()})
    assert learnt.value > least
    assert taught(shuffled, schema, metric).value < learnt.value - 0.2
    assert learnt.value == np.mean(list(learnt.facts["models"].values()))
    assert set(learnt.facts["models"]) == {"linear model", "random forest", "gradient boosting"}


def test_a_release_of_more_rows_than_a_wide_table_is_measured_on_a_part(monkeypatch: pytest.MonkeyPatch) -> None:
    """The check lets a small table pass however wide it is; a release may have more rows, or one for each class."""
    monkeypatch.setattr(subsample, "MOST_CELLS", 1500)  # 214 rows of seven inputs
    real = clinic().head(400)
    subsample.check(200, BINARY)
    with pytest.raises(TableError, match="too many for the models"):
        subsample.check(400, BINARY)
    learnt = taught(real, BINARY)
    assert len(subsample.choose(400, BINARY)) == 214
    assert learnt.value > 0.7


def test_replicates_are_the_mean_over_the_zoo_of_resampled_test_records(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two models that do not depend on the order of the rows."""
    monkeypatch.setattr(
        zoo, "models", lambda schema, _rows: {n: features.linear_model(schema, n) for n in (0.001, 9.0)}
    )
    real, test = clinic().head(400), clinic().tail(200)
    learnt = taught(real, BINARY)
    truth = test["diabetes"].to_numpy()
    counts = bootstrap.draw(derive(b"key", "test"), (truth == "yes").astype(int))
    again = []
    for model in zoo.models(BINARY, 400).values():
        fitted = model.fit(features.matrix(real, BINARY), real["diabetes"].to_numpy())
        given = features.answers(fitted, features.matrix(test, BINARY), BINARY)
        again.append([score("auroc", BINARY, np.repeat(truth, n), np.repeat(given, n, axis=0)) for n in counts[:3]])
    assert learnt.replicates.shape == (bootstrap.RESAMPLES,)
    np.testing.assert_allclose(learnt.replicates[:3], np.mean(again, axis=0), atol=1e-3)


def test_the_order_of_the_rows_does_not_matter() -> None:
    real = clinic().head(200)
    assert taught(real, BINARY).value == taught(real.sample(frac=1, random_state=0), BINARY).value


def test_weights_are_as_good_as_repeated_rows() -> None:
    real = clinic().head(300).dropna()
    weights = np.where(np.arange(len(real)) < 100, 2.0, 0.0)
    inputs, targets = features.matrix(real, BINARY), real["diabetes"].to_numpy()
    for name, model in zoo.models(BINARY, 300).items():
        weighted = zoo.answers_of(model, inputs, targets, weights, inputs, BINARY)
        plain = zoo.answers_of(model, inputs[:100], targets[:100], None, inputs, BINARY)
        assert np.corrcoef(weighted[:, 1], plain[:, 1])[0, 1] > 0.8, name


@pytest.mark.parametrize("schema", [BINARY, STAGES])
def test_a_table_of_one_class_teaches_nothing(schema: Schema) -> None:
    real = clinic().head(100)
    learnt = taught(real.assign(**{schema.target: schema.labels[0]}), schema)
    assert learnt.value == 0.5
    assert (learnt.replicates == 0.5).all()


def test_a_class_that_is_absent_and_a_column_without_a_value_are_borne() -> None:
    real = clinic().head(300)
    learnt = taught(real[real["stage"] != "II"].assign(glucose=np.nan, smoking=None), STAGES)
    assert 0.3 < learnt.value < 0.8
    constant = taught(real.assign(days=1.0), DAYS, "mae")
    assert constant.value > 0
    assert taught(real, DAYS, "mae").value < constant.value

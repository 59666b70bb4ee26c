"""Every measure over resamples is the measure of the resampled records, one by one."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from challenges.metrics import bootstrap, membership, utility
from challenges.schema import Column, Schema

SOME = (0, 1, 500, 999)  # resamples that are checked by hand


def repeated(values: Any, counts: Any) -> Any:
    """The records of one resample, written out."""
    return np.repeat(values, counts, axis=0)


@given(st.integers(3, 60), st.integers(0, 10_000), st.sampled_from([0, 1, 3]), st.sampled_from([0.01, 0.1, 0.5]))
def test_auc_and_tpr_are_those_of_the_resampled_records(n: int, seed: int, decimals: int, alpha: float) -> None:
    rng = np.random.default_rng(seed)
    member = rng.permutation(np.arange(n) % 3 == 0)
    scores = np.round(rng.normal(size=n) + member, decimals)
    counts = bootstrap.draw(b"key", member)
    auc, tpr = bootstrap.auc(member, scores, counts), bootstrap.tpr(member, scores, counts, alpha)
    for r in SOME:
        who, what = repeated(member, counts[r]), repeated(scores, counts[r])
        assert auc[r] == pytest.approx(membership.roc_auc(who, what), abs=1e-12)
        assert tpr[r] == membership.tpr_at_fpr(who, what, alpha)


def test_resamples_keep_the_size_of_each_stratum_and_follow_from_the_key() -> None:
    strata = np.array([2, 0, 0, 1, 2, 2, 0, 0])
    counts = bootstrap.draw(b"key", strata)
    assert counts.shape == (bootstrap.RESAMPLES, 8)
    for stratum in range(3):
        assert (counts[:, strata == stratum].sum(axis=1) == (strata == stratum).sum()).all()
    np.testing.assert_array_equal(counts, bootstrap.draw(b"key", strata))
    assert (counts != bootstrap.draw(b"another", strata)).any()


def test_large_tables_are_drawn_part_by_part(monkeypatch: pytest.MonkeyPatch) -> None:
    strata = np.arange(90) % 3 == 0
    at_once = bootstrap.draw(b"key", strata)
    monkeypatch.setattr(bootstrap, "_DRAWN", 100 * 60)
    counts = bootstrap.draw(b"key", strata)
    for side in (strata, ~strata):
        assert (counts[:, side].sum(axis=1) == side.sum()).all()
    np.testing.assert_array_equal(counts[:100], at_once[:100])
    assert len(np.unique(counts, axis=0)) == bootstrap.RESAMPLES  # no part repeats another


def test_every_record_is_drawn_as_often_as_any_other() -> None:
    counts = bootstrap.draw(b"key", np.zeros(200, dtype=int)).astype(float)
    means = counts.mean(axis=0)  # each of 200 means has a standard error of about sqrt(1 / 1000)
    assert abs(means - 1).max() < 5 / np.sqrt(bootstrap.RESAMPLES)
    assert counts.var() == pytest.approx(1 - 1 / 200, rel=0.05)  # of a multinomial count


def test_the_spread_over_resamples_is_the_standard_error() -> None:
    rng = np.random.default_rng(1)
    member = np.arange(2000) % 2 == 0
    scores = rng.normal(size=2000) + 0.3 * member
    counts = bootstrap.draw(b"key", member)
    assert bootstrap.auc(member, scores, counts).std() == pytest.approx(
        membership.auc_standard_error(member, scores), rel=0.1
    )


@pytest.mark.parametrize("labels", [("no", "yes"), ("I", "II", "III")])
@pytest.mark.parametrize("metric", ["auroc", "balanced_accuracy", "log_loss"])
def test_class_metrics_are_those_of_the_resampled_records(labels: tuple[str, ...], metric: str) -> None:
    schema = Schema((Column("y", "category", "target", categories=labels),), "y")
    rng = np.random.default_rng(2)
    truth = np.array(labels)[rng.permutation(np.arange(90) % len(labels))]
    answers = rng.dirichlet(np.ones(len(labels)), size=90).round(4)
    counts = bootstrap.draw(b"key", np.unique(truth, return_inverse=True)[1])
    values = bootstrap.metric(metric, schema, truth, answers, counts)
    for r in SOME:
        expected = utility.score(metric, schema, repeated(truth, counts[r]), repeated(answers, counts[r]))
        assert values[r] == pytest.approx(expected)


@pytest.mark.parametrize("metric", ["r2", "mae"])
def test_metrics_of_numbers_are_those_of_the_resampled_records(metric: str) -> None:
    schema = Schema((Column("y", "number", "target", minimum=0, maximum=9, decimals=1),), "y")
    rng = np.random.default_rng(3)
    truth = rng.normal(size=80) + 1000
    answers = truth + rng.normal(size=80) / 2
    counts = bootstrap.draw(b"key", np.zeros(80, dtype=int))
    values = bootstrap.metric(metric, schema, truth, answers[:, None], counts)
    for r in SOME:
        expected = utility.score(metric, schema, repeated(truth, counts[r]), repeated(answers[:, None], counts[r]))
        assert values[r] == pytest.approx(expected)


def test_a_resample_of_one_value_explains_nothing() -> None:
    schema = Schema((Column("y", "number", "target"),), "y")
    counts = bootstrap.draw(b"key", np.zeros(2, dtype=int))
    values = bootstrap.metric("r2", schema, [1.0, 2.0], [1.0, 2.0], counts)
    assert set(values) == {0.0, 1.0}


def test_rates_are_means_over_the_resample() -> None:
    hits = np.arange(20) % 4 == 0
    counts = bootstrap.draw(b"key", np.zeros(20, dtype=int))
    rates = bootstrap.rate(hits, counts)
    for r in SOME:
        assert rates[r] == pytest.approx(repeated(hits, counts[r]).mean())


def test_what_does_not_fit_together_is_refused() -> None:
    counts = bootstrap.draw(b"key", np.zeros(4, dtype=int))
    with pytest.raises(ValueError, match="same records"):
        bootstrap.auc([True, False, True], [1, 2, 3], counts)
    with pytest.raises(ValueError, match="at least one member"):
        bootstrap.tpr([True] * 4, [1, 2, 3, 4], counts, 0.1)


def test_stored_replicates_come_back() -> None:
    values = np.random.default_rng(4).normal(size=(bootstrap.RESAMPLES, 2, 2))
    stored = bootstrap.pack(values)
    assert len(stored) < 4 * values.size + 200
    np.testing.assert_allclose(bootstrap.unpack(stored), values, atol=1e-6)

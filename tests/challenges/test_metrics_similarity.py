"""Likeness of tables against the definitions, counted by hand and by brute force."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ks_2samp

from challenges.metrics import similarity
from challenges.schema import Column, Schema

NUMBERS = st.lists(st.one_of(st.integers(-3, 3).map(float), st.just(float("nan"))), min_size=1, max_size=30)
PAIRS = st.lists(st.tuples(st.integers(-1, 3), st.integers(-1, 2)), min_size=1, max_size=30)


def brute_ks(real: list[float], made: list[float]) -> float:
    """The largest difference of the distribution functions, tried at every value."""
    a, b = [x for x in real if x == x], [x for x in made if x == x]
    return 1 - max(abs(sum(x <= v for x in a) / len(a) - sum(x <= v for x in b) / len(b)) for v in a + b)


@given(NUMBERS, NUMBERS)
@settings(max_examples=60)
def test_ks_complement_is_the_definition(real: list[float], made: list[float]) -> None:
    found = similarity.ks_complement(np.array(real), np.array(made))
    if all(x != x for x in real) or all(x != x for x in made):
        assert np.isnan(found)
    else:
        assert found == pytest.approx(brute_ks(real, made), abs=1e-12)


def test_ks_complement_agrees_with_scipy() -> None:
    random = np.random.default_rng(0)
    a, b = random.normal(size=300), random.normal(0.4, 1.2, size=200)
    assert similarity.ks_complement(a, b) == pytest.approx(1 - ks_2samp(a, b).statistic, abs=1e-12)


@given(PAIRS, PAIRS)
@settings(max_examples=60)
def test_contingency_and_total_variation_are_the_definition(
    real: list[tuple[int, int]], made: list[tuple[int, int]]
) -> None:
    first, second = np.array(real), np.array(made)
    cells = set(real) | set(made)
    expected = 1 - sum(abs(real.count(c) / len(real) - made.count(c) / len(made)) for c in cells) / 2
    found = similarity.contingency_similarity(first[:, 0], first[:, 1], second[:, 0], second[:, 1])
    assert found == pytest.approx(expected, abs=1e-12)
    ones, others = [a for a, _b in real], [a for a, _b in made]
    expected = 1 - sum(abs(ones.count(c) / len(ones) - others.count(c) / len(others)) for c in range(-1, 4)) / 2
    assert similarity.tv_complement(first[:, 0], second[:, 0]) == pytest.approx(expected, abs=1e-12)


def test_correlation_similarity_leaves_out_rows_with_a_gap() -> None:
    random = np.random.default_rng(1)
    a, b, c, d = random.normal(size=(4, 100))
    b, d = a + b, d - c
    gapped = np.where(np.arange(100) < 20, np.nan, b)
    expected = 1 - abs(np.corrcoef(a[20:], b[20:])[0, 1] - np.corrcoef(c, d)[0, 1]) / 2
    assert similarity.correlation_similarity(a, gapped, c, d) == pytest.approx(expected, abs=1e-12)
    assert np.isnan(similarity.correlation_similarity(a, np.ones(100), c, d))
    assert np.isnan(similarity.correlation_similarity(a, np.full(100, np.nan), c, d))


def test_numbers_are_cut_at_the_real_columns_range() -> None:
    real = np.array([0.0, 10.0, np.nan])
    made = np.array([-5.0, 0.0, 0.99, 1.0, 9.0, 10.0, 99.0, np.nan])
    assert similarity.bins(real, made).tolist() == [0, 0, 0, 1, 9, 9, 9, -1]
    assert similarity.bins(np.array([np.nan]), np.array([1.0, np.nan])).tolist() == [0, -1]


SCHEMA = Schema(
    (
        Column("age", "integer", minimum=0, maximum=100),
        Column("weight", "number", minimum=0, maximum=200, decimals=1, missing=True),
        Column("sex", "category", categories=("f", "m"), missing=True),
        Column("sick", "category", "target", categories=("no", "yes")),
    ),
    "sick",
)


def people(seed: int, rows: int = 400) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    age = random.integers(0, 100, rows)
    frame = pd.DataFrame(
        {
            "age": age,
            "weight": np.where(random.random(rows) < 0.1, np.nan, age / 2 + random.normal(40, 8, rows)),
            "sex": pd.Series(random.choice(["f", "m"], rows), dtype="object"),
            "sick": np.where(age + random.normal(0, 20, rows) > 60, "yes", "no"),
        }
    )
    frame.loc[random.random(rows) < 0.2, "sex"] = None
    return frame


def test_a_table_is_like_itself_and_less_like_one_without_its_structure() -> None:
    real = people(0)
    same = similarity.compare(real, real, SCHEMA)
    assert (same["columns"], same["pairs"], same["missing"]) == (1, 1, 1)
    shuffled = pd.DataFrame({name: real[name].sample(frac=1, random_state=n).to_numpy() for n, name in enumerate(real)})
    apart = similarity.compare(real, shuffled, SCHEMA)
    assert apart["columns"] == pytest.approx(1)
    assert apart["pairs"] < 0.9
    full = similarity.compare(real, people(1).assign(weight=50.0, sex="f"), SCHEMA)
    assert full["missing"] == pytest.approx(1 - (real["weight"].isna().mean() + real["sex"].isna().mean()) / 2)
    assert full["by_column"]["sex"] < 0.6


def test_what_cannot_be_compared_is_left_out() -> None:
    real = people(0)
    found = similarity.compare(real, real.assign(weight=np.nan), SCHEMA)
    assert found["by_column"]["weight"] is None
    assert found["columns"] == pytest.approx(1)


def test_of_a_wide_table_some_pairs_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    real, made = people(0), people(1)
    every = similarity.compare(real, made, SCHEMA)["pairs"]
    monkeypatch.setattr(similarity, "_MOST_PAIRS", 3)
    some = similarity.compare(real, made, SCHEMA)["pairs"]
    assert some != every
    assert some == similarity.compare(real, made, SCHEMA)["pairs"]
    assert some == pytest.approx(every, abs=0.1)

"""Residual risk: the same numbers as Anonymeter's, and what a hit is."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from challenges.metrics.risk import hits, residual_risk, signed_risk, signed_risks

CASES = json.loads(Path(__file__).with_name("anonymeter_cases.json").read_text(encoding="utf-8"))


def test_residual_risk_agrees_with_anonymeter_on_random_counts() -> None:
    """As it was computed by the package itself, see make_anonymeter_cases.py."""
    assert len(CASES) == 400
    for n_attack, hits_attack, n_control, hits_control, confidence, *expected in CASES:
        found = residual_risk(n_attack, hits_attack, n_control, hits_control, confidence)
        np.testing.assert_allclose([found.value, found.lower, found.upper], expected, rtol=1e-12, atol=1e-12)
    inside = [case for case in CASES if 0 < case[5] < 1 and case[6] > 0]
    assert len(inside) > 80  # many are clipped to 0, which any formula would get right


@st.composite
def counts(draw: st.DrawFn) -> tuple[int, int, int, int]:
    n_attack, n_control = draw(st.integers(1, 10**6)), draw(st.integers(1, 10**6))
    return n_attack, draw(st.integers(0, n_attack)), n_control, draw(st.integers(0, n_control))


@given(counts())
def test_the_signed_risk_is_what_is_clipped_elsewhere(given_counts: tuple[int, int, int, int]) -> None:
    value, error = signed_risk(*given_counts)
    found = residual_risk(*given_counts)
    assert found.value == min(max(value, 0), 1)
    width = 1.959963984540054 * error
    assert found.lower == pytest.approx(min(max(value - width, 0), 1), abs=1e-12)
    assert found.upper == pytest.approx(min(max(value + width, 0), 1), abs=1e-12)
    n_attack, hits_attack, n_control, hits_control = given_counts
    again = signed_risks(np.array([hits_attack / n_attack]), n_attack, np.array([hits_control / n_control]), n_control)
    assert again[0] == pytest.approx(value, rel=1e-6, abs=1e-9)


def test_the_standard_error_is_that_of_repeated_duels() -> None:
    random = np.random.default_rng(1)
    n, attack, control = 900, 0.55, 0.4
    drawn = random.binomial(n, [attack, control], (4000, 2)).tolist()
    values, errors = np.array([signed_risk(n, hits_attack, n, hits_control) for hits_attack, hits_control in drawn]).T
    assert values.mean() == pytest.approx((attack - control) / (1 - control), abs=4 * values.std() / math.sqrt(4000))
    assert errors.mean() == pytest.approx(values.std(), rel=0.05)


def test_strangers_may_be_easier_to_guess() -> None:
    assert signed_risk(500, 100, 500, 200)[0] < -0.3
    assert residual_risk(500, 100, 500, 200).value == 0


@pytest.mark.parametrize(
    ("truth", "guess", "decimals", "hit"),
    [
        (80.0, 84.0, 1, True),
        (80.0, 76.0, 1, True),
        (80.0, 84.01, 1, False),
        (80.0, 75.99, 1, False),
        (6.0, 6.3, 1, True),  # 6.3 - 6.0 is not quite 0.3 to a computer
        (6.0, 5.7, 1, True),
        (-10.0, -10.5, 1, True),
        (-10.0, -9.4, 1, False),
        (0.0, 0.05, 1, True),  # half of the last decimal, where 5 % are nothing
        (0.0, 0.06, 1, False),
        (3.0, 3.5, 0, True),
        (3.0, 3.6, 0, False),
        (80.0, math.nan, 1, False),
        (math.nan, math.nan, 1, False),
    ],
)
def test_a_number_is_guessed_within_five_percent_or_half_of_its_last_decimal(
    truth: float, guess: float, decimals: int, hit: bool
) -> None:
    assert hits([truth], [guess], decimals).tolist() == [hit]


def test_a_category_is_guessed_by_its_name() -> None:
    truth = np.array(["yes", "no", None, "yes", np.nan], dtype=object)
    guesses = np.array(["yes", "yes", None, None, np.nan], dtype=object)
    assert hits(truth, guesses).tolist() == [True, False, False, False, False]


def test_guesses_for_others_are_refused() -> None:
    with pytest.raises(ValueError, match="one guess for each truth"):
        hits([1.0, 2.0], [1.0], 0)

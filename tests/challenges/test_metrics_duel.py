"""From leaks to scores: the formulas of SCORING against plain loops."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from challenges.metrics.duel import (
    attack_score,
    crossfit,
    crossfit_worst_leak,
    defense_score,
    normalised_utility,
    privacy,
)
from challenges.metrics.risk import residual_risk

LEAKS = st.tuples(st.integers(2, 4), st.integers(1, 5), st.integers(1, 2)).flatmap(
    lambda shape: arrays(np.float64, shape, elements=st.integers(-100, 100).map(lambda n: n / 100))
)


@given(LEAKS)
def test_the_worst_leak_is_cross_fitted(leaks: Any) -> None:
    units, attacks, metrics = leaks.shape
    chosen = []
    for k in range(units):
        best, pair = -math.inf, (0, 0)
        for a in range(attacks):
            for c in range(metrics):
                mean = sum(leaks[j][a][c] for j in range(units) if j != k) / (units - 1)
                if mean > best + 1e-9:  # ties: the earlier attack, then A
                    best, pair = mean, (a, c)
        chosen.append(pair)
    mean = float(np.mean([leaks[k][a][c] for k, (a, c) in enumerate(chosen)]))

    found = crossfit(leaks.tolist())

    assert found.choices == tuple(chosen)
    assert found.mean == pytest.approx(mean)
    assert found.value == crossfit_worst_leak(leaks) == pytest.approx(min(max(mean, 0), 1))
    assert not found.in_sample


HOLES = LEAKS.flatmap(lambda leaks: st.tuples(st.just(leaks), arrays(np.bool_, leaks.shape[:2])))


@given(HOLES)
def test_a_failed_duel_is_left_out_and_the_attacks_others_are_not(played: Any) -> None:
    leaks, present = played
    units, attacks, metrics = leaks.shape
    pairs = [(a, c) for a in range(attacks) for c in range(metrics)]
    taken = []
    for k in range(units):
        elsewhere = {a: [j for j in range(units) if j != k and present[j][a]] for a in range(attacks)}
        here = [(a, c) for a, c in pairs if present[k][a]]
        judged = {(a, c): np.mean([leaks[j][a][c] for j in elsewhere[a]]) for a, c in here if elsewhere[a]}
        judged = judged or {(a, c): leaks[k][a][c] for a, c in here}
        if judged:
            top = max(judged.values())
            a, c = next(pair for pair, mean in judged.items() if mean > top - 1e-9)
            taken.append(leaks[k][a][c])
    garbage = np.where(present[..., None], leaks, 99.0)
    found = crossfit(garbage, np.ones_like(leaks), present)
    assert found.mean == pytest.approx(np.mean(taken) if taken else 0.0)
    assert len(found.choices) == len(taken)
    assert found.standard_error == pytest.approx(1 / np.sqrt(len(taken)) if taken else 0.0)
    assert crossfit_worst_leak(garbage, present) == found.value


def test_making_the_strongest_attack_fail_once_gains_a_share_and_not_all() -> None:
    leaks = np.zeros((3, 2, 1))
    leaks[:, 0], leaks[:, 1] = 0.3, 0.1
    present = np.array([[True, True], [True, True], [False, True]])
    assert crossfit_worst_leak(leaks) == pytest.approx(0.3)
    assert crossfit_worst_leak(leaks, present) == pytest.approx((0.3 + 0.3 + 0.1) / 3)


def test_which_duels_have_a_result_must_be_said_for_each() -> None:
    for present in ([[True]], [[1, 0], [0, 1]], [True, False]):
        with pytest.raises(ValueError, match="truth value"):
            crossfit(np.zeros((2, 2, 1)), present=present)


def test_cross_fitting_takes_the_noise_out_of_the_maximum() -> None:
    random = np.random.default_rng(0)
    noise = random.normal(0, 0.05, (2000, 2, 10, 2))
    naive = np.mean([leaks.mean(axis=0).max() for leaks in noise])
    fair = np.mean([crossfit(leaks).mean for leaks in noise])
    assert naive > 0.05
    assert abs(fair) < 0.005


def test_the_standard_error_is_that_of_the_chosen_pairs() -> None:
    leaks = [[[0.5, 0.1], [0.0, 0.0]], [[0.4, 0.2], [0.0, 0.0]]]
    errors = [[[0.03, 9], [9, 9]], [[0.04, 9], [9, 9]]]
    found = crossfit(leaks, errors)
    assert found.choices == ((0, 0), (0, 0))
    assert found.value == pytest.approx(0.45)
    assert found.standard_error == pytest.approx(0.05 / 2)


def test_one_unit_alone_is_judged_in_sample_and_says_so() -> None:
    found = crossfit([[[0.1, 0.2], [0.4, 0.3]]])
    assert found.value == pytest.approx(0.4)
    assert found.choices == ((1, 0),)
    assert found.in_sample


@pytest.mark.parametrize("leaks", [[], [[]], [[], []], np.zeros((2, 0, 2))])
def test_without_attacks_there_is_no_leak(leaks: Any) -> None:
    assert crossfit_worst_leak(leaks) == 0
    assert crossfit(leaks).choices == ()


def test_a_leak_in_the_wrong_direction_counts_as_none_but_is_kept() -> None:
    found = crossfit([[[-0.3, -0.2]], [[-0.3, -0.2]]])
    assert found.value == 0
    assert found.mean == pytest.approx(-0.2)


@pytest.mark.parametrize(
    "leaks", [[0.1], [[0.1]], [[[math.nan]]], [[["a"]]], [[[0.1, 0.2]], [[0.1]]], [[[0.1]], [[0.1], [0.2]]]]
)
def test_leaks_of_other_shapes_are_refused(leaks: Any) -> None:
    with pytest.raises(ValueError, match=r"\.$"):
        crossfit_worst_leak(leaks)


def test_errors_must_fit_the_leaks() -> None:
    with pytest.raises(ValueError, match="shape of the leaks"):
        crossfit([[[0.1]], [[0.1]]], [[[0.1, 0.1]], [[0.1, 0.1]]])
    with pytest.raises(ValueError, match="negative"):
        crossfit([[[0.1]], [[0.1]]], [[[-0.1]], [[0.1]]])


# Utility, privacy, scores ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("u", "trivial", "reference", "expected"),
    [
        (0.65, 0.5, 0.8, 0.5),
        ([0.6, 0.7], 0.5, 0.8, 0.5),
        (0.4, 0.5, 0.8, 0.0),
        (0.9, 0.5, 0.8, 1.0),
        (0.3, 0.5, 0.1, 0.5),  # lower is better
        (0.6, 0.5, 0.1, 0.0),
    ],
)
def test_utility_lies_between_the_anchors(u: Any, trivial: float, reference: float, expected: float) -> None:
    assert normalised_utility(u, trivial, reference) == pytest.approx(expected)


@pytest.mark.parametrize(
    "arguments", [(0.5, 0.6, 0.6), ([], 0, 1), ([math.nan], 0, 1), ([[0.5]], 0, 1), (0.5, math.inf, 1), ("x", 0, 1)]
)
def test_utilities_that_mean_nothing_are_refused(arguments: Any) -> None:
    with pytest.raises(ValueError, match=r"\.$"):
        normalised_utility(*arguments)


@pytest.mark.parametrize(("leak", "expected"), [(-0.1, 1), (0, 1), (0.05, 0.75), (0.2, 0), (0.9, 0)])
def test_privacy_falls_to_zero_at_the_reference_leak(leak: float, expected: float) -> None:
    assert privacy(leak) == pytest.approx(expected)
    assert privacy(leak / 2, 0.1) == pytest.approx(expected)


def test_privacy_refuses_nonsense() -> None:
    for arguments in ((math.nan,), (0.1, 0.0), (0.1, -1.0)):
        with pytest.raises(ValueError, match=r"\.$"):
            privacy(*arguments)


@pytest.mark.parametrize(("u", "p", "expected"), [(1, 1, 100), (0, 0, 0), (1, 0, 0), (0.5, 1, 200 / 3)])
def test_a_defense_is_worth_the_harmonic_mean(u: float, p: float, expected: float) -> None:
    assert defense_score(u, p) == pytest.approx(expected)


@pytest.mark.parametrize(("u", "p"), [(1.1, 0.5), (0.5, -0.1), (math.nan, 0.5)])
def test_scores_outside_0_and_1_are_refused(u: float, p: float) -> None:
    with pytest.raises(ValueError, match=r"between 0 and 1|finite"):
        defense_score(u, p)


def test_an_attack_is_worth_its_weighted_mean_success() -> None:
    assert attack_score([1.0, 0.5], [0.3, 0.0]) == pytest.approx(20)
    assert attack_score([], []) == 0
    assert attack_score([0.0], [0.5]) == 0
    assert attack_score([1.0], [-0.2]) == 0


def test_with_five_defenses_the_extremes_are_left_out() -> None:
    utilities, successes = [1.0, 0.6, 0.8, 0.9, 0.7], [0.9, 0.1, 0.2, 0.0, 0.3]
    expected = 100 * (0.6 * 0.1 + 0.8 * 0.2 + 0.7 * 0.3) / (0.6 + 0.8 + 0.7)
    assert attack_score(utilities, successes) == pytest.approx(expected)
    assert attack_score(utilities[:4], successes[:4]) > expected


@given(st.lists(st.tuples(st.floats(0, 1), st.sampled_from([0.0, 0.1, 0.5])), min_size=1, max_size=9))
def test_the_order_of_defenses_does_not_matter(pairs: list[tuple[float, float]]) -> None:
    utilities, successes = zip(*pairs, strict=True)
    assert attack_score(utilities, successes) == pytest.approx(attack_score(utilities[::-1], successes[::-1]))


@pytest.mark.parametrize("arguments", [([0.5], []), ([[0.5]], [[0.5]]), ([2.0], [0.1]), ([0.5], [math.nan])])
def test_successes_that_do_not_fit_are_refused(arguments: Any) -> None:
    with pytest.raises(ValueError, match=r"\.$"):
        attack_score(*arguments)


# Residual risk --------------------------------------------------------------------------------------------------------


def _wilson(n: int, hits: int, z: float) -> tuple[float, float]:
    """The interval's ends, as roots of (p - hits/n)^2 = z^2 p(1-p)/n."""
    share = hits / n
    roots = np.sort(np.roots([1 + z**2 / n, -2 * share - z**2 / n, share**2]).real)
    return float(roots[0]), float(roots[1])


@given(st.integers(1, 500), st.floats(0, 1), st.integers(1, 500), st.floats(0, 1))
def test_residual_risk_is_what_exceeds_the_control(n1: int, share1: float, n0: int, share0: float) -> None:
    hits1, hits0 = round(n1 * share1), round(n0 * share0)
    (low1, high1), (low0, high0) = _wilson(n1, hits1, 1.959963984540054), _wilson(n0, hits0, 1.959963984540054)
    r1, e1, r0, e0 = (low1 + high1) / 2, (high1 - low1) / 2, (low0 + high0) / 2, (high0 - low0) / 2
    value = (r1 - r0) / (1 - r0)
    error = math.hypot(e1 / (1 - r0), e0 * (r1 - 1) / (1 - r0) ** 2)

    found = residual_risk(n1, hits1, n0, hits0)

    assert found.value == pytest.approx(min(max(value, 0), 1), abs=1e-6)
    assert found.lower == pytest.approx(min(max(value - error, 0), 1), abs=1e-6)
    assert found.upper == pytest.approx(min(max(value + error, 0), 1), abs=1e-6)


@pytest.mark.parametrize("counts", [(0, 0, 10, 1), (10, 1, 0, 0), (10, 11, 10, 1), (10, -1, 10, 1), (10, 1.5, 10, 1)])
def test_impossible_risks_are_refused(counts: Any) -> None:
    with pytest.raises(ValueError, match=r"\.$"):
        residual_risk(*counts)


def test_a_higher_confidence_widens_the_interval() -> None:
    narrow, wide = residual_risk(100, 60, 100, 20, confidence=0.8), residual_risk(100, 60, 100, 20, confidence=0.99)
    assert wide.lower < narrow.lower < narrow.upper < wide.upper
    with pytest.raises(ValueError, match="confidence"):
        residual_risk(100, 60, 100, 20, confidence=1.0)

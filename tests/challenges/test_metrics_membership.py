"""The membership measures against brute force, and against what they must refuse."""

import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import binom

from challenges.metrics import membership
from challenges.metrics.membership import (
    advantage,
    auc_standard_error,
    epsilon_lower_bound,
    roc_auc,
    tpr_at_fpr,
    tpr_standard_error,
)

MEASURES: list[Callable[..., float]] = [
    roc_auc,
    auc_standard_error,
    advantage,
    lambda member, scores: tpr_at_fpr(member, scores, 0.1),
    lambda member, scores: tpr_standard_error(member, scores, 0.1),
]


@st.composite
def duels(draw: st.DrawFn) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """A few candidates of both kinds, with many ties."""
    n = draw(st.integers(2, 40))
    member = draw(st.lists(st.booleans(), min_size=n, max_size=n).filter(lambda flags: 0 < sum(flags) < len(flags)))
    few = st.integers(-3, 3).map(float)
    wide = st.floats(-1e6, 1e6, allow_subnormal=False)
    scores = draw(st.lists(st.one_of(few, wide), min_size=n, max_size=n))
    return np.array(member), np.array(scores)


def _rates(member: NDArray[np.bool_], scores: NDArray[np.float64]) -> list[tuple[float, int]]:
    """(TPR, false positives) at each threshold, nobody accepted included."""
    thresholds = [math.inf, *np.unique(scores)]
    return [(float((scores[member] >= t).mean()), int((scores[~member] >= t).sum())) for t in thresholds]


@given(duels())
def test_auc_is_the_share_of_pairs_in_the_right_order(duel: tuple[Any, Any]) -> None:
    member, scores = duel
    above = scores[member][:, None] - scores[~member][None, :]
    assert roc_auc(member, scores) == pytest.approx(float(((above > 0) + 0.5 * (above == 0)).mean()), abs=1e-12)


@given(duels(), st.one_of(st.sampled_from([0.0, 0.01, 0.1, 0.2, 0.5, 1.0]), st.floats(0, 1)))
def test_tpr_at_fpr_is_the_best_threshold_that_is_allowed(duel: tuple[Any, Any], fpr: float) -> None:
    member, scores = duel
    allowed = math.floor(fpr * int((~member).sum()) + 1e-9)
    expected = max(tpr for tpr, false in _rates(member, scores) if false <= allowed)
    assert tpr_at_fpr(member, scores, fpr) == expected


@given(duels())
def test_advantage_is_the_largest_gap(duel: tuple[Any, Any]) -> None:
    member, scores = duel
    n0 = int((~member).sum())
    assert advantage(member, scores) == pytest.approx(max(tpr - false / n0 for tpr, false in _rates(member, scores)))


@given(duels())
def test_measures_depend_on_the_order_of_scores_only(duel: tuple[Any, Any]) -> None:
    member, scores = duel
    ranks = np.unique(scores, return_inverse=True)[1]
    shuffled = np.random.default_rng(0).permutation(len(scores))
    for measure in MEASURES[:1] + MEASURES[2:4]:
        assert measure(member, ranks) == measure(member, scores)
        assert measure(member[shuffled], scores[shuffled]) == pytest.approx(measure(member, scores))


def test_perfect_useless_and_inverted_attacks() -> None:
    member = np.array([True] * 50 + [False] * 50)
    assert roc_auc(member, member.astype(float)) == 1
    assert roc_auc(member, np.zeros(100)) == 0.5
    assert roc_auc(member, ~member) == 0
    assert tpr_at_fpr(member, member, 0.0) == 1
    assert tpr_at_fpr(member, np.zeros(100), 0.5) == 0  # tied scores move together
    assert advantage(member, ~member) == 0


def test_membership_may_be_given_as_zeros_and_ones() -> None:
    assert roc_auc([1, 0, 1], [3, 1, 2]) == roc_auc([True, False, True], [3.0, 1.0, 2.0]) == 1


def test_large_whole_numbers_keep_their_order() -> None:
    assert roc_auc([True, False], [2**60 + 1, 2**60]) == 1


@pytest.mark.parametrize(
    ("member", "scores"),
    [
        ([True, False], [1.0]),
        ([[True, False]], [[1.0, 2.0]]),
        ([True, True], [1.0, 2.0]),
        ([False, False], [1.0, 2.0]),
        ([], []),
        ([True, False], [1.0, math.nan]),
        ([True, False], [1.0, math.inf]),
        ([True, False], ["a", "b"]),
        ([True, False], [None, 1.0]),
        ([True, False], [1j, 1.0]),
        ([2, 0], [1.0, 2.0]),
        (["yes", "no"], [1.0, 2.0]),
        (True, 1.0),
    ],
)
def test_what_cannot_be_measured_is_refused_with_a_sentence(member: Any, scores: Any) -> None:
    for measure in MEASURES:
        with pytest.raises(ValueError, match=r"^[A-Z].*\.$"):
            measure(member, scores)


@pytest.mark.parametrize("fpr", [-0.1, 1.1, math.nan, "x"])
def test_a_rate_lies_between_0_and_1(fpr: Any) -> None:
    with pytest.raises(ValueError, match="false-positive rate"):
        tpr_at_fpr([True, False], [1.0, 2.0], fpr)


# Standard errors ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shift", [0.0, 0.5, 1.5])
def test_standard_errors_are_the_spread_over_repeated_duels(shift: float) -> None:
    random = np.random.default_rng(1)
    member = np.arange(900) % 2 == 0
    draws = [random.normal(size=900) + shift * member for _ in range(400)]
    for measure, error in (
        (roc_auc, auc_standard_error),
        (lambda m, s: tpr_at_fpr(m, s, 0.1), lambda m, s: tpr_standard_error(m, s, 0.1)),
    ):
        spread = float(np.std([measure(member, scores) for scores in draws]))
        stated = float(np.mean([error(member, scores) for scores in draws]))
        assert 0.8 < stated / spread < 1.25


def test_a_standard_error_needs_two_of_each_kind() -> None:
    with pytest.raises(ValueError, match="at least two members"):
        auc_standard_error([True, False, False], [1.0, 2.0, 3.0])


# Epsilon --------------------------------------------------------------------------------------------------------------


def _clopper_pearson(k: int, n: int, error: float) -> tuple[float, float]:
    """One-sided bounds by bisection on the binomial tails."""

    def solve(tail: Callable[[float], float]) -> float:
        low, high = 0.0, 1.0
        for _ in range(100):
            middle = (low + high) / 2
            low, high = (middle, high) if tail(middle) > 0 else (low, middle)
        return low

    lower = 0.0 if k == 0 else solve(lambda p: error - float(binom.sf(k - 1, n, p)))
    upper = 1.0 if k == n else solve(lambda p: float(binom.cdf(k, n, p)) - error)
    return lower, upper


@pytest.mark.parametrize("counts", [(90, 10, 5, 95), (40, 60, 0, 100), (100, 0, 60, 40), (50, 50, 50, 50)])
@pytest.mark.parametrize("delta", [0.0, 1e-3])
def test_epsilon_follows_from_clopper_pearson_bounds(counts: tuple[int, int, int, int], delta: float) -> None:
    tp, fn, fp, tn = counts
    expected = 0.0
    for hits, of, false, of_false in ((tp, tp + fn, fp, fp + tn), (tn, fp + tn, fn, tp + fn)):
        low = _clopper_pearson(hits, of, 0.025)[0] - delta
        high = _clopper_pearson(false, of_false, 0.025)[1]
        expected = max(expected, math.log(low / high) if low > 0 else 0.0)
    assert epsilon_lower_bound(*counts, delta=delta) == pytest.approx(expected, abs=1e-6)


def test_epsilon_has_no_bound_without_evidence() -> None:
    assert epsilon_lower_bound(0, 10, 0, 10) == 0
    assert epsilon_lower_bound(10, 0, 10, 0) == 0
    assert epsilon_lower_bound(1000, 0, 0, 1000) > 5


@pytest.mark.parametrize(
    ("counts", "options"),
    [
        ((0, 0, 1, 1), {}),
        ((1, 1, 0, 0), {}),
        ((-1, 2, 1, 1), {}),
        ((1.5, 2, 1, 1), {}),
        ((1, 1, 1, 1), {"confidence": 1.0}),
        ((1, 1, 1, 1), {"delta": 1.0}),
        ((1, 1, 1, 1), {"delta": -0.1}),
    ],
)
def test_impossible_counts_are_refused(counts: Any, options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"\.$"):
        epsilon_lower_bound(*counts, **options)


def test_a_million_candidates_take_well_under_a_second() -> None:
    random = np.random.default_rng(0)
    member = random.random(1_000_000) < 0.5
    scores = random.normal(size=1_000_000)
    for measure in (membership.roc_auc, membership.advantage, MEASURES[3]):
        times = []
        for _ in range(3):  # the best of three: other programs run here too
            start = time.process_time()
            measure(member, scores)
            times.append(time.process_time() - start)
        assert min(times) < 1


def test_the_audited_epsilon_is_counted_where_its_threshold_was_not_chosen() -> None:
    rng = np.random.default_rng(0)
    member, fold = rng.random(4000) < 0.5, np.arange(4000) % 2
    flipped = rng.random(4000) < 1 / (1 + np.exp(1.0))  # randomised response: epsilon is 1
    scores = (member ^ flipped) + rng.random(4000) * 0.1
    bound = membership.audited_epsilon(member, scores, fold)
    assert 0.6 < bound < 1
    assert 0 < membership.audited_epsilon(member, scores, np.zeros(4000, dtype=int)) < 1
    # a threshold that only fold 0 likes tells nothing about the others
    assert membership.audited_epsilon(member, np.where(fold == 0, member * 9.0, rng.random(4000)), fold) == 0


def test_the_audited_epsilon_of_noise_is_above_zero_in_one_of_twenty_at_most() -> None:
    rng = np.random.default_rng(1)
    fold = np.arange(400) % 2
    bounds = [membership.audited_epsilon(rng.random(400) < 0.5, rng.random(400), fold) for _ in range(200)]
    assert np.count_nonzero(bounds) <= 18  # binomial(200, 0.05) exceeds it once in 100 times

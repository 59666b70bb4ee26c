"""What is worked out in each resample is what `duel` works out once; bands join what cannot be told apart."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from challenges.metrics import duel, ranking


@given(st.integers(0, 10_000), st.integers(1, 4), st.integers(1, 4), st.integers(1, 3))
def test_each_resample_is_scored_as_the_matrix_is(seed: int, units: int, attacks: int, metrics: int) -> None:
    rng = np.random.default_rng(seed)
    leaks = rng.normal(0.05, 0.2, size=(20, units, attacks, metrics))
    u = rng.uniform(0.4, 1, size=(20, 3))
    worst = ranking.worst_leak(leaks)
    private = ranking.privacy(worst, 0.2)
    utility = ranking.normalised_utility(u, 0.5, 0.9)
    score = ranking.harmonic(utility, private)
    for r in range(20):
        once = duel.crossfit(leaks[r])
        assert worst[r] == pytest.approx(once.mean)
        assert private[r] == pytest.approx(duel.privacy(once.value))
        assert utility[r] == pytest.approx(duel.normalised_utility(u[r], 0.5, 0.9))
        assert score[r] == pytest.approx(duel.defense_score(utility[r], private[r]))


@given(st.integers(0, 10_000), st.integers(1, 4), st.integers(1, 4), st.integers(1, 2))
def test_failed_duels_are_left_out_of_each_resample_as_of_the_matrix(
    seed: int, units: int, attacks: int, metrics: int
) -> None:
    rng = np.random.default_rng(seed)
    leaks = rng.normal(0.05, 0.2, size=(10, units, attacks, metrics))
    present = rng.random((units, attacks)) < 0.7
    worst, without = ranking.worst_leak(leaks, present), ranking.without_each(leaks, present)
    used = present.any(axis=1)
    for r in range(10):
        assert worst[r] == pytest.approx(duel.crossfit(leaks[r], present=present).mean)
        for attack in range(attacks):
            left = present.copy()
            left[:, attack] = False
            share = left[used].any(axis=1).mean() if used.any() else 0.0  # where nobody is left, nothing leaks
            assert without[r, attack] == pytest.approx(duel.crossfit(leaks[r], present=left).mean * share)


@given(st.integers(0, 10_000), st.integers(1, 8))
def test_attacks_are_scored_as_the_matrix_is(seed: int, defenses: int) -> None:
    rng = np.random.default_rng(seed)
    utilities = rng.choice([0.0, 0.5, 0.8, 1.0], size=(20, defenses))
    successes = rng.choice([0.0, 0.1, 0.3], size=(20, defenses))
    scores = ranking.attack_score(utilities, successes)
    for r in range(20):
        assert scores[r] == pytest.approx(duel.attack_score(utilities[r], successes[r]))


def test_replicates_are_moved_to_the_estimate_and_keep_their_spread() -> None:
    given_ = np.random.default_rng(0).normal(3, 2, size=(1000, 2))
    moved = ranking.recentred([0.5, 1.0], given_)
    np.testing.assert_allclose(moved.mean(axis=0), [0.5, 1.0])
    np.testing.assert_allclose(moved.std(axis=0), given_.std(axis=0))


def test_an_interval_holds_its_estimate_and_95_percent_of_the_replicates() -> None:
    replicates = np.random.default_rng(0).normal(size=1000)
    low, high = ranking.interval(0.0, replicates)
    assert ((replicates >= low) & (replicates <= high)).mean() == pytest.approx(0.95, abs=0.002)
    assert ranking.interval(9.0, replicates) == (low, 9.0)


def test_entries_that_cannot_be_told_from_their_leader_share_its_band() -> None:
    rng = np.random.default_rng(1)
    shared = rng.normal(0, 5, size=1000)  # what all have in common tells nobody apart, and hides no difference
    means = [80.0, 79.5, 77.0, 76.5, 60.0]
    replicates = [mean + shared + rng.normal(0, 0.5, size=1000) for mean in means]
    assert ranking.bands(means, replicates) == [1, 1, 2, 2, 3]
    assert ranking.bands([], []) == []


def test_ten_equals_share_one_band_on_nineteen_boards_of_twenty() -> None:
    rng = np.random.default_rng(3)
    together = 0
    for _ in range(200):
        estimates = np.sort(rng.normal(70, 1, size=10))[::-1]
        replicates = list(estimates[:, None] + rng.normal(0, 1, size=(10, 400)))
        together += set(ranking.bands(list(estimates), replicates)) == {1}
    assert together >= 180  # binomial(200, 0.95) falls below once in 500 times


def test_entries_of_the_same_score_share_a_band_even_without_any_spread() -> None:
    values = [50.0, 50.0, 0.0, 0.0]
    assert ranking.bands(values, [np.full(10, value) for value in values]) == [1, 1, 2, 2]


def test_an_interval_of_the_worst_leak_covers_the_truth() -> None:
    """One attack that leaks 0.1 among ten that leak nothing, 2 folds: 200 matrices with their resamples."""
    rng = np.random.default_rng(2)
    truth = np.zeros((10, 2))
    truth[0] = 0.1
    covered = 0
    for _ in range(200):
        estimate = truth + rng.normal(0, 0.03, size=(2, 10, 2))
        replicates = estimate + rng.normal(0, 0.03, size=(400, 2, 10, 2))
        value = duel.crossfit(estimate).mean
        low, high = ranking.interval(value, ranking.worst_leak(ranking.recentred(estimate, replicates)))
        covered += low <= 0.1 <= high
    assert covered >= 180  # binomial(200, 0.95) falls below once in 500 times

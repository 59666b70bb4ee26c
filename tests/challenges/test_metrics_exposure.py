"""Per-record exposure: against brute force, without a leak, and with planted ones."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from challenges.metrics.exposure import BINS, Told, exposures, measure


def told(random: np.random.Generator, *, records: int = 800, attacks: int = 3, planted: float = 0.0) -> Told:
    """Attacks that agree in part, and know that share of the members for certain."""
    member = random.random(records) < 0.5
    scores = random.normal(size=(attacks, records)) + random.normal(size=records)
    known = member & (random.random(records) < planted)
    unit = np.arange(records) % 2
    return Told(member, unit, np.where(known, 100.0 + random.random((attacks, records)), scores))


def one_unit(member: np.ndarray, scores: np.ndarray) -> Told:
    return Told(member, np.zeros(len(member), dtype=np.int64), scores)


@settings(max_examples=60)
@given(st.integers(0, 2**32), st.integers(4, 14), st.integers(1, 4))
def test_an_exposure_is_the_share_of_nonmembers_below(seed: int, records: int, attacks: int) -> None:
    random = np.random.default_rng(seed)
    member = np.array([True, True, False, False, *(random.random(records - 4) < 0.5)])
    scores = random.integers(0, 4, (attacks, records)).astype(float)  # few values: many ties
    brute = [
        [
            np.mean(
                [
                    float(row[record] > row[other]) + 0.5 * (row[record] == row[other])
                    for other in range(records)
                    if not member[other]
                ]
            )
            for record in range(records)
        ]
        for row in scores
    ]
    assert exposures(member, scores) == pytest.approx(np.array(brute))


def test_a_few_false_hits_among_tied_scores_expose_nobody() -> None:
    """As in games of pointing at people: an attack says yes or no, and hardly ever yes."""
    member = np.arange(600) % 2 == 0
    scores = np.zeros((1, 600))
    scores[0, [1, 3, 5, 2]] = 1.0
    seen = measure([one_unit(member, scores)])
    assert seen.share < 0.01
    assert seen.noise < 0.05


def test_a_leak_is_seen_though_many_strangers_tie_at_the_top() -> None:
    """An attack says yes to 60 % of the members and 10 % of the others: of the yes half counts, 30 % and 5 %."""
    member = np.arange(2000) < 1000
    scores = np.zeros((1, 2000))
    scores[0, :600] = scores[0, 1000:1100] = 1.0
    seen = measure([one_unit(member, scores)])
    assert seen.share == pytest.approx((0.3 - 0.05) / 0.95)
    assert seen.share > seen.noise


def test_without_a_leak_nobody_stands_out() -> None:
    random = np.random.default_rng(5)
    shares = [measure([told(random), told(random)]) for _ in range(20)]
    assert np.mean([one.share for one in shares]) == pytest.approx(0, abs=0.012)
    assert sum(one.share > one.noise for one in shares) <= 3  # 2.5 % of 20 are expected


@pytest.mark.parametrize("planted", [0.1, 0.4, 0.9])
def test_recognised_members_are_counted(planted: float) -> None:
    random = np.random.default_rng(7)
    seen = measure([told(random, records=2000, planted=planted) for _ in range(2)])
    assert seen.share == pytest.approx(planted, abs=4 * seen.error)
    assert seen.share > seen.noise


def test_constant_scores_expose_nobody() -> None:
    member = np.arange(100) % 2 == 0
    seen = measure([one_unit(member, np.zeros((2, 100)))])
    assert seen.share == pytest.approx(0)
    assert seen.members == seen.others
    assert seen.members[BINS // 2] == 1  # all of them in the middle


def test_histograms_are_shares() -> None:
    seen = measure([told(np.random.default_rng(1), planted=0.2)])
    assert len(seen.members) == len(seen.others) == BINS
    assert sum(seen.members) == pytest.approx(1)
    assert sum(seen.others) == pytest.approx(1)
    assert seen.members[-1] > seen.others[-1] + 0.1


def test_too_little_is_refused() -> None:
    member = np.array([True, False, False])
    with pytest.raises(ValueError, match="two members"):
        measure([one_unit(member, np.zeros((1, 3)))])
    with pytest.raises(ValueError, match="one attack"):
        measure([one_unit(np.array([True, True, False, False]), np.zeros((0, 4)))])
    with pytest.raises(ValueError, match="no unit"):
        measure([])


def test_what_several_attacks_said_is_joined() -> None:
    random = np.random.default_rng(3)
    whole = told(random)
    apart = [Told(whole.member, whole.unit, whole.scores[[attack]]) for attack in range(3)]
    assert measure([Told.together(apart)]) == measure([whole])


def test_useless_attacks_do_not_hide_what_a_good_one_sees() -> None:
    random = np.random.default_rng(9)
    alone = told(random, records=2000, attacks=1, planted=0.8)
    useless = random.normal(size=(5, 2000))
    crowded = Told(alone.member, alone.unit, np.concatenate([alone.scores, useless]))
    assert measure([crowded]).share == pytest.approx(measure([alone]).share, abs=0.15)
    assert measure([Told(alone.member, alone.unit, useless)]).share < 0.05

"""Other orders of the defenses, the Ladder, and what an attack adds."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from challenges.metrics import duel, ladder, ranking, rankings
from challenges.metrics.rankings import Measured
from challenges.models import Challenge


def measured(utility: list[float], privacy: list[float], **more: list[float]) -> Measured:
    zeros = np.zeros(len(utility))
    given_ = {name: np.array(values) for name, values in more.items()}
    rest = {name: zeros for name in ("worst_leak", "strict_privacy", "epsilon") if name not in given_}
    return Measured(utility=np.array(utility), privacy=np.array(privacy), **given_, **rest)


def test_every_order_that_can_be_chosen_is_there() -> None:
    assert set(rankings.RANKINGS) == set(Challenge.Ranking.values)


def test_each_order_follows_its_formula() -> None:
    field = measured([0.8, 0.6], [0.5, 0.9], worst_leak=[0.1, 0.02], strict_privacy=[0.4, 1.0], epsilon=[1.0, 0.0])
    assert rankings.score("harmonic", field) == pytest.approx([duel.defense_score(0.8, 0.5), 72.0])
    assert rankings.score("gate", field) == pytest.approx([50, 90])
    assert rankings.score("product", field) == pytest.approx([72, 58.8])
    assert rankings.score("tpr", field) == pytest.approx([40, 100])
    assert rankings.score("epsilon", field) == pytest.approx([100 / np.e, 100])


def test_the_pareto_front_comes_first_and_its_members_by_what_they_add() -> None:
    #                 corner  corner  middle  beaten by the middle  beaten by the beaten
    field = measured([1.0, 0.2, 0.7, 0.6, 0.5], [0.2, 1.0, 0.7, 0.6, 0.5])
    scores = rankings.score("pareto", field)
    assert scores[:3] == pytest.approx([50 + 50 * 0.3 * 0.2, 50 + 50 * 0.2 * 0.3, 50 + 50 * 0.5 * 0.5])
    assert scores[3] == pytest.approx(100 / 3 + 0.36 * (50 - 100 / 3))
    assert scores[4] == pytest.approx(25 + 0.25 * (100 / 3 - 25))


@given(st.integers(0, 10_000), st.integers(1, 7))
def test_pareto_agrees_with_brute_force_in_each_resample(seed: int, defenses: int) -> None:
    rng = np.random.default_rng(seed)
    u, p = rng.integers(0, 5, size=(2, defenses, 6)) / 4
    zeros = np.zeros_like(u)
    scores = rankings.score("pareto", Measured(u, p, zeros, zeros, zeros))
    for r in range(6):
        points = list(zip(u[:, r], p[:, r], strict=True))
        left, number = set(range(defenses)), 1
        while left:
            front = {i for i in left if not any(_beats(points[j], points[i]) for j in left)}
            whole = _area([points[i] for i in front])
            for i in front:
                alone = whole - _area([points[j] for j in front if j != i])
                step = 1 / number - 1 / (number + 1)
                assert scores[i, r] == pytest.approx(100 * (1 / (number + 1) + alone * step))
            left -= front
            number += 1


def _beats(a: tuple[float, float], b: tuple[float, float]) -> bool:
    return a[0] >= b[0] and a[1] >= b[1] and a != b


def _area(points: list[tuple[float, float]]) -> float:
    """The area that points dominate, counted on the grid of quarters that they lie on."""
    cells = [(i / 4, j / 4) for i in range(4) for j in range(4)]
    return sum(any(x >= i + 0.25 and y >= j + 0.25 for x, y in points) for i, j in cells) / 16


@given(st.floats(0, 1), st.lists(st.floats(0, 1).map(lambda u: round(u, 2)), max_size=6))
def test_the_ladder_never_flatters_and_tells_hundredths_only_of_a_new_best(utility: float, told: list[float]) -> None:
    shown = ladder.released(utility, told)
    assert utility - 0.1 - 1e-9 <= shown <= utility + 0.005 + 1e-9
    if told and utility <= max(told) + 0.01:
        assert shown in told or round(shown * 10, 6) == round(shown * 10)
    else:
        assert shown == pytest.approx(round(utility, 2))


def test_many_small_changes_teach_a_team_nothing() -> None:
    told = [0.74]
    shown = {ladder.released(u, told) for u in np.linspace(0.7401, 0.7499, 50)}
    assert shown == {0.74}


@given(st.integers(0, 10_000), st.integers(1, 4), st.integers(1, 4), st.integers(1, 3))
def test_leaving_an_attack_out_is_scoring_without_it(seed: int, units: int, attacks: int, metrics: int) -> None:
    leaks = np.random.default_rng(seed).normal(0.05, 0.2, size=(8, units, attacks, metrics))
    without = ranking.without_each(leaks)
    for attack in range(attacks):
        rest = np.delete(leaks, attack, axis=2)
        np.testing.assert_allclose(without[:, attack], ranking.worst_leak(rest), atol=1e-12)

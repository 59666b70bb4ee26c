"""The flag for attacks that know too much of one release."""

import numpy as np
import pytest

from challenges.metrics.collusion import leads

SMALL = 0.02


def suspects(means: list[float], teams: list[str | None], error: float = SMALL) -> list[int]:
    """Attacks that are flagged when each leaks the same in two units and by both metrics."""
    leaks = np.broadcast_to(np.array(means)[None, :, None], (2, len(means), 2))
    found = leads(leaks, np.full(leaks.shape, error), teams)
    return [place for place, lead in enumerate(found) if lead is not None and lead.is_suspicious]


@pytest.mark.parametrize(
    ("means", "flagged"),
    [
        ([0.5, 0.1, 0.0], [0]),
        ([0.1, 0.12, 0.5], [2]),
        ([0.27, 0.1, 0.0], [0]),
        ([0.24, 0.1, 0.0], []),  # not 0.15 ahead
        ([0.5, 0.45, 0.0], []),  # two teams found the same leak
        ([0.5], []),  # nobody to compare it with
    ],
)
def test_one_attack_far_ahead_of_all_others_is_flagged(means: list[float], flagged: list[int]) -> None:
    assert suspects(means, [f"team {place}" for place in range(len(means))]) == flagged


def test_a_lead_within_the_noise_is_none() -> None:
    teams = ["a", "b"]
    assert suspects([0.5, 0.1], teams, error=0.05) == [0]  # 0.4 are 8 errors of 0.05
    assert suspects([0.5, 0.1], teams, error=0.11) == []


def test_a_second_attack_of_the_same_team_hides_nothing() -> None:
    assert suspects([0.5, 0.5, 0.1], ["a", "a", None]) == [0, 1]


def test_the_lead_says_how_far_and_over_whom() -> None:
    leaks = np.array([[[0.6, 0.4], [0.1, 0.0]], [[0.5, 0.5], [0.2, 0.1]]])  # two units, two attacks, two metrics
    lead = leads(leaks, np.full(leaks.shape, 0.03), ["a", "b"])[0]
    assert lead is not None
    assert (lead.attack, lead.second) == (0, 1)
    assert lead.leak == pytest.approx(0.5)
    assert lead.gap == pytest.approx(0.4)
    assert lead.error == pytest.approx(np.hypot(0.03, 0.03) / np.sqrt(2))


def test_wrong_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="team for each attack"):
        leads(np.zeros((1, 2, 2)), np.zeros((1, 2, 2)), ["a"])
    assert leads(np.zeros((0, 1, 2)), np.zeros((0, 1, 2)), ["a"]) == [None]

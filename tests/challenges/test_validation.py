"""The validation in small: its shape, what is planted is found, and where nothing is, nothing."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks.common import Verdict
from benchmarks.validation import gaming, null, order, page, real, truth
from benchmarks.validation.report import Part
from benchmarks.validation.simulate import Memory, Shift, boards
from challenges.scenarios.membership import estimates
from challenges.splits import Sizes
from tests.challenges.conftest import clinic


def lines(part: Part) -> dict[str, Verdict]:
    return {verdict.what: verdict for verdict in part.verdicts}


def test_nothing_is_found_where_nothing_is() -> None:
    part = null.run(quick=True)
    for phase in ("development", "final"):
        assert lines(part)[f"null, {phase}: distance of the mean W from 0, in its standard errors"].met
        assert abs(part.facts[phase]["mean"]) < 0.02 < part.facts[phase]["naive"]


@pytest.mark.parametrize("plant", [Memory(0.3), Shift(0.3)])
def test_planted_leaks_are_as_large_as_they_claim(plant: Memory | Shift) -> None:
    (board,) = boards(scored=20_000, seeds=1, secret=b"a large table")
    scores, useless = plant.scores(board.deal, (1.0, 0.0), np.random.default_rng(1))
    np.testing.assert_allclose(estimates(board.deal, scores)[0][0], plant.truth(0.01), atol=0.03)
    np.testing.assert_allclose(estimates(board.deal, useless)[0][0], (0, 0), atol=0.03)


def test_intervals_hold_what_was_planted() -> None:
    seen = [*truth.development(quick=True), *truth.final(quick=True)]
    part = truth.part(seen)
    assert part.facts["pooled W"] >= 0.9
    assert {(setting, statistic) for setting, statistic, *_ in seen} == {
        (setting, statistic) for setting in truth.SETTINGS for statistic in (*truth.STATISTICS, "Q")
    }
    worst = [np.mean([one[4] for one in seen if one[1:3] == ("W", share)]) for share in truth.SHARES]
    assert worst[0] < 0.05 < worst[-1]


def test_a_large_gap_is_seen_and_equals_share_a_rank() -> None:
    part = order.run(quick=True)
    assert part.facts["memory 600 0.1 arena"] > 0.8
    assert part.facts["bands equals"] == 0


def test_tricks_do_not_pay() -> None:
    part = gaming.run(quick=True)
    assert [str(verdict) for verdict in part.verdicts if not verdict.met] == []
    assert part.facts["untrimmed"] > part.facts["ranks"]


def test_kits_are_played_on_a_real_table(tmp_path: Path) -> None:
    frame = clinic(900).drop(columns=["stage", "days"])
    made, anchors = real.prepare(frame, "diabetes", None, Sizes(aux=200, core=60, candidates=400), 1, tmp_path)
    attacks = {"calibrated-loss": real.ATTACKS["calibrated-loss"]}
    trivial = real.play(made, real.DEFENSES["majority"], attacks, tmp_path / "majority")
    leaky = real.play(made, real.DEFENSES["forest"], attacks, tmp_path / "forest")
    assert trivial.utilities[0].value == anchors.u0 == 0.5
    assert abs(trivial.values[0, 0, 0]) < 4 * trivial.errors[0, 0, 0]
    assert leaky.values[0, 0, 0] > 0.8


def test_the_page_says_what_was_met_and_what_was_not() -> None:
    part = Part(
        name="null",
        title="Nothing",
        question="Is there anything?",
        answer="No.",
        method="By looking.",
        facts={},
        verdicts=[Verdict("a line", 0.5, 1.0), Verdict("another line", 2.0, 1.0), Verdict("a number", 3.0)],
    )
    text = page.text([part], {"null": 90.0})
    assert "1 of 2 lines were met" in text
    assert "* **met** a line: 0.50 (at most 1.0)" in text
    assert "* **MISSED** another line: 2.00 (at most 1.0)" in text
    assert "* a number: 3.00 (no line to meet)" in text
    assert "## 1. Nothing" in text

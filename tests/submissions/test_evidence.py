"""The facts of a risk card: what they say, to whom, and that they tell nothing else."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from django.contrib.auth.models import AnonymousUser
from django.test import Client

from challenges.models import Challenge, Phase
from challenges.scenarios import registry
from challenges.scenarios.criteria import CRITERIA
from submissions import evidence, exposure, retention
from submissions.models import Duel, Exposure, Release, Standing, Submission
from tests import played

pytestmark = pytest.mark.django_db

Ready = Callable[..., Submission]


def test_a_defense_without_a_release_has_no_card(ready: Ready) -> None:
    assert evidence.card(ready("ada", "defense")) is None


def test_before_all_baselines_were_met_nothing_is_said_about_privacy(ready: Ready) -> None:
    ready("", "attack", role="baseline")
    defense = ready("ada", "defense")
    played.release(defense)
    card = evidence.card(Submission.objects.with_context().get(pk=defense.pk))
    assert card is not None
    assert card.utility is not None
    assert card.worst_leak is None
    assert card.strongest is None


def test_the_card_says_what_the_boards_say(met: Submission) -> None:
    card = evidence.card(met, exact=True)
    row = Standing.objects.get(submission=met)
    assert card is not None
    assert card.utility is not None
    assert card.utility.value == row.utility
    assert card.worst_leak is not None
    assert card.worst_leak.value == pytest.approx(row.worst_leak)
    assert card.attacks == evidence.Attacks(met=3, failed=0, voided=0)
    assert card.strongest is not None
    assert (card.strongest.name, card.strongest.team) == ("sharp", "Team Ben")


def test_likeness_is_the_mean_over_seeds_and_rounded_for_everybody(met: Submission) -> None:
    assert evidence.card(met).likeness is None  # type: ignore[union-attr]
    first = met.releases.get()
    Release.objects.create(submission=met, phase=first.phase, seed=1, sha256="1" * 64, utility=0.8)
    for release, columns, pairs in zip(met.releases.order_by("seed"), (0.91, 0.954), (0.8, None), strict=True):
        release.facts = {"similarity": {"columns": columns, "pairs": pairs, "by_column": {"age": 0.9}}}
        release.save()
    everybody, organiser = evidence.card(met), evidence.card(met, exact=True)
    assert everybody is not None
    assert organiser is not None
    assert everybody.likeness == evidence.Likeness(columns=0.93, pairs=0.8, missing=None)
    assert organiser.likeness == evidence.Likeness(columns=pytest.approx(0.932), pairs=0.8, missing=None)


def test_what_the_strongest_attack_does_is_said_in_rates(met: Submission) -> None:
    card = evidence.card(met, exact=True)
    duel = Duel.objects.get(attack__name="sharp")
    assert card is not None
    assert card.strongest is not None
    auc, tpr = card.strongest.findings
    assert (auc.metric, auc.chance) == ("auc", 0.5)
    assert auc.leak.value == pytest.approx(np.mean([unit[0] for unit in duel.leaks]))
    assert auc.rate.value == pytest.approx((1 + auc.leak.value) / 2)
    assert auc.rate.low is not None
    assert auc.rate.high is not None
    assert auc.rate.low < auc.rate.value < auc.rate.high
    assert (tpr.metric, tpr.chance) == ("tpr", duel.detail["alpha"])
    assert tpr.rate.value == pytest.approx(duel.detail["alpha"] + tpr.leak.value * (1 - duel.detail["alpha"]))


def test_everybody_but_an_organiser_sees_rounded_numbers(met: Submission) -> None:
    exposure.measure_due()
    card = evidence.card(met)
    assert card is not None
    assert card.strongest is not None
    assert card.exposure is not None
    estimates = [card.utility, card.worst_leak, card.privacy, card.exposure.share]
    estimates += [number for finding in card.strongest.findings for number in (finding.leak, finding.rate)]
    for estimate in estimates:
        assert estimate is not None
        for number in (estimate.value, estimate.low, estimate.high):
            assert number is None or number == round(number, 2)
    assert all(share == round(share, 2) for share in card.exposure.members)


def test_people_who_are_known_for_certain_stand_out(met: Submission) -> None:
    assert exposure.measure_due() == 1
    card = evidence.card(met, exact=True)
    assert card is not None
    assert card.exposure is not None
    assert card.exposure.attacks == 3
    assert card.exposure.share.value > card.exposure.noise > 0
    assert exposure.measure_due() == 0  # nothing has changed


def test_a_new_duel_measures_again_and_a_void_one_does_not_count(met: Submission, ready: Ready) -> None:
    exposure.measure_due()
    ready("ben", "attack", name="late")
    assert exposure.measure_due() == 0  # it waits for the duel
    played.duels(met, late=0.1)
    assert exposure.measure_due() == 1
    assert Exposure.objects.get().facts["attacks"] == 4
    Duel.objects.filter(attack__name="sharp").update(void_reason="It was told.")
    assert exposure.measure_due() == 1
    assert Exposure.objects.get().facts["attacks"] == 3
    Submission.objects.filter(name="late").update(state="disqualified", active=False)
    assert exposure.measure_due() == 1
    assert Exposure.objects.get().facts["attacks"] == 2


def test_what_cannot_be_measured_is_not_asked_for_again(met: Submission, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(registry.get("model-membership")), "told", lambda *_args: None)
    assert exposure.measure_due() == 1
    assert exposure.measure_due() == 0
    card = evidence.card(met)
    assert card is not None
    assert card.exposure is None


def test_a_file_that_is_gone_keeps_nobody_else_waiting(met: Submission, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*_args: Any) -> None:
        raise FileNotFoundError

    monkeypatch.setattr(type(registry.get("model-membership")), "told", gone)
    assert exposure.measure_due() == 1
    assert exposure.measure_due() == 0
    assert Exposure.objects.get().facts == {}


def test_results_of_duels_stay_while_their_defense_is_in_play(met: Submission) -> None:
    runs = set(Duel.objects.values_list("step__run", flat=True))
    assert retention.StepKeeper().results(runs) == runs
    Submission.objects.filter(pk=met.pk).update(state="withdrawn")
    assert retention.StepKeeper().results(runs) == set()


def test_every_scenario_speaks_to_the_three_criteria(met: Submission) -> None:
    card = evidence.card(met)
    assert card is not None
    assert [criterion.name for criterion in card.criteria] == list(CRITERIA)
    for scenario in registry.SCENARIOS.values():
        assert set(scenario.criteria) == set(CRITERIA), scenario.slug
        assert any(criterion.extent != "not_measured" for criterion in scenario.criteria.values())
        for metric in (*scenario.readings, "any other"):
            said = str(scenario.reading(metric)) % {"metric": "m", "rate": "57", "span": " (54 to 60)", "chance": "50"}
            assert "57" in said
            assert "50" in said
            assert "(54 to 60)" in said


def test_a_declaration_below_the_audited_bound_is_contradicted() -> None:
    assert evidence.Epsilon(declared=0.5, delta=1e-5, audited=0.7).contradicted
    assert not evidence.Epsilon(declared=1.0, delta=1e-5, audited=0.7).contradicted
    assert not evidence.Epsilon(declared=None, delta=None, audited=0.7).contradicted


def test_cards_of_the_boards_are_for_everybody_and_others_for_their_own(
    met: Submission, clinic: Challenge, ada: Any, ben: Any, olga: Any
) -> None:
    def readers() -> list[bool]:
        people = (AnonymousUser(), ben, ada, olga)
        return [evidence.readable(challenge=clinic, user=user).filter(pk=met.pk).exists() for user in people]

    assert readers() == [True, True, True, True]
    Submission.objects.filter(pk=met.pk).update(active=False)
    assert readers() == [False, False, True, True]


def test_a_final_is_on_no_card_before_it_is_revealed(met: Submission, clinic: Challenge) -> None:
    final = Phase.objects.create(challenge=clinic, kind="final", seeds=3)
    Standing.objects.create(submission=met, phase=final, utility=0.123, public_utility=0.12)
    card = evidence.card(Submission.objects.with_context().get(pk=met.pk))
    assert card is not None
    assert card.preliminary
    assert card.method.phase == "development"


def test_the_card_is_published_as_json(met: Submission, clinic: Challenge) -> None:
    exposure.measure_due()
    url = f"/api/v1/challenges/clinic/cards/{met.pk}"
    facts = Client().get(url).json()
    assert facts["name"] == "linear"
    assert facts["worst_leak"]["value"] == Standing.objects.get(submission=met).public_worst_leak
    assert facts["strongest"]["findings"][0]["chance"] == 0.5
    assert sum(facts["exposure"]["members"]) == pytest.approx(1, abs=0.1)
    assert facts["epsilon"]["declared"] is None
    assert facts["likeness"] is None
    met.releases.update(facts={"similarity": {"columns": 0.914, "pairs": 0.8, "missing": 1.0}})
    assert Client().get(url).json()["likeness"] == {"columns": 0.91, "pairs": 0.8, "missing": 1.0}
    assert str(clinic.dataset.sha256) not in str(facts)
    assert Client().get(f"/api/v1/challenges/clinic/cards/{Duel.objects.first().attack_id}").status_code == 404  # type: ignore[union-attr]
    Challenge.objects.update(status="draft")
    assert Client().get(url).status_code == 404

"""What the check before publishing finds in challenges that are sound, small, or broken."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import numpy as np
import pandas as pd
import pytest
from django.utils import timezone
from django.utils.translation import override

from anomed_site.models import User
from challenges import actions, checks, findings, subsample, tables
from challenges.findings import SENTENCES, Finding
from challenges.models import Challenge, CheckReport, Phase
from challenges.scenarios import trials
from challenges.schema import Schema
from tests.challenges.conftest import clinic
from tests.challenges.organisers import breast_cancer_csv, clinic_csv, csv_of, give_data, new_challenge, small_draft

pytestmark = pytest.mark.django_db


@pytest.fixture
def draft(olga: User) -> Challenge:
    return small_draft(olga)


def codes(found: list[Finding], level: str = "") -> set[str]:
    return {finding.code for finding in found if not level or finding.level == level}


def test_a_sound_challenge_passes_and_gets_its_anchors(draft: Challenge) -> None:
    draft.phases.update(secret=b"one deal of so few people, as good as most")  # by chance another looks odd
    report = actions.check_now(challenge=draft)
    assert report.state == CheckReport.State.PASSED
    assert report.finished_at is not None
    assert codes(report.findings, "error") == set()
    assert {"data", "classes", "disjoint-records", "blind", "anchors", "sample", "phases", "limits"} <= codes(
        report.findings, "ok"
    )
    draft.refresh_from_db()
    assert draft.trivial_utility == 0.5
    assert draft.reference_utility is not None
    assert 0.7 < draft.reference_utility < 1


def test_a_synthetic_table_is_checked_like_a_model(olga: User) -> None:
    challenge = small_draft(olga, scenario="synthetic-membership", options={"rows": 200})
    report = actions.check_now(challenge=challenge)
    assert report.state == CheckReport.State.PASSED
    assert {"classes", "blind", "anchors", "sample"} <= codes(report.findings, "ok")
    challenge.refresh_from_db()
    assert challenge.trivial_utility is not None
    assert challenge.reference_utility is not None
    assert challenge.trivial_utility < 0.6 < challenge.reference_utility
    before = checks.fingerprint(challenge)
    challenge.options = {}
    assert checks.fingerprint(challenge) != before


def test_breast_cancer_is_small_and_says_what_that_means(olga: User) -> None:
    challenge = new_challenge(olga)
    give_data(challenge, breast_cancer_csv(), target="target")
    report = actions.check_now(challenge=challenge)
    assert report.state == CheckReport.State.PASSED
    small = next(finding for finding in report.findings if finding.code == "size-small")
    assert small.level == "warning"
    assert small.facts["total"] == 218
    assert small.facts["error"] == pytest.approx(2 * np.sqrt(219 / (12 * 109**2)))
    assert "0.078" in small.text
    assert "6,000" in small.text
    assert "0.015" in small.text


@pytest.mark.parametrize("scored", [100, 1800, 6000])
def test_the_expected_error_is_the_spread_of_attacks_at_chance(scored: int) -> None:
    random = np.random.default_rng(3)
    half = scored // 2
    leaks = []
    for _round in range(400):
        ranks = np.argsort(np.argsort(random.random(scored)))[:half] + 1
        leaks.append(2 * (ranks.sum() - half * (half + 1) / 2) / half**2 - 1)
    assert np.std(leaks) == pytest.approx(trials.standard_error(scored), rel=0.15)


def test_repeated_records_are_mentioned(olga: User) -> None:
    challenge = new_challenge(olga)
    frame = clinic(500).drop(columns=["stage", "days"])
    give_data(challenge, csv_of(pd.concat([frame, frame.head(30)])), target="diabetes")
    found = checks.run(challenge).findings
    said = next(finding for finding in found if finding.code == "duplicates")
    assert said.facts["number"] >= 30
    assert "repeated records were removed" in said.text


def test_patients_with_several_rows_are_seen_through(olga: User) -> None:
    """One row of each patient is kept, so that nobody is both in and out of training."""
    challenge = new_challenge(olga)
    frame = clinic(400).drop(columns=["stage", "days"])
    frame.insert(0, "patient", [f"p{number}" for number in range(400)])
    again = frame.assign(age=frame["age"] + 1)
    give_data(challenge, csv_of(pd.concat([frame, again])), target="diabetes", patient="patient")
    found = checks.run(challenge).findings
    assert "disjoint" in codes(found, "ok")
    assert "patient-column-missing" not in codes(found)
    assert challenge.dataset.rows == 400


def test_a_classifier_that_guesses_membership_is_an_error(draft: Challenge, monkeypatch: pytest.MonkeyPatch) -> None:
    """The coins are replaced by something that the records show, as a broken deal would."""
    honest = Phase.deal

    def crooked(phase: Phase, **how: Any) -> Any:
        deal = honest(phase, **how)
        age = tables.read(phase.challenge.dataset.table_path)["age"].to_numpy()[deal.candidates]
        object.__setattr__(deal, "member", age > 50)
        return deal

    monkeypatch.setattr(Phase, "deal", crooked)
    found = checks.run(draft).findings
    assert "blind-broken" in codes(found, "error")


def test_parts_that_overlap_are_an_error(draft: Challenge, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = Phase.deal

    def crooked(phase: Phase, **how: Any) -> Any:
        deal = honest(phase, **how)
        object.__setattr__(deal, "core", deal.test)
        return deal

    monkeypatch.setattr(Phase, "deal", crooked)
    assert "not-disjoint" in codes(checks.run(draft).findings, "error")


def test_without_a_patient_column_nothing_is_said_about_patients(draft: Challenge) -> None:
    found = checks.run(draft).findings
    assert "patient-column-missing" in codes(found, "info")
    assert "disjoint" not in codes(found)
    apart = next(finding for finding in found if finding.code == "disjoint-records")
    assert "patient" not in apart.text


def test_models_of_the_check_are_fitted_on_a_part_of_a_large_table(
    draft: Challenge, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subsample, "MOST_ROWS", 450)
    outcome = checks.run(draft)
    said = next(finding for finding in outcome.findings if finding.code == "subsample")
    assert said.facts == {"number": 450, "rows": 599}
    assert codes(outcome.findings, "error") == set()
    assert outcome.anchors is not None
    assert outcome.anchors.detail["train"] + outcome.anchors.detail["test"] < 450
    monkeypatch.setattr(subsample, "MOST_CELLS", 1000)
    assert "too-wide" in codes(checks.run(draft).findings, "error")


def test_a_deal_among_some_rows_keeps_the_truth_about_them(draft: Challenge) -> None:
    deal = draft.phases.get().deal(scope="check", seed=0)
    rows = np.arange(0, draft.dataset.rows, 3)
    fewer = subsample.restricted(deal, rows)
    whole = np.sort(np.concatenate([fewer.aux, fewer.core, fewer.candidates, fewer.test]))
    assert whole.tolist() == list(range(len(rows)))
    truth = dict(zip(deal.candidates, zip(deal.member, deal.known, deal.fold, strict=True), strict=True))
    kept = zip(fewer.member, fewer.known, fewer.fold, strict=True)
    assert [truth[row] for row in rows[fewer.candidates]] == list(kept)


def test_a_target_that_cannot_be_predicted_is_an_error(olga: User) -> None:
    challenge = new_challenge(olga)
    random = np.random.default_rng(1)
    noise = pd.DataFrame({"a": random.normal(size=500), "b": random.normal(size=500)}).round(2)
    give_data(challenge, csv_of(noise.assign(sick=random.choice(["no", "yes"], 500))), target="sick")
    outcome = checks.run(challenge)
    assert codes(outcome.findings) & {"anchors-equal", "anchors-close"}
    assert "anchors" not in codes(outcome.findings)


def test_a_table_too_coarse_for_a_generated_sample_waits_for_an_own_one(olga: User) -> None:
    challenge = new_challenge(olga)
    coarse = pd.DataFrame({"sex": ["f", "m"] * 100, "age": [n // 4 for n in range(200)], "sick": ["no", "yes"] * 100})
    give_data(challenge, csv_of(coarse), target="sick")
    assert not challenge.dataset.sample
    assert any("sample of your own" in note for note in challenge.dataset.profile["notes"])
    assert "sample-missing" in codes(checks.run(challenge).findings, "error")


@pytest.mark.parametrize(("rare", "level", "code"), [(30, "warning", "classes-rare"), (4, "error", "classes-absent")])
def test_rare_and_absent_classes(rare: int, level: str, code: str, olga: User) -> None:
    challenge = new_challenge(olga)
    challenge.phases.update(secret=b"a secret that leaves few of them to the test part")
    frame = clinic(600).drop(columns=["diabetes", "days"])
    frame["stage"] = "I"
    frame.loc[: rare - 1, "stage"] = "II"
    give_data(challenge, csv_of(frame), target="stage")
    assert code in codes(checks.run(challenge).findings, level)


def test_a_metric_of_another_task_is_an_error(draft: Challenge, olga: User) -> None:
    draft.metric = "r2"
    outcome = checks.run(draft)
    assert "metric" in codes(outcome.findings, "error")
    assert outcome.anchors is None


def test_regression_is_checked_too(olga: User) -> None:
    challenge = new_challenge(olga, metric="mae")
    give_data(challenge, csv_of(clinic().drop(columns=["stage", "diabetes"])), target="days")
    outcome = checks.run(challenge)
    assert {"target-varies", "anchors"} <= codes(outcome.findings, "ok")
    assert outcome.anchors is not None
    assert outcome.anchors.u1 < outcome.anchors.u0


def test_parts_larger_than_the_table_are_an_error(draft: Challenge) -> None:
    draft.candidate_size = 5000
    draft.save()
    assert "parts" in codes(checks.run(Challenge.objects.get()).findings, "error")


def test_a_sample_with_real_or_foreign_rows_is_an_error(draft: Challenge) -> None:
    dataset = draft.dataset
    real = tables.read(dataset.table_path).head(250)
    tables.write_frame(real, dataset.schema, dataset.sample_path)
    assert "sample-real" in codes(checks.run(draft).findings, "error")
    tables.write_frame(real.assign(age=900), dataset.schema, dataset.sample_path)
    assert "sample-schema" in codes(checks.run(draft).findings, "error")


def test_a_sample_that_cannot_be_rehearsed_on_is_an_error(draft: Challenge) -> None:
    dataset = draft.dataset
    sample = tables.read(dataset.sample_path)
    tables.write_frame(sample.assign(diabetes="no"), Schema(dataset.schema.shared, "diabetes"), dataset.sample_path)
    said = next(finding for finding in checks.run(draft).findings if finding.code == "sample-classes-absent")
    assert said.level == "error"
    assert "no record of the class “yes”" in said.text


def test_a_sample_of_which_too_much_is_revealed_is_an_error(draft: Challenge) -> None:
    draft.revealed = 0.99
    assert "sample-parts" in codes(checks.run(draft).findings, "error")


def test_folds_must_be_large_enough_for_every_deal_to_come(draft: Challenge) -> None:
    draft.phases.update(folds=8)  # 229 scored candidates: each fold has both kinds in this deal, but few of them
    assert "folds-small" in codes(checks.run(draft).findings, "error")
    draft.phases.update(folds=7)
    assert "folds-small" not in codes(checks.run(draft).findings)


def test_without_data_or_target(olga: User) -> None:
    challenge = new_challenge(olga)
    assert "data-missing" in codes(checks.run(challenge).findings, "error")
    give_data(challenge, clinic_csv())
    assert "target-missing" in codes(checks.run(challenge).findings, "error")


DAY = timedelta(days=1)


@pytest.mark.parametrize(
    ("phases", "expected"),
    [
        ([{"kind": "development"}], "phases"),
        ([], "phases-none"),
        ([{"kind": "final", "seeds": 3}], "phases-none"),
        ([{"kind": "development", "closes_at": -DAY}], "phase-over"),
        ([{"kind": "development", "opens_at": 2 * DAY, "closes_at": DAY}], "phase-backwards"),
        ([{"kind": "development", "folds": 1}], "phase-units"),
        ([{"kind": "development"}, {"kind": "final", "opens_at": DAY}], "phases-overlap"),
        ([{"kind": "development", "closes_at": 2 * DAY}, {"kind": "final", "opens_at": DAY}], "phases-overlap"),
        ([{"kind": "development", "closes_at": 2 * DAY}, {"kind": "final", "closes_at": DAY}], "phases-overlap"),
        ([{"kind": "development"}, {"kind": "final", "seeds": 1, "folds": 1}], "phase-units"),
        ([{"kind": "development"}, {"kind": "final", "seeds": 3}], "final-by-hand"),
        ([{"kind": "development", "closes_at": DAY}, {"kind": "final", "opens_at": 2 * DAY}], "final-by-date"),
    ],
)
def test_the_calendar(phases: list[dict[str, Any]], expected: str, olga: User) -> None:
    challenge = new_challenge(olga)
    challenge.phases.all().delete()
    for facts in phases:
        dated = {key: timezone.now() + value if isinstance(value, timedelta) else value for key, value in facts.items()}
        Phase.objects.create(challenge=challenge, **dated)
    assert expected in codes(checks.look_at_calendar(challenge))


@pytest.mark.parametrize(
    ("fields", "level", "code"),
    [
        ({"seconds": 7200}, "warning", "limits-long"),
        ({"seconds": 10**6}, "error", "limits-beyond"),
        ({"memory_mb": 100}, "warning", "limits-memory"),
        ({"reference_leak": 0.0}, "error", "constants"),
        ({"revealed": 1.0}, "error", "constants"),
        ({"rules": " "}, "warning", "rules-missing"),
        ({"overview": ""}, "warning", "overview-missing"),
        ({"title": "x"}, "info", "german-missing"),
    ],
)
def test_settings_and_texts(fields: dict[str, Any], level: str, code: str, olga: User) -> None:
    challenge = new_challenge(olga)
    for name, value in fields.items():
        setattr(challenge, name, value)
    assert code in codes(checks.run(challenge).findings, level)


def test_every_sentence_can_be_said(draft: Challenge) -> None:
    """A placeholder that no fact fills would break a report when it is needed most."""
    facts: dict[str, Any] = dict.fromkeys(
        [
            "rows",
            "columns",
            "target",
            "number",
            "metric",
            "needs",
            "fewest",
            "label",
            "part",
            "phase",
            "scored",
            "seeds",
            "total",
            "error",
            "least",
            "advised",
            "advised_error",
            "twice",
            "problem",
            "walls",
            "aux",
            "core",
            "candidates",
            "test",
            "auc",
            "z",
            "u0",
            "u1",
            "hours",
            "memory_mb",
            "seconds",
            "cpus",
            "gpus",
            "ranking",
            "known",
            "earlier",
            "later",
            "secret",
            "column",
        ],
        0.12345,
    )
    for code in SENTENCES:
        for language in ("en", "de"):
            with override(language):
                finding = Finding("ok", code, facts)
                assert finding.title
                assert "%(" not in finding.text


def test_numbers_are_written_in_the_readers_language() -> None:
    finding = Finding("ok", "disjoint", {"aux": 1234, "core": 0, "candidates": 1, "test": 2})
    with override("de"):
        assert "1.234" in finding.text
    with override("en"):
        assert "1,234" in finding.text
    assert findings.Finding.from_json(finding.to_json()) == finding


def test_an_order_that_the_scenario_cannot_measure_is_refused(olga: User) -> None:
    challenge = small_draft(olga)
    for ranking in Challenge.Ranking.values:
        challenge.ranking = ranking
        assert checks._ranking(challenge) == []
    challenge.scenario = "table-reconstruction"
    refused = {ranking for ranking in Challenge.Ranking.values if _refuses(challenge, ranking)}
    assert refused == {"tpr", "epsilon"}
    assert "audited epsilon" in checks._ranking(challenge)[0].text


def test_a_secret_called_like_a_measure_is_refused(olga: User) -> None:
    """Its leak would be taken for the AUC of a membership attack, with half a chance."""
    challenge = new_challenge(olga, scenario="table-reconstruction")
    renamed = clinic().drop(columns=["stage", "days"]).rename(columns={"glucose": "AUC"})
    roles = {"age": "quasi-identifier", "AUC": "secret"}
    give_data(challenge, csv_of(renamed), by=olga, target="diabetes", roles=roles)
    found = [finding for finding in checks.run(challenge).findings if finding.code == "secret-name"]
    assert [finding.level for finding in found] == ["error"]
    assert "“AUC” is called like a measure" in found[0].text
    challenge.scenario = "model-membership"  # whose leaks have names of their own
    assert checks._names(challenge) == []


def _refuses(challenge: Challenge, ranking: str) -> bool:
    challenge.ranking = ranking
    return codes(checks._ranking(challenge), "error") == {"ranking"}


def test_a_fingerprint_follows_what_scores_depend_on(draft: Challenge, olga: User) -> None:
    before = checks.fingerprint(draft)
    draft.overview, draft.daily_quota = "# Other", 17
    assert checks.fingerprint(draft) == before
    changes: list[Callable[[], Any]] = [
        lambda: setattr(draft, "revealed", 0.3),
        lambda: setattr(draft, "ranking", "gate"),
        lambda: setattr(draft, "novelty_prize", True),
        lambda: draft.phases.update(folds=3),
        lambda: draft.phases.update(secret=b"another"),
        lambda: actions.set_roles(challenge=draft, roles={"age": "secret"}, by=olga),
    ]
    seen = {before}
    for change in changes:
        change()
        seen.add(
            checks.fingerprint(Challenge.objects.get(pk=draft.pk))
            if draft.revealed == 0.2
            else checks.fingerprint(draft)
        )
    assert len(seen) == 1 + len(changes)

"""Intervals and bands follow the numbers, a few seconds behind, and survive workers that are killed."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import numpy as np
import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from django_q.models import OrmQ

from challenges.metrics import bootstrap, duel
from challenges.models import Challenge, Phase
from sandbox.models import Image
from submissions import boards, reckoning, resampled, standings
from submissions.models import Duel, Reckoning, Release, Standing, Submission, Team
from submissions.states import State

pytestmark = pytest.mark.django_db

Entered = Callable[..., Submission]
R = bootstrap.RESAMPLES


@pytest.fixture
def phase(clinic: Challenge) -> Phase:
    return clinic.phases.get()


@pytest.fixture
def entered(clinic: Challenge, image: Image) -> Entered:
    """An entry of a team of its own that takes part; of nobody's, if it has another role."""

    def make(kind: str, name: str, role: str = "entry") -> Submission:
        team = Team.objects.create(challenge=clinic, name=name) if role == "entry" else None
        return Submission.objects.create(
            challenge=clinic, team=team, kind=kind, role=role, name=name, image=image, state=State.SCORED, active=True
        )

    return make


def released(defense: Submission, phase: Phase, u: float, error: float = 0.01, seed: int = 0) -> Release:
    noise = np.random.default_rng(len(defense.name)).normal(0, error, size=R)
    return Release.objects.create(
        submission=defense, phase=phase, seed=seed, sha256="0" * 64, utility=u, replicates=bootstrap.pack(u + noise)
    )


def met(attack: Submission, release: Release, leak: float, error: float = 0.01, **facts: Any) -> Duel:
    values = np.full((2, 2), leak)
    noise = np.random.default_rng([release.pk, int(leak * 1000)]).normal(0, error, size=(R, 2, 2))
    made = Duel.objects.create(
        attack=attack,
        release=release,
        state=Duel.State.DONE,
        leaks=values.tolist(),
        errors=np.full((2, 2), error).tolist(),
        replicates=bootstrap.pack(values + noise),
        mean_leak=leak,
        **facts,
    )
    standings.refresh_duel(Duel.objects.get(pk=made.pk))  # read anew: tests change the challenge
    return made


def reckoned(phase: Phase) -> None:
    """Lets the cluster do what it was asked for."""
    reckoning.reckon(phase.pk)


def row_of(entry: Submission) -> Standing:
    return Standing.objects.get(submission=entry)


def test_every_published_number_gets_an_interval_that_holds_it(phase: Phase, entered: Entered) -> None:
    defense, attack = entered("defense", "forest"), entered("attack", "lira")
    met(attack, released(defense, phase, 0.8), 0.05)
    assert (row_of(defense).intervals, row_of(defense).band) == ({}, None)
    reckoned(phase)
    row = row_of(defense)
    assert set(row.intervals) == {"utility", "worst_leak", "privacy", "score"}
    for name, (low, high) in row.intervals.items():
        assert low < getattr(row, name) < high
    low, high = row.intervals["worst_leak"]
    assert high - low == pytest.approx(2 * 1.96 * 0.01 / np.sqrt(2), rel=0.25)  # the mean of two folds
    assert set(row_of(attack).intervals) == {"mean_leak", "score"}
    assert (row.band, row_of(attack).band) == (1, 1)


def test_entries_that_cannot_be_told_apart_share_a_band(phase: Phase, entered: Entered) -> None:
    attack = entered("attack", "lira")
    leaks = {"close": 0.05, "closer": 0.051, "far": 0.15}
    defenses = {name: entered("defense", name) for name in leaks}
    for name, leak in leaks.items():
        met(attack, released(defenses[name], phase, 0.8), leak)
    trivial = entered("defense", "trivial", role="trivial")
    met(attack, released(trivial, phase, 0.5), 0.0)
    reckoned(phase)
    assert [row_of(defenses[name]).band for name in leaks] == [1, 1, 2]
    assert row_of(trivial).band is None  # never ranked
    assert row_of(trivial).intervals["utility"][0] == 0
    shown = boards.board(challenge=phase.challenge, kind="defense")
    assert [(row.name, row.ranks) for row in shown if row.rank] == [("close", "1–2"), ("closer", "1–2"), ("far", "3")]


def test_a_row_that_changes_loses_its_band_until_the_next_reckoning(phase: Phase, entered: Entered) -> None:
    defense, other = entered("defense", "forest"), entered("defense", "copula")
    release = released(defense, phase, 0.8)
    met(entered("attack", "loss"), released(other, phase, 0.8), 0.05)
    met(entered("attack", "lira"), release, 0.05)
    reckoned(phase)
    met(entered("attack", "rmia"), release, 0.15)
    assert row_of(defense).band is None
    assert "worst_leak" not in row_of(defense).intervals  # it does not hold the number any more
    assert row_of(other).band == 1
    reckoned(phase)
    assert (row_of(other).band, row_of(defense).band) == (1, 2)


def test_many_changes_ask_once_and_a_reckoning_is_done_once(phase: Phase, entered: Entered) -> None:
    release = released(entered("defense", "forest"), phase, 0.8)
    for name in ("lira", "rmia", "loss"):
        met(entered("attack", name), release, 0.05)
    assert OrmQ.objects.filter(key="web").count() == 1
    reckoned(phase)
    version = Challenge.objects.get().version
    with CaptureQueriesContext(connection) as queries:
        reckoned(phase)
    assert len(queries) == 1
    assert Challenge.objects.get().version == version


def test_changes_after_the_last_reckoning_are_seen_to_later(phase: Phase, entered: Entered) -> None:
    release = released(entered("defense", "forest"), phase, 0.8)
    met(entered("attack", "lira"), release, 0.05)
    reckoned(phase)
    OrmQ.objects.all().delete()
    met(entered("attack", "rmia"), release, 0.1)
    reckoning.tick()
    assert not OrmQ.objects.exists()  # too early: at most every few seconds
    later(phase)
    reckoning.tick()
    reckoning.tick()
    assert OrmQ.objects.count() == 1


def test_what_a_killed_worker_left_is_asked_for_again(phase: Phase, entered: Entered) -> None:
    met(entered("attack", "lira"), released(entered("defense", "forest"), phase, 0.8), 0.05)
    OrmQ.objects.all().delete()  # its worker took the message and died
    reckoning.tick()
    assert not OrmQ.objects.exists()
    later(phase)
    reckoning.tick()
    assert OrmQ.objects.count() == 1


def later(phase: Phase) -> None:
    Reckoning.objects.filter(phase=phase).update(next_at=timezone.now() - timedelta(seconds=1))


def test_numbers_that_change_during_a_reckoning_keep_their_row_open(
    phase: Phase, entered: Entered, monkeypatch: pytest.MonkeyPatch
) -> None:
    defense = entered("defense", "forest")
    release = released(defense, phase, 0.8)
    met(entered("attack", "lira"), release, 0.05)
    attack = entered("attack", "rmia")
    work_out = reckoning._work_out

    def interrupted(of: Phase) -> Any:
        found = work_out(of)
        met(attack, release, 0.1)
        return found

    monkeypatch.setattr(reckoning, "_work_out", interrupted)
    reckoned(phase)
    assert row_of(defense).band is None
    later(phase)
    assert Reckoning.objects.due().count() == 1
    monkeypatch.undo()
    reckoned(phase)
    assert row_of(defense).band == 1


def test_a_voided_duel_counts_nowhere(phase: Phase, entered: Entered) -> None:
    defense, honest, ally = entered("defense", "forest"), entered("attack", "lira"), entered("attack", "ally")
    release = released(defense, phase, 0.8)
    met(honest, release, 0.05)
    suspect = met(ally, release, 0.9)
    assert row_of(defense).worst_leak == pytest.approx(0.9)
    Duel.objects.filter(pk=suspect.pk).update(void_reason="the defense gave its members away")
    standings.refresh_duel(Duel.objects.get(pk=suspect.pk))
    reckoned(phase)
    assert row_of(defense).worst_leak == pytest.approx(0.05)
    assert row_of(ally).score is None
    assert row_of(ally).intervals == {}


@pytest.mark.parametrize("order", ["harmonic", "gate", "product", "tpr", "pareto", "epsilon"])
def test_any_order_ranks_with_intervals_from_the_same_matrix(phase: Phase, entered: Entered, order: str) -> None:
    Challenge.objects.update(ranking=order)
    phase = Phase.objects.get(pk=phase.pk)
    attack = entered("attack", "lira")
    useful, private, poor = entered("defense", "useful"), entered("defense", "private"), entered("defense", "poor")
    useless = entered("defense", "useless")
    for defense, u, leak, epsilon in (
        (useful, 0.89, 0.12, 0.4),
        (private, 0.78, 0.02, 0.0),
        (poor, 0.77, 0.15, 0.9),
        (useless, 0.6, 0.0, 0.0),
    ):
        met(attack, released(defense, phase, u, error=0.001), leak, error=0.002, detail={"epsilon": epsilon})
    reckoned(phase)
    rows = boards.board(challenge=phase.challenge, kind="defense", organiser=True)
    assert {row.name: row.rank for row in rows}["useless"] == 4  # unqualified, whatever the order
    assert rows[-1].score == 0
    first = {row.name for row in rows if row.rank == 1}
    expected = {"product": {"useful"}, "pareto": {"private"}}.get(order, {"private"})
    assert first == expected
    for row in rows[:3]:
        low, high = row.intervals["score"]
        assert low <= row.score <= high
        assert (high > low) == (order != "epsilon")  # a lower bound is no estimate: it has no interval


def test_anchors_have_no_place_on_a_pareto_front(phase: Phase, entered: Entered) -> None:
    Challenge.objects.update(ranking="pareto")
    phase = Phase.objects.get(pk=phase.pk)
    attack, tuned = entered("attack", "lira"), entered("defense", "tuned", role="tuned")
    met(attack, released(tuned, phase, 0.9), 0.01)
    met(attack, released(entered("defense", "forest"), phase, 0.8), 0.05)
    reckoned(phase)
    assert (row_of(tuned).score, row_of(tuned).band) == (None, None)
    forest = Standing.objects.get(submission__name="forest")
    assert forest.score == pytest.approx(50 + 50 * forest.utility * forest.privacy)


def test_a_novel_attack_is_credited_with_what_nobody_else_found(phase: Phase, entered: Entered) -> None:
    Challenge.objects.update(novelty_prize=True)
    phase = Phase.objects.get(pk=phase.pk)
    novel, usual, copied = entered("attack", "novel"), entered("attack", "usual"), entered("attack", "copied")
    for name in ("forest", "copula"):
        release = released(entered("defense", name), phase, 0.8)
        for attack, leak in ((novel, 0.15), (usual, 0.05), (copied, 0.05)):
            met(attack, release, leak, error=0.005)
    reckoned(phase)
    rows = {row.name: row for row in boards.board(challenge=phase.challenge, kind="attack")}
    assert rows["novel"].novelty == pytest.approx(0.1, abs=0.01)
    assert rows["usual"].novelty == rows["copied"].novelty == 0
    low, high = rows["novel"].intervals["novelty"]
    assert low <= 0.1 <= high


def test_utilities_climb_a_ladder_while_a_team_can_try_again(phase: Phase, entered: Entered) -> None:
    attack, first = entered("attack", "lira"), entered("defense", "first")
    met(attack, released(first, phase, 0.7), 0.05)
    assert row_of(first).public_utility == 0.5
    shown = {}
    for name, u in (("same", 0.703), ("better", 0.75), ("worse", 0.68)):
        entry = entered("defense", name)
        Submission.objects.filter(pk=entry.pk).update(team=first.team)
        entry.refresh_from_db()
        met(attack, released(entry, phase, u), 0.05)
        shown[name] = row_of(entry).public_utility
    # 0.5075 and 0.625 and 0.45 exactly: only a step of more than a hundredth is told to a hundredth
    assert shown == {"same": 0.5, "better": 0.62, "worse": 0.4}
    standings.refresh_all(phase.challenge)
    assert row_of(first).public_utility == 0.5
    assert Standing.objects.get(submission__name="same").public_utility == 0.5
    Phase.objects.update(kind=Phase.Kind.FINAL, revealed_at=timezone.now())
    Submission.objects.update(picked=True)
    Standing.objects.all().delete()
    standings.refresh_all(Challenge.objects.get())
    assert Standing.objects.get(submission__name="same").public_utility == 0.51  # nobody can try again


def test_rows_from_before_there_were_resamples_use_their_standard_errors(phase: Phase, entered: Entered) -> None:
    defense = entered("defense", "forest")
    met(entered("attack", "lira"), released(defense, phase, 0.8), 0.05)
    Duel.objects.update(replicates=None)
    Release.objects.update(replicates=None)
    over = resampled.defense(defense, phase)
    # two folds, each of which chooses one of two equal metrics for the other: a little more than 0.01 / sqrt(2)
    assert over.worst_leak().std() == pytest.approx(0.01 * np.sqrt((1 + 1 / np.pi) / 2), rel=0.1)
    np.testing.assert_array_equal(over.worst_leak(), resampled.defense(defense, phase).worst_leak())
    reckoned(phase)
    assert row_of(defense).band == 1


def test_a_secret_column_may_be_called_epsilon(phase: Phase, entered: Entered) -> None:
    defense, attack = entered("defense", "a"), entered("attack", "x")
    release = released(defense, phase, 0.75)
    met(attack, release, 0.1, detail={"epsilon": {"attack": 0.5, "control": 0.4}})
    reckoned(phase)
    assert row_of(defense).intervals["worst_leak"]


def test_failed_duels_count_as_nothing_taken(phase: Phase, entered: Entered) -> None:
    defense, attack = entered("defense", "forest"), entered("attack", "lira")
    release = released(defense, phase, 0.8)
    Duel.objects.create(attack=attack, release=release, state=Duel.State.FAILED, reason="crashed")
    over = resampled.defense(defense, phase)
    assert over.played == {}
    assert (over.worst_leak() == 0).all()
    assert (over.successes[attack.pk] == 0).all()


def test_the_estimate_and_its_resamples_follow_the_same_rules(phase: Phase, entered: Entered) -> None:
    defense = entered("defense", "forest")
    release = released(defense, phase, 0.8)
    for name, leak in (("lira", 0.04), ("rmia", 0.07), ("loss", 0.01)):
        met(entered("attack", name), release, leak, error=0.0)
    over = resampled.defense(defense, phase)
    leaks, _present = over.leaks
    np.testing.assert_allclose(over.worst_leak(), duel.crossfit(leaks[0]).mean, atol=1e-6)
    assert over.worst_leak()[0] == pytest.approx(row_of(defense).worst_leak, abs=1e-6)


def test_an_attack_that_failed_under_one_seed_keeps_its_other_duels_in_both(phase: Phase, entered: Entered) -> None:
    Phase.objects.filter(pk=phase.pk).update(seeds=2)
    phase.refresh_from_db()
    defense = entered("defense", "forest")
    releases = [released(defense, phase, 0.8, seed=seed) for seed in range(2)]
    strong, weak, gone, late = (entered("attack", name) for name in ("strong", "weak", "gone", "late"))
    for failed, release in ((strong, releases[0]), (gone, releases[0]), (gone, releases[1])):
        Duel.objects.create(attack=failed, release=release, state=Duel.State.FAILED, reason="crashed")
    Duel.objects.create(attack=late, release=releases[0])  # is still to be fought: counts once it is over
    met(late, releases[1], 0.9, error=0.0)
    met(weak, releases[0], 0.02, error=0.0)
    met(weak, releases[1], 0.03, error=0.0)
    met(strong, releases[1], 0.08, error=0.0)
    over = resampled.defense(defense, phase)
    assert list(over.played) == [strong.pk, weak.pk]
    np.testing.assert_allclose(over.worst_leak(), (0.02 + 0.08) / 2, atol=1e-6)
    assert row_of(defense).worst_leak == pytest.approx((0.02 + 0.08) / 2)
    np.testing.assert_allclose(over.successes[strong.pk], 0.04, atol=1e-6)
    np.testing.assert_allclose(over.added[strong.pk], 0.05 - 0.025, atol=1e-6)


def test_boards_leave_the_resamples_in_the_database(phase: Phase, entered: Entered) -> None:
    met(entered("attack", "lira"), released(entered("defense", "forest"), phase, 0.8), 0.05)
    with CaptureQueriesContext(connection) as queries:
        boards.matrix(challenge=phase.challenge)
        list(Duel.objects.all())
        list(Release.objects.all())
    assert not [query["sql"] for query in queries if '"replicates"' in query["sql"]]

"""From a ready entry to boards: which runs become due, and what each outcome does."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from django.utils import timezone

from challenges.metrics import bootstrap
from challenges.models import Challenge
from sandbox.models import Run
from sandbox.reasons import Reason
from submissions import actions, boards, flow, scoring, tasks
from submissions.models import Duel, Release, Standing, Submission, Team
from submissions.states import MOVES, OVER, MoveNotAllowed, State

pytestmark = pytest.mark.django_db

Ready = Callable[..., Submission]


def leaks(a: float, b: float) -> dict[str, Any]:
    """The verdict of a duel that leaks the same in both folds."""
    return {
        "leaks": [[a, b], [a, b]],
        "errors": [[0.02, 0.03], [0.02, 0.03]],
        "replicates": bootstrap.pack(np.full((bootstrap.RESAMPLES, 2, 2), [a, b])),
        "mean_leak": (a + b) / 2,
        "detail": {"auc": (a + 1) / 2, "tpr": b, "alpha": 0.1, "advantage": a, "members": 100, "nonmembers": 100},
    }  # fmt: skip


@pytest.fixture
def release(tmp_path: Any) -> Callable[[Submission, float], Release]:
    """Ends a defense's runs with a release of that raw utility."""

    def make(defense: Submission, utility: float) -> Release:
        fit = defense.steps.get(name="fit", phase__isnull=False)
        flow.run_ended(fit, fit.run, {})
        predict = defense.steps.get(name="predict", phase__isnull=False)
        predict.run.result_folder.mkdir(parents=True)
        (predict.run.result_folder / "answers.npy").write_bytes(b"canonical")
        flow.run_ended(predict, predict.run, {"utility": utility, "sha256": "0" * 64})
        return defense.releases.get()

    return make


def end_duel(duel: Duel, a: float = 0.0, b: float = 0.0, reason: str = "") -> None:
    run = duel.step.run
    run.reason = reason
    flow.run_ended(duel.step, run, None if reason else leaks(a, b))
    duel.refresh_from_db()


def test_a_defense_is_run_released_and_met_by_every_attack_of_other_teams(ready: Ready, release: Any) -> None:
    own_attack, foreign_attack = ready("ada", "attack"), ready("ben", "attack")
    baseline = ready("", "attack", role="baseline")
    defense = ready("ada", "defense")

    release(defense, utility=0.8)

    met = set(Duel.objects.filter(release__submission=defense).values_list("attack", flat=True))
    assert met == {foreign_attack.pk, baseline.pk}
    assert own_attack.pk not in met


def test_a_new_attack_meets_the_releases_that_are_there(ready: Ready, release: Any) -> None:
    kept = release(ready("ada", "defense"), utility=0.8)
    attack = ready("ben", "attack")
    assert [duel.release for duel in attack.duels.all()] == [kept]
    assert Run.objects.filter(pk=attack.duels.get().step.run_id, private=True, step="attack").exists()


def test_an_attack_with_nobody_to_attack_is_scored_at_once(ready: Ready) -> None:
    assert ready("ben", "attack").state == State.SCORED


def test_the_last_duel_scores_both_sides(ready: Ready, release: Any) -> None:
    defense, attack = ready("ada", "defense"), ready("ben", "attack")
    release(defense, utility=0.7)
    end_duel(attack.duels.get(), 0.1, 0.06)

    defense.refresh_from_db(), attack.refresh_from_db()
    assert (defense.state, attack.state) == (State.SCORED, State.SCORED)
    row = Standing.objects.get(submission=defense)
    assert row.utility == pytest.approx(0.5)  # (0.7 - 0.5) / (0.9 - 0.5)
    assert row.worst_leak == pytest.approx(0.1)
    assert row.privacy == pytest.approx(0.5)  # 1 - 0.1 / 0.2
    assert row.score == pytest.approx(50)
    assert Standing.objects.get(submission=attack).score == pytest.approx(8)  # 100 * mean of A and B


def test_only_qualified_defenses_count_for_attacks(ready: Ready, release: Any) -> None:
    useless = ready("ada", "defense")
    attack = ready("ben", "attack")
    release(useless, utility=0.55)
    end_duel(attack.duels.get(), 0.15, 0.15)

    assert Standing.objects.get(submission=useless).score == 0
    assert Standing.objects.get(submission=attack).score is None


def test_a_defense_that_a_baseline_breaks_is_not_qualified(ready: Ready, release: Any) -> None:
    defense, baseline = ready("ada", "defense"), ready("", "attack", role="baseline")
    release(defense, utility=0.8)
    end_duel(baseline.duels.get(), 0.3, 0.3)
    row = Standing.objects.get(submission=defense)
    assert not row.qualified
    assert row.score == 0


def test_a_failed_duel_is_nothing_taken_and_says_nothing_about_the_defense(ready: Ready, release: Any) -> None:
    strong, baseline = ready("ada", "defense"), ready("", "attack", role="baseline")
    release(strong, utility=0.8)
    weak = ready("ben", "attack")
    end_duel(baseline.duels.get(), 0.05, 0.05)
    end_duel(weak.duels.get(), reason=Reason.CRASHED)

    assert Standing.objects.get(submission=strong).worst_leak == pytest.approx(0.05)
    weak.refresh_from_db()
    assert (weak.state, weak.failure_reason) == (State.FAILED, Reason.CRASHED)  # it failed everywhere
    assert weak.failure_detail == ""


def test_a_defense_that_fails_on_private_data_tells_its_team_the_reason_only(ready: Ready) -> None:
    defense = ready("ada", "defense")
    fit = defense.steps.get(name="fit", phase__isnull=False)
    fit.run.reason, fit.run.detail = Reason.OUTPUT_INVALID, "column canary-00001 was found"
    flow.run_ended(fit, fit.run, None)
    defense.refresh_from_db()
    assert (defense.state, defense.failure_reason, defense.failure_detail) == ("failed", "output_invalid", "")


def test_a_failed_rehearsal_shows_its_cause_and_detail(
    clinic: Challenge, teams: dict[str, Team], ada: Any, image: Any
) -> None:
    submission = actions.enter(challenge=clinic, by=ada, kind="attack", file_name="a.tar", size=10)
    flow.uploaded(submission)
    flow.image_accepted(submission, image)
    step = submission.steps.get()
    step.run.reason, step.run.detail = Reason.OUTPUT_MISSING, "There is no file scores.parquet."
    flow.run_ended(step, step.run, None)
    submission.refresh_from_db()
    assert (submission.failure_reason, submission.failure_cause) == ("rehearsal_failed", "output_missing")
    assert submission.failure_detail == "There is no file scores.parquet."


def test_the_newest_entries_are_active(ready: Ready) -> None:
    entries = [ready("ada", "attack", name=f"attack-{number}") for number in range(3)]
    active = set(Submission.objects.active().values_list("pk", flat=True))
    assert active == {entries[1].pk, entries[2].pk}


def test_choosing_an_older_entry_needs_a_free_place_and_queues_what_it_missed(
    ready: Ready, release: Any, ben: Any
) -> None:
    entries = [ready("ben", "attack", name=f"attack-{number}") for number in range(3)]
    release(ready("ada", "defense"), utility=0.8)
    oldest = Submission.objects.get(pk=entries[0].pk)
    with pytest.raises(actions.Refused, match="2 active entries"):
        actions.choose(submission=oldest, active=True, by=ben)
    actions.choose(submission=entries[2], active=False, by=ben)
    actions.choose(submission=oldest, active=True, by=ben)
    assert oldest.duels.count() == 1


def test_withdrawing_cancels_open_runs_and_clears_the_board(
    ready: Ready, release: Any, ada: Any, clinic: Challenge
) -> None:
    defense, attack = ready("ada", "defense"), ready("ben", "attack")
    release(defense, utility=0.8)
    run = attack.duels.get().step.run

    actions.withdraw(submission=defense, by=ada)

    run.refresh_from_db(), attack.refresh_from_db()
    assert run.state == Run.State.CANCELLED
    assert not Duel.objects.exists()
    assert attack.state == State.SCORED
    assert boards.board(challenge=clinic, kind="defense") == []
    with pytest.raises(actions.Refused):
        actions.withdraw(submission=defense, by=ada)


def test_every_write_moves_the_version_that_browsers_watch(ready: Ready, release: Any, clinic: Challenge) -> None:
    defense, attack = ready("ada", "defense"), ready("ben", "attack")
    release(defense, utility=0.8)
    before = Challenge.objects.get(pk=clinic.pk).version
    end_duel(attack.duels.get(), 0.1, 0.1)
    assert Challenge.objects.get(pk=clinic.pk).version > before


def test_every_defense_is_dealt_its_own_members(ready: Ready) -> None:
    first, second = ready("ada", "defense"), ready("ben", "defense")
    deals = [scoring.board_of(one.steps.get(phase__isnull=False)).deal for one in (first, second)]
    assert (deals[0].candidates == deals[1].candidates).all()
    assert (deals[0].member != deals[1].member).any()


def test_states_that_are_over_lead_back_to_nothing_live() -> None:
    live = set(State) - set(OVER)
    assert all(not (MOVES[state] & live) for state in OVER)
    with pytest.raises(MoveNotAllowed):
        Submission(state=State.FAILED).move_to(State.RUNNING)


def test_a_scored_attack_that_once_fails_stays_in_play(ready: Ready, release: Any) -> None:
    attack, defense = ready("ben", "attack"), ready("ada", "defense")
    release(defense, utility=0.8)
    end_duel(attack.duels.get(), reason=Reason.TIMEOUT)
    attack.refresh_from_db()
    assert (attack.state, attack.active) == (State.SCORED, True)


def test_no_score_before_every_baseline_was_met(ready: Ready, release: Any) -> None:
    baselines = [ready("", "attack", role="baseline", name=f"baseline-{number}") for number in range(2)]
    defense = ready("ada", "defense")
    release(defense, utility=0.8)
    end_duel(baselines[0].duels.get(), 0.01, 0.01)
    row = Standing.objects.get(submission=defense)
    assert (row.qualified, row.score, row.public_utility) == (False, None, 0.75)
    end_duel(baselines[1].duels.get(), 0.01, 0.01)
    row.refresh_from_db()
    assert row.qualified
    assert row.score is not None


def test_every_seed_counts_even_if_the_phase_closes_meanwhile(ready: Ready, clinic: Challenge) -> None:
    clinic.phases.update(seeds=2)
    defense = ready("ada", "defense")
    clinic.phases.update(closes_at=timezone.now())
    for seed in range(2):
        defense.refresh_from_db()
        assert defense.state != State.SCORED
        fit = defense.steps.get(name="fit", phase__isnull=False, seed=seed)
        flow.run_ended(fit, fit.run, {})
        predict = defense.steps.get(name="predict", phase__isnull=False, seed=seed)
        predict.run.result_folder.mkdir(parents=True)
        flow.run_ended(predict, predict.run, {"utility": 0.8, "sha256": "0" * 64})
    defense.refresh_from_db()
    assert (defense.state, defense.releases.count()) == (State.SCORED, 2)


def test_what_becomes_ready_after_the_close_displaces_nobody(ready: Ready, clinic: Challenge) -> None:
    entries = [ready("ada", "attack", name=f"attack-{number}") for number in range(2)]
    rehearsing = actions.enter(challenge=clinic, by=entries[0].created_by, kind="attack", file_name="late.tar", size=10)
    flow.uploaded(rehearsing)
    flow.image_accepted(rehearsing, entries[0].image)
    clinic.phases.update(closes_at=timezone.now())
    step = rehearsing.steps.get()
    flow.run_ended(step, step.run, {})
    rehearsing.refresh_from_db()
    assert rehearsing.state == State.WITHDRAWN
    assert set(Submission.objects.active()) == set(entries)
    with pytest.raises(actions.Refused, match="closed"):
        actions.choose(submission=entries[0], active=False, by=entries[0].created_by)


def test_taking_an_entry_out_ends_its_duels_for_both_sides(ready: Ready, release: Any, ada: Any) -> None:
    defense = ready("ada", "defense")
    release(defense, utility=0.8)
    attack = ready("ben", "attack")
    run = attack.duels.get().step.run
    actions.choose(submission=defense, active=False, by=ada)
    run.refresh_from_db(), attack.refresh_from_db(), defense.refresh_from_db()
    assert run.state == Run.State.CANCELLED
    assert (attack.state, defense.state) == (State.SCORED, State.SCORED)


def test_a_duel_that_the_platform_spoilt_is_fought_again(ready: Ready, release: Any) -> None:
    attack, defense = ready("ben", "attack"), ready("ada", "defense")
    release(defense, utility=0.8)
    duel = attack.duels.get()
    end_duel(duel, reason=Reason.PLATFORM_FAULT)
    tasks.fight_again()
    assert Duel.objects.get().state == Duel.State.FAILED  # not at once
    Duel.objects.update(finished_at=timezone.now() - tasks._FAULT_PAUSE)
    tasks.fight_again()
    again = Duel.objects.get()
    assert (again.state, again.reason) == (Duel.State.PENDING, "")
    assert again.step.run.state == Run.State.QUEUED
    end_duel(again, 0.1, 0.1)
    assert Duel.objects.get().state == Duel.State.DONE


def test_the_sweep_does_not_undo_what_an_organiser_decided_meanwhile(
    ready: Ready, release: Any, monkeypatch: pytest.MonkeyPatch, olga: Any
) -> None:
    attack, defense = ready("ben", "attack"), ready("ada", "defense")
    release(defense, utility=0.8)
    end_duel(attack.duels.get(), reason=Reason.PLATFORM_FAULT)
    Duel.objects.update(finished_at=timezone.now() - tasks._FAULT_PAUSE)
    held = flow.lock

    def voided_first(challenge: Challenge) -> Challenge:
        """The organiser has the challenge first, the sweep had to wait."""
        monkeypatch.setattr(flow, "lock", held)
        actions.void_duel(duel=Duel.objects.get(), reason="Lost power.", by=olga)
        return held(challenge)

    monkeypatch.setattr(flow, "lock", voided_first)
    tasks.fight_again()
    duel = Duel.objects.get()
    assert (duel.state, duel.void_reason) == (Duel.State.FAILED, "Lost power.")


def test_a_run_that_was_given_up_does_not_hold_its_entry(clinic: Challenge, teams: Any, ada: Any, image: Any) -> None:
    submission = actions.enter(challenge=clinic, by=ada, kind="attack", file_name="a.tar", size=10)
    flow.uploaded(submission)
    flow.image_accepted(submission, image)
    Run.objects.update(state=Run.State.FAILED, reason=Reason.PLATFORM_FAULT, finished_at=timezone.now())
    tasks.settle_forgotten()
    assert Submission.objects.get().state == State.REHEARSING  # its worker may be about to settle it
    Run.objects.update(finished_at=timezone.now() - 2 * tasks._SETTLED_BY_THEN)
    tasks.settle_forgotten()
    assert Submission.objects.get().failure_reason == Reason.PLATFORM_FAULT


def test_the_matrix_forgets_whom_the_boards_forgot(ready: Ready, release: Any, clinic: Challenge, olga: Any) -> None:
    defense, attack = ready("ada", "defense"), ready("ben", "attack")
    release(defense, utility=0.8)
    end_duel(attack.duels.get(), 0.1, 0.1)
    assert len(boards.matrix(challenge=clinic).cells) == 1
    actions.disqualify(submission=defense, by=olga)
    assert boards.matrix(challenge=clinic).cells == {}

"""Blind controls: for whom one is due, what the container gets, and that no score knows of it."""

import json
import re
import shutil
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import pandas as pd
import pytest
from django.forms.models import model_to_dict
from django.test import Client
from django.utils import timezone

from anomed_site.models import User
from challenges import actions as challenges
from challenges import splits
from challenges.models import Challenge, Phase
from sandbox import purposes
from sandbox.models import Run
from sandbox.reasons import Reason
from submissions import (
    actions,
    alarms,
    blindness,
    controls,
    quotas,
    results,
    retention,
    scoring,
    standings,
    steps,
    tasks,
)
from submissions.models import Control, Duel, Exposure, Release, Standing, Step, Submission, Twin
from submissions.states import State
from tests import played

pytestmark = pytest.mark.django_db

Ready = Callable[..., Submission]
Scores = Callable[[Any], Any]


@pytest.fixture(autouse=True)
def own_folder(settings: Any, tmp_path: Path) -> None:
    settings.PRIVATE_ROOT = tmp_path / "private"
    settings.PRIVATE_ROOT.mkdir()


@pytest.fixture
def leaky(ready: Ready) -> Submission:
    """The organiser's leaky anchor, which has released."""
    anchor = ready("", "defense", role="leaky", name="leaky")
    played.release(anchor)
    return anchor


def honest(board: Any) -> Any:
    """Reads all that the release tells: whom it was made from."""
    return np.isin(board.deal.scored, board.released.train) + np.random.default_rng(1).normal(
        0, 0.3, len(board.deal.scored)
    )


def cheating(board: Any) -> Any:
    """Knows the secret coins of the phase."""
    return board.deal.scored_member + noise(board)


def noise(board: Any) -> Any:
    return np.random.default_rng(1).normal(0, 0.3, len(board.deal.scored))


def end(run: Run, scores: Scores = honest, reason: Reason | None = None) -> None:
    """Ends one run as a worker does, through the purpose that it was queued for."""
    purpose: Any = purposes.get(run.purpose)
    if reason is not None:
        run.state, run.reason, run.finished_at = Run.State.FAILED, reason, timezone.now()
        run.save()
        purpose.settle(run, None)
        return
    run.scratch.mkdir(parents=True, exist_ok=True)
    for name in ("input", "output"):
        (run.scratch / name).mkdir(exist_ok=True)
    purpose.write_inputs(run, run.scratch / "input")
    part = controls.part_of(run)
    assert part is not None
    board = controls.board_of(part)
    _write(run.step, board, run.scratch / "input", run.scratch / "output", scores)
    function, args = purpose.reader(run, run.scratch / "output", run.result_folder)
    verdict = purpose.judge(run, run.result_folder, function(*args))
    Run.objects.filter(pk=run.pk).update(state=Run.State.SUCCEEDED, finished_at=timezone.now())
    run.refresh_from_db()
    purpose.settle(run, verdict)


def _write(step: str, board: Any, inputs: Path, outputs: Path, scores: Scores) -> None:
    """What a container leaves."""
    files = json.loads((inputs / "task.json").read_text())["files"]
    if step == "fit":
        train = pd.read_parquet(inputs / files["train"])
        (outputs / "model").mkdir()
        train.to_parquet(outputs / "model" / "known.parquet")
    elif step == "predict":
        queries = pd.read_parquet(inputs / files["queries"])
        assert (inputs / files["model"] / "known.parquet").is_file()
        queries.assign(no=0.5, yes=0.5)[["row", "no", "yes"]].to_parquet(outputs / "predictions.parquet", index=False)
    else:
        names = splits.tokens(splits.derive(board.key, "candidates"), len(board.deal.scored))
        said = pd.DataFrame({"row": names, "score": scores(board)})
        said.to_parquet(outputs / "scores.parquet", index=False)


def waiting() -> list[Run]:
    return list(Run.objects.filter(purpose=controls.PURPOSE, state=Run.State.QUEUED).order_by("queued_at"))


def end_all(scores: Scores = honest) -> None:
    while runs := waiting():
        for run in runs:
            end(run, scores)


def of(attack: Submission) -> Control:
    return Control.objects.get(attack=attack)


# For whom, when, against what -----------------------------------------------------------------------------------------


def test_every_attack_meets_the_twin_of_the_leaky_anchor_once(
    leaky: Submission, ready: Ready, clinic: Challenge
) -> None:
    baseline = ready("", "attack", role="baseline", name="random")
    sharp = ready("ben", "attack", name="sharp")
    controls.arrange()
    twin = Twin.objects.get()
    assert (twin.defense, twin.phase, twin.seed) == (leaky, clinic.development, 0)
    assert [run.step for run in waiting()] == ["fit"]  # the anchor's; attacks wait for what it gives away
    end_all()
    assert {control.attack for control in Control.objects.all()} == {baseline, sharp}
    assert Control.objects.filter(state="done").count() == 2
    controls.arrange()
    assert not waiting()
    late = ready("ada", "attack", name="later")
    controls.arrange()
    assert [controls.part_of(run) for run in waiting()] == [of(late)]
    assert Twin.objects.count() == 1


def test_the_next_anchor_has_the_twin_where_no_leaky_one_is(ready: Ready, clinic: Challenge) -> None:
    ready("ben", "attack")
    controls.arrange()
    assert not waiting()  # nobody has released anything
    for role in ("trivial", "tuned"):
        played.release(ready("", "defense", role=role, name=role))
    controls.arrange()
    assert Twin.objects.get().defense.role == "tuned"


def test_an_anchor_that_cannot_be_run_again_gives_way_to_the_next(leaky: Submission, ready: Ready) -> None:
    ready("ben", "attack")
    played.release(ready("", "defense", role="trivial", name="trivial"))
    controls.arrange()
    end(waiting()[0], reason=Reason.CRASHED)
    controls.arrange()
    assert sorted(Twin.objects.values_list("defense__role", "state")) == [("leaky", "failed"), ("trivial", "pending")]


def test_a_twin_whose_files_went_with_its_anchor_gives_way_to_another(leaky: Submission, ready: Ready) -> None:
    ready("ben", "attack")
    played.release(ready("", "defense", role="tuned", name="tuned"))
    controls.arrange()
    end_all()
    controls.arrange()
    assert not waiting()
    shutil.rmtree(Twin.objects.get().folder)
    ready("ada", "attack")
    controls.arrange()
    assert [getattr(controls.part_of(run), "defense", None) for run in waiting()] == [
        Submission.objects.get(role="tuned")
    ]


def test_what_its_second_step_reads_is_kept_and_the_twin_goes_with_the_anchors_releases(
    leaky: Submission, ready: Ready, olga: User, settings: Any
) -> None:
    ready("ben", "attack")
    controls.arrange()
    fit = waiting()[0]
    end(fit)
    assert retention.StepKeeper().results([fit.pk]) == {fit.pk}
    end_all()
    twin = Twin.objects.get()
    assert (twin.folder / "answers.npy").is_file()
    actions.withdraw(submission=leaky, by=olga)
    assert retention.StepKeeper().results([fit.pk]) == set()
    Submission.objects.filter(pk=leaky.pk).update(ended_at=timezone.now() - timedelta(days=91))
    retention.sweep()
    assert not twin.folder.exists()


def test_the_release_is_made_from_others_and_all_else_is_the_anchors_own(
    leaky: Submission, ready: Ready, clinic: Challenge
) -> None:
    ready("ben", "attack")
    controls.arrange()
    fit, phase = waiting()[0], clinic.development
    made = controls.board_of(controls.part_of(fit))
    own = scoring.deal_of(phase, leaky.pk, 0)
    assert (made.deal.member != own.member).any()
    end_all()
    board = controls.board_of(Control.objects.select_related().get())
    assert (board.deal.member == own.member).all()
    assert (board.released.member == made.deal.member).all()
    assert (board.deal.known == own.known).all()
    assert board.seed == 0


def test_it_waits_behind_everything_else_and_costs_no_quota(leaky: Submission, ready: Ready, teams: Any) -> None:
    attack = ready("ben", "attack")
    left = quotas.left(teams["ben"])
    controls.arrange()
    end(waiting()[0])
    end(waiting()[0])
    run = waiting()[0]
    assert run.private
    assert run.owner == attack.owner
    assert run.priority < min(step.run.priority for step in Step.objects.select_related("run"))
    assert purposes.priority_name(steps.CONTROL) == "control"
    assert quotas.left(teams["ben"]) == left


def test_an_entry_is_scored_without_waiting_for_it(leaky: Submission, ready: Ready) -> None:
    attack = ready("ben", "attack")
    controls.arrange()
    for duel in Duel.objects.pending():
        played.duel(duel)
    attack.refresh_from_db()
    assert attack.state == State.SCORED
    assert waiting()


def test_who_leaves_meets_no_twin(leaky: Submission, ready: Ready, ben: User) -> None:
    attack = ready("ben", "attack")
    controls.arrange()
    end(waiting()[0])
    end(waiting()[0])
    run = waiting()[0]
    actions.withdraw(submission=attack, by=ben)
    run.refresh_from_db()
    assert run.state == Run.State.CANCELLED
    assert not Control.objects.exists()
    controls.arrange()
    assert not waiting()


def test_attacks_of_a_phase_that_is_over_get_none(leaky: Submission, ready: Ready, clinic: Challenge) -> None:
    ready("ben", "attack")
    Phase.objects.update(closes_at=timezone.now())
    tasks.sweep()
    assert not Twin.objects.exists()


# What comes of it -----------------------------------------------------------------------------------------------------


@pytest.fixture
def judged(leaky: Submission, ready: Ready) -> dict[str, Submission]:
    """One attack that reads the release and one that knows the coins, both controlled."""
    found = {"honest": ready("ben", "attack", name="honest"), "cheat": ready("ada", "attack", name="cheat")}
    controls.arrange()
    end(waiting()[0])
    end(waiting()[0])
    for run in waiting():
        part = controls.part_of(run)
        assert isinstance(part, Control)
        end(run, cheating if part.attack == found["cheat"] else honest)
    return found


def test_who_knows_the_coins_is_caught_and_who_reads_the_release_is_not(
    judged: dict[str, Submission], clinic: Challenge
) -> None:
    phase = clinic.development
    assert phase is not None
    said = blindness.outcomes(phase)
    assert said[judged["honest"].pk].state == "chance"
    caught = said[judged["cheat"].pk]
    assert caught.state == "more"
    assert caught.excess is not None
    assert caught.excess.leak > 0.5
    assert caught.reading.startswith("AUC ")
    assert [entry for entry, _outcome in blindness.flagged(phase)] == [judged["cheat"]]


def test_whoever_is_caught_stays_until_an_organiser_decides(judged: dict[str, Submission], olga: User) -> None:
    cheat = judged["cheat"]
    cheat.refresh_from_db()
    assert cheat.state != State.DISQUALIFIED
    actions.disqualify(submission=cheat, by=olga)
    assert blindness.flagged(Phase.objects.get()) == []


def test_nothing_that_counts_knows_of_it(ready: Ready, met: Submission, leaky: Submission, clinic: Challenge) -> None:
    played.duels(leaky)

    def everything() -> Any:
        rows = [model_to_dict(row, exclude=["id"]) for row in Standing.objects.order_by("submission")]
        stored = [
            list(model.objects.order_by("pk").values_list("pk", flat=True)) for model in (Duel, Release, Step, Exposure)
        ]
        flags = list(Duel.objects.order_by("pk").values_list("suspected", flat=True))
        states = list(Submission.objects.order_by("pk").values_list("state", "active"))
        return rows, stored, flags, states

    before = everything()
    controls.arrange()
    end_all(cheating)
    assert Control.objects.filter(state="done").count() == 3
    assert everything() == before
    standings.refresh_all(clinic)
    assert everything()[0] == before[0]


def test_a_fault_of_the_platform_is_tried_again(leaky: Submission, ready: Ready, clinic: Challenge) -> None:
    attack = ready("ben", "attack")
    controls.arrange()
    end(waiting()[0], reason=Reason.PLATFORM_FAULT)
    controls.arrange()
    assert not waiting()  # not at once
    Twin.objects.update(finished_at=timezone.now() - timedelta(minutes=11))
    controls.arrange()
    end(waiting()[0])
    end(waiting()[0], reason=Reason.PLATFORM_FAULT)  # its second step is begun again, not the first
    Twin.objects.update(finished_at=timezone.now() - timedelta(minutes=11))
    controls.arrange()
    assert [run.step for run in waiting()] == ["predict"]
    end(waiting()[0])
    end(waiting()[0], reason=Reason.PLATFORM_FAULT)
    said = blindness.outcome(attack, clinic.development)
    assert said is not None
    assert said.state == "waiting"
    Control.objects.update(finished_at=timezone.now() - timedelta(minutes=11))
    controls.arrange()
    end_all()
    assert of(attack).state == "done"


def test_an_attack_that_fails_is_shown_as_failed_and_not_tried_again(
    leaky: Submission, ready: Ready, clinic: Challenge
) -> None:
    attack = ready("ben", "attack")
    controls.arrange()
    end(waiting()[0])
    end(waiting()[0])
    end(waiting()[0], reason=Reason.TIMEOUT)
    Control.objects.update(finished_at=timezone.now() - timedelta(days=1))
    controls.arrange()
    assert not waiting()
    said = blindness.outcome(attack, clinic.development)
    assert said is not None
    assert said.state == "failed"
    attack.refresh_from_db()
    assert attack.state != State.FAILED


def test_a_run_that_the_sandbox_gave_up_is_noticed(leaky: Submission, ready: Ready) -> None:
    ready("ben", "attack")
    controls.arrange()
    gone = timezone.now() - timedelta(minutes=12)
    Run.objects.filter(pk=waiting()[0].pk).update(state="failed", reason="platform_fault", finished_at=gone)
    controls.arrange()
    assert Twin.objects.get().state == "failed"


# Where it is shown ----------------------------------------------------------------------------------------------------


def page(who: User, address: str) -> str:
    browser = Client()
    browser.force_login(who)
    answer = browser.get(address)
    assert answer.status_code == 200
    return " ".join(answer.content.decode().split())


def test_a_team_reads_it_on_the_page_of_its_attack(judged: dict[str, Submission], ben: User, ada: User) -> None:
    good, bad = page(ben, judged["honest"].get_absolute_url()), page(ada, judged["cheat"].get_absolute_url())
    assert "did as well as guessing" in good
    assert re.search(r"AUC 0\.\d\d\. Leak −?0\.\d\d \(−?0\.\d\d to −?0\.\d\d\)", good)
    assert "more than chance" in bad
    assert "the organisers look into it" in bad


def test_everybody_reads_it_on_the_board(judged: dict[str, Submission], carl: User) -> None:
    board = page(carl, "/challenges/clinic/boards/")
    assert "blind control: chance" in board
    assert "blind control: more than chance" in board


def test_organisers_find_whom_it_caught(judged: dict[str, Submission], olga: User) -> None:
    oversight = page(olga, "/challenges/clinic/oversight/")
    assert "More than chance." in oversight
    assert judged["cheat"].get_absolute_url() in oversight
    assert "In the development phase: 1 at chance, 0 to come, 0 failed." in oversight


def test_every_duel_of_whom_it_caught_can_be_voided_there(
    judged: dict[str, Submission], ready: Ready, olga: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("submissions.oversight._MOST_OTHERS", 0)
    defense = ready("ben", "defense", name="victim")
    played.release(defense)
    played.duels(defense)
    duel = Duel.objects.get(attack=judged["cheat"], release__submission=defense)
    assert f'name="duel" value="{duel.pk}"' in page(olga, "/challenges/clinic/oversight/")


def test_operators_are_told_until_it_is_taken_out(judged: dict[str, Submission], olga: User) -> None:
    (condition,) = alarms.conditions()
    assert (condition.kind, condition.subject.split()[0]) == ("blind_control", "clinic")
    assert "page Oversight" in condition.sentence
    actions.disqualify(submission=judged["cheat"], by=olga)
    assert list(alarms.conditions()) == []


def test_a_risk_card_says_what_the_control_of_the_strongest_attack_says(
    met: Submission, leaky: Submission, clinic: Challenge, carl: User
) -> None:
    for scores, said in ((honest, "it did as well as guessing"), (cheating, "it still knew more than guessing")):
        Control.objects.all().delete()
        controls.arrange()
        end_all(scores)
        assert said in page(carl, f"/challenges/clinic/cards/{met.pk}/")
    facts = Client().get(f"/api/v1/challenges/clinic/cards/{met.pk}").json()
    assert (facts["strongest"]["name"], facts["strongest"]["control"]) == ("sharp", "more")


def test_programs_read_it(judged: dict[str, Submission], ben: User) -> None:
    browser = Client()
    browser.force_login(ben)
    entry = browser.get(f"/api/v1/submissions/{judged['honest'].pk}").json()
    assert entry["control"]["state"] == "chance"
    assert entry["control"]["low"] <= entry["control"]["leak"] <= entry["control"]["high"]
    assert entry["control"]["leak"] == round(entry["control"]["leak"], 2)
    rows = browser.get("/api/v1/challenges/clinic/boards").json()
    assert {row["name"]: row["control"]["state"] for row in rows["attacks"]} == {"honest": "chance", "cheat": "more"}
    assert [row["control"] for row in rows["defenses"]] == [None]


def test_it_is_among_the_exported_results(judged: dict[str, Submission], clinic: Challenge, tmp_path: Path) -> None:
    results.dump(challenge=clinic, phase=clinic.phases.get(), folder=tmp_path / "results")
    rows = pd.read_csv(tmp_path / "results" / "controls.csv").set_index("attack_name")
    assert rows.state.tolist() == ["done", "done"]
    assert rows.anchor_name.tolist() == ["leaky", "leaky"]
    assert abs(rows.leak["honest"]) < 4 * rows.error["honest"]
    assert rows.leak["cheat"] > 4 * rows.error["cheat"]
    assert 0.4 < json.loads(rows.detail["honest"])["auc"] < 0.6


# In a final -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def final(clinic: Challenge) -> Phase:
    return Phase.objects.create(challenge=clinic, kind="final", seeds=2, folds=1)


def test_a_final_controls_every_seed_and_tells_nothing_before_the_reveal(
    leaky: Submission, ready: Ready, clinic: Challenge, final: Phase, ben: User, olga: User
) -> None:
    attack = ready("ben", "attack")
    actions.pick(submission=attack, picked=True, by=ben)
    challenges.freeze(challenge=clinic, by=olga)
    challenges.close(challenge=clinic, by=olga)  # ends entries, not the runs of the final
    played.release(leaky, phase=final)
    for duel in Duel.objects.filter(release__phase=final):
        played.duel(duel)
    version = Challenge.objects.get().version
    tasks.sweep()
    end_all(cheating)
    final.refresh_from_db()
    assert sorted(Control.objects.values_list("twin__phase", "twin__seed", "state")) == [
        (final.pk, 0, "done"),
        (final.pk, 1, "done"),
    ]
    assert Challenge.objects.get().version == version
    assert blindness.public(Submission.objects.with_context().get(pk=attack.pk)) is None
    assert "Blind control" not in page(ben, attack.get_absolute_url())
    assert "Teams learn of it when" in page(olga, "/challenges/clinic/oversight/")
    challenges.reveal(challenge=clinic, by=olga)
    said = blindness.public(Submission.objects.with_context().get(pk=attack.pk))
    assert said is not None
    assert said.state == "more"


def test_a_sealed_finals_control_shares_the_finals_secret_deal(final: Phase, clinic: Challenge) -> None:
    """All defenses of a final are dealt alike, whatever anchor has the twin."""
    one, two = (scoring.deal_of(final, entry, 1) for entry in (clinic_id(1), clinic_id(2)))
    assert (one.member == two.member).all()


def clinic_id(number: int) -> Any:
    return UUID(int=number)

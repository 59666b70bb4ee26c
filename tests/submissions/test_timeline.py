"""The way of an entry, stage by stage, as its team sees it."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from challenges.models import Challenge
from sandbox import hopeless
from sandbox.models import Host, Run
from submissions import timeline
from submissions.models import Duel, Release, Submission, Team
from submissions.states import State

pytestmark = pytest.mark.django_db

Ready = Callable[..., Submission]


def states(submission: Submission) -> dict[str, str]:
    submission.refresh_from_db()
    return {moment.key: moment.state for moment in timeline.of(submission, exact=False).moments}


def set_state(submission: Submission, state: State, **fields: Any) -> None:
    Submission.objects.filter(pk=submission.pk).update(state=state, **fields)


def test_a_defense_that_passed_its_rehearsal_runs_next(ready: Ready) -> None:
    assert states(ready("ada", "defense")) == {
        "upload": "done", "check": "done", "rehearsal": "done", "private": "now", "duels": "todo", "score": "todo",
    }  # fmt: skip


def test_an_attack_has_no_private_run_of_its_own(ready: Ready) -> None:
    entry = ready("ada", "attack")
    assert "private" not in states(entry)
    set_state(entry, State.SCORED)
    assert set(states(entry).values()) == {"done"}


@pytest.mark.parametrize(
    ("state", "fields", "stage"),
    [
        (State.UPLOADING, {}, "upload"),
        (State.CHECKING, {}, "check"),
    ],
)
def test_the_stage_under_way(
    clinic: Challenge, teams: dict[str, Team], state: State, fields: dict[str, Any], stage: str
) -> None:
    entry = Submission.objects.create(challenge=clinic, team=teams["ada"], kind="attack", name="a", state=state)
    assert [key for key, its in states(entry).items() if its == "now"] == [stage]


@pytest.mark.parametrize(
    ("reason", "rehearsed", "stage"),
    [
        ("image_invalid", False, "check"),
        ("rehearsal_failed", False, "rehearsal"),
        ("timeout", True, "private"),
        ("platform_fault", True, "private"),
    ],
)
def test_the_stage_that_failed(
    clinic: Challenge, teams: dict[str, Team], ready: Ready, reason: str, rehearsed: bool, stage: str
) -> None:
    if rehearsed:
        entry = ready("ada", "defense")
    else:
        entry = Submission.objects.create(challenge=clinic, team=teams["ada"], kind="defense", name="a")
    set_state(entry, State.FAILED, failure_reason=reason)
    assert [key for key, its in states(entry).items() if its == "failed"] == [stage]
    failure = timeline.failure_of(entry)
    assert failure is not None
    assert failure.sentence
    assert failure.hint


def test_a_withdrawn_entry_stopped_where_it_was(ready: Ready) -> None:
    entry = ready("ada", "defense")
    set_state(entry, State.WITHDRAWN)
    assert states(entry)["private"] == "stopped"


def test_duels_are_counted_and_their_failures_explained_to_the_attack_alone(ready: Ready, clinic: Challenge) -> None:
    defense, attack = ready("ada", "defense"), ready("ben", "attack")
    phase = clinic.phases.get()
    for seed, (state, reason) in enumerate([("done", ""), ("failed", "timeout"), ("pending", "")]):
        release = Release.objects.create(submission=defense, phase=phase, seed=seed, sha256="0" * 64, utility=0.7)
        Duel.objects.update_or_create(attack=attack, release=release, defaults={"state": state, "reason": reason})
    seen = timeline.count_duels(attack)
    assert (seen.over, seen.total) == (2, 3)
    assert [number for _sentence, _hint, number in seen.failures] == [1]
    assert timeline.count_duels(defense).failures == []
    set_state(attack, State.SCORED)
    assert states(attack)["duels"] == "now"


@pytest.mark.parametrize(
    ("seconds", "private", "exact", "shown"),
    [
        (None, True, False, ""),
        (0.2, True, False, "up to 30 s"),
        (30.0, True, False, "up to 30 s"),
        (30.1, True, False, "up to 60 s"),
        (71.26, True, True, "71.3 s"),
        (4.21, False, False, "4.2 s"),
    ],
)
def test_times_on_private_data_are_coarse(seconds: float | None, private: bool, exact: bool, shown: str) -> None:
    run: Any = SimpleNamespace(seconds=seconds, private=private)
    assert timeline.run_time(run, exact=exact) == shown


def test_organisers_alone_get_the_runs_themselves(ready: Ready) -> None:
    entry = ready("ada", "defense")
    lines = [line for moment in timeline.of(entry, exact=False).moments for line in moment.runs]
    assert lines
    assert all(line.run is None for line in lines)
    exact = [line.run for moment in timeline.of(entry, exact=True).moments for line in moment.runs]
    assert all(isinstance(run, Run) for run in exact)


def test_team_reads_that_an_entry_waits_for_the_operator_and_nothing_about_hosts(
    ready: Ready, clinic: Challenge, teams: dict[str, Team], client: Any
) -> None:
    clinic.walls = ["userns"]
    clinic.save()
    host = Host.objects.create(name="cellar", url="unix:///cellar", walls=["standard"])
    entry = ready("ada", "defense")
    client.force_login(teams["ada"].members.get())
    page = f"/submissions/{entry.pk}/"
    assert "waits for the operator" not in client.get(page).content.decode()

    hopeless.note()
    for language, words in (("en", "It waits for the operator of this site"), ("de", "alert alert-info")):
        content = client.get(page, headers={"Accept-Language": language}).content.decode()
        assert words in content
        assert "userns" not in content
        assert host.name not in content
    assert "userns" in entry.steps.order_by("-pk")[0].run.detail

    Host.objects.update(walls=["standard", "userns"])
    hopeless.note()
    assert "waits for the operator" not in client.get(page).content.decode()

"""Collusion flags and voided duels: who decides, what follows, and that nothing runs again."""

from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.forms.models import model_to_dict
from django.test import Client
from django.urls import reverse

from challenges.models import Challenge
from sandbox.models import Run
from submissions import actions, boards, oversight, standings
from submissions.models import Duel, Standing, Submission
from tests import played

pytestmark = pytest.mark.django_db

Ready = Callable[..., Submission]


@pytest.fixture
def told(ready: Ready) -> Duel:
    """Ben's attack knows Ada's members; two baselines find next to nothing."""
    defense = ready("ada", "defense", name="marked")
    for name in ("random", "loss"):
        ready("", "attack", role="baseline", name=name)
    ready("ben", "attack", name="ally")
    played.release(defense)
    played.duels(defense, ally=6.0)
    return Duel.objects.select_related("attack__challenge", "release__submission").get(attack__name="ally")


def rows_of_the_boards() -> list[dict[str, Any]]:
    return [model_to_dict(row, exclude=["id"]) for row in Standing.objects.order_by("submission")]


def test_an_attack_that_knows_too_much_is_flagged_when_its_duel_ends(told: Duel) -> None:
    assert told.suspected
    assert not Duel.objects.exclude(pk=told.pk).filter(suspected=True).exists()


def test_a_second_team_that_finds_the_same_takes_the_flag_away(told: Duel, ready: Ready, teams: Any) -> None:
    ready("", "attack", role="baseline", name="strong")
    played.duels(told.release.submission, strong=6.0)
    told.refresh_from_db()
    assert not told.suspected


def test_anchors_are_meant_to_leak(ready: Ready) -> None:
    ready("", "attack", role="baseline", name="random")
    ready("ben", "attack", name="sharp")
    anchor = ready("", "defense", role="leaky", name="leaky")
    played.release(anchor)
    played.duels(anchor, sharp=6.0)
    assert not Duel.objects.filter(suspected=True).exists()


def test_a_void_duel_counts_nowhere_and_nothing_runs_again(told: Duel, clinic: Challenge, olga: Any) -> None:
    before, runs = rows_of_the_boards(), Run.objects.count()
    attack, defense = told.attack, told.release.submission
    assert Standing.objects.get(submission=defense).worst_attack == attack

    actions.void_duel(duel=told, reason="  The release held  a mark. ", by=olga)

    row = Standing.objects.get(submission=defense)
    assert row.worst_leak is not None
    assert row.worst_leak < 0.15
    assert row.worst_attack != attack
    assert Standing.objects.get(submission=attack).score is None
    told.refresh_from_db()
    assert (told.void_reason, told.voided_by) == ("The release held a mark.", olga)
    cell = boards.matrix(challenge=clinic).cells[attack.pk, defense.pk]
    assert (cell.leak, cell.state, cell.void_reason) == (None, "void", "The release held a mark.")

    actions.unvoid_duel(duel=told, by=olga)
    assert rows_of_the_boards() == before
    assert Run.objects.count() == runs
    told.refresh_from_db()
    assert told.suspected
    assert [entry.change_message for entry in LogEntry.objects.order_by("pk")] == [
        "void: The release held a mark.",
        "void taken back",
    ]


def test_boards_after_voiding_are_those_without_the_duel(told: Duel, olga: Any) -> None:
    actions.void_duel(duel=told, reason="Told.", by=olga)
    void = rows_of_the_boards()
    Duel.objects.filter(pk=told.pk).update(void_reason="", state="failed", reason="platform_fault")
    standings.refresh_all(told.attack.challenge)
    assert rows_of_the_boards() == void


def test_only_organisers_void_with_a_reason_and_once(told: Duel, olga: Any, ada: Any) -> None:
    with pytest.raises(actions.Refused, match="Only organisers"):
        actions.void_duel(duel=told, reason="Mine.", by=ada)
    with pytest.raises(actions.Refused, match="Say why"):
        actions.void_duel(duel=told, reason="  ", by=olga)
    with pytest.raises(actions.Refused, match="300"):
        actions.void_duel(duel=told, reason="x" * 301, by=olga)
    with pytest.raises(actions.Refused, match="not void"):
        actions.unvoid_duel(duel=told, by=olga)
    actions.void_duel(duel=told, reason="Told.", by=olga)
    with pytest.raises(actions.Refused, match="void already"):
        actions.void_duel(duel=told, reason="Again.", by=olga)
    assert LogEntry.objects.count() == 1


def test_a_duel_under_way_is_waited_for(told: Duel, ready: Ready, olga: Any) -> None:
    ready("ben", "attack", name="late")
    with pytest.raises(actions.Refused, match="Wait"):
        actions.void_duel(duel=Duel.objects.get(attack__name="late"), reason="Early.", by=olga)


def test_anchors_say_if_the_game_is_sound(ready: Ready, clinic: Challenge) -> None:
    assert oversight.health(clinic) == []
    for name in ("random", "loss"):
        ready("", "attack", role="baseline", name=name)
    trivial, leaky = (ready("", "defense", role=role, name=role) for role in ("trivial", "leaky"))
    played.release(trivial)
    assert [(one.role, one.state) for one in oversight.health(clinic)] == [("trivial", "open"), ("leaky", "open")]
    played.duels(trivial, noise=0.0)  # noise is 3 errors off once in 370 tests
    played.release(leaky)
    played.duels(leaky, loss=3.0)
    assert [(one.role, one.state) for one in oversight.health(clinic)] == [("trivial", "sound"), ("leaky", "sound")]
    rows = Standing.objects.filter(submission__role__in=["trivial", "leaky"])
    rows.update(worst_leak=0.15, worst_leak_error=0.03)
    assert [(one.role, one.state) for one in oversight.health(clinic)] == [("trivial", "bad"), ("leaky", "bad")]


def test_the_page_says_why_and_voids(told: Duel, clinic: Challenge, olga: Any, ada: Any) -> None:
    url = reverse("challenge_oversight", args=[clinic.slug])
    act = reverse("challenge_void", args=[clinic.slug])
    browser = Client()
    assert browser.get(url).status_code == 302
    browser.force_login(ada)
    assert browser.get(url).status_code == 404
    assert browser.post(act, {"duel": told.pk, "reason": "Mine."}).status_code == 404
    browser.force_login(olga)
    page = browser.get(url).content.decode()
    assert "There is no trivial anchor in the development phase" in page
    assert "the best attack of any other team" in page
    assert "standard errors; a duel is flagged above 0.15 and 4." in page

    done = browser.post(act, {"duel": told.pk, "reason": "The release held <b>a mark</b>."}, follow=True)
    assert "is void. The boards have been worked out anew." in done.content.decode()
    matrix = Client().get(reverse("challenge_matrix", args=[clinic.slug])).content.decode()
    assert "“ally” against “marked”, voided: The release held &lt;b&gt;a mark&lt;/b&gt;." in matrix
    cells = Client().get("/api/v1/challenges/clinic/matrix").json()["cells"]
    assert {cell["state"] for cell in cells if cell["void_reason"]} == {"void"}

    back = browser.post(act, {"duel": told.pk, "do": "unvoid"}, follow=True)
    assert "counts again." in back.content.decode()
    assert browser.post(act, {"duel": "x"}).status_code == 404


def test_red_sentences_for_anchors_that_do_not_behave(ready: Ready, clinic: Challenge, olga: Any) -> None:
    ready("", "attack", role="baseline", name="random")
    for role in ("trivial", "leaky"):
        anchor = ready("", "defense", role=role, name=f"{role} one")
        played.release(anchor)
        played.duels(anchor)
    rows = Standing.objects.filter(submission__role__in=["trivial", "leaky"])
    rows.update(worst_leak=0.15, worst_leak_error=0.03)
    browser = Client()
    browser.force_login(olga)
    page = browser.get(reverse("challenge_oversight", args=[clinic.slug])).content.decode()
    for words in ("The harness leaks.", "The phase is void.", "“trivial one” ignores the data", "0.150 ± 0.030"):
        assert words in page

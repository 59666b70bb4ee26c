"""Entering an image with a plain form, for browsers without JavaScript."""

import os
from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client
from django.urls import reverse

from anomed_site.models import User
from challenges.models import Challenge
from submissions.models import Submission, Team

pytestmark = pytest.mark.django_db


@pytest.fixture
def url(clinic: Challenge, teams: dict[str, Team]) -> str:
    return reverse("submit", args=[clinic.slug])


def form(**more: Any) -> dict[str, Any]:
    archive = SimpleUploadedFile("my-attack.tar", b"an archive" * 100)
    return {"kind": "attack", "name": "", "note": "first try", "file": archive, **more}


def test_a_plain_form_brings_the_whole_file(browsers: dict[str, Client], url: str) -> None:
    answer = browsers["ada"].post(url, form(), follow=True)
    entry = Submission.objects.get()
    assert answer.redirect_chain == [(entry.get_absolute_url(), 302)]
    assert (entry.kind, entry.name, entry.note, entry.state) == ("attack", "my-attack", "first try", "checking")
    assert entry.upload.path.read_bytes() == b"an archive" * 100


def test_a_refusal_is_shown_in_the_form(browsers: dict[str, Client], url: str, clinic: Challenge) -> None:
    Challenge.objects.update(daily_quota=1)
    browsers["ada"].post(url, form())
    answer = browsers["ada"].post(url, form())
    assert answer.status_code == 422
    assert "has used all its entries of the last 24 hours" in answer.content.decode()
    assert Submission.objects.count() == 1


def test_a_form_without_a_file_is_explained(browsers: dict[str, Client], url: str) -> None:
    answer = browsers["ada"].post(url, {"kind": "attack"})
    assert answer.status_code == 422
    assert 'id="error_1_id_file"' in answer.content.decode()


def test_organisers_enter_anchors_without_a_team(browsers: dict[str, Client], url: str) -> None:
    browsers["olga"].post(url, form(kind="defense", role="trivial"))
    entry = Submission.objects.get()
    assert (entry.role, entry.team) == ("trivial", None)
    assert browsers["olga"].post(url, form(role="entry")).status_code == 422


def test_participants_cannot_enter_anchors(browsers: dict[str, Client], url: str) -> None:
    browsers["ada"].post(url, form(kind="defense", role="trivial"))
    assert Submission.objects.get().role == "entry"


@pytest.fixture
def unreadable(monkeypatch: pytest.MonkeyPatch) -> None:
    """No form can be taken apart."""

    def read(*_: object) -> None:
        raise AssertionError("the body was parsed")

    monkeypatch.setattr("django.http.request.HttpRequest._load_post_and_files", read)


def test_strangers_are_turned_away_before_their_file_is_read(url: str, unreadable: None) -> None:
    answer = Client(enforce_csrf_checks=True).post(url, form())
    assert answer.status_code == 302
    assert answer.headers["Location"].startswith(reverse("account_login"))


@pytest.mark.parametrize(
    ("who", "limits", "status", "said"),
    [
        ("carl", {}, 302, ""),  # has joined no team
        ("ada", {"daily_quota": 0}, 422, "has used all its entries of the last 24 hours"),
        ("ada", {"status": "closed"}, 422, "This challenge does not take entries now."),
        ("olga", {"status": "closed"}, 422, "This challenge does not take entries now."),
    ],
)
def test_who_may_enter_nothing_is_told_before_the_file_is_read(
    browsers: dict[str, Client],
    url: str,
    unreadable: None,
    who: str,
    limits: dict[str, Any],
    status: int,
    said: str,
) -> None:
    Challenge.objects.update(**limits)
    answer = browsers[who].post(url, form())
    assert answer.status_code == status
    assert said in answer.content.decode()


def test_the_form_needs_its_token(ada: User, url: str) -> None:
    browser = Client(enforce_csrf_checks=True)
    browser.force_login(ada)
    answer = browser.post(url, form())
    assert answer.status_code == 403
    assert "The form was too old" in answer.content.decode()
    assert not Submission.objects.exists()


def test_nothing_is_entered_in_a_closed_challenge(browsers: dict[str, Client], url: str) -> None:
    Challenge.objects.update(status="closed")
    assert "This challenge does not take entries now." in browsers["ada"].get(url).content.decode()
    assert browsers["ada"].post(url, form()).status_code == 422


@pytest.mark.parametrize(("installed", "ways"), [(True, 3), (False, 2)])
def test_docker_push_is_shown_where_it_is_possible(
    browsers: dict[str, Client],
    url: str,
    teams: dict[str, Team],
    settings: Any,
    monkeypatch: pytest.MonkeyPatch,
    installed: bool,
    ways: int,
) -> None:
    settings.REGISTRY = {"address": "arena.example.org"}
    monkeypatch.setenv("PATH", os.environ["PATH"] if installed else "/nowhere")
    page = browsers["ada"].get(url).content.decode()
    push = f"docker push arena.example.org/clinic/team-ada-{teams['ada'].pk}/NAME:defense"
    assert [text in page for text in ("data-upload-create", "anomed submit clinic", push)].count(True) == ways
    settings.REGISTRY = {"address": ""}
    assert "docker push" not in browsers["ada"].get(url).content.decode()

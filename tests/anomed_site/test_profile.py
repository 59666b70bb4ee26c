"""Tokens on the profile page: shown once, working, revocable, one's own."""

import re

import pytest
from django.test import Client
from django.urls import reverse
from knox.models import AuthToken
from knox.settings import knox_settings

pytestmark = pytest.mark.django_db


def create(browser: Client) -> str:
    page = browser.post(reverse("token_create")).content.decode()
    found = re.search(r'id="token">([0-9a-f]+)<', page)
    assert found
    return found.group(1)


def test_a_token_is_shown_once_and_works(browsers: dict[str, Client]) -> None:
    token = create(browsers["ada"])
    answer = Client().get("/api/v1/me", headers={"Authorization": f"Token {token}"})
    assert answer.json()["email"] == "ada@uni.test"
    page = browsers["ada"].get(reverse("profile")).content.decode()
    assert token not in page
    assert token[:8] in page


def test_a_revoked_token_works_no_more(browsers: dict[str, Client]) -> None:
    token = create(browsers["ada"])
    key = AuthToken.objects.get().token_key
    assert browsers["ben"].post(reverse("token_revoke", args=[key])).status_code == 404
    browsers["ada"].post(reverse("token_revoke", args=[key]))
    assert Client().get("/api/v1/me", headers={"Authorization": f"Token {token}"}).status_code == 401


def test_a_person_has_only_so_many_tokens(browsers: dict[str, Client]) -> None:
    for _ in range(knox_settings.TOKEN_LIMIT_PER_USER):
        create(browsers["ada"])
    answer = browsers["ada"].post(reverse("token_create"), follow=True)
    assert "Revoke one that you no longer use" in answer.content.decode()


def test_tokens_need_a_signed_in_person(client: Client) -> None:
    assert client.post(reverse("token_create")).status_code == 302
    assert not AuthToken.objects.exists()


def test_the_profile_lists_the_persons_teams_alone(browsers: dict[str, Client]) -> None:
    page = browsers["ada"].get(reverse("profile")).content.decode()
    assert "Team Ada" in page
    assert "Team Ben" not in page

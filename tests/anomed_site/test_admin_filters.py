"""What organisers see of the entries in their challenges, in the admin."""

import pytest
from django.test import Client
from django.urls import reverse

from anomed_site.models import User
from challenges.models import Challenge
from submissions.models import Team
from tests.conftest import person

pytestmark = pytest.mark.django_db

LISTS = ("team", "submission", "duel")


def filters(user: User, name: str) -> str:
    browser = Client()
    browser.force_login(user)
    return browser.get(reverse(f"admin:submissions_{name}_changelist")).content.decode()


@pytest.fixture
def drafts(clinic: Challenge, teams: dict[str, Team]) -> None:
    """A second challenge of Olga's, and two drafts of another clinic."""
    Challenge.objects.create(slug="second", title="Second of ours").organisers.add(*clinic.organisers.all())
    for number in range(2):
        Challenge.objects.create(slug=f"draft-{number}", title=f"Secret plan {number}")


@pytest.mark.parametrize("name", LISTS)
def test_organisers_filter_by_their_own_challenges_only(drafts: None, olga: User, name: str) -> None:
    page = filters(olga, name)
    assert "Second of ours" in page
    assert "Secret plan" not in page


@pytest.mark.parametrize("name", LISTS)
def test_superusers_filter_by_all_challenges(drafts: None, name: str) -> None:
    assert "Secret plan 0" in filters(person("root@arena.test", is_staff=True, is_superuser=True), name)

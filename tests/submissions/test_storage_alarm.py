"""Challenges that hold more than operators find normal."""

from collections.abc import Callable
from typing import Any

import pytest
from django.utils import timezone

from sandbox import alarms as operators
from sandbox.models import Image
from submissions import alarms
from submissions.models import Submission, Upload

pytestmark = pytest.mark.django_db

GB = 10**9


def test_images_count_once_and_uploads_as_far_as_they_came(
    ready: Callable[..., Submission], image: Image, settings: Any
) -> None:
    ready("ada", "attack")
    other = ready("ben", "attack")
    Image.objects.update(size=3 * GB)
    assert alarms.used() == {"clinic": 3 * GB}
    Submission.objects.filter(pk=other.pk).update(image=None)
    Upload.objects.create(
        submission=Submission.objects.create(**upload_of(other)), file_name="a", size=9 * GB, offset=2 * GB
    )
    assert alarms.used() == {"clinic": 5 * GB}
    settings.ALARM_CHALLENGE_GB = 5
    assert list(alarms.conditions()) == []
    settings.ALARM_CHALLENGE_GB = 4
    (condition,) = alarms.conditions()
    assert (condition.kind, condition.subject) == ("storage", "clinic")
    assert "5 GB, more than 4 GB" in condition.sentence
    Image.objects.update(removed_at=timezone.now())
    assert alarms.used() == {"clinic": 2 * GB}
    settings.ALARM_CHALLENGE_GB = 0
    assert list(alarms.conditions()) == []


def upload_of(other: Submission) -> dict[str, Any]:
    return {"challenge": other.challenge, "team": other.team, "kind": other.kind, "name": "on its way"}


def test_the_sandbox_asks() -> None:
    assert alarms.conditions in operators._watches
    assert operators.title("storage") == "Much storage used"

"""Images on their way in: uploads, and what `docker push` brought."""

import uuid
from datetime import timedelta
from pathlib import Path
from typing import ClassVar, Self

from django.conf import settings
from django.db import models
from django.utils import timezone
from django.utils.translation import gettext

from submissions.models.core import Submission, Team


class Upload(models.Model):
    """The bytes of a submission on their way in (tus 1.0). Deleted once the image is checked."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    submission = models.OneToOneField(Submission, models.CASCADE, related_name="upload")
    file_name = models.CharField(max_length=200)
    size = models.PositiveBigIntegerField()  # bytes
    offset = models.PositiveBigIntegerField(default=0)  # bytes that have arrived
    busy_until = models.DateTimeField(null=True)  # a request is writing
    updated_at = models.DateTimeField(auto_now=True)

    def __str__(self) -> str:
        return self.file_name

    @property
    def path(self) -> Path:
        return Path(settings.PRIVATE_ROOT) / "uploads" / str(self.pk)

    @property
    def is_complete(self) -> bool:
        return self.offset == self.size


class PushQuerySet(models.QuerySet["Push"]):
    def refused_lately(self) -> Self:
        """Pushes that became no entry, of the last days, newest first: their team is told why."""
        since = timezone.now() - timedelta(days=3)
        return self.exclude(refusal="").filter(pushed_at__gt=since).order_by("-pushed_at")


class Push(models.Model):
    """An image that `docker push` brought to the registry. The same digest under the same tag is one push."""

    team = models.ForeignKey(Team, models.CASCADE, related_name="pushes")
    by = models.ForeignKey(settings.AUTH_USER_MODEL, models.SET_NULL, null=True, related_name="+")
    repository = models.CharField(max_length=255)
    tag = models.CharField(max_length=128)
    digest = models.CharField(max_length=71)  # of the manifest or index that the tag stood for
    pushed_at = models.DateTimeField(default=timezone.now)
    entered = models.BooleanField(default=False)  # it became an entry, which may be gone again
    submission = models.OneToOneField(Submission, models.SET_NULL, null=True, related_name="push")
    refusal = models.TextField(blank=True)  # one English sentence: why it became no entry
    removed = models.BooleanField(default=False)  # the registry no longer has its manifest

    objects = PushQuerySet.as_manager()

    class Meta:
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(fields=["repository", "tag", "digest"], name="one_push_per_digest_and_tag"),
        ]

    def __str__(self) -> str:
        return f"{self.repository}:{self.tag}"

    @property
    def why_not(self) -> str:
        """The refusal in the reader's language."""
        return gettext(self.refusal) if self.refusal else ""

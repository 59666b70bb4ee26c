"""The private data of a challenge, and the report of the last check."""

import secrets
from datetime import timedelta
from pathlib import Path
from typing import ClassVar, Final

from django.core.validators import RegexValidator
from django.db import models
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from challenges.findings import Finding
from challenges.models.core import Challenge
from challenges.tables import Schema

FILE_NAME_LENGTH: Final = 200


def dataset_path(dataset: "Dataset", name: str) -> str:
    return f"datasets/{dataset.challenge.slug}/{secrets.token_hex(8)}-{name}"


class Dataset(models.Model):
    """The private table of a challenge, and the public sample that looks like it."""

    class Origin(models.TextChoices):
        GENERATED = "generated", _("generated from independent marginals")
        OWN = "own", _("the organiser's own file")

    challenge = models.OneToOneField(Challenge, models.CASCADE, related_name="dataset", verbose_name=_("challenge"))
    source = models.FileField(upload_to=dataset_path)  # as it was uploaded, to be read again when columns change
    table = models.FileField(_("private table"), upload_to=dataset_path)  # canonical Parquet
    sample = models.FileField(_("public sample"), upload_to=dataset_path, blank=True)  # canonical Parquet
    sample_sha256 = models.CharField(max_length=64, blank=True, validators=[RegexValidator(r"^[0-9a-f]{64}$")])
    sample_origin = models.CharField(_("sample"), max_length=10, choices=Origin, default=Origin.GENERATED)
    file_name = models.CharField(_("uploaded file"), max_length=FILE_NAME_LENGTH)
    sha256 = models.CharField(max_length=64, validators=[RegexValidator(r"^[0-9a-f]{64}$")])
    rows = models.PositiveIntegerField(_("records"))
    sample_rows = models.PositiveIntegerField(_("records of the sample"), default=0)  # 0 while no target is chosen
    profile = models.JSONField(_("profile"), default=dict)
    schema_json = models.JSONField(_("columns"), default=dict)
    uploaded_at = models.DateTimeField(_("uploaded"), default=timezone.now)

    class Meta:
        verbose_name = _("dataset")
        verbose_name_plural = _("datasets")

    def __str__(self) -> str:
        return f"{self.challenge.slug}: {self.file_name}"

    @property
    def schema(self) -> Schema:
        return Schema.from_json(self.schema_json)

    @property
    def table_path(self) -> Path:
        return Path(self.table.path)

    @property
    def sample_path(self) -> Path:
        return Path(self.sample.path)


# A check takes a minute; after this long its worker must have been killed, and another check may be started.
PATIENCE = timedelta(minutes=20)


class CheckReport(models.Model):
    """What the check before publishing found. Only the newest one for the present data and settings counts."""

    class State(models.TextChoices):
        RUNNING = "running", _("running")
        PASSED = "passed", _("passed")
        FAILED = "failed", _("failed")

    challenge = models.ForeignKey(Challenge, models.CASCADE, related_name="reports", verbose_name=_("challenge"))
    state = models.CharField(_("result"), max_length=10, choices=State, default=State.RUNNING)
    items = models.JSONField(_("findings"), default=list)  # findings.Finding.to_json
    fingerprint = models.CharField(max_length=64)  # of the data and the settings that were checked
    created_at = models.DateTimeField(_("checked"), auto_now_add=True)
    finished_at = models.DateTimeField(null=True)

    class Meta:
        verbose_name = _("check")
        verbose_name_plural = _("checks")
        ordering: ClassVar[list[str]] = ["-created_at"]
        get_latest_by = "created_at"

    def __str__(self) -> str:
        return f"{self.challenge}: {self.get_state_display()}"

    @property
    def findings(self) -> list[Finding]:
        """What the check found, with titles and sentences in the reader's language."""
        return [Finding.from_json(item) for item in self.items]

    @property
    def is_running(self) -> bool:
        """Whether a worker is (or should be) at it; one that has been silent for too long has died."""
        return self.state == self.State.RUNNING and timezone.now() - self.created_at < PATIENCE

    @property
    def warnings(self) -> int:
        return sum(finding.level == "warning" for finding in self.findings)

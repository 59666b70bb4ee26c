"""Blind controls (SCORING 4): an attack against a release made from other people than those it is asked about.

They are no duels and no releases, and no score is computed from them: whoever wants them asks for them by name.
"""

from pathlib import Path
from typing import ClassVar, Self

from django.conf import settings
from django.db import models
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from challenges.models import Phase
from sandbox.models import Run
from sandbox.reasons import Reason
from submissions.models.core import Submission


class Part(models.Model):
    """What twins and controls share: one container at a time, and what became of it."""

    class State(models.TextChoices):
        PENDING = "pending", _("pending")
        DONE = "done", _("done")
        FAILED = "failed", _("failed")

    run = models.OneToOneField(Run, models.PROTECT, related_name="+")  # the last one
    state = models.CharField(_("state"), max_length=8, choices=State, default=State.PENDING)
    reason = models.CharField(_("failure"), max_length=20, choices=Reason, blank=True)
    finished_at = models.DateTimeField(null=True)

    class Meta:
        abstract = True

    def end(self, state: "Part.State", reason: str = "") -> None:
        """Writes down how its last run ended; further columns are saved with it."""
        self.state, self.reason, self.finished_at = state, reason, timezone.now()
        self.save()


class Twin(Part):
    """An anchor that was run once more, for one seed of a phase, on people who were dealt again."""

    defense = models.ForeignKey(Submission, models.CASCADE, related_name="twins")
    phase = models.ForeignKey(Phase, models.CASCADE, related_name="twins")
    seed = models.PositiveIntegerField()
    previous = models.ForeignKey(Run, models.PROTECT, null=True, related_name="+")  # the step before, which it reads

    class Meta:
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(fields=["defense", "phase", "seed"], name="one_twin_per_release"),
        ]

    def __str__(self) -> str:
        return f"{self.defense_id} seed {self.seed}, dealt again"

    @property
    def folder(self) -> Path:
        """Its canonical files, beside the releases of the anchor: they go together."""
        return Path(settings.PRIVATE_ROOT) / "releases" / str(self.defense_id) / f"twin-{self.phase_id}-{self.seed}"


class ControlQuerySet(models.QuerySet["Control"]):
    def pending(self) -> Self:
        return self.filter(state=Control.State.PENDING)

    def of_phase(self, phase: Phase) -> Self:
        return self.filter(twin__phase=phase)


class Control(Part):
    """An attack against a twin. Whatever it takes there is not from the release."""

    attack = models.ForeignKey(Submission, models.CASCADE, related_name="controls")
    twin = models.ForeignKey(Twin, models.CASCADE, related_name="controls")
    leak = models.FloatField(null=True)  # beyond chance, signed: see challenges.metrics.control.Excess
    error = models.FloatField(null=True)  # the standard error of chance
    detail = models.JSONField(default=dict)  # plain numbers, see scenarios.base.Leaks

    objects = ControlQuerySet.as_manager()

    class Meta:
        verbose_name = _("blind control")
        verbose_name_plural = _("blind controls")
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(fields=["attack", "twin"], name="one_control_per_twin"),
        ]

    def __str__(self) -> str:
        return f"{self.attack_id}: blind control"

"""What is worked out from duels, per phase: standings, exposures, and whether intervals are due."""

from typing import ClassVar, Self

from django.db import models
from django.db.models import F
from django.utils import timezone

from challenges.metrics import rounding
from challenges.models import Phase
from submissions.models.core import Submission


class StandingQuerySet(models.QuerySet["Standing"]):
    def on_board(self, *, phase: Phase, kind: str) -> Self:
        """The rows of a phase's board, best first; who is not ranked at its place among them."""
        return (
            self.filter(phase=phase, submission__in=Submission.objects.playing(phase).filter(kind=kind))
            .select_related("submission", "submission__team", "phase")
            .order_by(
                F("public_score").desc(nulls_last=True),
                F("public_privacy").desc(nulls_last=True),
                F("public_utility").desc(nulls_last=True),
                "submission__created_at",
            )
        )


class Standing(models.Model):
    """A row of a phase's leaderboard. Exact columns are the organiser's, `public_` ones everybody's."""

    submission = models.ForeignKey(Submission, models.CASCADE, related_name="standings")
    phase = models.ForeignKey(Phase, models.CASCADE, related_name="standings")
    qualified = models.BooleanField(default=False)
    utility = models.FloatField(null=True)  # U
    worst_leak = models.FloatField(null=True)  # W before clipping
    worst_leak_error = models.FloatField(null=True)  # its standard error
    worst_attack = models.ForeignKey(Submission, models.SET_NULL, null=True, related_name="+")
    privacy = models.FloatField(null=True)  # P
    mean_leak = models.FloatField(null=True)  # attacks: mean s(a, d) over the defenses that count
    score = models.FloatField(null=True)  # S of a defense, Q of an attack, 0 to 100
    public_utility = models.FloatField(null=True)
    public_worst_leak = models.FloatField(null=True)
    public_privacy = models.FloatField(null=True)
    public_mean_leak = models.FloatField(null=True)
    public_score = models.FloatField(null=True)
    # 95 % intervals: {"utility", "worst_leak", "privacy", "mean_leak", "score": [low, high]}, those that there are
    intervals = models.JSONField(default=dict)
    band = models.PositiveIntegerField(null=True)  # 1: not to be told from the leader; None: not worked out yet
    facts = models.JSONField(default=dict)  # further plain numbers for readers
    updated_at = models.DateTimeField(auto_now=True)

    objects = StandingQuerySet.as_manager()

    class Meta:
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(fields=["submission", "phase"], name="one_standing_per_phase"),
        ]

    def __str__(self) -> str:
        return f"{self.submission_id}: {self.public_score}"

    @property
    def is_open_to_rank(self) -> bool:
        """Whether it belongs to an entry of which everything is known that an order needs."""
        return self.submission.is_ranked_in(self.phase) and self.privacy is not None

    def number(self, name: str, *, public: bool = False) -> float | None:
        """One of its numbers: a column, or one that the reckoning left among the facts."""
        if name in self.facts:
            value: float = self.facts[name]
            return rounding.public(value) if public else value
        return getattr(self, f"public_{name}" if public else name, None)


class Exposure(models.Model):
    """How far single records of a defense stand out, over all duels that count; never a record's own value."""

    submission = models.ForeignKey(Submission, models.CASCADE, related_name="exposures")
    phase = models.ForeignKey(Phase, models.CASCADE, related_name="+")
    facts = models.JSONField(default=dict)  # challenges.metrics.exposure.Exposure; empty if it cannot be measured
    duels = models.PositiveIntegerField()  # that it was measured from
    measured_at = models.DateTimeField()

    class Meta:
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(fields=["submission", "phase"], name="one_exposure_per_phase"),
        ]

    def __str__(self) -> str:
        return f"{self.submission_id}: exposure"


class ReckoningQuerySet(models.QuerySet["Reckoning"]):
    def due(self) -> Self:
        """Phases whose numbers have changed since, and whose turn it is."""
        return self.exclude(changes=F("reckoned")).filter(next_at__lte=timezone.now())


class Reckoning(models.Model):
    """How far the intervals and bands of a phase follow its numbers; see `reckoning`."""

    phase = models.OneToOneField(Phase, models.CASCADE, primary_key=True, related_name="reckoning")
    changes = models.PositiveBigIntegerField(default=0)  # goes up whenever numbers of the phase change
    reckoned = models.PositiveBigIntegerField(default=0)  # `changes` at the last reckoning
    next_at = models.DateTimeField(default=timezone.now)  # nobody is asked to reckon before

    objects = ReckoningQuerySet.as_manager()

    def __str__(self) -> str:
        return f"{self.phase_id}: {self.reckoned} of {self.changes}"

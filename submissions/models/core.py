"""Teams and their entries, and what comes of them: releases, duels, and the runs of both."""

import uuid
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from django.conf import settings
from django.db import models
from django.db.models import Exists, OuterRef, Q
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from challenges.models import Challenge, Phase
from sandbox.contracts import Contract
from sandbox.models import Image, Run
from sandbox.reasons import Reason
from submissions.states import MOVES, OVER, READY, MoveNotAllowed, State

if TYPE_CHECKING:
    from submissions.models.boards import Standing


class Team(models.Model):
    """Who enters a challenge. Its name is all that others see of its members."""

    challenge = models.ForeignKey(Challenge, models.CASCADE, related_name="teams", verbose_name=_("challenge"))
    name = models.CharField(_("team name"), max_length=60)
    members: "models.ManyToManyField[Any, Membership]" = models.ManyToManyField(
        settings.AUTH_USER_MODEL, through="Membership", related_name="teams", verbose_name=_("members")
    )
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        verbose_name = _("team")
        verbose_name_plural = _("teams")
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(fields=["challenge", "name"], name="team_name_once_per_challenge"),
        ]

    def __str__(self) -> str:
        return self.name


class Membership(models.Model):
    """A person in a team, and when they accepted the rules."""

    team = models.ForeignKey(Team, models.CASCADE, related_name="memberships")
    challenge = models.ForeignKey(Challenge, models.CASCADE, related_name="memberships")
    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, related_name="memberships")
    accepted_rules_at = models.DateTimeField(default=timezone.now)

    class Meta:
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(fields=["challenge", "user"], name="one_team_per_person_and_challenge"),
        ]

    def __str__(self) -> str:
        return f"{self.user_id} in {self.team_id}"


class SubmissionQuerySet(models.QuerySet["Submission"]):
    def defenses(self) -> Self:
        return self.filter(kind=Submission.Kind.DEFENSE)

    def attacks(self) -> Self:
        return self.filter(kind=Submission.Kind.ATTACK)

    def active(self) -> Self:
        """Entries that take part in duels now: rehearsed, chosen by their team, neither withdrawn nor disqualified."""
        return self.filter(state__in=READY, active=True)

    def taking_part(self, phase: Phase) -> Self:
        """Entries whose duels count in a phase: those that are active, in a final those that were picked for it.

        Anchors and baselines take part in every phase while they are active.
        """
        if phase.kind == Phase.Kind.FINAL:
            return self.filter(Q(role=Submission.Role.ENTRY, picked=True) | ~Q(role="entry") & Q(active=True)).filter(
                state__in=READY, challenge=phase.challenge_id
            )
        return self.active().filter(challenge=phase.challenge_id)

    def playing(self, phase: Phase) -> Self:
        """Entries that have duels in a phase: those that take part, in a final the late ones too."""
        if not phase.is_final:
            return self.taking_part(phase)
        late = self.filter(late=True, state__in=READY, challenge=phase.challenge_id)
        return self.taking_part(phase) | late

    def long_over(self, since: datetime) -> Self:
        """Entries that were over before then and owe nothing: out for good, or of a challenge that is closed.

        Neither comes back: no move leads out of those states, and no challenge opens again.
        """
        out = Q(state__in=[State.FAILED, State.WITHDRAWN, State.DISQUALIFIED], ended_at__lt=since)
        closed = Q(challenge__status=Challenge.Status.CLOSED, challenge__closed_at__lt=since)
        owed = Duel.objects.pending().filter(Q(attack=OuterRef("pk")) | Q(release__submission=OuterRef("pk")))
        alive = [Run.State.QUEUED, Run.State.RUNNING]
        runs = Step.objects.filter(
            Q(submission=OuterRef("pk")) | Q(duel__release__submission=OuterRef("pk")), run__state__in=alive
        )
        return self.filter(out | closed, ~Exists(owed), ~Exists(runs), state__in=OVER)

    def of_team(self, team: Team | None) -> Self:
        return self.filter(team=team)

    def of_user(self, user: Any) -> Self:
        """A person's own entries: those of their teams."""
        return self.filter(team__memberships__user=user) if user.is_authenticated else self.none()

    def readable_by(self, user: Any) -> Self:
        """Own entries, and all entries of challenges that the person organises."""
        if not user.is_authenticated:
            return self.none()
        if user.is_superuser:
            return self
        return self.filter(Q(team__memberships__user=user) | Q(challenge__organisers=user)).distinct()

    def with_context(self) -> Self:
        return self.select_related("challenge", "team", "image", "upload", "first_phase").prefetch_related(
            "challenge__phases", "standings"
        )


class Submission(models.Model):
    """One image, entered as a defense or an attack; immutable from its upload on."""

    class Kind(models.TextChoices):
        DEFENSE = "defense", _("defense")
        ATTACK = "attack", _("attack")

    class Role(models.TextChoices):
        ENTRY = "entry", _("entry")
        TRIVIAL = "trivial", _("trivial anchor")
        TUNED = "tuned", _("tuned anchor")
        LEAKY = "leaky", _("leaky anchor")
        BASELINE = "baseline", _("baseline")

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    challenge = models.ForeignKey(Challenge, models.CASCADE, related_name="submissions", verbose_name=_("challenge"))
    team = models.ForeignKey(
        Team, models.CASCADE, related_name="submissions", null=True, blank=True, verbose_name=_("team")
    )
    kind = models.CharField(_("kind"), max_length=8, choices=Kind)
    role = models.CharField(_("role"), max_length=8, choices=Role, default=Role.ENTRY)
    # empty until the image is checked, if nothing was chosen: then the image's own label says it
    contract = models.CharField(_("contract"), max_length=20, choices=Contract, blank=True, default=Contract.FILES)
    name = models.CharField(_("name"), max_length=80)
    note = models.CharField(_("note"), max_length=200, blank=True)
    created_by = models.ForeignKey(settings.AUTH_USER_MODEL, models.SET_NULL, null=True, related_name="+")
    image = models.ForeignKey(Image, models.PROTECT, null=True, related_name="+", verbose_name=_("image"))
    state = models.CharField(_("state"), max_length=12, choices=State, default=State.UPLOADING)
    active = models.BooleanField(_("active"), default=False)
    picked = models.BooleanField(_("picked for the final"), default=False)
    late = models.BooleanField(_("late"), default=False)  # plays in the final, without a rank
    # where it became ready, of entries that came when the final was on; None: in development
    first_phase = models.ForeignKey(Phase, models.SET_NULL, null=True, related_name="+")
    failure_reason = models.CharField(_("failure"), max_length=20, choices=Reason, blank=True)
    failure_cause = models.CharField(_("cause"), max_length=20, choices=Reason, blank=True)  # within a rehearsal
    failure_detail = models.TextField(blank=True)  # for the team: of the upload or the rehearsal, never of private data
    # What its team declares of (epsilon, delta)-differential privacy; nobody verifies it.
    declared_epsilon = models.FloatField(_("declared epsilon"), null=True, blank=True)
    declared_delta = models.FloatField(_("declared delta"), null=True, blank=True)
    created_at = models.DateTimeField(_("created"), default=timezone.now)
    ready_at = models.DateTimeField(null=True)
    ended_at = models.DateTimeField(null=True)

    objects = SubmissionQuerySet.as_manager()

    class Meta:
        verbose_name = _("submission")
        verbose_name_plural = _("submissions")
        ordering: ClassVar[list[str]] = ["-created_at"]
        indexes: ClassVar[list[models.Index]] = [models.Index(fields=["challenge", "kind", "state", "active"])]
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.CheckConstraint(
                name="anchors_have_no_team",
                condition=Q(role="entry", team__isnull=False) | (~Q(role="entry") & Q(team__isnull=True)),
            ),
            models.CheckConstraint(
                name="role_fits_kind",
                condition=Q(role="entry")
                | Q(kind="defense", role__in=["trivial", "tuned", "leaky"])
                | Q(kind="attack", role="baseline"),
            ),
        ]

    def __str__(self) -> str:
        return self.name

    def get_absolute_url(self) -> str:
        return reverse("submission", args=[self.pk])

    @property
    def is_defense(self) -> bool:
        return self.kind == self.Kind.DEFENSE

    @property
    def is_ranked(self) -> bool:
        """Anchors and baselines are in every matrix and never ranked."""
        return self.role == self.Role.ENTRY

    def is_ranked_in(self, phase: Phase) -> bool:
        """Late entries play in a final and are not ranked there."""
        return self.is_ranked and not (phase.is_final and self.late)

    @property
    def standing(self) -> "Standing | None":
        """Its row of the boards that are shown now."""
        phase = self.challenge.shown_phase
        return next((row for row in self.standings.all() if phase is not None and row.phase_id == phase.pk), None)

    def is_judged_in(self, phase: Phase) -> bool:
        """Whether what happens in this phase makes the entry's state: in the one in which it became ready."""
        return not phase.is_final if self.first_phase_id is None else self.first_phase_id == phase.pk

    @property
    def owner(self) -> str:
        """Whose turn a run of this entry uses up, for the fair share of the machines."""
        return f"team-{self.team_id}" if self.team_id else "organiser"

    def move_to(self, state: State) -> None:
        """Takes the entry to `state` if the table allows it, and saves that. Raises MoveNotAllowed."""
        if state not in MOVES[State(self.state)]:
            raise MoveNotAllowed(f"{self.pk}: {self.state} -> {state}")
        self.state = state
        now = timezone.now()
        if state == State.QUEUED:
            self.ready_at = now
        if state in {State.SCORED, State.FAILED, State.WITHDRAWN, State.DISQUALIFIED}:
            self.ended_at = now
        if state in {State.FAILED, State.WITHDRAWN, State.DISQUALIFIED}:
            self.active = False
            self.save(update_fields=["active"])
        self.save(update_fields=["state", "ready_at", "ended_at"])


# What belongs to a final that is not revealed: nobody but its organisers may know that it is there.
def _sealed(phase: str) -> Q:
    return Q(**{f"{phase}__kind": Phase.Kind.FINAL, f"{phase}__revealed_at": None})


class ReplicatesManager(models.Manager[Any]):
    """Leaves the replicates in the database until somebody reads them: they are large, and few ask for them."""

    def get_queryset(self) -> models.QuerySet[Any]:
        return super().get_queryset().defer("replicates")


class ReleaseQuerySet(models.QuerySet["Release"]):
    def in_play(self, phase: Phase) -> Self:
        """Releases of a phase that attacks meet now."""
        return self.filter(phase=phase, submission__in=Submission.objects.playing(phase))


class Release(models.Model):
    """What a defense gave away in one run, canonical and content-addressed."""

    submission = models.ForeignKey(Submission, models.CASCADE, related_name="releases")
    phase = models.ForeignKey(Phase, models.CASCADE, related_name="releases")
    seed = models.PositiveIntegerField()
    sha256 = models.CharField(max_length=64)
    utility = models.FloatField()  # raw utility u of SCORING 2
    replicates = models.BinaryField(null=True)  # u over each resample: bootstrap.pack of [RESAMPLES]
    facts = models.JSONField(default=dict)  # further numbers for readers, see scenarios.base.Utility
    created_at = models.DateTimeField(auto_now_add=True)

    objects = ReplicatesManager.from_queryset(ReleaseQuerySet)()

    class Meta:
        verbose_name = _("release")
        verbose_name_plural = _("releases")
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(fields=["submission", "phase", "seed"], name="one_release_per_seed"),
        ]

    def __str__(self) -> str:
        return f"{self.submission_id} seed {self.seed}"

    @property
    def folder(self) -> Path:
        return Path(settings.PRIVATE_ROOT) / "releases" / str(self.submission_id) / f"{self.phase_id}-{self.seed}"


class DuelQuerySet(models.QuerySet["Duel"]):
    def known(self) -> Self:
        """Duels that teams and the public may know of: none of a final that is not revealed."""
        return self.exclude(_sealed("release__phase"))

    def done(self) -> Self:
        return self.filter(state=Duel.State.DONE)

    def pending(self) -> Self:
        return self.filter(state=Duel.State.PENDING)

    def valid(self) -> Self:
        """Duels that no organiser has voided: all others count nowhere."""
        return self.filter(void_reason="")

    def decided(self) -> Self:
        """Valid duels of which it is settled what they say: with a result, or failed by the attack's own fault."""
        return self.valid().exclude(state=Duel.State.PENDING).exclude(reason=Reason.PLATFORM_FAULT)

    def between(self, *, attack: Submission, defense: Submission) -> Self:
        return self.filter(attack=attack, release__submission=defense)


class Duel(models.Model):
    """One attack against one release."""

    class State(models.TextChoices):
        PENDING = "pending", _("pending")
        DONE = "done", _("done")
        FAILED = "failed", _("failed")

    attack = models.ForeignKey(Submission, models.CASCADE, related_name="duels")
    release = models.ForeignKey(Release, models.CASCADE, related_name="duels")
    state = models.CharField(_("state"), max_length=8, choices=State, default=State.PENDING)
    reason = models.CharField(_("failure"), max_length=20, choices=Reason, blank=True)
    leaks = models.JSONField(default=list)  # [fold][metric], see scenarios.base.Leaks
    errors = models.JSONField(default=list)  # their standard errors, same shape
    replicates = models.BinaryField(null=True)  # bootstrap.pack of [RESAMPLES, folds, metrics]
    mean_leak = models.FloatField(null=True)  # mean over folds and metrics: s(a, d) of SCORING 3, signed
    detail = models.JSONField(default=dict)  # plain numbers, see scenarios.base.Leaks
    suspected = models.BooleanField(_("suspected of collusion"), default=False)
    voided_at = models.DateTimeField(null=True)
    void_reason = models.CharField(_("voided because"), max_length=300, blank=True)  # public; not empty: counts nowhere
    voided_by = models.ForeignKey(settings.AUTH_USER_MODEL, models.SET_NULL, null=True, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)
    finished_at = models.DateTimeField(null=True)

    objects = ReplicatesManager.from_queryset(DuelQuerySet)()

    class Meta:
        verbose_name = _("duel")
        verbose_name_plural = _("duels")
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(fields=["attack", "release"], name="one_duel_per_pair"),
        ]
        indexes: ClassVar[list[models.Index]] = [models.Index(fields=["release", "state"])]

    def __str__(self) -> str:
        return f"{self.attack_id} against {self.release_id}"


class StepQuerySet(models.QuerySet["Step"]):
    def known(self) -> Self:
        """Steps that a team may know of: none of a final that is not revealed."""
        return self.exclude(_sealed("phase"))


class Step(models.Model):
    """One run of a submission: a step of its rehearsal (no phase), of its release, or a duel."""

    submission = models.ForeignKey(Submission, models.CASCADE, related_name="steps")
    run = models.OneToOneField(Run, models.PROTECT, related_name="+")
    name = models.CharField(max_length=20)  # ANOMED_STEP
    phase = models.ForeignKey(Phase, models.CASCADE, null=True, related_name="+")
    seed = models.PositiveIntegerField(default=0)
    duel = models.OneToOneField(Duel, models.CASCADE, null=True, related_name="step")
    previous = models.ForeignKey("self", models.SET_NULL, null=True, related_name="+")  # whose folders it reads
    # of a web server: routes with their last status, rows asked (queries), and those asked live
    exchange = models.JSONField(default=dict, blank=True)

    objects = StepQuerySet.as_manager()

    class Meta:
        ordering: ClassVar[list[str]] = ["pk"]

    def __str__(self) -> str:
        return f"{self.submission_id} {self.name}"

    @property
    def is_rehearsal(self) -> bool:
        return self.phase_id is None

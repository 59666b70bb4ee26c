"""Challenges and their phases."""

import secrets
from datetime import datetime
from typing import Any, ClassVar, Final, Self
from zoneinfo import available_timezones

from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.db.models import F, Q
from django.utils import timezone
from django.utils.translation import get_language
from django.utils.translation import gettext_lazy as _
from simple_history.models import HistoricalRecords

from challenges import splits, tables, walls
from challenges.metrics.utility import METRICS
from challenges.scenarios import registry
from challenges.scenarios.base import Game
from challenges.splits import Deal, Sizes

# The public sample is dealt by a public secret: there is nothing to protect, and rehearsals are repeatable.
SAMPLE_SECRET: Final = b"public sample"
SAMPLE_FOLDS: Final = 2


def scenario_choices() -> list[tuple[str, Any]]:
    return [(slug, scenario.title) for slug, scenario in registry.SCENARIOS.items()]


def metric_choices() -> list[tuple[str, Any]]:
    return [(name, name.replace("_", " ")) for name in METRICS]


def zone_choices() -> list[tuple[str, str]]:
    return [(zone, zone) for zone in sorted(available_timezones()) if "/" in zone or zone == "UTC"]


def _share(default: float, *, label: Any, help_text: Any) -> "models.FloatField[float, float]":
    return models.FloatField(
        label, default=default, help_text=help_text, validators=[MinValueValidator(0.0), MaxValueValidator(1.0)]
    )


class ChallengeQuerySet(models.QuerySet["Challenge"]):
    def visible(self) -> Self:
        """Challenges that anybody may look at."""
        return self.exclude(status=Challenge.Status.DRAFT)

    def visible_to(self, user: Any) -> Self:
        """The public ones, and drafts for their organisers."""
        if not user.is_authenticated:
            return self.visible()
        if user.is_superuser:
            return self
        return self.filter(~Q(status=Challenge.Status.DRAFT) | Q(organisers=user)).distinct()

    def open(self) -> Self:
        """Challenges that take entries now."""
        now = timezone.now()
        return self.filter(
            Q(phases__closes_at=None) | Q(phases__closes_at__gt=now),
            status=Challenge.Status.PUBLISHED,
            phases__opens_at__lte=now,
        ).distinct()


class Challenge(models.Model):
    """A published game: what is protected, against whom, with which data, and how it is scored."""

    class Status(models.TextChoices):
        DRAFT = "draft", _("draft")
        PUBLISHED = "published", _("published")
        CLOSED = "closed", _("closed")

    class Ranking(models.TextChoices):
        HARMONIC = "harmonic", _("harmonic mean of utility and privacy")
        GATE = "gate", _("enough utility, then privacy")
        PRODUCT = "product", _("utility times what does not leak")
        PARETO = "pareto", _("Pareto front of utility and worst leak")
        TPR = "tpr", _("true-positive rate at few false positives only")
        EPSILON = "epsilon", _("audited epsilon")

    slug = models.SlugField(_("short name"), unique=True, help_text=_("Part of every address of the challenge."))
    title = models.CharField(_("title"), max_length=120)
    title_de = models.CharField(_("title (German)"), max_length=120, blank=True)
    summary = models.CharField(_("summary"), max_length=300, help_text=_("One sentence for the list of challenges."))
    summary_de = models.CharField(_("summary (German)"), max_length=300, blank=True)
    overview = models.TextField(_("overview"), blank=True, help_text=_("Markdown."))
    overview_de = models.TextField(_("overview (German)"), blank=True, help_text=_("Markdown."))
    data_text = models.TextField(_("about the data"), blank=True, help_text=_("Markdown."))
    data_text_de = models.TextField(_("about the data (German)"), blank=True, help_text=_("Markdown."))
    rules = models.TextField(_("rules"), blank=True, help_text=_("Markdown. Participants accept them when they join."))
    rules_de = models.TextField(_("rules (German)"), blank=True, help_text=_("Markdown."))
    scenario = models.CharField(_("scenario"), max_length=40, choices=scenario_choices)
    status = models.CharField(_("status"), max_length=10, choices=Status, default=Status.DRAFT, editable=False)
    organisers = models.ManyToManyField(
        settings.AUTH_USER_MODEL,
        verbose_name=_("organisers"),
        related_name="organised_challenges",
        blank=True,
        help_text=_("They may edit the challenge, read its data and logs, and enter anchors and baselines."),
    )
    time_zone = models.CharField(
        _("time zone"),
        max_length=40,
        choices=zone_choices,
        default="Europe/Berlin",
        help_text=_("Dates of the phases are read and shown in it."),
    )

    seconds = models.PositiveIntegerField(_("time limit of a step (s)"), default=600, validators=[MinValueValidator(1)])
    memory_mb = models.PositiveIntegerField(_("memory (MB)"), default=4096, validators=[MinValueValidator(64)])
    cpus = models.PositiveIntegerField(_("processors"), default=1, validators=[MinValueValidator(1)])
    gpus = models.PositiveIntegerField(_("GPUs"), default=0)
    gpu_memory_mb = models.PositiveIntegerField(_("memory of each GPU (MB)"), default=0)
    output_mb = models.PositiveIntegerField(_("output (MB)"), default=512, validators=[MinValueValidator(1)])
    pids = models.PositiveIntegerField(_("processes"), default=256, validators=[MinValueValidator(16)])
    walls = models.JSONField(
        _("demanded walls"),
        default=list,
        blank=True,
        help_text=_("Runs go only to hosts that offer all of them."),
    )

    daily_quota = models.PositiveIntegerField(
        _("entries a day"), default=3, help_text=_("Per team. Entries that fail before a private run do not count.")
    )
    total_quota = models.PositiveIntegerField(_("entries in all"), default=40, help_text=_("Per team."))
    failure_quota = models.PositiveIntegerField(
        _("failed entries a day"), default=20, help_text=_("Per team, rehearsals included.")
    )
    active_limit = models.PositiveIntegerField(
        _("active entries"), default=2, help_text=_("Defenses and attacks of a team that take part in duels at a time.")
    )

    metric = models.CharField(_("utility metric"), max_length=30, choices=metric_choices, default="auroc")
    ranking = models.CharField(
        _("ranking of the defenses"),
        max_length=10,
        choices=Ranking,
        default=Ranking.HARMONIC,
        help_text=_("How utility and privacy become an order. It cannot change once the challenge has opened."),
    )
    novelty_prize = models.BooleanField(
        _("novelty prize"),
        default=False,
        help_text=_("The attacks’ board also shows what nobody else would have found."),
    )
    options = models.JSONField(
        _("settings of the scenario"), default=dict, blank=True, help_text=_("A JSON object; empty: its defaults.")
    )
    white_box = models.BooleanField(
        _("white box"), default=False, help_text=_("Attacks also get the files of the model.")
    )
    trivial_utility = models.FloatField(
        _("trivial anchor u0"),
        null=True,
        blank=True,
        help_text=_("Utility of a release that ignores the data. The check computes it."),
    )
    reference_utility = models.FloatField(
        _("reference anchor u1"),
        null=True,
        blank=True,
        help_text=_("Utility of the best tuned model without privacy. The check computes it."),
    )
    reference_leak = _share(
        0.20, label=_("reference leak"), help_text=_("A worst leak of this size means privacy 0 (SCORING: W_ref).")
    )
    utility_threshold = _share(
        0.5, label=_("utility threshold"), help_text=_("A defense below it is not qualified (SCORING: tau).")
    )
    revealed = _share(
        0.2, label=_("revealed share"), help_text=_("Share of the candidates whose membership every attack is told.")
    )
    aux_size = models.PositiveIntegerField(_("auxiliary records"), null=True, blank=True)
    core_size = models.PositiveIntegerField(_("core records"), null=True, blank=True)
    candidate_size = models.PositiveIntegerField(
        _("candidate records"), null=True, blank=True, help_text=_("Empty: 20 %, 10 % and 48 % of the records.")
    )

    version = models.PositiveBigIntegerField(default=0, editable=False)  # browsers watch it
    created_at = models.DateTimeField(auto_now_add=True)
    published_at = models.DateTimeField(null=True, editable=False)
    closed_at = models.DateTimeField(null=True, editable=False)
    history = HistoricalRecords(excluded_fields=["version"])

    objects = ChallengeQuerySet.as_manager()

    class Meta:
        verbose_name = _("challenge")
        verbose_name_plural = _("challenges")
        ordering: ClassVar[list[str]] = ["-published_at", "-created_at"]

    def __str__(self) -> str:
        return self.title

    def text(self, field: str) -> str:
        """The text `field` in the reader's language; English where there is no translation."""
        german = getattr(self, f"{field}_de") if (get_language() or "").startswith("de") else ""
        return str(german or getattr(self, field))

    def clean(self) -> None:
        try:
            walls.check(self.walls)
        except ValidationError as error:
            raise ValidationError({"walls": error.messages}) from error
        if self.scenario in registry.SCENARIOS:  # else its own field complains
            try:
                registry.get(self.scenario).check_options(self.options)
            except ValueError as error:
                raise ValidationError({"options": str(error)}) from error

    @property
    def wall_titles(self) -> str:
        """The walls that it demands, as people call them; empty if it demands none."""
        return walls.titles(self.walls)

    @property
    def limits(self) -> dict[str, int]:
        """What one container may use, as task.json says it."""
        return {name: getattr(self, name) for name in ("seconds", "memory_mb", "cpus", "gpus", "output_mb", "pids")}

    @property
    def sizes(self) -> Sizes:
        """How many records go to which part; needs a dataset."""
        default = Sizes.default(self.dataset.rows)
        return Sizes(
            aux=self.aux_size or default.aux,
            core=self.core_size or default.core,
            candidates=self.candidate_size or default.candidates,
        )

    @property
    def game(self) -> Game:
        """What the scenario needs to know, free of the database."""
        return Game(
            slug=self.slug,
            scenario=self.scenario,
            schema=self.dataset.schema,
            limits=self.limits,
            metric=self.metric,
            white_box=self.white_box,
            reference_leak=self.reference_leak,
            u0=self.trivial_utility,
            u1=self.reference_utility,
            options=dict(self.options),
        )

    @property
    def current_phase(self) -> "Phase | None":
        """The phase that takes entries now."""
        if self.status != self.Status.PUBLISHED:
            return None
        return next((phase for phase in self.phases.all() if phase.is_open), None)

    @property
    def shown_phase(self) -> "Phase | None":
        """The phase whose standings everybody sees: the final once it is revealed, until then the development phase."""
        phases = list(self.phases.all())
        revealed = [phase for phase in phases if phase.kind == Phase.Kind.FINAL and phase.revealed_at is not None]
        development = [phase for phase in phases if phase.kind == Phase.Kind.DEVELOPMENT]
        return next(iter(revealed + development), None)

    def sample_deal(self) -> Deal:
        """The public deal of the public sample, for rehearsals; needs a sample."""
        dataset = self.dataset
        return splits.deal(
            tables.read(dataset.sample_path),
            dataset.schema,
            secret=SAMPLE_SECRET,
            challenge=self.slug,
            phase="rehearsal",
            scope="sample",
            seed=0,
            sizes=Sizes.default(dataset.sample_rows),
            revealed=self.revealed,
            folds=SAMPLE_FOLDS,
        )

    def is_organiser(self, user: Any) -> bool:
        return bool(user.is_authenticated and (user.is_superuser or self.organisers.filter(pk=user.pk).exists()))

    @property
    def development(self) -> "Phase | None":
        return self._phase(Phase.Kind.DEVELOPMENT)

    @property
    def final(self) -> "Phase | None":
        return self._phase(Phase.Kind.FINAL)

    @property
    def sealed_final(self) -> "Phase | None":
        """The final whose results nobody but the organisers may know of yet."""
        final = self.final
        return final if final and final.is_sealed else None

    def _phase(self, kind: str) -> "Phase | None":
        return next((phase for phase in self.phases.all() if phase.kind == kind), None)

    def mark_changed(self) -> None:
        """Tells every browser that watches this challenge to look again, once the transaction is committed."""
        type(self).objects.filter(pk=self.pk).update(version=F("version") + 1)


def _new_secret() -> bytes:
    return secrets.token_bytes(32)


class Phase(models.Model):
    """A stretch of a challenge's calendar, with the secret that deals its splits."""

    class Kind(models.TextChoices):
        DEVELOPMENT = "development", _("development")
        FINAL = "final", _("final")

    challenge = models.ForeignKey(Challenge, models.CASCADE, related_name="phases", verbose_name=_("challenge"))
    kind = models.CharField(_("kind"), max_length=12, choices=Kind, default=Kind.DEVELOPMENT)
    opens_at = models.DateTimeField(
        _("opens"), null=True, blank=True, help_text=_("Empty: as soon as the challenge is published.")
    )
    closes_at = models.DateTimeField(_("closes"), null=True, blank=True)
    seeds = models.PositiveSmallIntegerField(
        _("seeds"), default=1, validators=[MinValueValidator(1)], help_text=_("Times that each defense is trained.")
    )
    folds = models.PositiveSmallIntegerField(
        _("folds"), default=2, validators=[MinValueValidator(1)], help_text=_("Parts of the candidates, to cross-fit.")
    )
    secret = models.BinaryField(default=_new_secret, editable=False)
    frozen_at = models.DateTimeField(null=True, editable=False)  # a final: its entries are settled
    revealed_at = models.DateTimeField(null=True, editable=False)  # a final: everybody sees its boards
    # a final that was revealed although the platform had spoilt runs: why; everybody reads it
    reveal_note = models.CharField(max_length=300, blank=True, editable=False)
    history = HistoricalRecords(excluded_fields=["secret"])

    class Meta:
        verbose_name = _("phase")
        verbose_name_plural = _("phases")
        ordering: ClassVar[list[str]] = ["kind"]  # development, then final: one of each at most
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(fields=["challenge", "kind"], name="one_phase_of_a_kind"),
        ]

    def __str__(self) -> str:
        return f"{self.challenge}: {self.get_kind_display()}"

    def clean(self) -> None:
        if self.closes_at and self.opens_at and self.closes_at <= self.opens_at:
            raise ValidationError({"closes_at": _("The phase would close before it opens.")})

    @property
    def is_final(self) -> bool:
        return self.kind == self.Kind.FINAL

    @property
    def is_sealed(self) -> bool:
        """Whether nothing of what is run in this phase may be known to teams and the public."""
        return self.is_final and self.revealed_at is None

    @property
    def is_frozen(self) -> bool:
        """Whether it is settled which entries are in this final."""
        return self.frozen_at is not None

    @classmethod
    def usual(cls, kind: str) -> dict[str, int]:
        """Seeds and folds of a phase that names none (SCORING 1): cross-fitting needs two units."""
        return {"seeds": 3, "folds": 1} if kind == cls.Kind.FINAL else {"seeds": 1, "folds": 2}

    @property
    def is_open(self) -> bool:
        now: datetime = timezone.now()
        return self.opens_at is not None and self.opens_at <= now and (self.closes_at is None or now < self.closes_at)

    def deal(self, *, scope: str, seed: int) -> Deal:
        """The secret deal of the challenge's table for one evaluation; see SCORING 1 for the scope. Needs a dataset."""
        challenge = self.challenge
        return splits.deal(
            tables.read(challenge.dataset.table_path),
            challenge.dataset.schema,
            secret=bytes(self.secret),
            challenge=challenge.slug,
            phase=self.kind,
            scope=scope,
            seed=seed,
            sizes=challenge.sizes,
            revealed=challenge.revealed,
            folds=self.folds,
        )

"""What the sandbox knows: images, hosts with their slots and GPUs, and runs."""

import uuid
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar, Self

from django.db import models
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from sandbox.conf import conf, private_root, scratch_root
from sandbox.contracts import Contract
from sandbox.limits import Limits
from sandbox.reasons import Reason


class ImageQuerySet(models.QuerySet["Image"]):
    def bases(self) -> Self:
        """Public base images, whose layers an archive may leave out."""
        return self.filter(is_base=True)

    def held(self) -> Self:
        """Images whose blobs are there."""
        return self.filter(removed_at=None)


class Image(models.Model):
    """A checked container image. All its blobs are in the blob store, until retention lets go of it for good."""

    image_id = models.CharField(_("image id"), max_length=71, unique=True)
    name = models.CharField(_("name"), max_length=200, blank=True)
    layers = models.JSONField(_("layers"), default=list)
    size = models.BigIntegerField(_("size in bytes"), default=0)
    config = models.JSONField(_("configuration"), default=dict)
    is_base = models.BooleanField(_("public base image"), default=False)
    created_at = models.DateTimeField(_("created"), default=timezone.now)
    removed_at = models.DateTimeField(
        _("removed"), null=True, blank=True
    )  # by policy; entering it again brings it back

    objects = ImageQuerySet.as_manager()

    class Meta:
        verbose_name = _("image")
        verbose_name_plural = _("images")
        ordering = ("-created_at",)

    def __str__(self) -> str:
        return self.name or self.image_id[:19]

    @property
    def labels(self) -> dict[str, str]:
        """The image's own labels: what it says about itself."""
        return dict(self.config.get("labels", {}))


FLEET = "swarm+"  # begins the address of a fleet


class HostQuerySet(models.QuerySet["Host"]):
    def asked(self) -> Self:
        """All that are still asked how they are."""
        return self.exclude(state=Host.State.RETIRED)

    def engines(self) -> Self:
        """Without fleets."""
        return self.exclude(url__startswith=FLEET)

    def usable(self, now: datetime) -> Self:
        """Those that take new runs: active, not silent, and not unheard of for so long that the reaper may be dead."""
        overdue = now - timedelta(seconds=conf().overdue_seconds)
        return self.filter(state=Host.State.ACTIVE).exclude(avoid_until__gt=now).exclude(heartbeat__lt=overdue)


class Host(models.Model):
    """A Docker Engine that runs containers for us, and nothing else; or a fleet of those, see `swarm_nodes`."""

    class State(models.TextChoices):
        ACTIVE = "active", _("active")
        CORDONED = "cordoned", _("cordoned")  # takes no new runs; all else stays
        DRAINING = "draining", _("draining")  # takes no new runs, and is emptied when the last one has ended
        DRAINED = "drained", _("drained")  # nothing of ours is on it any more
        RETIRED = "retired", _("retired")  # kept for the record of its runs; never asked again

    name = models.CharField(_("name"), max_length=100, unique=True)
    url = models.CharField(_("address of the engine"), max_length=300)
    state = models.CharField(_("state"), max_length=10, choices=State.choices, default=State.ACTIVE)
    heartbeat = models.DateTimeField(_("last answer"), null=True, blank=True)
    avoid_until = models.DateTimeField(_("no new runs before"), null=True, blank=True)
    engine = models.JSONField(_("engine"), default=dict, blank=True)
    walls = models.JSONField(_("walls that it offers"), default=list, blank=True)
    complaint = models.TextField(_("what is wrong"), blank=True)
    gpu_complaint = models.TextField(_("what is wrong with its GPUs"), blank=True)
    image_room_gb = models.PositiveIntegerField(_("room for images in GB"), default=100)

    objects = HostQuerySet.as_manager()

    class Meta:
        verbose_name = _("host")
        verbose_name_plural = _("hosts")
        ordering = ("name",)

    def __str__(self) -> str:
        return self.name

    @property
    def is_fleet(self) -> bool:
        """Whether it is no engine itself, but gives out the room on those of others."""
        return self.url.startswith(FLEET)

    @property
    def joining(self) -> bool:
        """Whether it waits for its first answer. Until then nothing but a socket of this machine can be relied on."""
        return self.state == self.State.CORDONED and self.heartbeat is None and not self.url.startswith("unix:")


class RunQuerySet(models.QuerySet["Run"]):
    def queued(self) -> Self:
        """Waiting for a slot."""
        return self.filter(state=Run.State.QUEUED)

    def due(self, now: datetime) -> Self:
        """Waiting for a slot and not resting after a fault of the platform."""
        return self.queued().filter(due_at__lte=now)

    def running(self) -> Self:
        """Under way, or believed to be."""
        return self.filter(state=Run.State.RUNNING)

    def abandoned(self, now: datetime) -> Self:
        """Under way by the books, but their worker has not renewed the lease: anybody may take over."""
        return self.running().filter(lease_until__lt=now)

    def held(self, run: "Run") -> Self:
        """That run, if the caller's attempt is still the one that counts. Every write of a worker goes through here."""
        return self.running().filter(pk=run.pk, attempt=run.attempt)


class Run(models.Model):
    """One container execution: one step of one image on one set of inputs."""

    class State(models.TextChoices):
        QUEUED = "queued", _("queued")
        RUNNING = "running", _("running")
        SUCCEEDED = "succeeded", _("succeeded")
        FAILED = "failed", _("failed")
        CANCELLED = "cancelled", _("cancelled")

    ENDED: ClassVar = frozenset({State.SUCCEEDED, State.FAILED, State.CANCELLED})

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    purpose = models.CharField(_("purpose"), max_length=50)
    step = models.CharField(_("step"), max_length=50)
    contract = models.CharField(_("contract"), max_length=20, choices=Contract.choices, default=Contract.FILES)
    image = models.ForeignKey(Image, verbose_name=_("image"), on_delete=models.PROTECT, related_name="runs")
    limits = models.JSONField(_("limits"), default=dict)
    gpus = models.PositiveSmallIntegerField(_("GPUs"), default=0)
    collect = models.JSONField(_("outputs to collect"), default=dict)
    owner = models.CharField(_("owner"), max_length=100)
    priority = models.IntegerField(_("priority"), default=0)
    private = models.BooleanField(_("on private data"), default=True)
    walls = models.JSONField(_("walls that it demands"), default=list, blank=True)

    state = models.CharField(_("state"), max_length=10, choices=State.choices, default=State.QUEUED)
    reason = models.CharField(_("reason"), max_length=20, choices=Reason.choices, blank=True)
    detail = models.TextField(_("detail"), blank=True)
    attempt = models.PositiveIntegerField(_("attempt"), default=0)
    faults = models.PositiveSmallIntegerField(_("faults of the platform"), default=0)
    lease_until = models.DateTimeField(_("lease until"), null=True, blank=True)
    lost_leases = models.PositiveIntegerField(_("leases lost"), default=0)
    worker = models.CharField(_("worker"), max_length=150, blank=True)
    host = models.ForeignKey(Host, verbose_name=_("host"), null=True, blank=True, on_delete=models.SET_NULL)

    queued_at = models.DateTimeField(_("queued"), default=timezone.now)
    due_at = models.DateTimeField(_("not before"), default=timezone.now)
    started_at = models.DateTimeField(_("started"), null=True, blank=True)
    finished_at = models.DateTimeField(_("finished"), null=True, blank=True)
    exit_code = models.IntegerField(_("exit status"), null=True, blank=True)
    seconds = models.FloatField(_("container seconds"), null=True, blank=True)
    peak_memory_mb = models.PositiveIntegerField(_("peak memory in MB"), null=True, blank=True)
    timings = models.JSONField(_("milliseconds per stage"), default=dict, blank=True)

    taken_from: str = ""  # of a run that was just claimed: the worker that had it under way before, if any

    objects = RunQuerySet.as_manager()

    class Meta:
        verbose_name = _("run")
        verbose_name_plural = _("runs")
        ordering = ("-queued_at",)
        indexes = (
            models.Index(fields=("state", "-priority", "queued_at"), name="sandbox_run_next"),
            models.Index(fields=("state", "owner"), name="sandbox_run_share"),
            models.Index(fields=("state", "lease_until"), name="sandbox_run_lease"),
            # Those who watch the sandbox ask about all runs that there ever were: see insight.
            models.Index(fields=("state", "reason", "seconds"), name="sandbox_run_outcome"),
            models.Index(fields=("finished_at",), name="sandbox_run_finished"),
            models.Index(fields=("lost_leases",), name="sandbox_run_lost", condition=models.Q(lost_leases__gt=0)),
            models.Index(fields=("faults",), name="sandbox_run_faults", condition=models.Q(faults__gt=0)),
        )

    def __str__(self) -> str:
        return f"{self.step} {self.id}"

    @property
    def wants(self) -> Limits:
        """The run's resources."""
        return Limits.from_json(self.limits)

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen to this run."""
        return self.state in self.ENDED

    @property
    def folder(self) -> Path:
        """What this run leaves behind, once it has ended: `log.txt`, and `result/` if it succeeded."""
        return private_root() / "runs" / str(self.id)

    @property
    def scratch(self) -> Path:
        """Where the present attempt works. Its files move to `folder` only if this attempt ends the run."""
        return scratch_root() / f"{self.id}.{self.attempt}"

    @property
    def result_folder(self) -> Path:
        """Canonical files that the purpose's reader made from the outputs. Those themselves are not kept."""
        return self.folder / "result"

    @property
    def log_path(self) -> Path:
        """The container's standard output and error, bounded, raw bytes. Of a private run: for organisers only."""
        return self.folder / "log.txt"

    def log_data(self) -> dict[str, Any]:
        """What a log line about this run says. Never anything that came out of its container."""
        return {"run": str(self.pk), "attempt": self.attempt, "purpose": self.purpose, "step": self.step}


class Slot(models.Model):
    """Room for one container on a host."""

    host = models.ForeignKey(Host, verbose_name=_("host"), on_delete=models.CASCADE, related_name="slots")
    number = models.PositiveSmallIntegerField(_("number"))
    run = models.OneToOneField(
        Run, verbose_name=_("run"), null=True, blank=True, on_delete=models.SET_NULL, related_name="slot"
    )

    class Meta:
        verbose_name = _("slot")
        verbose_name_plural = _("slots")
        ordering = ("host", "number")
        constraints = (models.UniqueConstraint(fields=("host", "number"), name="sandbox_slot_once"),)

    def __str__(self) -> str:
        return f"{self.host} {self.number}"


class Gpu(models.Model):
    """A GPU, or a slice of one, that one run at a time may have to itself."""

    host = models.ForeignKey(Host, verbose_name=_("host"), on_delete=models.CASCADE, related_name="gpus")
    uuid = models.CharField(_("UUID"), max_length=100, unique=True)
    name = models.CharField(_("name"), max_length=100, blank=True)
    memory_mb = models.PositiveIntegerField(_("memory in MB"))
    lost_at = models.DateTimeField(_("missing since"), null=True, blank=True)
    run = models.ForeignKey(
        Run, verbose_name=_("run"), null=True, blank=True, on_delete=models.SET_NULL, related_name="leased_gpus"
    )

    class Meta:
        verbose_name = _("GPU")
        verbose_name_plural = _("GPUs")
        ordering = ("host", "uuid")

    def __str__(self) -> str:
        return self.uuid


class Copy(models.Model):
    """An image that a host's engine holds, and when a run last needed it there."""

    host = models.ForeignKey(Host, verbose_name=_("host"), on_delete=models.CASCADE, related_name="copies")
    image = models.ForeignKey(Image, verbose_name=_("image"), on_delete=models.CASCADE, related_name="copies")
    used_at = models.DateTimeField(_("last used"), default=timezone.now)

    class Meta:
        verbose_name = _("copy of an image")
        verbose_name_plural = _("copies of images")
        ordering = ("host", "used_at")
        constraints = (models.UniqueConstraint(fields=("host", "image"), name="sandbox_copy_once"),)

    def __str__(self) -> str:
        return f"{self.image} @ {self.host}"


class Alarm(models.Model):
    """Something that an operator has to look at: raised once, cleared when it is over."""

    kind = models.CharField(_("kind"), max_length=40)
    subject = models.CharField(_("subject"), max_length=100, blank=True)
    sentence = models.TextField(_("what is wrong"))
    raised_at = models.DateTimeField(_("raised"), default=timezone.now)
    seen_at = models.DateTimeField(_("last seen"), default=timezone.now)
    cleared_at = models.DateTimeField(_("over since"), null=True, blank=True)

    class Meta:
        verbose_name = _("alarm")
        verbose_name_plural = _("alarms")
        ordering = ("-raised_at",)
        constraints = (
            models.UniqueConstraint(
                fields=("kind", "subject"), condition=models.Q(cleared_at=None), name="sandbox_alarm_once"
            ),
        )

    def __str__(self) -> str:
        return f"{self.kind} {self.subject}".strip()

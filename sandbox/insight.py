"""What the books say of the sandbox at this moment: for metrics, alarms and the operators' page.

Reads only, and asks a fixed number of questions, however many runs there are.
"""

import shutil
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from django.db.models import Case, Count, Min, Sum, Value, When
from django.utils import timezone
from django_q.models import Schedule

from sandbox.conf import private_root
from sandbox.models import Copy, Gpu, Host, Run, Slot
from sandbox.reasons import Reason


@dataclass(frozen=True)
class Queue:
    """The waiting runs of one priority. `oldest_seconds`: since the oldest of them was queued."""

    priority: int
    runs: int
    oldest_seconds: float


def queues() -> list[Queue]:
    """What waits, the most urgent class first; empty if nothing waits."""
    now = timezone.now()
    rows = Run.objects.queued().order_by("-priority").values_list("priority").annotate(Count("pk"), Min("queued_at"))
    return [Queue(priority, runs, max(0.0, (now - oldest).total_seconds())) for priority, runs, oldest in rows]


@dataclass(frozen=True)
class Outcome:
    """The runs that ended in one way: `name` is `succeeded`, `cancelled` or the reason of the failure.

    `below[i]` is how many of them had at most `bounds[i]` container seconds; `measured` how many had a container at
    all, and `seconds` their sum.
    """

    name: str
    runs: int
    measured: int = 0
    seconds: float = 0.0
    below: tuple[int, ...] = ()


def outcomes(bounds: Sequence[float]) -> list[Outcome]:
    """How all runs so far ended, with a histogram of their container seconds; every outcome that there can be."""
    place: Any = Case(
        *(When(seconds__lte=bound, then=Value(number)) for number, bound in enumerate(bounds)),
        default=Value(len(bounds)),
    )
    rows = (
        Run.objects.filter(state__in=Run.ENDED)
        .order_by()
        .annotate(bucket=place)
        .values_list("state", "reason", "bucket")
        .annotate(Count("pk"), Count("seconds"), Sum("seconds"))
    )
    runs: dict[str, int] = defaultdict(int)
    sums: dict[str, float] = defaultdict(float)
    buckets: dict[str, list[int]] = defaultdict(lambda: [0] * (len(bounds) + 1))
    for state, reason, bucket, number, measured, seconds in rows:
        name = reason if state == Run.State.FAILED else state
        runs[name] += number
        sums[name] += seconds or 0.0
        buckets[name][bucket] += measured
    names = [str(Run.State.SUCCEEDED), *_FAILURES, str(Run.State.CANCELLED)]
    return [
        Outcome(
            name=name,
            runs=runs[name],
            measured=sum(buckets[name]),
            seconds=sums[name],
            below=tuple(sum(buckets[name][: number + 1]) for number in range(len(bounds))),
        )
        for name in names
    ]


# A rehearsal or an archive fails in the rooms above; what a single run can come to is this.
_FAILURES = [reason.value for reason in Reason if reason not in (Reason.IMAGE_INVALID, Reason.REHEARSAL_FAILED)]


@dataclass(frozen=True)
class HostView:
    """A host with what is used on it."""

    host: Host
    slots: int = 0
    slots_used: int = 0
    gpus: Sequence[Gpu] = field(default_factory=tuple)
    images: int = 0
    image_bytes: int = 0

    @property
    def present_gpus(self) -> list[Gpu]:
        return [gpu for gpu in self.gpus if gpu.lost_at is None]

    @property
    def gpus_used(self) -> int:
        return sum(gpu.run_id is not None for gpu in self.present_gpus)

    @property
    def gpus_lost(self) -> int:
        return len(self.gpus) - len(self.present_gpus)

    @property
    def silent_seconds(self) -> float | None:
        """Since the engine last answered; None if it never has."""
        if self.host.heartbeat is None:
            return None
        return max(0.0, (timezone.now() - self.host.heartbeat).total_seconds())

    def takes_runs(self, now: datetime) -> bool:
        """Whether a run may be placed here now, if a slot is free."""
        avoided = self.host.avoid_until is not None and self.host.avoid_until > now
        return self.host.state == Host.State.ACTIVE and not avoided


def hosts() -> list[HostView]:
    """All hosts that are in service, by name."""
    slots = {
        host: (total, used)
        for host, total, used in Slot.objects.order_by().values_list("host").annotate(Count("pk"), Count("run"))
    }
    gpus: dict[int, list[Gpu]] = defaultdict(list)
    for gpu in Gpu.objects.all():
        gpus[gpu.host_id].append(gpu)
    copies = {
        host: (number, size or 0)
        for host, number, size in Copy.objects.order_by().values_list("host").annotate(Count("pk"), Sum("image__size"))
    }
    return [
        HostView(host, *slots.get(host.pk, (0, 0)), gpus.get(host.pk, ()), *copies.get(host.pk, (0, 0)))
        for host in Host.objects.exclude(state=Host.State.RETIRED)
    ]


@dataclass(frozen=True)
class Losses:
    """How often the platform itself failed a run, over all time."""

    leases: int
    faults: int


def losses() -> Losses:
    """Leases that another worker had to take over, and faults after which a run was tried again."""
    leases = Run.objects.filter(lost_leases__gt=0).aggregate(sum=Sum("lost_leases"))["sum"]
    faults = Run.objects.filter(faults__gt=0).aggregate(sum=Sum("faults"))["sum"]
    return Losses(leases=leases or 0, faults=faults or 0)


@dataclass(frozen=True)
class Disk:
    """The disk of the private folder, in bytes."""

    total: int
    free: int

    @property
    def free_percent(self) -> float:
        return 100 * self.free / self.total if self.total else 0.0


def disk() -> Disk:
    """How full the disk is that holds uploads, images and results."""
    usage = shutil.disk_usage(private_root())
    return Disk(total=usage.total, free=usage.free)


def overdue_seconds() -> float:
    """How late the background work's own clock is, by the most overdue of its rounds; near 0 while it lives."""
    due = Schedule.objects.filter(name__in=("sandbox.sweep", "sandbox.look")).aggregate(Min("next_run"))[
        "next_run__min"
    ]
    return max(0.0, (timezone.now() - due).total_seconds()) if due else 0.0

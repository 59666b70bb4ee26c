"""What a queued run waits for, in words for operators. The same questions as `leases` asks, without taking anything."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from django.db.models import Min
from django.utils import timezone
from django.utils.translation import gettext as _

from sandbox import offers
from sandbox.insight import HostView
from sandbox.models import Run


class For(StrEnum):
    """What it is waiting for. The last three end by themselves."""

    HOSTS = "hosts"  # nobody could take it: no host, or none with its walls or GPUs
    SERVICE = "service"  # hosts that could take it are out of service, or do not answer
    REST = "rest"
    ROOM = "room"  # slots or GPUs that other runs have
    WORKER = "worker"  # everything is free


@dataclass(frozen=True)
class Wait:
    what: For
    sentence: str


@dataclass(frozen=True)
class Waiting:
    """A run that waits, since when (seconds), and what for."""

    run: Run
    seconds: float
    wait: Wait


def oldest(views: Sequence[HostView], most: int) -> list[Waiting]:
    """The runs that have waited longest."""
    now = timezone.now()
    runs = Run.objects.queued().order_by("queued_at")[:most]
    return [Waiting(run, max(0.0, (now - run.queued_at).total_seconds()), of(run, views)) for run in runs]


def of(run: Run, views: Sequence[HostView]) -> Wait:
    """What this run waits for, given the hosts as they are."""
    now = timezone.now()
    if run.due_at > now:
        return Wait(For.REST, _("It rests after a fault of the platform, and is tried again."))
    if not views:
        return Wait(For.HOSTS, _("There is no host."))
    walls = offers.demanded(run.walls, gpus=run.gpus)
    walled = [view for view in views if walls <= set(view.host.walls)]
    if not walled:
        names = ", ".join(sorted(walls))
        return Wait(For.HOSTS, _("No host offers all walls that it demands: %(walls)s.") % {"walls": names})
    fitting = [view for view in walled if _fits(run, view, free=False)]
    if not fitting:
        numbers = {"number": run.wants.gpus, "memory": run.wants.gpu_memory_mb}
        text = _("No host has as many GPUs as it wants: %(number)s.")
        if run.wants.gpu_memory_mb:
            text = _("No host has as many GPUs as it wants: %(number)s, of at least %(memory)s MB.")
        return Wait(For.HOSTS, text % numbers)
    open_ones = [view for view in fitting if view.takes_runs(now)]
    if not open_ones:
        return Wait(For.SERVICE, _("The hosts that could take it are out of service or do not answer."))
    with_slots = [view for view in open_ones if view.slots_used < view.slots]
    if not with_slots:
        return Wait(For.ROOM, _("All slots are in use."))
    if not any(_fits(run, view, free=True) for view in with_slots):
        return Wait(For.ROOM, _("Other runs have the GPUs."))
    return Wait(For.WORKER, _("There is room: a worker takes it when its turn comes."))


def demands() -> list[tuple[Run, float]]:
    """One due run for each different demand, and the seconds since the first with that demand was due."""
    now = timezone.now()
    wants = Run.objects.due(now).order_by().values("walls", "gpus", "limits")
    rows = wants.annotate(oldest=Min("due_at"))
    return [
        (
            Run(walls=row["walls"], gpus=row["gpus"], limits=row["limits"], due_at=row["oldest"]),
            (now - row["oldest"]).total_seconds(),
        )
        for row in rows
    ]


def _fits(run: Run, view: HostView, *, free: bool) -> bool:
    wants = run.wants
    gpus = [gpu for gpu in view.present_gpus if gpu.memory_mb >= wants.gpu_memory_mb]
    return len([gpu for gpu in gpus if not free or gpu.run_id is None]) >= wants.gpus

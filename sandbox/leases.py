"""Who drives which run. Every write is a conditional UPDATE whose row count is the answer, so that a run ends exactly
once, however many workers are killed on the way.
"""

import shutil
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import structlog
from django.db import IntegrityError, transaction
from django.db.models import Count, F, IntegerField, OuterRef, Q, QuerySet, Subquery
from django.db.models.functions import Coalesce
from django.utils import timezone

from sandbox import offers, purposes, swarm_nodes, tasks
from sandbox.conf import conf
from sandbox.limits import Limits
from sandbox.models import Copy, Gpu, Host, Run, Slot
from sandbox.reasons import Reason
from sandbox.workers import machine, ring, worker_is_gone

log = structlog.get_logger(__name__)

NONE = Q(pk__in=[])
CANDIDATES = 20  # looked at in one go: the first may want GPUs that are taken
AVOID_SECONDS = 20  # the reaper makes it longer while the engine does not answer


class _Taken(Exception):
    """Another worker got there first."""


def claim(worker: str) -> Run | None:
    """The next run for this worker, under lease, with its slot and GPUs; None when there is nothing that it can do.

    A run whose worker has vanished goes first, at once if that is certain, else when its lease has ended: it keeps its
    host, slot and GPUs. Otherwise it is the run with the highest priority, then the one whose owner has the fewest
    under way, then the oldest.
    """
    hopeless = NONE
    while candidates := [*abandoned(but=hopeless), *_due(hopeless)]:
        lost_a_race = False
        found_no_place = False
        for run in candidates:
            try:
                with transaction.atomic():
                    if _take(run, worker):
                        return run
                hopeless |= _like(run)
                found_no_place = True
            except (_Taken, IntegrityError):  # the latter: another worker's slot holds the run already
                lost_a_race = True
        if not (lost_a_race or found_no_place):
            return None
    return None


def _like(run: Run) -> Q:
    """That run and all others that want the same: where it finds no place now, neither do they.

    However many of them wait, they must not keep the runs behind them from a host that would do.
    """
    same = Q(walls=run.walls, gpus=run.gpus)
    return Q(pk=run.pk) | (same & Q(limits=run.limits) if run.gpus else same)


def abandoned(but: Q = NONE) -> list[Run]:
    """Some of the runs that nobody drives any more: their lease has ended, or their worker has, on this machine."""
    running = Run.objects.exclude(but).select_related("image", "host").order_by("lease_until")
    expired = list(running.abandoned(timezone.now())[:CANDIDATES])
    held_here = Run.objects.running().filter(lease_until__gte=timezone.now(), worker__startswith=f"{machine()}:")
    gone = [key for key, worker in held_here.values_list("pk", "worker") if worker_is_gone(worker)][:CANDIDATES]
    return [*expired, *running.running().filter(pk__in=gone)][:CANDIDATES]


def takeable() -> int:
    """How many runs workers could take now, as far as slots go."""
    left = abandoned()
    return len(left) + min(Run.objects.due(timezone.now()).count(), _free_slots().count())


def _due(hopeless: Q) -> list[Run]:
    if not _free_slots().exists():
        return []
    under_way = (
        Run.objects.running()
        .filter(owner=OuterRef("owner"))
        .order_by()
        .values("owner")
        .annotate(count=Count("pk"))
        .values("count")
    )
    due = Run.objects.due(timezone.now()).exclude(hopeless).select_related("image", "host")
    due = due.filter(gpus__lte=_most_free_gpus())
    share = Coalesce(Subquery(under_way, output_field=IntegerField()), 0)
    return list(due.annotate(under_way=share).order_by("-priority", "under_way", "queued_at", "pk")[:CANDIDATES])


def _free_slots() -> QuerySet[Slot]:
    """Slots of hosts that take new runs now."""
    return Slot.objects.filter(run=None, host__in=Host.objects.usable(timezone.now()))


def _take(run: Run, worker: str) -> bool:
    """Makes the run this worker's; False if no host has what it wants. Raises _Taken."""
    now = timezone.now()
    seen = Run.objects.filter(pk=run.pk, state=run.state, attempt=run.attempt)
    host = run.host
    abandoned = run.state == Run.State.RUNNING
    before = run.worker if abandoned else ""
    if not abandoned or not Slot.objects.filter(run=run).exists():  # what was vacated may be another run's by now
        host = _place(run)
        if host is None:
            return False
    if abandoned and not worker_is_gone(run.worker):
        seen = seen.filter(lease_until__lt=now)  # when we looked it had ended: perhaps it has just been renewed
    lease_until = now + timedelta(seconds=conf().lease_seconds)
    taken = seen.update(
        state=Run.State.RUNNING,
        attempt=F("attempt") + 1,
        worker=worker,
        host=host,
        lease_until=lease_until,
        started_at=now,
        lost_leases=F("lost_leases") + int(abandoned),
    )
    if not taken:
        raise _Taken
    Copy.objects.filter(host=host, image=run.image).update(used_at=now)
    run.refresh_from_db(from_queryset=Run.objects.select_related("image", "host"))
    run.taken_from = before
    return True


def _free_gpus() -> QuerySet[Gpu]:
    """GPUs that a run may have now: whether their hosts take new runs is not looked at."""
    return Gpu.objects.filter(run=None, lost_at=None)


def _most_free_gpus() -> int:
    """How many GPUs a run may want at most to find them free on one host: others need not be looked at."""
    counts = _free_gpus().filter(host__state=Host.State.ACTIVE).values("host").annotate(count=Count("pk"))
    return max((found["count"] for found in counts.order_by()), default=0)


def _place(run: Run) -> Host | None:
    """Gives the run a slot and the GPUs that it wants, all on one host: of those that fit best the one with most room.

    GPUs fit best that have enough memory and the least of it. A host that lacks a wall of the run does not fit at all.
    A fleet gives out its GPUs itself, later.
    """
    walls = offers.demanded(run.walls, gpus=run.gpus)
    hosts = Host.objects.filter(slots__in=_free_slots()).annotate(free=Count("slots")).order_by("-free", "pk")
    places = [(host, _fitting_gpus(host, run.wants)) for host in hosts if walls <= set(host.walls)]
    fitting = [
        (host, gpus)
        for host, gpus in places
        if (swarm_nodes.fitting(host, run, free=True) if host.is_fleet else len(gpus) == run.wants.gpus)
    ]
    if not fitting:
        return None
    host, gpus = min(fitting, key=lambda place: sum(gpu.memory_mb for gpu in place[1]))
    slot = _free_slots().filter(host=host).first()
    if slot is None or not Slot.objects.filter(pk=slot.pk, run=None).update(run=run):
        raise _Taken
    if _free_gpus().filter(pk__in=[gpu.pk for gpu in gpus]).update(run=run) != len(gpus):
        raise _Taken
    return host


def _fitting_gpus(host: Host, wants: Limits) -> list[Gpu]:
    """The smallest free GPUs of the host that are large enough; fewer than wanted if there are no more."""
    if not wants.gpus:
        return []
    large_enough = _free_gpus().filter(host=host, memory_mb__gte=wants.gpu_memory_mb)
    return list(large_enough.order_by("memory_mb", "pk")[: wants.gpus])


def is_under_way(run: str, attempt: str, on: Host | None = None) -> bool:
    """Whether that attempt, as labels and folders name it, is the one that counts and has not ended; `on` that host."""
    try:
        held = Run.objects.running().filter(pk=UUID(run), attempt=int(attempt))
        return (held if on is None else held.filter(host=on)).exists()
    except ValueError:
        return False


def renew(run: Run) -> bool:
    """Holds on to the run for another while; False if it is not this worker's any more, or was cancelled."""
    lease_until = timezone.now() + timedelta(seconds=conf().lease_seconds)
    return bool(Run.objects.held(run).update(lease_until=lease_until))


@transaction.atomic
def finish(run: Run, *, reason: Reason | None, detail: str = "", verdict: Any = None, **facts: Any) -> bool:
    """Ends the run if this attempt still counts, and lets its purpose settle, all or nothing; False if it does not.

    `facts` are further fields of the run.
    """
    state = Run.State.FAILED if reason else Run.State.SUCCEEDED
    ended = Run.objects.held(run).update(
        state=state, reason=reason or "", detail=detail, finished_at=timezone.now(), lease_until=None, **facts
    )
    if not ended:
        return False
    _free(run)
    _keep_files(run, succeeded=reason is None)
    run.refresh_from_db()
    purposes.get(run.purpose).settle(run, verdict)
    return True


@transaction.atomic
def give_up(run: Run, detail: str) -> bool:
    """Ends a run whose purpose cannot even settle, so that it does not come back for ever."""
    ended = Run.objects.held(run).update(
        state=Run.State.FAILED,
        reason=Reason.PLATFORM_FAULT,
        detail=detail,
        finished_at=timezone.now(),
        lease_until=None,
    )
    if ended:
        _free(run)
    return bool(ended)


@transaction.atomic
def give_back(
    run: Run, *, detail: str, counts: bool = True, lost: bool = False, rest: float = 0, avoid_host: bool = False
) -> bool:
    """Queues the run again after a fault of the platform; if wanted, its host is left alone for a while.

    A fault that `counts` may happen only so often: after the first one the run is due at once, later after a growing
    rest. One that is no fault of this run does not count, and the run is due after `rest` seconds; if it was `lost`
    with its engine, that is counted as if its worker had died.
    """
    faults = run.faults
    if counts:
        faults += 1
        rest = conf().retry_seconds * (4 ** (faults - 1) - 1)
    now = timezone.now()
    back = Run.objects.held(run).update(
        state=Run.State.QUEUED,
        faults=faults,
        lost_leases=F("lost_leases") + int(lost),
        detail=detail,
        due_at=now + timedelta(seconds=rest),
        lease_until=None,
    )
    if not back:
        return False
    _free(run)
    if avoid_host and run.host:
        Host.objects.filter(pk=run.host.pk).update(avoid_until=now + timedelta(seconds=AVOID_SECONDS))
    tasks.send_wakeup()
    return True


@transaction.atomic
def vacate(run: Run) -> None:
    """Gives slot and GPUs to the next run: the container has ended."""
    if Run.objects.select_for_update().held(run).exists():
        _free(run)


def line_up() -> bool:
    """Whether runs wait while every slot that takes any is in use: the next free one is worth waiting for."""
    now = timezone.now()
    slots = Slot.objects.filter(host__in=Host.objects.usable(now)).aggregate(all=Count("pk"), used=Count("run"))
    return bool(slots["all"] and slots["all"] == slots["used"] and Run.objects.due(now).exists())


def release(run: Run) -> None:
    """Frees what a run that was cancelled under way still holds. Only its own attempt may do that."""
    if Run.objects.filter(pk=run.pk, attempt=run.attempt, state=Run.State.CANCELLED).exists():
        with transaction.atomic():
            _free(run)
            tasks.send_wakeup()


def _free(run: Run) -> None:
    Slot.objects.filter(run=run).update(run=None)
    Gpu.objects.filter(run=run).update(run=None)
    transaction.on_commit(ring)


def _keep_files(run: Run, *, succeeded: bool) -> None:
    """Moves the log of this attempt, and the result of one that succeeded, to where the run's files stay.

    All else goes with the working files: the outputs as well, since whatever counts in them has been read.
    """
    run.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    kept = (run.result_folder, run.log_path) if succeeded else (run.log_path,)
    result = run.scratch / run.result_folder.name
    # what is there already is of an attempt that was killed after moving, before its transaction ended; or our own,
    # moved by a try of this transaction that failed
    if run.result_folder.exists() and (result.exists() or not succeeded):
        shutil.rmtree(run.result_folder)
    for target in kept:
        source = run.scratch / target.name
        if source.exists():
            source.replace(target)


def remove_scratch(folder: Path) -> None:
    """Throws an attempt's working files away."""
    shutil.rmtree(folder, ignore_errors=True)

"""The reaper's round, each minute: nothing that a dead worker left stays, and no due run is forgotten.

It touches only what carries this installation's label.
"""

import time
from datetime import timedelta
from typing import Any

import structlog
from django.db import transaction
from django.utils import timezone

from sandbox import housekeeping, inspection, leases
from sandbox.conf import conf
from sandbox.engine import ATTEMPT, BORN, HOLDER, RUN, WORKER, Engine, EngineFault, abbreviated
from sandbox.hosts import engine_of
from sandbox.models import Gpu, Host, Image, Run, Slot
from sandbox.wakeups import wake_workers
from sandbox.workers import worker_is_gone

log = structlog.get_logger(__name__)

AVOID = timedelta(seconds=90)  # until after the next round
MARGIN_SECONDS = 3600  # a chamber may wait for a large image to be loaded before it has a run's container


def sweep() -> None:
    """One round over all hosts, the books and the working files."""
    for host in Host.objects.all():
        sweep_host(host)
    free_forgotten()
    wake_workers()
    housekeeping.sweep_files()
    housekeeping.sweep_images()


def sweep_host(host: Host) -> None:
    """Notes whether the engine answers, and removes leftovers from it."""
    engine = engine_of(host)
    try:
        fields = inspection.look(engine)
        sweep_engine(engine)
        sweep_loaded_images(engine)
    except EngineFault as fault:
        log.warning("host.fault", host=host.name, fault=str(fault))
        Host.objects.filter(pk=host.pk).update(avoid_until=timezone.now() + AVOID)
    else:
        Host.objects.filter(pk=host.pk).update(heartbeat=timezone.now(), avoid_until=None, **fields)


def sweep_engine(engine: Engine, *, everything: bool = False) -> None:
    """Removes containers and volumes whose run or worker is gone; on demand all of this installation."""
    containers = engine.containers()
    started = [container["Labels"] for container in containers if RUN in container["Labels"]]
    kept_holders = set() if everything else {labels.get(HOLDER) for labels in started if _is_under_way(labels)}
    removed = [found["Id"] for found in containers if not _is_kept(found["Labels"], kept_holders, everything)]
    volumes = [volume for volume in engine.volumes() if not _is_kept(volume["Labels"], kept_holders, everything)]
    engine.remove(removed, [volume["Name"] for volume in volumes])
    if removed or volumes:
        log.info("reaper.removed", containers=len(removed), volumes=len(volumes))


def sweep_loaded_images(engine: Engine) -> None:
    """Takes images off the engine that have no row any more, or were let go. One in use stays until a later round."""
    known = {abbreviated(image_id) for image_id in Image.objects.held().values_list("image_id", flat=True)}
    for unknown in engine.loaded_images() - known:
        engine.remove_image(unknown)


def _is_under_way(labels: dict[str, str]) -> bool:
    return leases.is_under_way(labels.get(RUN, ""), labels.get(ATTEMPT, ""))


def _is_kept(labels: dict[str, str], kept_holders: set[str | None], everything: bool) -> bool:
    """Part of a run under way, or chambers that a worker is about to use."""
    if everything:
        return False
    if labels.get(HOLDER) in kept_holders:
        return True
    if RUN in labels or worker_is_gone(labels.get(WORKER, "::")):
        return False
    born = labels.get(BORN, "")
    age = time.time() - int(born) if born.isdigit() else float("inf")
    return age < conf().spare_seconds + MARGIN_SECONDS


def free_forgotten() -> None:
    """Frees slots and GPUs of runs that have ended without their worker: cancelled while it was dead."""
    now = timezone.now()
    ended = Run.objects.filter(state__in=Run.ENDED, finished_at__lt=now - timedelta(seconds=conf().lease_seconds))
    with transaction.atomic():
        Slot.objects.filter(run__in=ended).update(run=None)
        Gpu.objects.filter(run__in=ended).update(run=None)


def remove_everything() -> dict[str, Any]:
    """Removes every container and volume of this installation from all hosts, for shutting down; returns the faults."""
    faults: dict[str, Any] = {}
    for host in Host.objects.all():
        try:
            sweep_engine(engine_of(host), everything=True)
        except EngineFault as fault:
            faults[host.name] = str(fault)
    return faults

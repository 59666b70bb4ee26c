"""The reaper's round, each minute: nothing that a dead worker left stays, and no due run is forgotten.

It touches only what carries this installation's label.
"""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any, TypeVar

import structlog
from django.db import DatabaseError, connection, transaction
from django.db.models import Q
from django.utils import timezone

from sandbox import hopeless, housekeeping, inspection, leases, supply, swarm_nodes
from sandbox.conf import conf
from sandbox.engine import ATTEMPT, BORN, HOLDER, RUN, WORKER, Engine, EngineFault
from sandbox.hosts import engine_of, swarm_of
from sandbox.models import Copy, Gpu, Host, Run, Slot
from sandbox.wakeups import wake_workers
from sandbox.workers import machine, worker_is_gone

log = structlog.get_logger(__name__)
T = TypeVar("T")

AT_ONCE = 16  # hosts that are visited side by side
MARGIN_SECONDS = 3600  # a chamber may wait for a large image to be loaded before it has a run's container


def sweep() -> None:
    """One round over the books, all hosts side by side, and the working files."""
    free_forgotten()
    hosts = list(Host.objects.asked())
    answers = list(_side_by_side(inspection.heartbeat, hosts))
    hopeless.note()
    wake_workers()  # as soon as it is known who answers
    list(_side_by_side(clean, [host for host, fault in zip(hosts, answers, strict=True) if fault is None]))
    housekeeping.sweep_files()
    housekeeping.sweep_images()


def _side_by_side(visit: Callable[[Host], T], hosts: list[Host]) -> Iterator[T | Exception]:
    """Visits hosts in threads, so that a slow one holds nobody up, nor one whose answers make no sense."""

    def visit_and_leave(host: Host) -> T | Exception:
        try:
            return visit(host)
        except DatabaseError:
            raise
        except Exception as error:
            log.exception("host.not_visited", host=host.name)
            return error
        finally:
            engine_of(host).hang_up()
            swarm_of(host).hang_up()
            connection.close()

    with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="reaper") as pool:
        yield from pool.map(visit_and_leave, hosts)


def clean(host: Host) -> None:
    """Removes leftovers from a host that answers; everything, if it is to be empty."""
    host.refresh_from_db()
    leaving = host.state in (Host.State.DRAINING, Host.State.DRAINED)
    try:
        idle = not Run.objects.running().filter(Q(host=host) | Q(slot__host=host)).exists()
        if host.is_fleet:  # its nodes are cleaned as the hosts that they are
            swarm_nodes.clean(host)
            if leaving and idle:
                Host.objects.filter(pk=host.pk, state=Host.State.DRAINING).update(state=Host.State.DRAINED)
        elif leaving and idle:
            empty(engine_of(host))
            Copy.objects.filter(host=host).delete()
            Host.objects.filter(pk=host.pk, state=Host.State.DRAINING).update(state=Host.State.DRAINED)
        else:
            sweep_engine(engine_of(host), host)
            supply.look_over(host)
    except EngineFault as fault:
        log.warning("host.fault", host=host.name, fault=str(fault))


def empty(engine: Engine) -> None:
    """Removes all containers, volumes and images of this installation. Nothing of it may run there. EngineFault."""
    sweep_engine(engine, everything=True)
    engine.remove_all_images()


def sweep_engine(engine: Engine, host: Host | None = None, *, everything: bool = False) -> None:
    """Removes containers and volumes whose run or worker is gone, from a host; on demand all of this installation."""
    containers = engine.containers()
    started = [container["Labels"] for container in containers if RUN in container["Labels"]]
    kept_holders = set() if everything else {labels.get(HOLDER) for labels in started if _is_under_way(labels, host)}
    removed = [found["Id"] for found in containers if not _is_kept(found["Labels"], kept_holders, everything)]
    volumes = [volume for volume in engine.volumes() if not _is_kept(volume["Labels"], kept_holders, everything)]
    engine.remove(removed, [volume["Name"] for volume in volumes])
    if removed or volumes:
        log.info("reaper.removed", containers=len(removed), volumes=len(volumes))


def _is_under_way(labels: dict[str, str], host: Host | None) -> bool:
    """Whether it belongs to the present attempt of a run; or to the one before, whose container may be taken over.

    That is done on the same host only: one that a run has left for another would compute on unwatched, for nobody.
    """
    run, attempt = labels.get(RUN, ""), labels.get(ATTEMPT, "")
    following = str(int(attempt) + 1) if attempt.isdigit() else ""
    return leases.is_under_way(run, attempt) or leases.is_under_way(run, following, on=host)


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


def leave() -> dict[str, Any]:
    """Removes all of this installation as its workers end, unless those of another machine have runs under way.

    Then what is left goes by their reaper. Returns the faults.
    """
    now = timezone.now()
    at_work = Run.objects.running().filter(lease_until__gte=now).exclude(worker__startswith=f"{machine()}:")
    return {} if at_work.exists() else remove_everything()


def remove_everything() -> dict[str, Any]:
    """Removes every container and volume of this installation from all hosts, for shutting down; returns the faults."""
    faults: dict[str, Any] = {}
    for host in Host.objects.asked():
        try:
            if host.is_fleet:
                swarm_nodes.clean(host, everything=True)
            else:
                sweep_engine(engine_of(host), everything=True)
        except EngineFault as fault:
            faults[host.name] = str(fault)
    return faults

"""Where a run is driven: on its host, or on the node of a fleet on which a Docker Swarm has room for it.

This is all that the worker sees of a fleet. A run is claimed with a slot of the fleet's row; as soon as the swarm has
found a node, the run's host is that node's own row, and everything else happens through that node's own engine, with
the same verbs and the same walls as on any host. The swarm only counts processors, memory and GPUs, and notices nodes
that die. The run's own attempt number says which result counts, should a cut network make it run twice.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Protocol

import structlog
from django.db import DatabaseError, transaction

from sandbox.conf import conf
from sandbox.connection import EngineFault, NotThere, Unreachable
from sandbox.contracts import Contract
from sandbox.engine import ATTEMPT, RUN, Engine
from sandbox.hosts import engine_of, swarm_of
from sandbox.limits import Limits
from sandbox.models import Gpu, Host, Run
from sandbox.swarm import Reservation, Swarm
from sandbox.swarm_nodes import fitting

log = structlog.get_logger(__name__)

LOOK_SECONDS = 0.1  # between looks at a reservation that is not there yet
CHECK_SECONDS = 5.0  # between looks at one whose run is under way: a swarm notices a dead node after about 11


class NoRoom(EngineFault):
    """No node of the fleet has room now. Nobody's fault: the run waits in our queue again."""


class Place(Protocol):
    """Where a run is driven."""

    engine: Engine
    check_seconds: float  # call `check` as often

    def check(self) -> None:
        """Raises Unreachable when the place is lost."""


class HostsPlace:
    """A slot of a host. Its engine says itself when it is lost."""

    check_seconds = float("inf")

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def check(self) -> None:
        """The books keep it."""


class NodesPlace:
    """A reservation on a node of a fleet."""

    check_seconds = CHECK_SECONDS

    def __init__(self, engine: Engine, swarm: Swarm, service: str) -> None:
        self.engine = engine
        self._swarm = swarm
        self._service = service

    def check(self) -> None:
        """A manager that does not answer does not end what runs on the nodes."""
        try:
            ended = self._swarm.look(self._service).ended
        except Unreachable:
            return
        if ended:
            raise Unreachable("by the swarm, the node of the run is down")


@contextmanager
def placed(run: Run, check: Callable[[], None]) -> Iterator[Place]:
    """Room for a claimed run, for as long as the block lasts. May change `run.host`, in the books as well.

    Waits until a fleet has room, calling `check` in between, which raises whatever ends the attempt. Raises NoRoom or
    EngineFault.
    """
    if run.host is None:
        raise EngineFault("the host is gone")
    fleet = Host.objects.filter(slots__run=run).first()
    if fleet is None or not fleet.is_fleet:
        yield HostsPlace(engine_of(run.host))
        return
    swarm = swarm_of(fleet)
    service = _kept(swarm, run) or _reserve(swarm, fleet, run, check)
    try:
        yield NodesPlace(engine_of(run.host), swarm, service)
    finally:
        _release(swarm, run, service)


def _kept(swarm: Swarm, run: Run) -> str | None:
    """The reservation of an earlier attempt whose worker has died, if it still holds room on the run's host.

    All others of this run are released.
    """
    kept = None
    for service, labels in swarm.reservations(**{RUN: str(run.pk)}) if run.attempt > 1 else ():
        try:
            found = swarm.look(service)
        except NotThere:
            continue
        usable = found.running and labels[ATTEMPT] == str(run.attempt - 1) and _host_of(swarm, found) == run.host
        if usable and set(found.gpus) == set(run.leased_gpus.values_list("uuid", flat=True)):
            kept = service
        else:
            swarm.release(service)
    return kept


def _host_of(swarm: Swarm, reservation: Reservation) -> Host | None:
    names = [node.host for node in swarm.nodes() if node.id == reservation.node]
    return Host.objects.filter(name__in=names).first()


def _reserve(swarm: Swarm, fleet: Host, run: Run, check: Callable[[], None]) -> str:
    """Waits for room, and notes where it is; returns the reservation."""
    hosts, images = {}, set()
    for host in fitting(fleet, run):
        try:
            images.add(engine_of(host).holder_image())
            hosts[host.name] = host
        except EngineFault as fault:
            log.warning("host.fault", host=host.name, fault=str(fault))
    if not hosts:
        raise NoRoom("no node fits now")
    without = [node.id for node in swarm.nodes() if node.host not in hosts]
    service = swarm.reserve(str(run.pk), run.attempt, _reserved(run), images.pop(), without)
    try:
        found = _wait(swarm, service, check)
        if found.ended:
            for host in hosts.values():
                engine_of(host).forget_holder()  # somebody may have removed it
            raise EngineFault(f"the node did not take the reservation: {found.why}")
        place = _host_of(swarm, found)
        if place is None or place.name not in hosts:
            raise NoRoom("the swarm chose a node that has just joined")
        _note(run, place, found.gpus)
    except BaseException:
        swarm.release(service)
        raise
    log.info("run.placed", fleet=fleet.name, host=place.name, gpus=found.gpus)
    return service


def _reserved(run: Run) -> Limits:
    """What a run takes of its node: a web server comes with a gateway, and with a second place to write."""
    wants = run.wants
    if run.contract != Contract.WEB:
        return wants
    return replace(wants, memory_mb=wants.memory_mb + conf().gateway_memory_mb, output_mb=2 * wants.output_mb)


def _wait(swarm: Swarm, service: str, check: Callable[[], None]) -> Reservation:
    deadline = time.monotonic() + conf().placement_seconds
    while time.monotonic() < deadline:
        check()
        found = swarm.look(service)
        if found.running or found.ended:
            return found
        time.sleep(LOOK_SECONDS)
    raise NoRoom(found.why)


@transaction.atomic
def _note(run: Run, host: Host, uuids: list[str]) -> None:
    """Writes down the node's row as the run's host, and its GPUs as leased.

    The swarm leases GPUs; the books only confirm it, so that two runs never have one even when both are in doubt.
    """
    if len(uuids) != run.wants.gpus:
        raise EngineFault("the node does not name its GPUs by their UUIDs")
    Gpu.objects.filter(run=run).update(run=None)
    leased = Gpu.objects.filter(uuid__in=uuids, host=host, run=None, lost_at=None).update(run=run)
    if leased != len(uuids):
        raise NoRoom("by the books the GPUs of that node are not free")
    if not Run.objects.held(run).update(host=host):
        raise EngineFault("the run was taken over")
    run.host = host


def _release(swarm: Swarm, run: Run, service: str) -> None:
    """Gives the room back, unless another worker has taken the run over, and the room with it."""
    try:
        if not Run.objects.filter(pk=run.pk).exclude(attempt=run.attempt).exists():
            swarm.release(service)
    except (EngineFault, DatabaseError) as fault:
        log.warning("reservation.left_over", fault=type(fault).__name__)  # the reaper will find it

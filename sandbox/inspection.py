"""Looking at an engine: what it offers is asked of itself, at the start and with each heartbeat, and then tried."""

import json
import time
from datetime import timedelta
from typing import Any

import structlog
from django.utils import timezone
from django.utils.translation import gettext as _

from sandbox import certificates, gpus, offers, selftest, swarm_nodes, tasks
from sandbox.conf import conf
from sandbox.connection import why
from sandbox.engine import Engine, EngineFault
from sandbox.hosts import engine_of, script_of
from sandbox.models import Host
from sandbox.offers import Offer

WARN_DAYS = 60  # before certificates end
AVOID = timedelta(seconds=90)  # until after the next round

log = structlog.get_logger(__name__)

TRUST_SECONDS = 3600  # a self-test is done again after this, when the engine says something new, or after a fault
_tested: dict[str, tuple[float, str, Offer]] = {}  # by address, for each process: when, what it said, what it offers


def look(host: Host) -> dict[str, Any]:
    """What the host's engine says and offers, and what is wrong, as fields of the row. Raises EngineFault."""
    if host.is_fleet:
        return swarm_nodes.look(host)
    engine = engine_of(host)
    try:
        info = engine.info()
        offer = _confirmed(engine, info)
    except EngineFault:
        _tested.pop(engine.url, None)
        raise
    host.refresh_from_db(fields=["gpu_complaint"])  # which stands until the GPUs are looked at again
    complaints = [*offer.complaints, *host.gpu_complaint.splitlines(), *_certificates(host)]
    return {"engine": info, "walls": offer.walls, "complaint": "\n".join(complaints)}


def _certificates(host: Host) -> list[str]:
    days = certificates.days_left(host.name)
    if days is None or days > WARN_DAYS:
        return []
    text = _("Its certificates end in %(days)d days. Renew them: manage.py host %(host)s rejoin --through ...")
    return [text % {"days": days, "host": host.name}]


def _confirmed(engine: Engine, info: dict[str, Any]) -> Offer:
    said = json.dumps([info, conf().gvisor_runtime], sort_keys=True)
    at, said_then, offer = _tested.get(engine.url, (0.0, "", Offer()))
    if said != said_then or time.monotonic() - at > TRUST_SECONDS:
        offer = offers.inspect(info)
        if offers.STANDARD in offer.walls:
            offer = selftest.confirm(engine, offer)
        if not offer.complaints:  # one that failed is tested again with the next heartbeat: it may have been busy
            _tested[engine.url] = (time.monotonic(), said, offer)
        log.info("host.tested", url=engine.url, walls=offer.walls, complaints=offer.complaints)
    return offer


def heartbeat(host: Host) -> EngineFault | None:
    """Asks a host how it is, and notes the answer, or the silence, which it returns.

    One that is joining takes runs from now on, if it is sound. One that does not answer takes none until after the
    next round.
    """
    now = timezone.now()
    row = Host.objects.asked().filter(pk=host.pk)
    try:
        fields = look(host)
    except EngineFault as fault:
        if not host.joining:
            log.warning("host.fault", host=host.name, fault=str(fault))
        row.update(avoid_until=now + AVOID, complaint=why(fault))
        return fault
    if host.joining and offers.STANDARD in fields["walls"]:
        # by the books, not as it was seen: somebody may have cordoned it since it answered somebody else
        row.filter(state=Host.State.CORDONED, heartbeat=None).update(state=Host.State.ACTIVE)
    row.update(heartbeat=now, avoid_until=None, **fields)
    if host.heartbeat is None:
        script_of(host.name).unlink(missing_ok=True)  # has a key, and has done its work
    if not host.is_fleet and gpus.is_news(host, fields["engine"]):
        tasks.send_look_at_gpus(host.pk)
    return None


def note(host: Host) -> bool:
    """Notes now what a host offers; False if its engine does not answer. Until then it takes no run."""
    try:
        fields = look(host)
    except EngineFault as fault:
        log.warning("host.fault", host=host.name, fault=str(fault))
        return False
    Host.objects.filter(pk=host.pk).update(**fields)
    host.refresh_from_db()
    return True


def offered() -> list[frozenset[str]]:
    """The walls of each host that takes runs."""
    active = Host.objects.filter(state=Host.State.ACTIVE).values_list("walls", flat=True)
    return [frozenset(walls) for walls in active if offers.STANDARD in walls]

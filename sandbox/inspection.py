"""Looking at an engine: what it offers is asked of itself, at the start and with each heartbeat."""

from typing import Any

import structlog

from sandbox import offers
from sandbox.engine import Engine, EngineFault
from sandbox.hosts import engine_of
from sandbox.models import Host

log = structlog.get_logger(__name__)


def look(engine: Engine) -> dict[str, Any]:
    """What the engine says and offers, as fields of a `Host`. Raises EngineFault."""
    info = engine.info()
    offer = offers.inspect(info)
    return {"engine": info, "walls": offer.walls, "complaint": "\n".join(offer.complaints)}


def note(host: Host) -> bool:
    """Notes now what a host offers; False if its engine does not answer. Until then it takes no private run."""
    try:
        fields = look(engine_of(host))
    except EngineFault as fault:
        log.warning("host.fault", host=host.name, fault=str(fault))
        return False
    Host.objects.filter(pk=host.pk).update(**fields)
    host.refresh_from_db()
    return True

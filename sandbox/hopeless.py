"""Tells operators of runs that wait in vain: no host that there is could ever take them."""

from collections.abc import Collection
from dataclasses import dataclass

import structlog
from django.utils.translation import gettext as _

from sandbox import offers
from sandbox.limits import Limits
from sandbox.models import Host, Run

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class _Place:
    """What one host offers: its walls, and the memory of each of its GPUs."""

    walls: frozenset[str]
    gpus: tuple[int, ...]

    def has_gpus(self, wants: Limits) -> bool:
        return sum(memory >= wants.gpu_memory_mb for memory in self.gpus) >= wants.gpus


def note() -> None:
    """Writes into the detail of every waiting run why no host can take it, and takes that back when one can."""
    places = [
        _Place(frozenset(host.walls), tuple(gpu.memory_mb for gpu in host.gpus.all() if gpu.lost_at is None))
        for host in Host.objects.filter(state__in=(Host.State.ACTIVE, Host.State.CORDONED)).prefetch_related("gpus")
    ]
    hopeless: list[str] = []
    for wish in Run.objects.queued().order_by().values("walls", "private", "gpus", "limits").distinct():
        wants = Limits.from_json(wish["limits"])
        why = _why_not(wants, offers.demanded(wish["walls"], private=wish["private"], gpus=wish["gpus"]), places)
        if why:
            detail = f"{_prefix()} {why}"
            hopeless.append(detail)
            if noted := Run.objects.queued().filter(**wish).exclude(detail=detail).update(detail=detail):
                log.warning("runs.hopeless", runs=noted, why=why)
    Run.objects.queued().filter(detail__startswith=_prefix()).exclude(detail__in=hopeless).update(detail="")


def _prefix() -> str:
    return _("No host can take this run:")


def _why_not(wants: Limits, demanded: Collection[str], places: list[_Place]) -> str:
    """Empty if a host could take it once it has room."""
    if not places:
        return _("there is no host in use.")
    with_walls = [place for place in places if set(demanded) <= place.walls]
    if any(place.has_gpus(wants) for place in with_walls):
        return ""
    names = ", ".join(sorted(demanded)) or "-"
    if not with_walls:
        return _("it demands these walls, which none offers together: %(walls)s.") % {"walls": names}
    wish = {"gpus": wants.gpus, "memory_mb": wants.gpu_memory_mb, "walls": names}
    return _("none with these walls (%(walls)s) has %(gpus)d GPUs with %(memory_mb)d MB or more each.") % wish

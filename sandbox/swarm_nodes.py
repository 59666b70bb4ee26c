"""Fleets: rows of hosts that stand for a Docker Swarm, and what the books know of their nodes.

The address of a fleet is that of its manager's engine with `swarm+` before it. Its nodes are hosts with a row each,
which says how their engine is reached, what walls it offers and which GPUs it has. They have no slots of their own: the
fleet's slots say how many runs may be under way on all nodes together.
"""

from typing import Any

import structlog
from django.utils import timezone
from django.utils.translation import gettext as _

from sandbox import offers
from sandbox.engine import RUN
from sandbox.hosts import swarm_of
from sandbox.models import Gpu, Host, Run
from sandbox.swarm import Node

log = structlog.get_logger(__name__)


def usable(fleet: Host) -> list[Host]:
    """The rows of the fleet's nodes, as they were at its last heartbeat, that take new runs now."""
    return list(Host.objects.usable(timezone.now()).filter(name__in=fleet.engine.get("Nodes", ())))


def fitting(fleet: Host, run: Run, *, free: bool = False) -> list[Host]:
    """Usable nodes with the walls and the GPUs that the run demands; of GPUs that are `free` by the books, if asked.

    The swarm gives out any GPU of a node. So all of them must be large enough, and none may be missing.
    """
    wants = run.wants
    walls = offers.demanded(run.walls, gpus=run.gpus)
    found = [host for host in usable(fleet) if walls <= set(host.walls)]
    if not wants.gpus:
        return found
    return [host for host in found if _has_gpus(host, wants.gpus, wants.gpu_memory_mb, free=free)]


def _has_gpus(host: Host, number: int, memory_mb: int, *, free: bool) -> bool:
    gpus = list(Gpu.objects.filter(host=host))
    if any(gpu.lost_at is not None or gpu.memory_mb < memory_mb for gpu in gpus):
        return False
    return sum(not free or gpu.run_id is None for gpu in gpus) >= number


def look(fleet: Host) -> dict[str, Any]:
    """What the manager says of the nodes, as fields of the fleet's row. Raises EngineFault.

    A fleet offers each wall that any of its nodes offers; which node has which is looked up for each run.
    """
    swarm = swarm_of(fleet)
    rows = {host.name: host for host in Host.objects.asked()}
    found = swarm.nodes()
    known = [node for node in found if node.host in rows and not rows[node.host].is_fleet]
    walls = {wall for node in known if node.ready for wall in rows[node.host].walls}
    engine = {"ServerVersion": swarm.info()["ServerVersion"], "Nodes": [node.host for node in known if node.ready]}
    complaints = [text for node in found if (text := _complaint(node, rows))]
    return {"engine": engine, "walls": sorted(walls), "complaint": "\n".join(complaints)}


def _complaint(node: Node, rows: dict[str, Host]) -> str:
    host = rows.get(node.host)
    if host is None:
        text = _("The node %(node)s of the swarm takes no runs: its label anomed.host names none of our hosts.")
        return text % {"node": f"{node.name} ({node.id})"}
    if not node.ready:
        return _("The node %(host)s is down, or not available to the swarm.") % {"host": host}
    ours = set(host.gpus.values_list("uuid", flat=True))
    if ours != set(node.gpus):
        text = _("The GPUs of %(host)s are not those that its engine offers to the swarm (node-generic-resources).")
        return text % {"host": host}
    return ""


def clean(fleet: Host, *, everything: bool = False) -> None:
    """Releases reservations whose run is over; on demand all of this installation. Raises EngineFault."""
    swarm = swarm_of(fleet)
    found = swarm.reservations()  # first: a reservation that is made meanwhile is not looked at
    under_way = {str(pk) for pk in Run.objects.running().values_list("pk", flat=True)}
    left = [service for service, labels in found if everything or labels.get(RUN) not in under_way]
    for service in left:
        swarm.release(service)
    if left:
        log.info("reaper.released", fleet=fleet.name, reservations=len(left))

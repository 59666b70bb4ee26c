"""Making hosts that have joined the nodes of a fleet."""

from collections.abc import Mapping

from django.db import transaction
from django.utils import timezone
from django.utils.translation import gettext as _

from sandbox import inspection, joining
from sandbox.connection import EngineFault
from sandbox.hosts import swarm_of
from sandbox.joining import HostError
from sandbox.models import Host, Slot


def form(*, name: str, manager: Host, nodes: Mapping[Host, str], slots: int) -> Host:
    """Makes these hosts one Docker Swarm and gives it a row with so many slots; done again, it adds nodes and slots.

    `nodes` says at which address each host meets the others; the manager must be one of them. The nodes lose their own
    slots. Raises HostError.
    """
    joining.check_name(name)
    fleet = _row(name, f"swarm+{manager.url}", slots)
    if manager not in nodes:
        raise HostError(_("The manager %(host)s must be one of the nodes.") % {"host": manager})
    for host in nodes:
        _refuse_busy(host)
    try:
        swarm = swarm_of(manager)
        swarm.form(nodes[manager])
        managers, token = swarm.invitation()
        ids = {swarm_of(host).join(managers, token, address): host for host, address in nodes.items()}
        for node in swarm.nodes():
            if node.id in ids:
                swarm.label(node, ids[node.id].name)
    except EngineFault as fault:
        text = _("The fleet could not be formed: %(fault)s. Joined hosts need an engine without live-restore: %(how)s.")
        how = "host_add --slots 0"
        raise HostError(text % {"fault": fault, "how": how}) from fault
    with transaction.atomic():  # not before: what does not become a fleet keeps its slots
        for host in nodes:
            _take_slots(host)
        _save(fleet, slots)
    inspection.heartbeat(fleet)
    fleet.refresh_from_db()
    return fleet


def _row(name: str, url: str, slots: int) -> Host:
    """The row of that name if there is one, else a new one that is not saved yet."""
    if slots < 1:
        raise HostError(_("A fleet has at least one slot."))
    fleet = Host.objects.filter(name=name).first() or Host(name=name, url=url, heartbeat=timezone.now())
    if fleet.url != url:
        raise HostError(_("There is a host %(name)s already. Choose another name.") % {"name": name})
    return fleet


def _refuse_busy(host: Host) -> None:
    if Slot.objects.filter(host=host).exclude(run=None).exists():
        raise HostError(
            _("%(host)s has runs under way. Cordon it, and try again when they have ended.") % {"host": host}
        )


def _take_slots(host: Host) -> None:
    list(Slot.objects.select_for_update().filter(host=host))  # from here on no run is placed there
    _refuse_busy(host)
    host.slots.all().delete()


def _save(fleet: Host, slots: int) -> None:
    fleet.state = Host.State.ACTIVE
    fleet.save()
    for number in range(1, slots + 1):
        Slot.objects.get_or_create(host=fleet, number=number)
    fleet.slots.filter(number__gt=slots, run=None).delete()

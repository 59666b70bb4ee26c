"""What operators do with hosts: add, cordon, uncordon, drain, retire. Each refuses with a sentence, as a HostError."""

from django.db import transaction
from django.db.models import F, Q, QuerySet
from django.utils import timezone
from django.utils.translation import gettext as _

from sandbox import certificates, joining, reaper, swarm_nodes, tasks
from sandbox.engine import EngineFault
from sandbox.hosts import engine_of
from sandbox.joining import HostError
from sandbox.models import Host, Run, Slot

MAX_SLOTS = 1000
MAX_IMAGE_ROOM_GB = 1_000_000


@transaction.atomic
def add(*, name: str, url: str, slots: int, image_room_gb: int = 100) -> Host:
    """A new host that waits for its first answer, with certificates for speaking to it. A retired one may come back."""
    joining.check_name(name)
    joining.address_of(url)
    if not 0 <= slots <= MAX_SLOTS:
        raise HostError(_("A host has at most %(most)d slots, and none as a node of a fleet.") % {"most": MAX_SLOTS})
    hosts = Host.objects.select_for_update().asked()
    if hosts.filter(name=name).exists():
        raise HostError(_("There is a host %(name)s already. Choose another name.") % {"name": name})
    if user := hosts.filter(url=url).first():
        raise HostError(_("The address %(url)s is that of the host %(name)s.") % {"url": url, "name": user.name})
    host, _created = Host.objects.update_or_create(
        name=name,
        defaults={
            "url": url,
            "state": Host.State.CORDONED,
            "heartbeat": None,
            "engine": {},
            "complaint": _("It has not answered yet."),
            "gpu_complaint": "",
            "image_room_gb": image_room_gb,
        },
    )
    Slot.objects.bulk_create(Slot(host=host, number=number) for number in range(1, slots + 1))
    certificates.write_ours(name)
    return host


@transaction.atomic
def cordon(*, host: Host) -> None:
    """From now on the host takes no new runs; those under way go on, and all else stays."""
    _move(host, Host.State.CORDONED, (Host.State.ACTIVE, Host.State.DRAINING, Host.State.DRAINED))


@transaction.atomic
def uncordon(*, host: Host) -> None:
    """The host takes runs again."""
    if host.joining:
        raise HostError(_("%(host)s has not answered yet. It takes runs as soon as it does.") % {"host": host})
    _move(host, Host.State.ACTIVE, (Host.State.CORDONED, Host.State.DRAINING, Host.State.DRAINED))
    tasks.send_look_at_gpus(host.pk)  # a drained host is not looked at
    for _slot in range(Slot.objects.filter(host=host, run=None).count()):
        tasks.send_wakeup()


@transaction.atomic
def drain(*, host: Host) -> None:
    """The host takes no new runs; the reaper empties it when the last one has ended."""
    if host.joining:
        raise HostError(_("%(host)s has not answered yet: there is nothing to drain. Retire it.") % {"host": host})
    _move(host, Host.State.DRAINING, (Host.State.ACTIVE, Host.State.CORDONED))


def _move(host: Host, state: Host.State, sources: tuple[Host.State, ...]) -> None:
    if not Host.objects.filter(pk=host.pk, state__in=sources).update(state=state):
        host.refresh_from_db()
        raise HostError(
            _("%(host)s is %(state)s: that cannot be done now.") % {"host": host, "state": host.get_state_display()}
        )
    host.refresh_from_db()


def retire(*, host: Host) -> str:
    """Takes a host off the books for good; its row stays for the record of its runs, and is never asked again.

    Nothing may run there. Of a host that does not answer, the runs whose leases are over go elsewhere. Returns a
    sentence on what could not be removed from it, or nothing.
    """
    if host.url.startswith("unix:"):
        raise HostError(_("%(host)s is this machine's own engine: cordon or drain it instead.") % {"host": host})
    with transaction.atomic():  # no run is placed there from here on
        if not Host.objects.asked().filter(pk=host.pk).update(state=Host.State.CORDONED):
            raise HostError(_("%(host)s is retired already.") % {"host": host})
    left = ""
    silent = host.heartbeat is None
    try:
        engine = engine_of(host)
        engine.info()
        _refuse_running(host, Run.objects.running())
        if host.is_fleet:
            swarm_nodes.clean(host, everything=True)
        else:
            reaper.empty(engine)
    except EngineFault:
        silent = True
        left = _("It does not answer, so what the arena has on it is still there.")
    _strike_off(host, silent=silent)
    certificates.remove_ours(host.name)
    return left


@transaction.atomic
def _strike_off(host: Host, *, silent: bool) -> None:
    now = timezone.now()
    lost = Run.objects.running().filter(host=host)
    if silent:
        Slot.objects.filter(run__in=lost.filter(lease_until__lt=now)).update(run=None)  # of the host's fleet
        lost.filter(lease_until__lt=now).update(
            state=Run.State.QUEUED,
            host=None,
            lease_until=None,
            due_at=now,
            lost_leases=F("lost_leases") + 1,
        )
        tasks.send_wakeup()
    _refuse_running(host, Run.objects.running())
    host.slots.all().delete()
    host.gpus.all().delete()
    host.copies.all().delete()
    Host.objects.filter(pk=host.pk).update(
        state=Host.State.RETIRED, complaint="", walls=[], avoid_until=None, heartbeat=None
    )
    host.refresh_from_db()


def _refuse_running(host: Host, runs: QuerySet[Run]) -> None:
    count = runs.filter(Q(host=host) | Q(slot__host=host)).count()
    if count:
        raise HostError(
            _(
                "%(host)s has %(count)d runs under way, so it is only cordoned. Drain it first; if it is gone for "
                "good, try again when their leases are over, in a minute."
            )
            % {"host": host, "count": count}
        )


def renew(*, host: Host) -> None:
    """New certificates for speaking to a host; what is open goes on with the old ones."""
    if host.state == Host.State.RETIRED:
        raise HostError(_("%(host)s is retired. Add it again under the same name.") % {"host": host})
    joining.address_of(host.url)
    certificates.write_ours(host.name)

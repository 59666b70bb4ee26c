"""Seeing to it that no due run waits for want of a wake-up, and no host longer than its engine needs to come back."""

import structlog
from django.db import connection
from django.utils import timezone
from django_q.models import OrmQ

from sandbox import leases, tasks
from sandbox.hosts import engine_of
from sandbox.models import Host

log = structlog.get_logger(__name__)

HOSTS = 4  # asked in one go: each may keep us waiting


def tick() -> None:
    """What the supervisor calls every few seconds, whatever has happened to the clusters meanwhile."""
    connection.close_if_unusable_or_obsolete()
    wake_workers()
    if look_again():
        wake_workers()


def wake_workers() -> int:
    """Sends as many wake-ups as there are runs that could be taken now, less those on their way; returns how many.

    A wake-up that a cluster has fetched is on its way no more: its worker may have been killed.
    """
    on_their_way: int = OrmQ.objects.filter(key=tasks.CLUSTER, lock__lte=timezone.now()).count()
    wakeups = max(0, leases.takeable() - on_their_way)
    for _ in range(wakeups):
        tasks.send_wakeup()
    return wakeups


def look_again() -> int:
    """Asks hosts that are left alone because they did not answer; returns how many do again."""
    back = 0
    avoided = Host.objects.filter(state=Host.State.ACTIVE, avoid_until__gt=timezone.now()).order_by("avoid_until")
    for host in avoided[:HOSTS]:
        if engine_of(host).answers():
            back += Host.objects.filter(pk=host.pk, avoid_until=host.avoid_until).update(avoid_until=None)
            log.info("host.back", host=host.name)
            tasks.send_look_at_gpus(host.pk)  # it may have been started anew
    return back

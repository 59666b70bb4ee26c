"""What the clusters call: a wake-up in `runs`, the reaper's round in `web`."""

from typing import Any

import structlog
from django_q.conf import Conf
from django_q.signals import post_execute_in_worker, pre_execute
from django_q.tasks import async_task

from sandbox.workers import alone

CLUSTER = "runs"

log = structlog.get_logger(__name__)


def send_wakeup() -> None:
    """Tells one worker to look for due runs. Joins the caller's transaction, because the broker is the database."""
    async_task("sandbox.tasks.wake", cluster=CLUSTER)


def wake() -> int:
    """Drives due runs until none is left for this worker; returns how many."""
    from sandbox import worker  # keeps the engine's libraries out of processes that only send wake-ups

    return worker.work()


def begin(**kwargs: Any) -> None:
    """A new worker of the cluster looks for work unasked: the wake-up of the one that it replaces is lost.

    While there is work it stays away from the queue, whose lock would die with it.
    """
    if Conf.CLUSTER_NAME != CLUSTER:
        return
    pre_execute.send(sender=CLUSTER, func=wake, task={})  # for those who watch whether workers are busy
    try:
        wake()
    except Exception:  # the database may be away: the supervisor will send a wake-up
        log.warning("worker.no_beginning", exc_info=True)
    finally:
        post_execute_in_worker.send(sender=CLUSTER, func=wake, task={})


def sweep() -> None:
    """The reaper's round; none while the one before is still at it, or rounds that wait for a slow engine pile up."""
    from sandbox import reaper  # as above

    with alone("reaper") as nobody_else:
        if nobody_else:
            reaper.sweep()
        else:
            log.warning("reaper.slow")


def clean() -> None:
    """The daily round: what is older than the policy says goes."""
    from sandbox import retention  # as above

    retention.sweep()


def look() -> None:
    """The look for alarms, apart from the reaper's round: an engine that does not answer must not keep it waiting."""
    from sandbox import alarms  # as above

    alarms.look()


def send_look_at_gpus(host: int) -> None:
    """Has the host with that key asked for its GPUs soon."""
    async_task("sandbox.tasks.look_at_gpus", host, cluster="web")


def look_at_gpus(host: int | None = None) -> None:
    """Asks one host, or all of them, for their GPUs."""
    from sandbox import gpus  # as above

    gpus.look_at_all(host)

"""The sandbox in numbers for Prometheus, taken from the books at the moment of asking: any process can answer.

No label has a value that a participant chooses, and nothing tells one team from another.
"""

from collections.abc import Callable, Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from sandbox import insight, purposes
from sandbox.insight import HostView
from sandbox.models import Alarm, Host, Run

# Container seconds: a bare container takes a fifth of a second, a long training hours.
BOUNDS = (1, 2, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 14400)


class SandboxCollector:
    """Everything that an operator watches of the sandbox."""

    def collect(self) -> Iterator[Metric]:
        yield from _queues()
        yield from _outcomes()
        yield from _losses()
        yield from _hosts(insight.hosts())
        yield from _disk()
        yield from _alarms()


def _gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, text, value=value)


def _queues() -> Iterator[Metric]:
    waiting = GaugeMetricFamily("anomed_queue_runs", "Runs that wait for a slot.", labels=["class"])
    oldest = GaugeMetricFamily(
        "anomed_queue_oldest_seconds", "Since the oldest waiting run was queued; 0 if none waits.", labels=["class"]
    )
    queues = {queue.priority: queue for queue in insight.queues()}
    for priority in sorted({*queues, *purposes.priorities()}, reverse=True):
        queue = queues.get(priority)
        name = purposes.priority_name(priority)
        waiting.add_metric([name], queue.runs if queue else 0)
        oldest.add_metric([name], queue.oldest_seconds if queue else 0)
    yield waiting
    yield oldest
    yield _gauge("anomed_runs_under_way", "Runs that a worker has claimed.", Run.objects.running().count())


def _outcomes() -> Iterator[Metric]:
    ended = CounterMetricFamily("anomed_runs_ended", "Runs that ended, by outcome.", labels=["outcome"])
    seconds = HistogramMetricFamily(
        "anomed_run_seconds", "Container seconds of runs that ended, by outcome.", labels=["outcome"]
    )
    for outcome in insight.outcomes(BOUNDS):
        ended.add_metric([outcome.name], outcome.runs)
        buckets = [(str(float(bound)), number) for bound, number in zip(BOUNDS, outcome.below, strict=True)]
        seconds.add_metric([outcome.name], [*buckets, ("+Inf", outcome.measured)], outcome.seconds)
    yield ended
    yield seconds


def _losses() -> Iterator[Metric]:
    losses = insight.losses()
    yield CounterMetricFamily(
        "anomed_leases_lost", "Leases that ran out and were taken over by another worker.", value=losses.leases
    )
    yield CounterMetricFamily(
        "anomed_platform_faults",
        "Faults of the platform after which a run was tried again or ended.",
        value=losses.faults,
    )


def _hosts(views: list[HostView]) -> Iterator[Metric]:
    state = GaugeMetricFamily("anomed_host_state", "1 for the state that the host is in.", labels=["host", "state"])
    for view in views:
        for name in Host.State.values:
            state.add_metric([view.host.name, name], view.host.state == name)
    yield state
    silent = GaugeMetricFamily(
        "anomed_host_heartbeat_age_seconds", "Since the host's engine last answered.", labels=["host"]
    )
    for view in views:
        if (seconds := view.silent_seconds) is not None:
            silent.add_metric([view.host.name], seconds)
    yield silent
    for name, text, value in _PER_HOST:
        family = GaugeMetricFamily(name, text, labels=["host"])
        for view in views:
            family.add_metric([view.host.name], value(view))
        yield family


_PER_HOST: list[tuple[str, str, Callable[[HostView], float]]] = [
    ("anomed_host_complaint", "1 if the host needs an operator.", lambda view: bool(view.host.complaint)),
    ("anomed_host_slots", "Containers that the host may run at a time.", lambda view: view.slots),
    ("anomed_host_slots_used", "Slots with a run.", lambda view: view.slots_used),
    ("anomed_host_gpus", "GPUs that the host has now.", lambda view: len(view.present_gpus)),
    ("anomed_host_gpus_used", "GPUs that a run has leased.", lambda view: view.gpus_used),
    ("anomed_host_gpus_lost", "GPUs that the host had and reports no more.", lambda view: view.gpus_lost),
    ("anomed_host_images", "Images on the host's engine.", lambda view: view.images),
    ("anomed_host_image_bytes", "Their size, shared layers counted each time.", lambda view: view.image_bytes),
    ("anomed_host_image_room_bytes", "Room for images.", lambda view: view.host.image_room_gb * 10**9),
]


def _disk() -> Iterator[Metric]:
    disk = insight.disk()
    yield _gauge("anomed_disk_bytes", "Size of the disk of the private folder.", disk.total)
    yield _gauge("anomed_disk_free_bytes", "Free bytes of the disk of the private folder.", disk.free)


def _alarms() -> Iterator[Metric]:
    yield _gauge(
        "anomed_rounds_overdue_seconds",
        "How late the minute's rounds of the background work are; grows when the cluster hangs.",
        insight.overdue_seconds(),
    )
    yield _gauge("anomed_alarms_open", "Alarms that are not over.", Alarm.objects.filter(cleared_at=None).count())

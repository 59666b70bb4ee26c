"""What goes on and what went wrong lately, for the operators' page. Reads only."""

from collections import Counter
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db.models import Count, Q
from django.utils import timezone

from sandbox.models import Alarm, Run
from sandbox.reasons import Reason

HOURS = 24
DAYS = 7


@dataclass(frozen=True)
class UnderWay:
    """A run that a worker has: seconds since it was claimed, and the time limit of its container."""

    run: Run
    seconds: float
    limit: int

    @property
    def late(self) -> bool:
        """Beyond its limit, which its worker keeps, and the time for its inputs and outputs."""
        return self.seconds > self.limit + 300


def under_way(most: int) -> list[UnderWay]:
    """The runs that have been under way longest."""
    now = timezone.now()
    runs = Run.objects.running().select_related("host").order_by("started_at")[:most]
    return [
        UnderWay(run, (now - run.started_at).total_seconds() if run.started_at else 0.0, run.wants.seconds)
        for run in runs
    ]


@dataclass(frozen=True)
class Failures:
    """How many runs failed for one reason in the last day and the last seven."""

    reason: Reason
    day: int
    week: int


def failures() -> list[Failures]:
    """Every reason for which a run failed in the last seven days, the most frequent first."""
    now = timezone.now()
    rows = (
        Run.objects.filter(state=Run.State.FAILED, finished_at__gt=now - timedelta(days=DAYS))
        .order_by()
        .values_list("reason")
        .annotate(day=Count("pk", filter=Q(finished_at__gt=now - timedelta(hours=HOURS))), week=Count("pk"))
    )
    found = [Failures(Reason(reason), day, week) for reason, day, week in rows if reason]
    return sorted(found, key=lambda failures: (-failures.week, failures.reason))


@dataclass(frozen=True)
class Hour:
    """Runs that ended in an hour that began then."""

    began: datetime
    succeeded: int
    failed: int

    @property
    def ended(self) -> int:
        return self.succeeded + self.failed


def throughput() -> list[Hour]:
    """The last 24 hours, the present one last."""
    this_hour = timezone.localtime().replace(minute=0, second=0, microsecond=0)
    begins = [this_hour - timedelta(hours=hours) for hours in reversed(range(HOURS))]
    # no more than the time is asked for, so that the database has only one index to choose
    ended = Run.objects.filter(finished_at__gte=begins[0]).order_by().values_list("finished_at", "state")
    counts: Counter[tuple[int, str]] = Counter()
    for finished_at, state in ended.iterator():
        assert finished_at is not None
        counts[int((finished_at - begins[0]).total_seconds() // 3600), state] += 1
    return [
        Hour(began, counts[number, Run.State.SUCCEEDED], counts[number, Run.State.FAILED])
        for number, began in enumerate(begins)
    ]


def open_alarms() -> list[Alarm]:
    """Alarms that are not over, the newest first."""
    return list(Alarm.objects.filter(cleared_at=None))


def past_alarms(most: int) -> list[Alarm]:
    """Alarms of the last seven days that are over, the last one first."""
    since = timezone.now() - timedelta(days=DAYS)
    return list(Alarm.objects.filter(cleared_at__gt=since).order_by("-cleared_at")[:most])

"""The operators' page: hosts, queue, runs under way, failures and alarms at a glance."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.utils import timezone
from django.utils.timesince import timesince
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from sandbox import alarms, insight, offers, purposes, recent, waiting
from sandbox.conf import conf
from sandbox.insight import HostView
from sandbox.recent import Hour

MOST_ROWS = 20  # of runs; the rest is in the list of runs
REFRESH_SECONDS = 10
SILENT_SECONDS = 180  # three rounds of the reaper


def words(seconds: float) -> str:
    """A duration for people: its largest unit, or seconds."""
    if seconds < 60:
        return _("%(number)s s") % {"number": round(seconds)}
    now = timezone.now()
    return timesince(now - timedelta(seconds=seconds), now, depth=1)


@require_safe
@never_cache
def page(request: HttpRequest) -> HttpResponse:
    """For operators: superusers, and staff who may look at hosts. `?still` does not refresh itself."""
    if not request.user.has_perm("sandbox.view_host"):
        raise PermissionDenied
    hosts = insight.hosts()
    disk = insight.disk()
    losses = insight.losses()
    overdue = insight.overdue_seconds()
    context: dict[str, Any] = {
        **admin.site.each_context(request),
        "title": _("Operating"),
        "refresh_seconds": None if "still" in request.GET else REFRESH_SECONDS,
        "now": timezone.now(),
        "overdue": words(overdue) if overdue > SILENT_SECONDS else "",
        "alarms": [(alarms.title(alarm.kind), alarm) for alarm in recent.open_alarms()],
        "past_alarms": [(alarms.title(alarm.kind), alarm) for alarm in recent.past_alarms(MOST_ROWS)],
        "hosts": [_host(view) for view in hosts],
        "slots": sum(view.slots for view in hosts),
        "slots_used": sum(view.slots_used for view in hosts),
        "queues": [
            (purposes.priority_title(queue.priority), queue.runs, words(queue.oldest_seconds))
            for queue in insight.queues()
        ],
        "waiting": [
            (found.run, purposes.priority_title(found.run.priority), words(found.seconds), found.wait)
            for found in waiting.oldest(hosts, MOST_ROWS)
        ],
        "under_way": [(found, words(found.seconds), words(found.limit)) for found in recent.under_way(MOST_ROWS)],
        "failures": _failures(),
        "hours": _bars(recent.throughput()),
        "losses": losses,
        "disk": disk,
        "disk_low": conf().alarm_disk_low_percent,
        "disk_full": conf().alarm_disk_full_percent,
    }
    return TemplateResponse(request, "admin/sandbox/operate.html", context)


def _host(view: HostView) -> dict[str, Any]:
    silent = view.silent_seconds
    return {
        "view": view,
        "last_answer": _("never") if silent is None else _("%(time)s ago") % {"time": words(silent)},
        "silent": silent is None or silent > SILENT_SECONDS,
        "walls": [wall for wall in view.host.walls if wall != offers.STANDARD],
        "standard": offers.STANDARD in view.host.walls,
        "room_bytes": view.host.image_room_gb * 10**9,
    }


def _failures() -> list[dict[str, Any]]:
    rows = recent.failures()
    most = max((row.week for row in rows), default=1)
    return [
        {"title": row.reason.label, "day": row.day, "week": row.week, "width": 100 * row.week / most} for row in rows
    ]


@dataclass(frozen=True)
class Bar:
    """An hour as a column of a picture 100 high."""

    hour: Hour
    x: int
    succeeded: float
    failed: float

    @property
    def top(self) -> float:
        """Where the failed part, which stands on the other, begins."""
        return 100 - self.succeeded - self.failed

    @property
    def middle(self) -> float:
        return 100 - self.succeeded


def _bars(hours: Sequence[Hour]) -> dict[str, Any]:
    most = max(hour.ended for hour in hours)
    share = 100 / (most or 1)
    bars = [Bar(hour, 10 * number, hour.succeeded * share, hour.failed * share) for number, hour in enumerate(hours)]
    return {"bars": bars, "most": most, "ended": sum(hour.ended for hour in hours), "width": 10 * len(hours)}

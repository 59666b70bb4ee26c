"""How much a team may still enter, and the sentence for when it may not.

An entry counts unless it fails. Failures of its own count on a second, looser quota, so that nobody can keep the
machines busy with broken images (SCORING 4). A fault of the platform counts on neither.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db.models import Q, QuerySet
from django.utils import timezone
from django.utils.translation import gettext as _

from sandbox.reasons import Reason
from submissions.models import Submission, Team
from submissions.states import State

_REFUNDED = Q(state=State.FAILED, failure_reason=Reason.PLATFORM_FAULT)
_OWN_FAILURES = Q(state=State.FAILED) & ~Q(failure_reason=Reason.PLATFORM_FAULT)
_GIVEN_UP_EARLY = Q(state=State.WITHDRAWN, ready_at=None)


@dataclass(frozen=True)
class Quota:
    """What is left for a team now, in entries; `again_at` is when the day's count next falls."""

    today: int
    total: int
    failures: int
    again_at: datetime | None

    @property
    def refusal(self) -> str:
        """Why nothing may be entered now; empty if something may."""
        if self.total <= 0:
            return _("Your team has used all its entries in this challenge.")
        if self.today <= 0:
            return _("Your team has used all its entries of the last 24 hours. Try again later.")
        if self.failures <= 0:
            return _(
                "Too many of your team's entries failed in the last 24 hours. "
                "Try the image on the public sample on your own machine, and come back tomorrow."
            )
        return ""


def counted(team: Team) -> QuerySet[Submission]:
    """The entries of a team that count on its quota, those under way included."""
    return Submission.objects.of_team(team).exclude(_OWN_FAILURES | _REFUNDED | _GIVEN_UP_EARLY)


def left(team: Team) -> Quota:
    """The quota of `team` at this moment."""
    challenge = team.challenge
    since = timezone.now() - timedelta(days=1)
    recent = counted(team).filter(created_at__gt=since)
    times = sorted(recent.values_list("created_at", flat=True))
    failed = Submission.objects.of_team(team).filter(_OWN_FAILURES | _GIVEN_UP_EARLY, created_at__gt=since)
    return Quota(
        today=challenge.daily_quota - len(times),
        total=challenge.total_quota - counted(team).count(),
        failures=challenge.failure_quota - failed.count(),
        again_at=times[0] + timedelta(days=1) if times else None,
    )

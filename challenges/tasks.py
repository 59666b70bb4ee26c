"""Work in the background, by the cluster `web`."""

import structlog

from challenges import actions
from challenges.models import CheckReport


def check(report_id: int) -> None:
    """Runs a check that was started; its report may be gone with its challenge by now."""
    report = CheckReport.objects.filter(pk=report_id, state=CheckReport.State.RUNNING).first()
    if report is None:
        return
    with structlog.contextvars.bound_contextvars(challenge=report.challenge.slug):
        actions.run_check(report=report)

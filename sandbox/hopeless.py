"""Writes down for operators, run by run, that none of the hosts could ever take it."""

import structlog
from django.conf import settings
from django.utils import timezone, translation
from django.utils.translation import gettext as _

from sandbox import insight, waiting
from sandbox.models import Run, RunQuerySet

log = structlog.get_logger(__name__)


def note() -> None:
    """Writes into the detail of every due run why no host can take it, and takes that back when one can."""
    due = Run.objects.due(timezone.now())
    views = insight.hosts()
    details: list[str] = []
    for run, _seconds in waiting.demands():
        wait = waiting.of(run, views)
        if wait.what == waiting.For.HOSTS:
            details.append(f"{_prefix()} {wait.sentence}")
            same = due.filter(walls=run.walls, gpus=run.gpus, limits=run.limits)
            if noted := same.exclude(detail=details[-1]).update(detail=details[-1]):
                log.warning("runs.hopeless", runs=noted, why=wait.sentence)
    due.filter(detail__startswith=_prefix()).exclude(detail__in=details).update(detail="")


def among(runs: RunQuerySet) -> RunQuerySet:
    """Those that wait in vain, as far as was noted: for an operator to make a place."""
    return runs.queued().filter(detail__startswith=_prefix())


def _prefix() -> str:
    with translation.override(settings.LANGUAGE_CODE):  # as the reaper wrote it, whoever reads
        return _("No host can take this run:")

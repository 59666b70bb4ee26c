"""What an operator has to look at: raised once, told once by mail, cleared when it has been over for a while.

Rooms above add their own conditions. Sentences are ours; nothing that came out of a container is in them.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import structlog
from django.conf import settings
from django.core.mail import send_mail
from django.db import IntegrityError, transaction
from django.db.models import Q
from django.urls import reverse
from django.utils import timezone, translation
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from sandbox import insight, waiting
from sandbox.conf import conf
from sandbox.insight import HostView
from sandbox.models import Alarm, Run
from sandbox.waiting import For

log = structlog.get_logger(__name__)

# A condition that comes and goes is one alarm: it is over when it has not been seen for this long.
SETTLED = timedelta(minutes=5)
JUST_DUE_SECONDS = 120  # hosts are looked at each minute: one that has just joined offers nothing yet


@dataclass(frozen=True)
class Condition:
    """Something that holds now. `kind` and `subject` name it; the sentence may change while it lasts."""

    kind: str
    subject: str
    sentence: str


KINDS: dict[str, Any] = {
    "disk_full": gettext_lazy("Disk full"),
    "disk_low": gettext_lazy("Disk filling up"),
    "host_silent": gettext_lazy("Host does not answer"),
    "host_complaint": gettext_lazy("Host not in order"),
    "gpu_lost": gettext_lazy("GPU lost"),
    "no_host": gettext_lazy("No host for a run"),
    "runs_stuck": gettext_lazy("Runs are not taken"),
}

_watches: list[Callable[[], Iterable[Condition]]] = []


def watch(conditions: Callable[[], Iterable[Condition]], kinds: Mapping[str, Any]) -> None:
    """Has a room above asked, at each look, which conditions hold. `kinds` are titles for people, perhaps lazy."""
    _watches.append(conditions)
    KINDS.update(kinds)


def title(kind: str) -> str:
    """A kind of alarm for people, in their language."""
    return str(KINDS.get(kind, kind))


def look() -> None:
    """One look at everything: raises what is new, clears what is over, and tells the operators of both."""
    with translation.override(settings.LANGUAGE_CODE):
        found = {(condition.kind, condition.subject[:100]): condition for condition in conditions()}
        still_open = {(alarm.kind, alarm.subject): alarm for alarm in Alarm.objects.filter(cleared_at=None)}
        for key, condition in found.items():
            if key in still_open:
                seen = {"seen_at": timezone.now(), "sentence": condition.sentence}
                Alarm.objects.filter(pk=still_open[key].pk, cleared_at=None).update(**seen)
            else:
                _raise(condition)
        for key in still_open.keys() - found.keys():
            _clear(still_open[key])


def conditions() -> Iterator[Condition]:
    """What holds now, in the present language."""
    views = insight.hosts()
    yield from _disk()
    for view in views:
        yield from _host(view)
    yield from _queue(views)
    for more in _watches:
        yield from more()


def _disk() -> Iterator[Condition]:
    disk = insight.disk()
    free = {"percent": round(disk.free_percent), "gigabytes": round(disk.free / 10**9, 1)}
    if disk.free_percent < conf().alarm_disk_full_percent:
        text = _("The disk of the private folder is nearly full: %(percent)s %% (%(gigabytes)s GB) are free.")
        yield Condition("disk_full", "", text % free)
    elif disk.free_percent < conf().alarm_disk_low_percent:
        text = _("The disk of the private folder is filling up: %(percent)s %% (%(gigabytes)s GB) are free.")
        yield Condition("disk_low", "", text % free)


def _host(view: HostView) -> Iterator[Condition]:
    name = view.host.name
    if view.host.state != view.host.State.DRAINED and not view.host.joining:
        silent = view.silent_seconds
        if silent is not None and silent > 60 * conf().alarm_host_minutes:
            text = _("The host %(host)s has not answered for %(minutes)s minutes.")
            yield Condition("host_silent", name, text % {"host": name, "minutes": round(silent / 60)})
        if view.host.complaint:
            text = _("The host %(host)s is not in order: %(complaint)s")
            yield Condition("host_complaint", name, text % {"host": name, "complaint": view.host.complaint})
    for gpu in view.gpus:
        if gpu.lost_at is not None:
            text = _("The host %(host)s does not report its GPU %(gpu)s any more.")
            yield Condition("gpu_lost", gpu.uuid, text % {"host": name, "gpu": gpu.uuid})


def _queue(views: list[HostView]) -> Iterator[Condition]:
    patience = 60 * conf().alarm_wait_minutes
    for run, seconds in waiting.demands():
        wait = waiting.of(run, views)
        if wait.what == For.HOSTS and seconds > JUST_DUE_SECONDS:
            yield Condition("no_host", wait.sentence, _("Runs wait in vain. %(why)s") % {"why": wait.sentence})
        elif wait.what == For.WORKER and seconds > patience and not _taken_since(patience):
            text = _("Runs have waited for %(minutes)s minutes though slots are free: are the workers alive?")
            yield Condition("runs_stuck", "", text % {"minutes": round(seconds / 60)})


def _taken_since(seconds: float) -> bool:
    """Whether any worker took up a run lately: then a slot that is free is only free for a moment."""
    since = timezone.now() - timedelta(seconds=seconds)
    lately = Q(state=Run.State.RUNNING) | Q(finished_at__gt=since)
    return Run.objects.filter(lately, started_at__gt=since).exists()


def _raise(condition: Condition) -> None:
    try:
        with transaction.atomic():
            alarm = Alarm.objects.create(
                kind=condition.kind, subject=condition.subject[:100], sentence=condition.sentence
            )
    except IntegrityError:  # another process has just raised it, and tells of it
        return
    log.warning("alarm.raised", kind=alarm.kind, subject=alarm.subject)
    _tell(_("Alarm: %(title)s") % {"title": title(alarm.kind)}, alarm.sentence)


def _clear(alarm: Alarm) -> None:
    now = timezone.now()
    over = Alarm.objects.filter(pk=alarm.pk, cleared_at=None, seen_at__lt=now - SETTLED)
    if not over.update(cleared_at=now):
        return
    log.info("alarm.cleared", kind=alarm.kind, subject=alarm.subject)
    _tell(_("Over: %(title)s") % {"title": title(alarm.kind)}, _("This is over:") + f"\n\n{alarm.sentence}")


def _tell(subject: str, text: str) -> None:
    """Mails the operators. Without a mail server that answers, the alarm still stands in the admin and the metrics."""
    if not settings.OPERATORS:
        return
    text += f"\n\n{settings.SITE_URL}{reverse('operate')}\n"
    try:
        send_mail(f"[{settings.SITE_NAME}] {subject}", text, None, settings.OPERATORS)
    except OSError as error:  # of the connection, or smtplib's, which are OSErrors too
        log.warning("alarm.not_mailed", error=type(error).__name__)

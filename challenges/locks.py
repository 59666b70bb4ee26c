"""What may still be changed once a challenge is published: texts, quotas, later dates. Never what scores depend on."""

from datetime import datetime
from typing import Any, Final

from django.utils import timezone
from django.utils.translation import gettext as _

from challenges import calendar
from challenges.models import Challenge, Phase

LIMITS: Final = ("seconds", "memory_mb", "cpus", "gpus", "gpu_memory_mb", "output_mb", "pids")
CONSTANTS: Final = ("trivial_utility", "reference_utility", "reference_leak", "utility_threshold", "revealed")
SIZES: Final = ("aux_size", "core_size", "candidate_size")
RANKING: Final = ("ranking", "novelty_prize")
# Not the time zone either: the dates that participants plan by would all move.
LOCKED: Final = (
    "slug",
    "scenario",
    "options",
    "metric",
    "white_box",
    *RANKING,
    "time_zone",
    *LIMITS,
    *CONSTANTS,
    *SIZES,
)
PHASE_LOCKED: Final = ("kind", "seeds", "folds")


def changed(stored: Any, edited: Any, fields: tuple[str, ...]) -> list[str]:
    """The names, as people read them, of the fields in which two instances differ."""
    return [
        str(stored._meta.get_field(name).verbose_name)
        for name in fields
        if getattr(stored, name) != getattr(edited, name)
    ]


def challenge_problem(stored: Challenge, edited: Challenge) -> str:
    """Why these edits of a challenge cannot be taken; "" if they can."""
    if stored.status == Challenge.Status.DRAFT:
        return ""
    names = changed(stored, edited, LOCKED)
    if not names:
        return ""
    return _("The challenge is published: “%(names)s” cannot be changed any more.") % {"names": "”, “".join(names)}


def phase_problem(challenge: Challenge, stored: Phase | None, edited: Phase | None) -> str:
    """Why a phase cannot be added (nothing stored), edited, or deleted (nothing edited); "" if it can."""
    if challenge.status == Challenge.Status.DRAFT:
        return ""
    if stored is None or edited is None:
        return _("The challenge is published: phases can be neither added nor removed any more.")
    if changed(stored, edited, PHASE_LOCKED):
        return _("The challenge is published: of a phase only the dates can be changed.")
    now = timezone.now()
    return _dates_problem(stored, edited, now) or _calendar_problem(challenge, edited, now)


def _dates_problem(stored: Phase, edited: Phase, now: datetime) -> str:
    if _moved(stored.opens_at, edited.opens_at):
        if _past(stored.opens_at, now):
            return _("The phase has opened already: its beginning cannot be changed any more.")
        if edited.opens_at is None or _past(edited.opens_at, now):
            return _("Choose a date in the future for the beginning of the phase.")
    if _moved(stored.closes_at, edited.closes_at):
        if _past(stored.closes_at, now):
            return _("The phase is over: its end cannot be changed any more.")
        if _past(edited.closes_at, now):
            return _("Choose a date in the future for the end of the phase; to end all at once, close the challenge.")
    return ""


def _calendar_problem(challenge: Challenge, edited: Phase, now: datetime) -> str:
    """What would be wrong with the whole calendar that is not wrong with it now."""
    stored = list(challenge.phases.all())
    present = calendar.look(stored, now)
    wanted = calendar.look([edited if phase.pk == edited.pk else phase for phase in stored], now)
    return next((finding.text for finding in wanted if finding not in present), "")


def _moved(stored: datetime | None, edited: datetime | None) -> bool:
    """Whether two dates differ by what a form shows: it drops fractions of a second."""
    if stored is None or edited is None:
        return stored is not edited
    return stored.replace(microsecond=0) != edited.replace(microsecond=0)


def _past(date: datetime | None, now: datetime) -> bool:
    return date is not None and date <= now

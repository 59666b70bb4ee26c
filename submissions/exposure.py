"""Measures, in the background, how far single records of a defense stand out; see `challenges.metrics.exposure`.

It needs what every attack said about every record, which stays in the private folders: rows hold histograms alone.
"""

from collections.abc import Iterator, Sequence
from itertools import groupby, islice
from typing import Final

import structlog
from django.db.models import Count, Max, Q
from django.utils import timezone

from challenges.metrics.exposure import Told, measure
from challenges.models import Phase
from challenges.scenarios import registry
from submissions import scoring
from submissions.models import Duel, Exposure, Release, Step, Submission
from submissions.states import READY

# A measurement takes a second or a few; the sweep that asks for them comes every minute.
_AT_A_TIME: Final = 5
_CONTEXT: Final = (
    "run",
    "submission__challenge__dataset",
    "phase__challenge__dataset",
    "previous__run",
    "duel__release__submission",
)
# Of attacks that take part, in whichever phase: those that were taken out have left the matrix, and the card with it.
_COUNTS: Final = Q(duels__state=Duel.State.DONE, duels__void_reason="", duels__attack__state__in=READY) & (
    Q(duels__attack__active=True) | Q(duels__attack__picked=True)
)

log = structlog.get_logger("submissions")


def measure_due() -> int:
    """Measures some defenses whose duels have changed since the last time; returns how many."""
    number = 0
    for submission, phase, duels in islice(_due(), _AT_A_TIME):
        measure_defense(submission, phase, duels)
        number += 1
    return number


def measure_defense(submission: Submission, phase: Phase, duels: int) -> Exposure:
    """Measures a defense now. What a game does not measure, or whose files are gone, is stored as empty facts."""
    try:
        releases = [_told(steps) for steps in _steps(submission, phase)]
        facts = measure([told for told in releases if told is not None]).to_json()
    except (ValueError, OSError) as error:  # too few records, nothing that can be measured, or a file that is gone
        log.info("exposure_not_measured", submission=str(submission.pk), why=str(error))
        facts = {}
    exposure, _created = Exposure.objects.update_or_create(
        submission=submission, phase=phase, defaults={"facts": facts, "duels": duels, "measured_at": timezone.now()}
    )
    return exposure


def _due() -> Iterator[tuple[Submission, Phase, int]]:
    """Defenses that wait for no duel, and whose finished and valid duels are others than at the last measurement."""
    rows = (
        Release.objects.order_by()
        .values("submission", "phase")
        .annotate(
            number=Count("duels", filter=_COUNTS),
            last=Max("duels__finished_at", filter=_COUNTS),
            pending=Count("duels", filter=Q(duels__state=Duel.State.PENDING)),
        )
        .filter(number__gt=0, pending=0)
    )
    measured = {(one.submission_id, one.phase_id): one for one in Exposure.objects.defer("facts")}
    for row in rows:
        known = measured.get((row["submission"], row["phase"]))
        if known is None or known.duels != row["number"] or known.measured_at < row["last"]:
            submission = Submission.objects.select_related("challenge").get(pk=row["submission"])
            yield submission, Phase.objects.get(pk=row["phase"]), row["number"]


def _steps(submission: Submission, phase: Phase) -> Iterator[Sequence[Step]]:
    """The runs of the duels that count, one group for each release."""
    steps = Step.objects.filter(
        duel__release__submission=submission,
        duel__release__phase=phase,
        duel__attack__in=Submission.objects.taking_part(phase),
        duel__state=Duel.State.DONE,
        duel__void_reason="",
    )
    ordered = steps.select_related(*_CONTEXT).order_by("duel__release__seed", "duel__attack__created_at", "pk")
    for _seed, group in groupby(ordered, key=lambda step: step.seed):
        yield list(group)


def _told(steps: Sequence[Step]) -> Told | None:
    """What all attacks said about the records of one release, as far as their results are still there."""
    scenario = registry.get(steps[0].submission.challenge.scenario)
    kept = [step for step in steps if step.run.result_folder.is_dir()]
    told = [scenario.told(scoring.board_of(step), step.run.result_folder) for step in kept]
    said = [one for one in told if one is not None]
    return Told.together(said) if said else None

"""Intervals and rank bands: worked out beside the duels, a few seconds behind them, from the stored matrix.

Whoever changes a number of a phase calls `mark`. That asks the cluster `web`, at most once in a while for each phase;
what is asked for and lost (a worker was killed) is asked for again by `tick`, which the supervisor and the sweep call.
"""

import time
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final
from uuid import UUID

import numpy as np
import structlog
from django.db import transaction
from django.db.models import F
from django.utils import timezone
from django_q.tasks import async_task

from challenges.metrics import ranking
from challenges.models import Challenge, Phase
from challenges.scenarios.base import Floats
from submissions import resampled
from submissions.matrix import counting_defenses
from submissions.models import Reckoning, Standing, Submission

log = structlog.get_logger(__name__)

# Between two reckonings of a phase, and as a multiple of what the last one took: a big matrix may not fill the cluster.
_PAUSE: Final = timedelta(seconds=5)
_SHARE: Final = 4
# A message that was not seen to, or a reckoning that has not ended, for so long is lost.
_MESSAGE_LOST: Final = timedelta(seconds=30)
_RECKONING_LOST: Final = timedelta(minutes=5)


def mark(phase: Phase) -> None:
    """Numbers of this phase have changed: its intervals and bands are worked out anew. Joins the transaction."""
    if not Reckoning.objects.filter(phase=phase).update(changes=F("changes") + 1):
        Reckoning.objects.create(phase=phase, changes=1)
    _ask(phase_id=phase.pk)


def tick() -> None:
    """Asks for every reckoning that is due and was not asked for lately."""
    for phase_id in Reckoning.objects.due().values_list("phase", flat=True):
        with transaction.atomic():
            _ask(phase_id=phase_id)


def _ask(phase_id: int) -> None:
    until = timezone.now() + _MESSAGE_LOST
    if Reckoning.objects.due().filter(phase=phase_id).update(next_at=until):
        async_task("submissions.reckoning.reckon", phase_id, cluster="web")


@dataclass(frozen=True)
class _Found:
    """What was worked out for a standing, and the standing as it was then."""

    standing: Standing
    intervals: dict[str, list[float]]
    band: int | None


def reckon(phase_id: int) -> None:
    """Works out the intervals and bands of a phase and stores them; browsers are told if something changed.

    Numbers that change meanwhile keep their place: only rows that still say what was read are written.
    """
    state = Reckoning.objects.filter(phase=phase_id).select_related("phase__challenge").first()
    if state is None or state.changes == state.reckoned:
        return
    Reckoning.objects.filter(pk=phase_id).update(next_at=timezone.now() + _RECKONING_LOST)
    began = time.monotonic()
    found = _work_out(state.phase)
    took = time.monotonic() - began
    pause = max(_PAUSE, timedelta(seconds=_SHARE * took))
    changed = 0
    with transaction.atomic():
        Challenge.objects.select_for_update().get(pk=state.phase.challenge_id)
        for row in found:
            old = row.standing
            if (old.intervals, old.band) != (row.intervals, row.band):
                same = Standing.objects.filter(pk=old.pk, updated_at=old.updated_at)
                changed += same.update(intervals=row.intervals, band=row.band)
        Reckoning.objects.filter(pk=phase_id).update(reckoned=state.changes, next_at=timezone.now() + pause)
        if changed:
            state.phase.challenge.mark_changed()
    log.info("reckoned", phase=phase_id, standings=len(found), changed=changed, seconds=round(took, 2))


def _work_out(phase: Phase) -> list[_Found]:
    challenge = phase.challenge
    standings = {row.submission_id: row for row in Standing.objects.filter(phase=phase)}
    scores: dict[UUID, Floats] = {}
    intervals: dict[UUID, dict[str, list[float]]] = {entry: {} for entry in standings}
    successes: dict[UUID, dict[UUID, Floats]] = {}
    utilities: dict[UUID, Floats] = {}
    counting = counting_defenses(phase)
    for entry in Submission.objects.taking_part(phase).defenses():
        row = standings.get(entry.pk)
        if row is None or row.utility is None:
            continue
        entry.challenge = challenge
        over = resampled.defense(entry, phase)
        if over.utility is None:
            continue
        numbers = {"utility": (row.utility, over.utility)}
        if row.worst_leak is not None and row.privacy is not None and row.score is not None:
            worst = over.worst_leak()
            private = ranking.privacy(worst, challenge.reference_leak)
            score = ranking.harmonic(over.utility, private) if row.qualified else np.zeros_like(private)
            scores[entry.pk] = score
            numbers |= {
                "worst_leak": (row.worst_leak, worst),
                "privacy": (row.privacy, private),
                "score": (row.score, score),
            }
        intervals[entry.pk] = _intervals(numbers)
        if entry.pk in counting:
            successes[entry.pk], utilities[entry.pk] = over.successes(), over.utility
    for attack in Submission.objects.taking_part(phase).attacks():
        row = standings.get(attack.pk)
        met = [entry for entry in successes if attack.pk in successes[entry]]
        if row is None or row.score is None or row.mean_leak is None or not met:
            continue
        s = np.stack([successes[entry][attack.pk] for entry in met], axis=1)
        scores[attack.pk] = ranking.attack_score(np.stack([utilities[entry] for entry in met], axis=1), s)
        numbers = {"mean_leak": (row.mean_leak, s.mean(axis=1)), "score": (row.score, scores[attack.pk])}
        intervals[attack.pk] = {
            name: [max(0.0, low), max(0.0, high)] for name, (low, high) in _intervals(numbers).items()
        }
    bands = {**_bands(phase, Submission.Kind.DEFENSE, scores), **_bands(phase, Submission.Kind.ATTACK, scores)}
    return [_Found(row, intervals[entry], bands.get(entry)) for entry, row in standings.items()]


def _intervals(numbers: dict[str, tuple[float, Floats]]) -> dict[str, Any]:
    return {name: list(ranking.interval(value, replicates)) for name, (value, replicates) in numbers.items()}


def _bands(phase: Phase, kind: str, scores: dict[UUID, Floats]) -> dict[UUID, int]:
    """The bands of a board in its public order, so that no entry stands above one of a better band."""
    ranked = [
        row
        for row in Standing.objects.on_board(phase=phase, kind=kind)
        if row.submission.is_ranked and row.submission_id in scores
    ]
    values = [row.score or 0.0 for row in ranked]
    found = ranking.bands(values, [scores[row.submission_id] for row in ranked])
    return dict(zip([row.submission_id for row in ranked], found, strict=True))

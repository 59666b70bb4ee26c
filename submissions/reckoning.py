"""Intervals and rank bands: worked out beside the duels, a few seconds behind them, from the stored matrix.

Whoever changes a number of a phase calls `mark`. That asks the cluster `web`, at most once in a while for each phase;
what is asked for and lost (a worker was killed) is asked for again by `tick`, which the supervisor and the sweep call.
"""

import time
from collections import defaultdict
from collections.abc import Container
from datetime import timedelta
from typing import Any, Final
from uuid import UUID

import numpy as np
import structlog
from django.db import transaction
from django.db.models import F
from django.utils import timezone
from django_q.tasks import async_task

from challenges.metrics import bootstrap, ranking, rankings
from challenges.metrics.rankings import Measured
from challenges.models import Challenge, Phase
from challenges.scenarios.base import Floats
from submissions import resampled
from submissions.matrix import counting_defenses, strict_metric
from submissions.models import Reckoning, Standing, Submission
from submissions.resampled import Summary

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
        for row, columns in found:
            if any(getattr(row, name) != value for name, value in columns.items()):
                changed += Standing.objects.filter(pk=row.pk, updated_at=row.updated_at).update(**columns)
        Reckoning.objects.filter(pk=phase_id).update(reckoned=state.changes, next_at=timezone.now() + pause)
        if changed:
            state.phase.challenge.mark_changed()
    log.info("reckoned", phase=phase_id, standings=len(found), changed=changed, seconds=round(took, 2))


def _work_out(phase: Phase) -> list[tuple[Standing, dict[str, Any]]]:
    """Each row of a phase, with what its columns become."""
    challenge = phase.challenge
    rows = {row.submission_id: row for row in Standing.objects.filter(phase=phase)}
    count = counting_defenses(phase)
    defenses = _defenses(phase, rows, count)
    counting = [defenses[entry] for entry in count if entry in defenses]
    scores = _defense_scores(challenge, rows, defenses)
    numbers = {entry: _defense_numbers(challenge, rows[entry], over, scores) for entry, over in defenses.items()}
    facts: dict[UUID, dict[str, float]] = defaultdict(dict)
    for attack in Submission.objects.taking_part(phase).attacks().values_list("pk", flat=True):
        if attack in rows:
            numbers[attack], facts[attack] = _attack_numbers(challenge, rows[attack], counting, scores)
    bands = {**_bands(phase, Submission.Kind.DEFENSE, scores), **_bands(phase, Submission.Kind.ATTACK, scores)}
    found = []
    for entry, row in rows.items():
        intervals = {name: list(ranking.interval(*number)) for name, number in numbers.get(entry, {}).items()}
        others = {name: fact for name, fact in row.facts.items() if name != "novelty"}
        columns: dict[str, Any] = {"intervals": intervals, "band": bands.get(entry), "facts": others | facts[entry]}
        if "worst_leak" in intervals:  # the error of the choice is part of it, which that of the chosen ones is not
            columns["worst_leak_error"] = float(numbers[entry]["worst_leak"][1].std())
        found.append((row, columns))
    return found


# A number, and the same in each resample.
Numbers = dict[str, tuple[float, Floats]]


def _defenses(phase: Phase, rows: dict[UUID, Standing], counting: Container[UUID]) -> dict[UUID, Summary]:
    """The defenses that have a utility, over all resamples; those that count with what attacks take from them."""
    strict = strict_metric(phase.challenge) if phase.challenge.ranking == Challenge.Ranking.TPR else None
    found = {}
    for entry in Submission.objects.taking_part(phase).defenses().select_related("challenge"):
        if entry.pk in rows and rows[entry.pk].utility is not None:
            over = resampled.summary(entry, phase, strict=strict, attacked=entry.pk in counting)
            if over is not None:
                found[entry.pk] = over
    return found


def _defense_scores(
    challenge: Challenge, rows: dict[UUID, Standing], defenses: dict[UUID, Summary]
) -> dict[UUID, Floats]:
    """The scores in each resample of defenses that have one; which ones are qualified is taken as settled."""
    scored = {entry: over for entry, over in defenses.items() if rows[entry].score is not None}
    good = {entry: over for entry, over in scored.items() if rows[entry].qualified}
    found = {entry: np.zeros(bootstrap.RESAMPLES) for entry in scored}
    if not good:
        return found
    worst = np.stack([over.worst_leak for over in good.values()])
    strict = np.stack([over.strict_leak for over in good.values()])
    measured = Measured(
        utility=np.stack([over.utility for over in good.values()]),
        privacy=ranking.privacy(worst, challenge.reference_leak),
        worst_leak=np.clip(worst, 0, 1),
        strict_privacy=ranking.privacy(strict, challenge.reference_leak),
        epsilon=np.broadcast_to(np.array([[over.epsilon] for over in good.values()]), worst.shape),
    )
    return found | dict(zip(good, rankings.score(challenge.ranking, measured), strict=True))


def _defense_numbers(challenge: Challenge, row: Standing, over: Summary, scores: dict[UUID, Floats]) -> Numbers:
    assert row.utility is not None
    found = {"utility": (row.utility, over.utility)}
    if row.worst_leak is not None and row.privacy is not None:
        found["worst_leak"] = (row.worst_leak, over.worst_leak)
        found["privacy"] = (row.privacy, ranking.privacy(over.worst_leak, challenge.reference_leak))
    if row.score is not None and row.submission_id in scores:
        found["score"] = (row.score, scores[row.submission_id])
    return found


def _attack_numbers(
    challenge: Challenge, row: Standing, counting: list[Summary], scores: dict[UUID, Floats]
) -> tuple[Numbers, dict[str, float]]:
    """What the intervals of an attack are made of, and its facts; puts its score into `scores`."""
    attack = row.submission_id
    met = [over for over in counting if attack in over.successes]
    if row.score is None or row.mean_leak is None or not met:
        return {}, {}
    s = np.stack([over.successes[attack] for over in met], axis=1)
    scores[attack] = ranking.attack_score(np.stack([over.utility for over in met], axis=1), s)
    # of what is never negative the interval begins at 0
    found = {
        "mean_leak": (row.mean_leak, np.clip(s.mean(axis=1), 0, None)),
        "score": (row.score, np.clip(scores[attack], 0, None)),
    }
    added = [over.added[attack] for over in met if attack in over.added]
    if not challenge.novelty_prize or not added:
        return found, {}
    novelty = np.mean(added, axis=0)
    found["novelty"] = (float(novelty.mean()), novelty)
    return found, {"novelty": float(novelty.mean())}


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

"""Leaks become standings: an entry's row is recomputed from the stored duels when one of them changes (SCORING 2, 3).

A new duel touches its defense's row and its attack's; only when it changes which defenses count do all attacks follow.
Every phase has rows of its own, and duels that an organiser voided count nowhere. A final that is not revealed has no
rows: what is not there cannot be seen.
"""

from collections import defaultdict
from collections.abc import Iterable
from typing import Any
from uuid import UUID

import numpy as np
from django.db.models import Avg, FloatField, Q
from django.db.models.functions import Coalesce

from challenges.metrics import duel as metrics
from challenges.metrics import ladder, rankings
from challenges.metrics.rankings import Measured
from challenges.metrics.rounding import public
from challenges.models import Challenge, Phase
from sandbox.reasons import Reason
from submissions import reckoning
from submissions.matrix import Faced, counting_defenses, strict_metric
from submissions.models import Duel, Standing, Submission

_ROUNDING = 1e-9  # of floating-point numbers: a utility exactly at the threshold passes


def refresh_duel(duel: Duel) -> None:
    """Brings the boards of its phase up to date after one more duel, or one fewer."""
    phase = duel.release.phase
    if phase.is_sealed:
        return
    before = counting_defenses(phase)
    _defense(duel.release.submission, phase)
    _attacks(phase, [duel.attack] if counting_defenses(phase) == before else None)
    reckoning.mark(phase)


def refresh_all(challenge: Challenge) -> None:
    """Recomputes every row of a challenge, in all its phases: who takes part has changed."""
    for phase in challenge.phases.all():
        refresh_phase(phase)


def refresh_phase(phase: Phase) -> None:
    """Recomputes every row of a phase from its stored duels."""
    if phase.is_sealed:
        return
    # the earlier ones first: on the Ladder what a team was told last depends on what it was told before
    for defense in Submission.objects.playing(phase).defenses().order_by("created_at"):
        _defense(defense, phase)
    _attacks(phase)
    reckoning.mark(phase)


def refresh_defense(defense: Submission, phase: Phase) -> None:
    """Recomputes the row of a defense: it has a new release."""
    if phase.is_sealed:
        return
    _defense(defense, phase)
    reckoning.mark(phase)


def refresh_attack(attack: Submission, phase: Phase) -> None:
    """Recomputes the row of an attack: it is new."""
    if phase.is_sealed:
        return
    _attacks(phase, [attack])
    reckoning.mark(phase)


def _defense(defense: Submission, phase: Phase) -> None:
    """U, W, P and S of a defense from its releases in a phase and the duels against them."""
    challenge = defense.challenge
    releases = list(defense.releases.filter(phase=phase).order_by("seed"))
    if not releases or challenge.trivial_utility is None or challenge.reference_utility is None:
        return
    utility = metrics.normalised_utility(
        [release.utility for release in releases], challenge.trivial_utility, challenge.reference_utility
    )
    row = _row(defense, phase)
    complete = len(releases) == phase.seeds
    public_utility = _public_utility(row, utility) if complete else None
    faced = Faced.by(defense, phase, seeds=len(releases))
    worst = metrics.crossfit(faced.leaks, faced.errors, faced.present)
    useful = utility >= challenge.utility_threshold - _ROUNDING
    # Before every seed ran and every baseline was met, nothing can be said about privacy.
    known = bool(faced.attacks) and public_utility is not None and not _awaits_baselines(defense, phase)
    qualified = known and useful and faced.baseline_leak < challenge.reference_leak
    columns: dict[str, Any] = {"qualified": qualified, "utility": utility, "public_utility": public_utility}
    names = ("privacy", "worst_leak", "worst_leak_error", "worst_attack_id", "score")
    columns |= dict.fromkeys((*names, "public_privacy", "public_worst_leak", "public_score"))
    if known and public_utility is not None:
        strict = 0.0
        if challenge.ranking == Challenge.Ranking.TPR:
            strict = metrics.crossfit_worst_leak(faced.leaks[..., [strict_metric(challenge)]], faced.present)
        exact = _measured(challenge, utility, worst.value, strict, faced.epsilon)
        shown = _measured(challenge, public_utility, public(worst.value), public(strict), public(faced.epsilon))
        columns |= {
            "worst_leak": worst.mean,
            "worst_leak_error": worst.standard_error,
            "worst_attack_id": faced.attacks[worst.choices[0][0]],
            "privacy": exact.privacy.item(),
            "public_worst_leak": shown.worst_leak.item(),
            "public_privacy": public(shown.privacy.item()),
        }
        if challenge.ranking not in rankings.TOGETHER:
            columns["score"] = _score(challenge, exact) if qualified else 0.0
            columns["public_score"] = public(_score(challenge, shown)) if qualified else 0.0
    _write(row, **columns)
    if challenge.ranking in rankings.TOGETHER:
        _together(phase)


def _measured(challenge: Challenge, utility: float, worst: float, strict: float, epsilon: float) -> Measured:
    """What one defense is ranked by, as arrays of one."""
    private, strictly = (metrics.privacy(leak, challenge.reference_leak) for leak in (worst, strict))
    return Measured(*(np.array([number]) for number in (utility, private, worst, strictly, epsilon)))


def _score(challenge: Challenge, measured: Measured) -> float:
    return float(rankings.score(challenge.ranking, measured)[0])


def _together(phase: Phase) -> None:
    """The scores of all ranked defenses, where the score of each depends on the others; anchors have none."""
    rows = [row for row in Standing.objects.on_board(phase=phase, kind=Submission.Kind.DEFENSE) if row.is_open_to_rank]
    good = [row for row in rows if row.qualified]
    scores = {row.pk: (0.0, 0.0) for row in rows}
    if good:
        zeros = np.zeros(len(good))
        exact, shown = (
            rankings.score(
                phase.challenge.ranking,
                Measured(
                    utility=np.array([getattr(row, f"{prefix}utility") for row in good]),
                    privacy=np.array([getattr(row, f"{prefix}privacy") for row in good]),
                    **dict.fromkeys(("worst_leak", "strict_privacy", "epsilon"), zeros),
                ),
            )
            for prefix in ("", "public_")
        )
        scores |= {row.pk: (float(s), public(float(p))) for row, s, p in zip(good, exact, shown, strict=True)}
    for row in rows:
        if (row.score, row.public_score) != scores[row.pk]:
            score, shown_score = scores[row.pk]
            _write(row, score=score, public_score=shown_score)


def _public_utility(row: Standing, utility: float) -> float:
    """U as it is published: while teams can try again through the Ladder, and then for good."""
    defense, phase = row.submission, row.phase
    if phase.kind == Phase.Kind.FINAL or defense.team_id is None:
        return public(utility)
    if row.public_utility is not None and row.utility == utility:
        return row.public_utility
    others = Standing.objects.filter(phase=phase, submission__team=defense.team_id).exclude(submission=defense)
    told = others.values_list("public_utility", flat=True)
    return ladder.released(utility, [shown for shown in told if shown is not None])


def _attacks(phase: Phase, attacks: Iterable[Submission] | None = None) -> None:
    """Q of these attacks, by default of all that play, against the defenses that count."""
    attacks = list(Submission.objects.playing(phase).attacks() if attacks is None else attacks)
    utilities = counting_defenses(phase)
    successes = _successes(attacks, utilities, phase)
    for attack in attacks:
        met = successes[attack.pk]
        exact = [(utilities[defense][0], leak) for defense, leak in met.items()]
        shown = [(utilities[defense][1], public(leak)) for defense, leak in met.items()]
        _write(
            _row(attack, phase),
            mean_leak=float(np.mean([leak for _u, leak in exact])) if met else None,
            score=metrics.attack_score(*zip(*exact, strict=True)) if met else None,
            public_mean_leak=public(float(np.mean([leak for _u, leak in shown]))) if met else None,
            public_score=public(metrics.attack_score(*zip(*shown, strict=True))) if met else None,
        )


def _row(submission: Submission, phase: Phase) -> Standing:
    row = Standing.objects.filter(submission=submission, phase=phase).first() or Standing()
    row.submission, row.phase = submission, phase
    return row


def _write(row: Standing, **columns: Any) -> None:
    """Stores a row. Its band is open again if a number changed by which it is ranked, until the next reckoning."""
    if any(getattr(row, name) != columns.get(name, getattr(row, name)) for name in ("score", "public_score")):
        row.band = None
    for name, value in columns.items():
        setattr(row, name, value)
    row.intervals = {name: ends for name, ends in row.intervals.items() if _holds(ends, row.number(name))}
    row.save()


def _holds(ends: list[float], value: float | None) -> bool:
    return value is not None and ends[0] <= value <= ends[1]


def _awaits_baselines(defense: Submission, phase: Phase) -> bool:
    open_or_faulted = Q(state=Duel.State.PENDING) | Q(reason=Reason.PLATFORM_FAULT)
    baselines = Duel.objects.valid().filter(
        release__submission=defense,
        release__phase=phase,
        attack__role=Submission.Role.BASELINE,
        attack__active=True,
    )
    return baselines.filter(open_or_faulted).exists()


def _successes(attacks: list[Submission], utilities: Iterable[UUID], phase: Phase) -> dict[UUID, dict[UUID, float]]:
    """s(a, d) of each attack against each counting defense that it has met; a failed duel is a leak of 0."""
    rows = (
        Duel.objects.decided()
        .filter(attack__in=attacks, release__submission__in=list(utilities), release__phase=phase)
        .values_list("attack", "release__submission")
        .annotate(leak=Avg(Coalesce("mean_leak", 0.0, output_field=FloatField())))
    )
    met: dict[UUID, dict[UUID, float]] = defaultdict(dict)
    for attack, defense, leak in rows:
        met[attack][defense] = max(0.0, leak)
    return met

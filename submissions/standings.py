"""Leaks become standings: an entry's row is recomputed from the stored duels when one of them changes (SCORING 2, 3).

A new duel touches its defense's row and its attack's; only when it changes which defenses count do all attacks follow.
Every phase has rows of its own, and duels that an organiser voided count nowhere.
"""

from collections import defaultdict
from collections.abc import Iterable
from typing import Any
from uuid import UUID

import numpy as np
from django.db.models import Avg, FloatField, Q
from django.db.models.functions import Coalesce

from challenges.metrics import duel as metrics
from challenges.models import Challenge, Phase
from sandbox.reasons import Reason
from submissions import reckoning
from submissions.matrix import Faced, counting_defenses
from submissions.models import Duel, Standing, Submission

_ROUNDING = 1e-9  # of floating-point numbers: a utility exactly at the threshold passes
_DECIMALS = 2  # of everything that the public sees (SCORING 4)


def refresh_duel(duel: Duel) -> None:
    """Brings the boards of its phase up to date after one more duel, or one fewer."""
    phase = duel.release.phase
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
    for defense in Submission.objects.taking_part(phase).defenses():
        _defense(defense, phase)
    _attacks(phase)
    reckoning.mark(phase)


def refresh_defense(defense: Submission, phase: Phase) -> None:
    """Recomputes the row of a defense: it has a new release."""
    _defense(defense, phase)
    reckoning.mark(phase)


def refresh_attack(attack: Submission, phase: Phase) -> None:
    """Recomputes the row of an attack: it is new."""
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
    faced = Faced.by(defense, phase, seeds=len(releases))
    worst = metrics.crossfit(faced.leaks, faced.errors)
    privacy = metrics.privacy(worst.value, challenge.reference_leak)
    useful = utility >= challenge.utility_threshold - _ROUNDING
    # Before every seed ran and every baseline was met, nothing can be said about privacy.
    known = bool(faced.attacks) and len(releases) == phase.seeds and not _awaits_baselines(defense, phase)
    qualified = known and useful and faced.baseline_leak < challenge.reference_leak
    public_utility, public_leak = public(utility), public(worst.value)
    public_privacy = metrics.privacy(public_leak, challenge.reference_leak)
    _write(
        defense,
        phase,
        qualified=qualified,
        utility=utility,
        worst_leak=worst.mean if known else None,
        worst_leak_error=worst.standard_error if known else None,
        worst_attack_id=faced.attacks[worst.choices[0][0]] if known else None,
        privacy=privacy if known else None,
        score=_score(qualified, utility, privacy) if known else None,
        public_utility=public_utility,
        public_worst_leak=public_leak if known else None,
        public_privacy=public(public_privacy) if known else None,
        public_score=public(_score(qualified, public_utility, public_privacy)) if known else None,
    )


def _attacks(phase: Phase, attacks: Iterable[Submission] | None = None) -> None:
    """Q of these attacks, by default of all that take part, against the defenses that count."""
    attacks = list(Submission.objects.taking_part(phase).attacks() if attacks is None else attacks)
    utilities = counting_defenses(phase)
    successes = _successes(attacks, utilities, phase)
    for attack in attacks:
        met = successes[attack.pk]
        exact = [(utilities[defense], leak) for defense, leak in met.items()]
        shown = [(public(u), public(leak)) for u, leak in exact]
        _write(
            attack,
            phase,
            mean_leak=float(np.mean([leak for _u, leak in exact])) if met else None,
            score=metrics.attack_score(*zip(*exact, strict=True)) if met else None,
            public_mean_leak=public(float(np.mean([leak for _u, leak in shown]))) if met else None,
            public_score=public(metrics.attack_score(*zip(*shown, strict=True))) if met else None,
        )


def public(value: float) -> float:
    """The value as everybody may see it; the sum turns a rounded -0.0 into 0.0."""
    return round(value, _DECIMALS) + 0.0


def _write(submission: Submission, phase: Phase, **columns: Any) -> None:
    """Stores a row. Its band is open again if a number changed by which it is ranked, until the next reckoning."""
    row = Standing.objects.filter(submission=submission, phase=phase).first() or Standing(
        submission=submission, phase=phase
    )
    if any(getattr(row, name) != columns.get(name, getattr(row, name)) for name in ("score", "public_score")):
        row.band = None
    for name, value in columns.items():
        setattr(row, name, value)
    row.intervals = {name: ends for name, ends in row.intervals.items() if _holds(ends, getattr(row, name))}
    row.save()


def _holds(ends: list[float], value: float | None) -> bool:
    return value is not None and ends[0] <= value <= ends[1]


def _score(qualified: bool, utility: float, privacy: float) -> float:
    return metrics.defense_score(utility, privacy) if qualified else 0.0


def _awaits_baselines(defense: Submission, phase: Phase) -> bool:
    open_or_faulted = Q(state=Duel.State.PENDING) | Q(reason=Reason.PLATFORM_FAULT)
    baselines = Duel.objects.valid().filter(
        release__submission=defense,
        release__phase=phase,
        attack__role=Submission.Role.BASELINE,
        attack__active=True,
    )
    return baselines.filter(open_or_faulted).exists()


def _successes(attacks: list[Submission], utilities: dict[UUID, float], phase: Phase) -> dict[UUID, dict[UUID, float]]:
    """s(a, d) of each attack against each counting defense that it has met; a failed duel is a leak of 0."""
    rows = (
        Duel.objects.valid()
        .filter(attack__in=attacks, release__submission__in=list(utilities), release__phase=phase)
        .exclude(state=Duel.State.PENDING)
        .exclude(reason=Reason.PLATFORM_FAULT)
        .values_list("attack", "release__submission")
        .annotate(leak=Avg(Coalesce("mean_leak", 0.0, output_field=FloatField())))
    )
    met: dict[UUID, dict[UUID, float]] = defaultdict(dict)
    for attack, defense, leak in rows:
        met[attack][defense] = max(0.0, leak)
    return met

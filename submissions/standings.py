"""Leaks become standings: an entry's row is recomputed from the stored duels when one of them changes (SCORING 2, 3).

A new duel touches its defense's row and its attack's; only when it changes which defenses count do all attacks follow.
Every phase has rows of its own, and duels that an organiser voided count nowhere.
"""

from collections import defaultdict
from collections.abc import Iterable
from typing import Any
from uuid import UUID

import numpy as np
from django.db.models import Avg, F, FloatField, Q
from django.db.models.functions import Coalesce

from challenges.metrics import duel as metrics
from challenges.models import Challenge, Phase
from sandbox.reasons import Reason
from submissions.matrix import Faced
from submissions.models import Duel, Standing, Submission

_ROUNDING = 1e-9  # of floating-point numbers: a utility exactly at the threshold passes
_DECIMALS = 2  # of everything that the public sees (SCORING 4)


def refresh_duel(duel: Duel) -> None:
    """Brings the boards of its phase up to date after one more duel, or one fewer."""
    phase, defense = duel.release.phase, duel.release.submission
    before = counting_defenses(phase)
    refresh_defense(defense, phase)
    changed = counting_defenses(phase) != before
    refresh_attacks(phase, None if changed else [duel.attack])


def refresh_all(challenge: Challenge) -> None:
    """Recomputes every row of a challenge, in all its phases: who takes part has changed."""
    for phase in challenge.phases.all():
        refresh_phase(phase)


def refresh_phase(phase: Phase) -> None:
    """Recomputes every row of a phase from its stored duels."""
    for defense in Submission.objects.taking_part(phase).defenses():
        refresh_defense(defense, phase)
    refresh_attacks(phase)


def refresh_defense(defense: Submission, phase: Phase) -> None:
    """Recomputes U, W, P and S of a defense in a phase from its releases and the duels against them."""
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


def refresh_attacks(phase: Phase, attacks: Iterable[Submission] | None = None) -> None:
    """Recomputes Q of these attacks, by default of all that take part, against the defenses that count."""
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


def counting_defenses(phase: Phase) -> dict[UUID, float]:
    """The defenses that attacks are scored on, with their utility U: qualified, ranked, the best one of each team."""
    entries = Submission.objects.taking_part(phase).defenses().filter(role=Submission.Role.ENTRY)
    rows = (
        Standing.objects.filter(phase=phase, qualified=True, submission__in=entries)
        .order_by(
            "submission__team",
            F("score").desc(nulls_last=True),
            F("privacy").desc(nulls_last=True),
            F("utility").desc(nulls_last=True),
            "submission__created_at",
        )
        .values_list("submission", "submission__team", "utility")
    )
    best: dict[int, tuple[UUID, float]] = {}
    for defense, team, utility in rows:
        best.setdefault(team, (defense, utility or 0.0))
    return dict(best.values())


def public(value: float) -> float:
    """The value as everybody may see it; the sum turns a rounded -0.0 into 0.0."""
    return round(value, _DECIMALS) + 0.0


def _write(submission: Submission, phase: Phase, **columns: Any) -> None:
    Standing.objects.update_or_create(submission=submission, phase=phase, defaults=columns)


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

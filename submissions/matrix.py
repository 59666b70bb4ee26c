"""The stored matrix as arrays: what every board, interval and export is computed from."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import numpy as np
from django.db.models import F

from challenges.metrics import duel as metrics
from challenges.models import Challenge, Phase
from challenges.scenarios import registry
from challenges.scenarios.base import Floats
from challenges.splits import Flags
from submissions.models import Duel, Standing, Submission


@dataclass(frozen=True, eq=False)
class Faced:
    """The finished, valid duels against one defense in a phase, attacks in order of submission.

    `leaks` and `errors` are [unit, attack, metric]; the units are the folds of the first seed, then of the next.
    `present` [unit, attack] is false where the attack failed: what the others hold there is 0 and means nothing.
    """

    attacks: list[UUID]
    leaks: Floats
    errors: Floats
    present: Flags
    baseline_leak: float  # cross-fitted W over the organiser's baselines alone
    epsilon: float  # the largest audited lower bound of all these duels, 0 where none was audited

    @classmethod
    def by(cls, defense: Submission, phase: Phase, seeds: int) -> "Faced":
        """Only attacks count whose duels are over for each of the `seeds`, at least one of them with a result."""
        rows = (
            Duel.objects.decided()
            .filter(release__submission=defense, release__phase=phase)
            .filter(attack__in=Submission.objects.taking_part(phase))
            .order_by("attack__created_at", "attack", "release__seed")
            .values_list("attack", "attack__role", "leaks", "errors", "detail__epsilon")
        )
        leaks: dict[UUID, list[Any]] = defaultdict(list)
        errors: dict[UUID, list[Any]] = defaultdict(list)
        roles: dict[UUID, str] = {}
        epsilon = 0.0
        for attack, role, leak, error, bound in rows:
            epsilon = max(epsilon, audited(bound) or 0.0)
            leaks[attack].append(leak)
            errors[attack].append(error)
            roles[attack] = role
        over = [attack for attack in leaks if len(leaks[attack]) == seeds and any(leaks[attack])]
        array, present = units([leaks[attack] for attack in over])
        spread, _present = units([errors[attack] for attack in over])
        baselines = [place for place, attack in enumerate(over) if roles[attack] == Submission.Role.BASELINE]
        baseline_leak = metrics.crossfit_worst_leak(array[:, baselines], present[:, baselines]) if baselines else 0.0
        return cls(over, array, spread, present, baseline_leak=baseline_leak, epsilon=epsilon)


def units(played: Sequence[Sequence[Any]]) -> tuple[Floats, Flags]:
    """The numbers of several attacks with a defense as [..., unit, attack, metric], and which are there [unit, attack].

    `played[attack][seed]` is [..., unit of the seed, metric] of a duel with a result, or empty where it failed; each
    attack has one with a result at least. Without attacks, [0, 0, 0] and [0, 0].
    """
    if not played:
        return np.zeros((0, 0, 0)), np.zeros((0, 0), dtype=np.bool_)
    arrays = [[np.asarray(duel, dtype=np.float64) for duel in duels] for duels in played]
    hole = np.zeros_like(next(duel for duel in arrays[0] if duel.size))
    filled = [np.concatenate([duel if duel.size else hole for duel in duels], axis=-2) for duels in arrays]
    there = [np.repeat([duel.size > 0 for duel in duels], hole.shape[-2]) for duels in arrays]
    return np.stack(filled, axis=-2), np.stack(there, axis=-1)


def audited(found: Any) -> float | None:
    """The audited bound that the detail of a duel has under "epsilon"; a secret column may have that name instead."""
    return float(found) if isinstance(found, int | float) else None


def strict_metric(challenge: Challenge) -> int:
    """The place of the leak by the true-positive rate alone among the metrics of the challenge."""
    return registry.get(challenge.scenario).metrics(challenge.game).index("tpr")


def counting_defenses(phase: Phase) -> dict[UUID, tuple[float, float]]:
    """The defenses that attacks are scored on, with their U, exact and published: the best qualified one of each team.

    Anchors are not among them.
    """
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
        .values_list("submission", "submission__team", "utility", "public_utility")
    )
    best: dict[int, tuple[UUID, tuple[float, float]]] = {}
    for defense, team, utility, shown in rows:
        best.setdefault(team, (defense, (utility or 0.0, shown or 0.0)))
    return dict(best.values())

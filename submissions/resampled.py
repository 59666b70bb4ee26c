"""The numbers of a phase over all resamples: read from the stored matrix, worked out again in each (SCORING 3)."""

from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property
from uuid import UUID

import numpy as np

from challenges.metrics import bootstrap, ranking
from challenges.models import Phase
from challenges.scenarios.base import Floats
from challenges.splits import Flags
from submissions.matrix import audited, units
from submissions.models import Duel, Submission


@dataclass(frozen=True, eq=False)
class ResampledDuel:
    """A decided duel: its leaks [R, units, metrics], moved to the estimate; empty if the attack failed."""

    attack: UUID
    seed: int
    leaks: Floats
    epsilon: float  # its audited lower bound, which is no estimate and has no resamples; 0 where there is none

    @property
    def failed(self) -> bool:
        return self.leaks.size == 0


@dataclass(frozen=True, eq=False)
class ResampledDefense:
    """One defense in a phase over R resamples.

    `utility` [R] is U, None while the challenge has no anchors; `duels` are the decided ones against it, attacks in
    order of submission, by seed.
    """

    utility: Floats | None
    seeds: int
    duels: list[ResampledDuel]

    @cached_property
    def played(self) -> dict[UUID, list[ResampledDuel]]:
        """The duels of each attack that count for W: over for each seed, at least one of them with a result."""
        by_attack: dict[UUID, list[ResampledDuel]] = defaultdict(list)
        for duel in self.duels:
            by_attack[duel.attack].append(duel)
        return {
            attack: found
            for attack, found in by_attack.items()
            if len(found) == self.seeds and not all(duel.failed for duel in found)
        }

    @cached_property
    def leaks(self) -> tuple[Floats, Flags]:
        """[R, units, attacks, metrics] of the attacks in `played`, and which are there: [units, attacks]."""
        if not self.played:
            return np.zeros((bootstrap.RESAMPLES, 0, 0, 0)), np.zeros((0, 0), dtype=np.bool_)
        return units([[duel.leaks for duel in found] for found in self.played.values()])

    def worst_leak(self, metric: int | None = None) -> Floats:
        """W before clipping, cross-fitted anew in each resample: [R]. Of one metric alone, if it is given."""
        leaks, present = self.leaks
        return ranking.worst_leak(leaks if metric is None or not self.played else leaks[..., [metric]], present)

    @cached_property
    def added(self) -> dict[UUID, Floats]:
        """How much W falls without each attack of `played`, [R]: what nobody else would have found."""
        without = self.worst_leak()[:, None] - ranking.without_each(*self.leaks)
        return {attack: without[:, place] for place, attack in enumerate(self.played)}

    @cached_property
    def epsilon(self) -> float:
        return max((duel.epsilon for duel in self.duels), default=0.0)

    @cached_property
    def successes(self) -> dict[UUID, Floats]:
        """The signed s(a, d) of each attack, [R]: the mean over its duels, of which failed ones count as 0."""
        nothing = np.zeros(bootstrap.RESAMPLES)
        means: dict[UUID, list[Floats]] = defaultdict(list)
        for duel in self.duels:
            means[duel.attack].append(nothing if duel.failed else duel.leaks.mean(axis=(1, 2)))
        return {attack: np.mean(found, axis=0) for attack, found in means.items()}


@dataclass(frozen=True, eq=False)
class Summary:
    """What the boards need of a defense over the resamples, [R] each: a hundredth of what it was worked out from.

    `strict_leak` is W by one metric alone; `successes` and `added` are by attack.
    """

    utility: Floats
    worst_leak: Floats
    strict_leak: Floats
    epsilon: float
    successes: dict[UUID, Floats]
    added: dict[UUID, Floats]


def summary(submission: Submission, phase: Phase, *, strict: int | None, attacked: bool) -> Summary | None:
    """The summary of a defense, None while it has no utility; with the attacks' side only if `attacked`."""
    over = defense(submission, phase)
    if over.utility is None:
        return None
    worst = over.worst_leak()
    return Summary(
        utility=over.utility,
        worst_leak=worst,
        strict_leak=np.zeros_like(worst) if strict is None else over.worst_leak(strict),
        epsilon=over.epsilon,
        successes=over.successes if attacked else {},
        added=over.added if attacked else {},
    )


def defense(submission: Submission, phase: Phase) -> ResampledDefense:
    """A defense over the resamples, read from its releases and duels: some 16 kB of each."""
    challenge = submission.challenge
    releases = submission.releases.filter(phase=phase).order_by("seed").values_list("pk", "utility", "replicates")
    utilities = [_replicates(f"release {pk}", u, np.zeros(()), stored) for pk, u, stored in releases]
    utility = None
    if utilities and challenge.trivial_utility is not None and challenge.reference_utility is not None:
        u = np.stack(utilities, axis=1)
        utility = ranking.normalised_utility(u, challenge.trivial_utility, challenge.reference_utility)
    rows = (
        Duel.objects.decided()
        .filter(release__submission=submission, release__phase=phase)
        .filter(attack__in=Submission.objects.taking_part(phase))
        .order_by("attack__created_at", "attack", "release__seed")
        .values_list("pk", "attack", "release__seed", "state", "leaks", "errors", "detail__epsilon", "replicates")
    )
    duels = [
        ResampledDuel(
            attack,
            seed,
            np.zeros(0) if state == Duel.State.FAILED else _replicates(f"duel {pk}", leaks, errors, stored),
            audited(epsilon) or 0.0,
        )
        for pk, attack, seed, state, leaks, errors, epsilon, stored in rows
    ]
    return ResampledDefense(utility, len(utilities), duels)


def _replicates(name: str, values: object, errors: object, stored: bytes | memoryview | None) -> Floats:
    """Stored replicates; of rows from before there were any, normal ones of the stored standard errors."""
    if stored is None:
        return ranking.normal(values, errors, name.encode(), bootstrap.RESAMPLES)
    return ranking.recentred(values, bootstrap.unpack(bytes(stored)))

"""From resamples to intervals and rank bands (SCORING 3). Pure numpy; R stands for the number of resamples.

Every score is worked out again in each resample, the choice of the cross-fitted worst attack included, so that an
interval also holds what is uncertain about that choice. Two entries are compared within the same resamples: what they
share (the test records; in a final also the candidates) cancels out of their difference.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from challenges.metrics.duel import TRIMMED_FROM, promise

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

CONFIDENCE: Final = 0.95
_BEHIND: Final = 1e9  # more than any leak is apart from another


def recentred(values: Any, replicates: Any) -> Floats:
    """Replicates [R, ...] moved so that their mean is `values` [...].

    A measure that is biased in small samples (the step convention of the TPR is, for a resample repeats records) is
    biased once more in resamples of them; that second bias says nothing about the estimate and is taken out.
    """
    estimate, spread = np.asarray(values, dtype=np.float64), np.asarray(replicates, dtype=np.float64)
    return np.asarray(spread + (estimate - spread.mean(axis=0)))


def normal(values: Any, errors: Any, key: bytes, resamples: int) -> Floats:
    """Replicates [R, ...] of measures of which only standard errors are known: normal, the same for the same key."""
    estimate = np.asarray(values, dtype=np.float64)
    noise = np.random.default_rng(list(key)).standard_normal((resamples, *estimate.shape))
    return np.asarray(estimate + noise * np.asarray(errors, dtype=np.float64))


def normalised_utility(u: Floats, trivial: float, reference: float) -> Floats:
    """`duel.normalised_utility` in each resample: [R, seeds] -> [R]."""
    return np.asarray(np.clip((u.mean(axis=1) - trivial) / (reference - trivial), 0, 1))


def worst_leak(leaks: Floats, present: Flags | None = None) -> Floats:
    """`duel.crossfit(...).mean` (W before clipping) in each resample: [R, units, attacks, metrics] -> [R].

    `present` [units, attacks]: which duels have a result; by default all.
    """
    leaks, present = _used(leaks, present)
    resamples, units = leaks.shape[:2]
    if leaks.size == 0:  # nobody has attacked yet
        return np.zeros(resamples)
    flat = leaks.reshape(resamples, units, -1)
    chosen = promise(leaks, present)[0].reshape(flat.shape).argmax(axis=2)[:, :, None]
    return np.asarray(np.take_along_axis(flat, chosen, axis=2).mean(axis=(1, 2)))


def _used(leaks: Floats, present: Flags | None) -> tuple[Floats, Flags]:
    """The units in which some duel has a result, and which ones have."""
    there = np.ones(leaks.shape[1:3], dtype=np.bool_) if present is None else present
    used = there.any(axis=1)
    return leaks[:, used], there[used]


def privacy(worst: Floats, reference_leak: float) -> Floats:
    """`duel.privacy` in each resample: [R] -> [R]."""
    return np.clip(1 - np.clip(worst, 0, 1) / reference_leak, 0, 1)


def harmonic(utility: Floats, private: Floats) -> Floats:
    """`duel.defense_score` in each resample: [R], [R] -> [R]."""
    total = utility + private
    return np.asarray(np.divide(200 * utility * private, total, out=np.zeros_like(total), where=total > 0))


def attack_score(utilities: Floats, successes: Floats) -> Floats:
    """`duel.attack_score` in each resample, of signed successes: [R, defenses], [R, defenses] -> [R].

    The score itself cuts each success at 0. Here none is cut: a useless attack would otherwise seem to be better than
    nothing in every resample.
    """
    weights, s = utilities, successes
    if s.shape[1] >= TRIMMED_FROM:
        kept = np.lexsort((weights, s), axis=1)[:, 1:-1]
        weights, s = np.take_along_axis(weights, kept, axis=1), np.take_along_axis(s, kept, axis=1)
    total = weights.sum(axis=1)
    return np.asarray(np.divide(100 * (weights * s).sum(axis=1), total, out=np.zeros_like(total), where=total > 0))


def interval(value: float, replicates: Floats) -> tuple[float, float]:
    """The 95 % percentile interval of [R] replicates, widened to `value` where the estimate lies outside."""
    low, high = np.quantile(replicates, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return min(float(low), value), max(float(high), value)


def bands(values: Sequence[float], replicates: Sequence[Floats]) -> list[int]:
    """The rank band of each entry, 1 for the leaders, from scores and their replicates [R]; best entry first.

    An entry shares the band of its leader (the best entry that no earlier band holds) while the interval of their
    difference, over the same resamples, holds 0; the first that does not leads the next band. The intervals hold at
    once for all pairs of the board (a studentised range, by bootstrap): the leader of many equals is the luckiest of
    them, and intervals of one pair at a time would tell ten equals apart on six boards of ten.
    """
    if not values:
        return []
    spread = np.stack([each - each.mean() for each in replicates])
    reach = _reach(spread)
    found, leader = [1], 0
    for entry in range(1, len(values)):
        error = float((spread[leader] - spread[entry]).std())
        if values[leader] - values[entry] <= reach * error + 1e-9:
            found.append(found[-1])
        else:
            found.append(found[-1] + 1)
            leader = entry
    return found


def _reach(spread: Floats) -> float:
    """How many standard errors the difference of any two of [entries, R] strays at most, in 95 % of resamples."""
    farthest = np.zeros(spread.shape[1])
    for entry in range(len(spread) - 1):
        apart = spread[entry] - spread[entry + 1 :]
        errors = apart.std(axis=1, keepdims=True)
        studentised = np.divide(np.abs(apart), errors, out=np.zeros_like(apart), where=errors > 1e-12)
        farthest = np.maximum(farthest, studentised.max(axis=0))
    return float(np.quantile(farthest, CONFIDENCE))


def without_each(leaks: Floats, present: Flags | None = None) -> Floats:
    """W before clipping, were one attack not there: [R, units, attacks, metrics] -> [R, attacks].

    In each unit the attack that leaks most on the others is left out, and the next best one takes its place; without
    any other attack nothing leaks. The difference to `worst_leak` is what nobody else would have found.
    """
    leaks, present = _used(leaks, present)
    attacks = leaks.shape[2]
    if leaks.size == 0:
        return np.zeros((len(leaks), attacks))
    others, _alone = promise(leaks, present)
    # behind all that others can judge come those who count by themselves once the others are gone
    others = np.where(np.isneginf(others) & present[..., None], leaks - _BEHIND, others)
    metric = others.argmax(axis=3)[..., None]  # each attack's own best, [R, units, attacks, 1]
    promised = np.take_along_axis(others, metric, axis=3)[..., 0]
    kept = np.take_along_axis(np.where(present[..., None], leaks, 0.0), metric, axis=3)[..., 0]
    order = np.argsort(-promised, axis=2, kind="stable")
    first = order[..., :1]
    best = np.take_along_axis(kept, first, axis=2)
    second = np.take_along_axis(kept, order[..., 1:2], axis=2) if attacks > 1 else np.zeros_like(best)
    leads = np.arange(attacks) == first  # [R, units, attacks]
    return np.asarray(np.where(leads, second, best).mean(axis=1))

"""From leaks to the scores of defenses and attacks (SCORING 2 and 3)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from challenges.metrics.arrays import as_number, as_numbers, as_share

# From this many defenses on, an attack's best and worst duel are left out (SCORING 3).
TRIMMED_FROM = 5


@dataclass(frozen=True)
class WorstLeak:
    """A cross-fitted worst leak W of one defense.

    `value` is W, clipped to [0, 1]; `mean` the same before clipping, which may be negative; `standard_error` that of
    `mean` (None if no errors were given); `choices[k] = (attack, metric)` the pair taken in unit k, empty without
    attacks; `in_sample` whether there was one unit only, so that W is the maximum itself and too high on average.
    """

    value: float
    mean: float
    standard_error: float | None
    choices: tuple[tuple[int, int], ...]
    in_sample: bool


def normalised_utility(u: ArrayLike, trivial: float, reference: float) -> float:
    """U: the mean of the raw utilities (one per seed, or a single number) between the anchors, clipped to [0, 1].

    Works for lower-is-better metrics too, where `reference` < `trivial`. Equal anchors raise ValueError.
    """
    mean = float(as_numbers(np.atleast_1d(np.asarray(u)), "The utilities").mean()) if np.size(u) else math.nan
    if math.isnan(mean):
        raise ValueError("There must be at least one utility.")
    low, high = as_number(trivial, "The trivial anchor"), as_number(reference, "The reference anchor")
    if low == high:
        raise ValueError("The anchors must differ: otherwise there is nothing between trivial and best.")
    return _clip((mean - low) / (high - low))


def privacy(worst_leak: float, reference_leak: float = 0.20) -> float:
    """P: 1 without a leak, 0 from the reference leak on."""
    reference = as_number(reference_leak, "The reference leak")
    if reference <= 0:
        raise ValueError("The reference leak must be positive.")
    return _clip(1 - as_number(worst_leak, "The worst leak") / reference)


def crossfit_worst_leak(leaks: ArrayLike, present: ArrayLike | None = None) -> float:
    """W: the worst of several attacks and metrics, without the noise of a maximum; see `crossfit`.

    `leaks[seed][attack][metric]`: one number per unit (seed or fold), attack (in order of submission) and metric.
    """
    return crossfit(leaks, present=present).value


def crossfit(leaks: ArrayLike, errors: ArrayLike | None = None, present: ArrayLike | None = None) -> WorstLeak:
    """The cross-fitted worst leak with all that belongs to it.

    In each unit the (attack, metric) pair counts that leaks most on average over the *other* units; ties go to the
    earlier attack, then to the first metric. With a single unit there are no others: the maximum itself counts, and
    `in_sample` says so. Without attacks W is 0. `errors` has the shape of `leaks` and holds their standard errors;
    units count as independent.

    `present[unit][attack]` says which duels have a result (default: all); what `leaks` holds of the others is ignored.
    A failed duel is no reason to forget the attack's others: see `promise`. A unit without any result is left out.
    """
    values = _leaks(leaks, "The leaks")
    if values.size == 0:
        return WorstLeak(0.0, 0.0, None if errors is None else 0.0, (), in_sample=False)
    there = _present(present, values.shape[:2])
    used = np.flatnonzero(there.any(axis=1))
    if not len(used):
        return WorstLeak(0.0, 0.0, None if errors is None else 0.0, (), in_sample=False)
    units, metrics = len(used), values.shape[2]
    flat = values[used].reshape(units, -1)
    promised, alone = promise(values[used], there[used])
    chosen = _first_maximum(promised.reshape(units, -1))
    mean = float(flat[np.arange(units), chosen].mean())
    error = None
    if errors is not None:
        spread = _leaks(errors, "The errors")
        if spread.shape != values.shape or (spread < 0).any():
            raise ValueError("The errors must have the shape of the leaks and must not be negative.")
        error = math.sqrt(float((spread[used].reshape(units, -1)[np.arange(units), chosen] ** 2).sum())) / units
    choices = tuple((int(pair) // metrics, int(pair) % metrics) for pair in chosen)
    return WorstLeak(_clip(mean), mean, error, choices, in_sample=bool(alone.any()))


def promise(leaks: NDArray[np.float64], present: NDArray[np.bool_]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """What each pair leaks on average over the other units, by which the worst one of a unit is chosen.

    `leaks` [..., units, attacks, metrics], `present` [units, attacks]. An attack whose duel failed in some units is
    judged by those in which it came through; it cannot be chosen where it has no result (-inf). So a defense gains
    little by making a strong attack fail once, and an attack that fails on purpose decides nothing where it failed.

    Also returns for each unit [units] whether no attack there has a result elsewhere: those that have one in it then
    count by that itself.
    """
    known = np.where(present[..., None], leaks, 0.0)
    number = present.sum(axis=0) - present
    others = (known.sum(axis=-3, keepdims=True) - known) / np.maximum(number, 1)[..., None]
    fit = present & (number > 0)
    alone = ~fit.any(axis=1)
    judged = np.where(alone[:, None, None], known, others)
    eligible = np.where(alone[:, None], present, fit)
    return np.where(eligible[..., None], judged, -np.inf), alone


def defense_score(utility: float, privacy: float) -> float:
    """S: 100 times the harmonic mean of utility and privacy (both between 0 and 1); 0 if both are 0."""
    u, p = as_share(utility, "The utility"), as_share(privacy, "The privacy")
    return 100 * 2 * u * p / (u + p) if u + p > 0 else 0.0


def attack_score(utilities: ArrayLike, successes: ArrayLike) -> float:
    """Q: 100 times the mean success over defenses, weighted by their utility; 0 if there is nothing to weigh.

    With five or more defenses the lowest and the highest success are left out first (of equal ones the least useful
    lowest and the most useful highest, so that the order of the defenses does not matter).
    """
    weights = as_numbers(utilities, "The utilities").astype(np.float64)
    s = as_numbers(successes, "The successes").astype(np.float64)
    if weights.shape != s.shape:
        raise ValueError("There must be as many utilities as successes.")
    if (weights < 0).any() or (weights > 1).any():
        raise ValueError("The utilities must lie between 0 and 1.")
    s = np.clip(s, 0, None)
    if len(s) >= TRIMMED_FROM:
        kept = np.lexsort((weights, s))[1:-1]
        weights, s = weights[kept], s[kept]
    total = float(weights.sum())
    return 100 * float(weights @ s) / total if total > 0 else 0.0


def _leaks(leaks: ArrayLike, what: str) -> NDArray[Any]:
    try:
        array = np.asarray(leaks)
    except ValueError:
        raise ValueError(f"{what} must hold the same attacks and metrics in every unit.") from None
    if array.size == 0:
        return np.zeros((0, 0, 0))
    return as_numbers(array, what, ndim=3).astype(np.float64)


def _present(present: ArrayLike | None, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    if present is None:
        return np.ones(shape, dtype=np.bool_)
    array = np.asarray(present)
    if array.shape != shape or array.dtype != np.bool_:
        raise ValueError("There must be a truth value for each unit and attack.")
    return array


def _first_maximum(rows: NDArray[Any]) -> NDArray[np.int64]:
    """The first column that holds the maximum of each row, where sums that differ by rounding only count as equal."""
    top = rows.max(axis=1, keepdims=True)
    return np.asarray(np.argmax(rows >= top - 1e-12, axis=1), dtype=np.int64)


def _clip(value: float) -> float:
    return min(max(value, 0.0), 1.0)

"""The orders of defenses that an organiser may choose, all from the same matrix. Pure numpy.

Each order is a score from 0 to 100, higher is better, so that boards, intervals and rank bands need not know which one
it is. Arrays are [defenses] for the estimates or [defenses, R] over resamples.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Measured:
    """What defenses are ranked by: U, P and W (clipped to [0, 1]), the privacy and the epsilon that an order may need.

    `strict_privacy` is P by the true-positive rate alone, `epsilon` the largest audited lower bound; zeros where the
    scenario has no such measure, as `challenges.checks` sees to that they are not chosen then.
    """

    utility: Floats
    privacy: Floats
    worst_leak: Floats
    strict_privacy: Floats
    epsilon: Floats


def harmonic(measured: Measured) -> Floats:
    """S of SCORING 3: being good at only one of the two is worth little."""
    u, p = measured.utility, measured.privacy
    total = u + p
    return np.asarray(np.divide(200 * u * p, total, out=np.zeros_like(total), where=total > 0))


def gate(measured: Measured) -> Floats:
    """Privacy alone, among defenses that are useful enough (those that are not are unqualified, and have no score)."""
    return np.asarray(100 * measured.privacy)


def product(measured: Measured) -> Floats:
    """U (1 - W): the share of the utility that comes without what leaks; W is not measured by a reference leak."""
    return np.asarray(100 * measured.utility * (1 - measured.worst_leak))


def strict(measured: Measured) -> Floats:
    """Privacy by the true-positive rate at few false positives alone (Carlini et al., S&P 2022)."""
    return np.asarray(100 * measured.strict_privacy)


def audited(measured: Measured) -> Floats:
    """exp(-epsilon) of the largest audited lower bound: 100 where no attack proves anything, 37 at epsilon = 1."""
    return np.asarray(100 * np.exp(-measured.epsilon))


def pareto(measured: Measured) -> Floats:
    """Fronts of utility and privacy: the first is what no other defense beats in both, the next what none of the rest.

    Front f lies between 100/(f+1) and 100/f points; within it counts the area of the unit square that a defense alone
    adds to what its front dominates (exclusive hypervolume, reference point (0, 0)).
    """
    u, p = np.atleast_2d(measured.utility.T), np.atleast_2d(measured.privacy.T)  # [R, defenses]
    scores = np.zeros_like(u)
    left = np.ones_like(u, dtype=bool)
    at_least = (u[:, :, None] >= u[:, None, :]) & (p[:, :, None] >= p[:, None, :])  # [r, i, j]: i is as good as j
    beats = at_least & ~at_least.swapaxes(1, 2)
    number = 1
    while left.any():
        front = left & ~(beats & left[:, :, None]).any(axis=1)
        step = 1 / number - 1 / (number + 1)
        points = 100 * (1 / (number + 1) + _alone(u, p, front) * step)
        scores = np.where(front, points, scores)
        left &= ~front
        number += 1
    return np.asarray(scores.T.reshape(measured.utility.shape))


def _alone(u: Floats, p: Floats, front: NDArray[np.bool_]) -> Floats:
    """The area that each member of a front adds alone, [R, defenses]; 0 elsewhere."""
    key = np.where(front, u, 2.0)  # members first, by utility; of equal ones by privacy
    order = np.lexsort((p, key), axis=1)
    sorted_u = np.take_along_axis(np.where(front, u, np.nan), order, axis=1)
    sorted_p = np.take_along_axis(np.where(front, p, np.nan), order, axis=1)
    zero = np.zeros((len(u), 1))
    before = np.concatenate([zero, sorted_u[:, :-1]], axis=1)
    after = np.nan_to_num(np.concatenate([sorted_p[:, 1:], zero], axis=1))  # behind the last member there is nothing
    area = np.nan_to_num((sorted_u - before) * (sorted_p - after))
    back = np.empty_like(area)
    np.put_along_axis(back, order, area, axis=1)
    return np.asarray(back, dtype=np.float64)


# The values of Challenge.ranking.
RANKINGS: Final[dict[str, Callable[[Measured], Any]]] = {
    "harmonic": harmonic,
    "gate": gate,
    "product": product,
    "pareto": pareto,
    "tpr": strict,
    "epsilon": audited,
}
# Orders in which the score of one defense depends on all others.
TOGETHER: Final = frozenset({"pareto"})
# Orders that need the measures of membership inference.
MEMBERSHIP_ONLY: Final = frozenset({"tpr", "epsilon"})


def score(ranking: str, measured: Measured) -> Floats:
    """The scores by one of RANKINGS, in the shape of what was measured."""
    return np.asarray(RANKINGS[ranking](measured), dtype=np.float64)

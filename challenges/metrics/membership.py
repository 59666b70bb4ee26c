"""How well scores tell members of the training data from non-members. All functions take O(n log n) time.

`is_member` is a one-dimensional array of truth values (or 0 and 1), `scores` one of finite real numbers where higher
means "was in the training data". Anything else raises ValueError with a plain sentence.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import betaincinv
from scipy.stats import rankdata

from challenges.metrics.arrays import as_counts, as_numbers, as_share

Flags = NDArray[np.bool_]


def roc_auc(is_member: ArrayLike, scores: ArrayLike) -> float:
    """The area under the ROC curve, with midranks for ties: the chance that a member scores above a non-member."""
    member, values = _checked(is_member, scores)
    n1 = int(member.sum())
    n0 = len(member) - n1
    rank_sum = float(rankdata(values)[member].sum())
    return (rank_sum - n1 * (n1 + 1) / 2) / (n1 * n0)


def auc_standard_error(is_member: ArrayLike, scores: ArrayLike) -> float:
    """The standard error of `roc_auc` over draws of members and non-members (DeLong et al., Biometrics 1988).

    Computed from ranks (Sun and Xu, IEEE Signal Processing Letters 2014). Needs two of each class.
    """
    member, values = _checked(is_member, scores)
    n1 = int(member.sum())
    n0 = len(member) - n1
    if min(n1, n0) < 2:
        raise ValueError("A standard error needs at least two members and two non-members.")
    ranks = rankdata(values)
    above = (ranks[member] - rankdata(values[member])) / n0
    below = 1 - (ranks[~member] - rankdata(values[~member])) / n1
    return math.sqrt(float(above.var(ddof=1)) / n1 + float(below.var(ddof=1)) / n0)


def tpr_at_fpr(is_member: ArrayLike, scores: ArrayLike, fpr: float) -> float:
    """The largest true-positive rate over thresholds with at most `floor(fpr * n0 + 1e-9)` false positives.

    Tied scores move together; nothing is interpolated (SCORING 3).
    """
    true, false = _curve(*_checked(is_member, scores))
    return _hits(true, false, as_share(fpr, "The false-positive rate")) / int(true[-1])


def tpr_standard_error(is_member: ArrayLike, scores: ArrayLike, fpr: float) -> float:
    """The standard error of `tpr_at_fpr`: of the rate itself, and of the threshold that the non-members set.

    Variance T(1-T)/n1 + s^2 a(1-a)/n0 with a = `fpr` and the ROC curve's slope s, here the secant from a/2 to 3a/2
    (Pepe, The Statistical Evaluation of Medical Tests, 2003, section 5.2.3); T is smoothed by one hit and one miss.
    """
    member, values = _checked(is_member, scores)
    true, false = _curve(member, values)
    n1, n0 = int(true[-1]), int(false[-1])
    share = as_share(fpr, "The false-positive rate")
    low, middle, high = (_hits(true, false, rate) / n1 for rate in (share / 2, share, min(1.5 * share, 1.0)))
    smooth = (middle * n1 + 1) / (n1 + 2)
    width = min(1.5 * share, 1.0) - share / 2
    slope = (high - low) / width if width > 0 else 0.0
    return math.sqrt(smooth * (1 - smooth) / n1 + slope**2 * share * (1 - share) / n0)


def advantage(is_member: ArrayLike, scores: ArrayLike) -> float:
    """The largest difference between true-positive and false-positive rate over all thresholds, at least 0."""
    true, false = _curve(*_checked(is_member, scores))
    return float((true / true[-1] - false / false[-1]).max())


def epsilon_lower_bound(tp: int, fn: int, fp: int, tn: int, confidence: float = 0.95, delta: float = 0.0) -> float:
    """An audited lower bound for the epsilon of (epsilon, delta)-differential privacy, at least 0.

    From the counts at one threshold fixed in advance: the larger of ln((TPR_low - delta) / FPR_up) and
    ln((TNR_low - delta) / FNR_up), each bound one-sided Clopper-Pearson at half the error (Jagielski et al. 2020).
    """
    tp, fn, fp, tn = as_counts(tp, fn, fp, tn)
    if tp + fn == 0 or fp + tn == 0:
        raise ValueError("There must be at least one member and one non-member.")
    if not 0 < confidence < 1:
        raise ValueError("The confidence must lie between 0 and 1.")
    if not 0 <= delta < 1:
        raise ValueError("Delta must be at least 0 and less than 1.")
    error = (1 - confidence) / 2
    directions = ((tp, tp + fn, fp, fp + tn), (tn, fp + tn, fn, tp + fn))
    return max(0.0, *(_log_ratio(*direction, error, delta) for direction in directions))


def audited_epsilon(is_member: ArrayLike, scores: ArrayLike, fold: ArrayLike, confidence: float = 0.95) -> float:
    """`epsilon_lower_bound` of an attack's scores (delta = 0), at a threshold that is fixed before it is counted at.

    The threshold is the one with the highest bound in fold 0, of at most 64 spread over its scores; it is counted at
    in all other folds. With one fold it is the score that the top tenth of all candidates reach, whoever they are.
    """
    member, values = _checked(is_member, scores)
    unit = np.asarray(fold)
    if unit.max() == 0:
        return _epsilon_at(member, values, float(np.quantile(values, 0.9, method="higher")), confidence)
    first = unit == 0
    tried = np.unique(np.quantile(values[first], np.linspace(0, 1, 64), method="nearest"))
    bounds = [_epsilon_at(member[first], values[first], float(threshold), confidence) for threshold in tried]
    threshold = float(tried[int(np.argmax(bounds))])
    return _epsilon_at(member[~first], values[~first], threshold, confidence)


def _epsilon_at(member: Flags, values: NDArray[Any], threshold: float, confidence: float) -> float:
    called = values >= threshold
    tp, fp = int((called & member).sum()), int((called & ~member).sum())
    return epsilon_lower_bound(tp, int(member.sum()) - tp, fp, int((~member).sum()) - fp, confidence)


def _log_ratio(hits: int, of: int, false: int, of_false: int, error: float, delta: float) -> float:
    low = float(betaincinv(hits, of - hits + 1, error)) if hits > 0 else 0.0
    high = float(betaincinv(false + 1, of_false - false, 1 - error)) if false < of_false else 1.0
    return math.log((low - delta) / high) if low > delta else -math.inf


def _checked(is_member: ArrayLike, scores: ArrayLike) -> tuple[Flags, NDArray[Any]]:
    member, values = np.asarray(is_member), as_numbers(scores, "The scores")
    if member.ndim != 1 or member.shape != values.shape:
        raise ValueError("Membership and scores must be one-dimensional and of the same length.")
    if member.dtype != np.bool_:
        if member.dtype.kind not in "iuf" or not np.isin(member, (0, 1)).all():
            raise ValueError("Membership must be given as true and false, or 1 and 0.")
        member = member == 1
    if member.all() or not member.any():
        raise ValueError("There must be at least one member and one non-member.")
    return member, values


def _curve(member: Flags, values: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """True and false positives at every threshold, from "nobody" to "everybody"; ties share one threshold."""
    order = np.argsort(values)[::-1]  # any order among ties will do: they share one threshold
    ranked = values[order]
    last = np.append(np.flatnonzero(ranked[1:] != ranked[:-1]), len(ranked) - 1)
    true = np.cumsum(member[order])[last]
    return np.concatenate([[0], true]), np.concatenate([[0], last + 1 - true])


def _hits(true: NDArray[np.int64], false: NDArray[np.int64], fpr: float) -> int:
    """The most true positives that a curve reaches with the false positives that the rate allows."""
    allowed = math.floor(fpr * int(false[-1]) + 1e-9)
    return int(true[np.searchsorted(false, allowed, side="right") - 1])

"""The risk that a release adds: how much better an attack does on people in the data than on people who are not.

For attribute inference, linkage and reconstruction (SCORING 3), after Giomi et al., A Unified Framework for Quantifying
Privacy Risk in Synthetic Data, PoPETs 2023.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import norm

from challenges.metrics.arrays import as_counts

Floats = NDArray[np.float64]

# A number is guessed when it is at most this share of the truth away from it: Anonymeter's default.
TOLERANCE: Final = 0.05
_CONFIDENCE: Final = 0.95


@dataclass(frozen=True)
class Risk:
    """A residual risk and its confidence interval, all between 0 and 1."""

    value: float
    lower: float
    upper: float


def residual_risk(
    n_attack: int, hits_attack: int, n_control: int, hits_control: int, confidence: float = _CONFIDENCE
) -> Risk:
    """(r_attack - r_control) / (1 - r_control), clipped to [0, 1], with its propagated error.

    The rates and their errors are centre and half width of Wilson intervals (Wilson, JASA 1927). Counts that are
    impossible raise ValueError.
    """
    value, error = _residual(n_attack, hits_attack, n_control, hits_control, confidence)
    return Risk(_clip(value), _clip(value - error), _clip(value + error))


def signed_risk(n_attack: int, hits_attack: int, n_control: int, hits_control: int) -> tuple[float, float]:
    """The same risk before it is clipped, and its standard error (half of the 95 % interval over its quantile).

    An attack that does better on strangers than on people in the data has a negative one.
    """
    value, error = _residual(n_attack, hits_attack, n_control, hits_control, _CONFIDENCE)
    return value, error / _quantile(_CONFIDENCE)


def signed_risks(attack: Floats, n_attack: int, control: Floats, n_control: int) -> Floats:
    """The signed risk for arrays of rates, each among so many targets and control persons: resamples, for example."""
    z = _quantile(_CONFIDENCE)
    centres = [(rate * n + z**2 / 2) / (n + z**2) for rate, n in ((attack, n_attack), (control, n_control))]
    return np.asarray((centres[0] - centres[1]) / (1 - centres[1]))


def hits(truth: ArrayLike, guesses: ArrayLike, decimals: int | None = None) -> NDArray[np.bool_]:
    """Which guesses are right: equal (texts), or for numbers no further off than 5 % of the truth.

    `decimals` marks a column of numbers: half a unit of the last decimal is never too far off. Empty cells (NaN, None)
    are no hit. Arrays of different lengths raise ValueError.
    """
    true, given = np.asarray(truth), np.asarray(guesses)
    if true.shape != given.shape or true.ndim != 1:
        raise ValueError("There must be one guess for each truth.")
    if decimals is None:
        known = np.array([isinstance(label, str) for label in true.tolist()], dtype=np.bool_)
        return np.asarray(known & (true == given), dtype=np.bool_)
    numbers = true.astype(np.float64)
    allowed = np.maximum(TOLERANCE * np.abs(numbers), 0.5 * 10.0**-decimals)
    off = np.abs(given.astype(np.float64) - numbers)
    return np.asarray(off <= allowed * (1 + 1e-9), dtype=np.bool_)  # 6.3 - 6.0 is a little less or more than 0.3


def to_json(risk: Risk, counts: tuple[int, int, int, int]) -> dict[str, Any]:
    """A risk with what it was found on: `counts` as the arguments of `residual_risk`."""
    n_attack, hits_attack, n_control, hits_control = counts
    return {
        "attack": hits_attack / n_attack,
        "control": hits_control / n_control,
        "n_attack": n_attack,
        "n_control": n_control,
        **risk.__dict__,
    }


def _residual(
    n_attack: int, hits_attack: int, n_control: int, hits_control: int, confidence: float
) -> tuple[float, float]:
    n_attack, hits_attack, n_control, hits_control = as_counts(n_attack, hits_attack, n_control, hits_control)
    if min(n_attack, n_control) == 0:
        raise ValueError("There must be at least one target and one control person.")
    if hits_attack > n_attack or hits_control > n_control:
        raise ValueError("There cannot be more hits than targets.")
    if not 0 < confidence < 1:
        raise ValueError("The confidence must lie between 0 and 1.")
    attack, attack_error = _wilson(n_attack, hits_attack, confidence)
    control, control_error = _wilson(n_control, hits_control, confidence)
    rest = 1 - control  # positive: a Wilson centre lies strictly between 0 and 1
    return (attack - control) / rest, math.hypot(attack_error / rest, control_error * (attack - 1) / rest**2)


def _wilson(n: int, hits: int, confidence: float) -> tuple[float, float]:
    """Centre and half width of the Wilson interval."""
    z = _quantile(confidence)
    centre = (hits + z**2 / 2) / (n + z**2)
    half = z / (n + z**2) * math.sqrt(hits * (n - hits) / n + z**2 / 4)
    return centre, half


def _quantile(confidence: float) -> float:
    return float(norm.ppf((1 + confidence) / 2))


def _clip(value: float) -> float:
    return min(max(value, 0.0), 1.0)

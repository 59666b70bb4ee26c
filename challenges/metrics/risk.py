"""The risk that a release adds: how much better an attack does on people in the data than on people who are not.

For attribute inference, linkage and reconstruction (SCORING 3), after Giomi et al., A Unified Framework for Quantifying
Privacy Risk in Synthetic Data, PoPETs 2023.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from scipy.stats import norm

from challenges.metrics.arrays import as_counts


@dataclass(frozen=True)
class Risk:
    """A residual risk and its confidence interval, all between 0 and 1."""

    value: float
    lower: float
    upper: float


def residual_risk(n_attack: int, hits_attack: int, n_control: int, hits_control: int, confidence: float = 0.95) -> Risk:
    """(r_attack - r_control) / (1 - r_control), clipped to [0, 1], with its propagated error.

    The rates and their errors are centre and half width of Wilson intervals (Wilson, JASA 1927). Counts that are
    impossible raise ValueError.
    """
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
    value = (attack - control) / rest
    error = math.hypot(attack_error / rest, control_error * (attack - 1) / rest**2)
    return Risk(_clip(value), _clip(value - error), _clip(value + error))


def _wilson(n: int, hits: int, confidence: float) -> tuple[float, float]:
    """Centre and half width of the Wilson interval."""
    z = float(norm.ppf((1 + confidence) / 2))
    centre = (hits + z**2 / 2) / (n + z**2)
    half = z / (n + z**2) * math.sqrt(hits * (n - hits) / n + z**2 / 4)
    return centre, half


def _clip(value: float) -> float:
    return min(max(value, 0.0), 1.0)

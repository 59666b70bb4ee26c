"""Does an attack know more of one release than all other teams' attacks find out? A sign, not a proof (SCORING 4)."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike

from challenges.metrics.arrays import as_numbers

GAP: Final = 0.15
ERRORS: Final = 4.0


@dataclass(frozen=True)
class Lead:
    """How far an attack is ahead of the best attack of any other team, on one release.

    `attack` and `second` are positions; `leak` and `second_leak` means over units and metrics; `error` is the standard
    error of their difference.
    """

    attack: int
    leak: float
    second: int
    second_leak: float
    error: float

    @property
    def gap(self) -> float:
        return self.leak - self.second_leak

    @property
    def is_suspicious(self) -> bool:
        """More than 0.15 and more than 4 standard errors ahead."""
        return self.gap > GAP and self.gap > ERRORS * self.error


def leads(leaks: ArrayLike, errors: ArrayLike, teams: Sequence[Hashable]) -> list[Lead | None]:
    """The lead of each attack on one release; None where no other team has attacked it.

    `leaks` and `errors` are [unit][attack][metric]; `teams` names each attack's team, None for the organisers', who
    count as one. A team cannot hide a lead behind a second attack of its own: only other teams' count. The metrics of
    an attack err together and those of two attacks by themselves, so that the standard error is rather too large.
    """
    values = as_numbers(leaks, "The leaks", ndim=3).astype(np.float64)
    spread = as_numbers(errors, "The errors", ndim=3).astype(np.float64)
    if values.shape != spread.shape or values.shape[1] != len(teams):
        raise ValueError("There must be an error for each leak, and a team for each attack.")
    if values.size == 0:
        return [None] * len(teams)
    means = values.mean(axis=(0, 2))
    own = np.sqrt((spread.mean(axis=2) ** 2).sum(axis=0)) / len(values)
    return [_lead(place, means, own, teams) for place in range(len(teams))]


def _lead(place: int, means: Any, own: Any, teams: Sequence[Hashable]) -> Lead | None:
    others = [other for other, team in enumerate(teams) if team != teams[place]]
    if not others:
        return None
    second = max(others, key=lambda other: means[other])
    return Lead(
        place, float(means[place]), second, float(means[second]), math.hypot(float(own[place]), float(own[second]))
    )

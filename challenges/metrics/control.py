"""Does an attack know more than a release told it? The arithmetic of the blind control (SCORING 4)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import ArrayLike

from challenges.metrics.arrays import as_numbers

# Standard errors. Estimated from DRAWS other draws, an attack that knows nothing is further off than this about once in
# 8,000 controls (t distribution with 99 degrees of freedom, both sides).
ERRORS: Final = 4.0
DRAWS: Final = 100
_ROUNDING: Final = 1e-9  # of floating-point numbers: answers that leave nothing to chance have an error of 0


@dataclass(frozen=True)
class Excess:
    """How much more an attack took than its answers take by chance (signed), and the standard error of chance."""

    leak: float
    error: float

    @property
    def is_chance(self) -> bool:
        """Whether chance explains it. Far less than chance is knowledge as well: one may answer the opposite."""
        return abs(self.leak) <= ERRORS * self.error + _ROUNDING


def excess(leak: float, by_chance: ArrayLike) -> Excess:
    """The leak of some answers against the leaks [draws] that the same answers have under other draws of the truth.

    A randomisation test (Fisher, The Design of Experiments, 1935): it knows no formula for any metric, and holds where
    patients have several records or answers are tied. Raises ValueError for fewer than two draws.
    """
    draws = as_numbers(by_chance, "The leaks by chance").astype(np.float64)
    if len(draws) < 2:
        raise ValueError("At least two other draws are needed.")
    # the mean is itself estimated from the draws
    error = float(draws.std(ddof=1)) * math.sqrt(1 + 1 / len(draws))
    return Excess(leak - float(draws.mean()), error)


def together(parts: Sequence[Excess]) -> Excess:
    """The mean of independent controls: one for each seed. Raises ValueError if there are none."""
    if not parts:
        raise ValueError("At least one control is needed.")
    leak = sum(part.leak for part in parts) / len(parts)
    return Excess(leak, math.sqrt(sum(part.error**2 for part in parts)) / len(parts))

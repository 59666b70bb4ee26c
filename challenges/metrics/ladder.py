"""The Ladder: a team may enter often without learning the test part (Blum and Hardt, ICML 2015; SCORING 4)."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Final

from challenges.metrics.rounding import public

# A utility is released to a hundredth only if it beats the team's best by more than one.
STEP: Final = 0.01
# What does not is shown at the next lower rung: values that the team was told before, and tenths.
_RUNGS: Final = tuple(tenth / 10 for tenth in range(11))
_ROUNDING: Final = 1e-9


def released(utility: float, told: Iterable[float]) -> float:
    """What is published of a utility U between 0 and 1, after the values that were published of the team's others.

    Never more than half a hundredth above the truth, nor more than a tenth below it.
    """
    earlier = list(told)
    if utility > max(earlier, default=-math.inf) + STEP + _ROUNDING:
        return public(utility)
    return max(rung for rung in (*_RUNGS, *earlier) if rung <= utility + _ROUNDING or rung == 0)

"""The resamples of a duel's candidates, of which all intervals about attacks are made (SCORING 3)."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from challenges.metrics import bootstrap
from challenges.scenarios.base import Board
from challenges.splits import Deal, derive


def of_scored(board: Board) -> bootstrap.Counts:
    """How often each of `deal.scored` is in each resample: [RESAMPLES, scored].

    They keep the numbers of members and non-members of each fold; every seed draws its own. None at all, [0, scored],
    where none are wanted.
    """
    if not board.resampled:
        return np.zeros((0, len(board.deal.scored)), dtype=np.int16)
    return _drawn(derive(board.resample, "scored", str(board.seed)), board.deal)


@lru_cache(maxsize=4)
def _drawn(key: bytes, deal: Deal) -> bootstrap.Counts:
    """Kept for the next attack on the same release: drawing takes longer than all the rest."""
    return bootstrap.draw(key, 2 * deal.scored_fold + deal.scored_member)

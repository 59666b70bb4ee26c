"""What the games of membership inference share: scores of candidates become the leaks A and B (SCORING 3)."""

from __future__ import annotations

from typing import Final

import numpy as np

from challenges.metrics import bootstrap, membership
from challenges.scenarios.base import Board, Floats, Leaks
from challenges.splits import Flags, derive

MEMBERSHIP_METRICS: Final = ("auc", "tpr")
# So many non-members are needed before a rate of one in a hundred means anything.
_ENOUGH_NONMEMBERS: Final = 500
_STRICT_FPR, _LENIENT_FPR = 0.01, 0.10


def membership_leaks(board: Board, scores: Floats) -> Leaks:
    """A and B of each fold from scores that are aligned to `deal.scored`; higher means "was in the training data".

    alpha follows from the duel's non-members, all folds together, so that folds are comparable. Resamples keep the
    numbers of members and non-members of each fold.
    """
    deal = board.deal
    member, fold = deal.scored_member, deal.scored_fold
    nonmembers = int((~member).sum())
    alpha = _STRICT_FPR if nonmembers >= _ENOUGH_NONMEMBERS else _LENIENT_FPR
    counts = bootstrap.draw(derive(board.resample, "scored"), 2 * fold + member)
    units = [fold == number for number in range(int(fold.max()) + 1)]
    estimates = [_unit(member[unit], scores[unit], alpha) for unit in units]
    return Leaks(
        values=np.array([values for values, _errors in estimates]),
        errors=np.array([errors for _values, errors in estimates]),
        replicates=np.stack([_replicates(member[u], scores[u], counts[:, u], alpha) for u in units], axis=1),
        detail={
            "auc": membership.roc_auc(member, scores),
            "tpr": membership.tpr_at_fpr(member, scores, alpha),
            "alpha": alpha,
            "advantage": membership.advantage(member, scores),
            "epsilon": membership.audited_epsilon(member, scores, fold),
            "members": int(member.sum()),
            "nonmembers": nonmembers,
        },
    )


def _unit(member: Flags, scores: Floats, alpha: float) -> tuple[tuple[float, float], tuple[float, float]]:
    """A and B of one cross-fitting unit, and their standard errors."""
    auc = membership.roc_auc(member, scores)
    tpr = membership.tpr_at_fpr(member, scores, alpha)
    errors = (
        2 * membership.auc_standard_error(member, scores),
        membership.tpr_standard_error(member, scores, alpha) / (1 - alpha),
    )
    return (2 * auc - 1, (tpr - alpha) / (1 - alpha)), errors


def _replicates(member: Flags, scores: Floats, counts: bootstrap.Counts, alpha: float) -> Floats:
    """A and B over each resample: [RESAMPLES, 2]."""
    a = 2 * bootstrap.auc(member, scores, counts) - 1
    b = (bootstrap.tpr(member, scores, counts, alpha) - alpha) / (1 - alpha)
    return np.column_stack([a, b])

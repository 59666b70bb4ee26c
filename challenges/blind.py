"""The blind control of a deal, before anybody is scored: do records alone betray membership?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import pandas as pd
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.model_selection import StratifiedKFold

from challenges.features import matrix, one_thread
from challenges.metrics.membership import roc_auc
from challenges.schema import Schema, TableError
from challenges.splits import Deal

# SCORING 1: fewer scored candidates than this make the boards noisy.
ENOUGH_SCORED, GOOD_SCORED = 1800, 6000
_ROUNDS: Final = 60


@dataclass(frozen=True)
class Blind:
    """The AUROC of a classifier that never saw a model (chance is 0.5), and on how many candidates it was found."""

    auc: float
    members: int
    nonmembers: int


def classifier(table: pd.DataFrame, schema: Schema, deal: Deal, *, folds: int = 5, seed: int = 0) -> Blind:
    """How well members of the deal are told from non-members by their records alone, cross-validated.

    The mean over folds of each fold's AUROC: pooling the folds would push chance below 0.5. Raises TableError if there
    are fewer members or non-members than twice the folds.
    """
    rows = table.iloc[deal.candidates]
    inputs = matrix(rows, schema, schema.shared)
    member = deal.member
    if min(int(member.sum()), int((~member).sum())) < 2 * folds:
        raise TableError("There are too few candidates for a blind check.")
    aucs = []
    for train, test in StratifiedKFold(folds, shuffle=True, random_state=seed).split(inputs, member):
        model = HistGradientBoostingClassifier(
            max_iter=_ROUNDS, learning_rate=0.1, max_leaf_nodes=15, early_stopping=False, random_state=seed
        )
        with one_thread():
            scores = model.fit(inputs[train], member[train]).predict_proba(inputs[test])[:, 1]
        aucs.append(roc_auc(member[test], scores))
    return Blind(float(np.mean(aucs)), int(member.sum()), int((~member).sum()))

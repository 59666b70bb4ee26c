"""Checks of a deal before anybody is scored: the parts are apart, and records alone do not betray membership."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
import pandas as pd
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.model_selection import StratifiedKFold

from challenges.features import matrix, one_thread
from challenges.metrics.membership import auc_standard_error, roc_auc
from challenges.schema import Schema, TableError
from challenges.splits import Deal

# SCORING 1: fewer scored candidates than this make the boards noisy.
ENOUGH_SCORED, GOOD_SCORED = 1800, 6000
_ROUNDS: Final = 60


@dataclass(frozen=True)
class Blind:
    """The AUROC of a classifier that never saw a model, with its standard error; chance is 0.5."""

    auc: float
    standard_error: float
    members: int
    nonmembers: int

    @property
    def at_chance(self) -> bool:
        """Within three standard errors of 0.5."""
        return abs(self.auc - 0.5) <= 3 * self.standard_error

    def to_json(self) -> dict[str, Any]:
        """Plain data, to cross a process border or be stored."""
        return {**asdict(self), "at_chance": self.at_chance}


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
    aucs, errors = [], []
    for train, test in StratifiedKFold(folds, shuffle=True, random_state=seed).split(inputs, member):
        model = HistGradientBoostingClassifier(
            max_iter=_ROUNDS, learning_rate=0.1, max_leaf_nodes=15, early_stopping=False, random_state=seed
        )
        with one_thread():
            scores = model.fit(inputs[train], member[train]).predict_proba(inputs[test])[:, 1]
        aucs.append(roc_auc(member[test], scores))
        errors.append(auc_standard_error(member[test], scores))
    error = math.sqrt(sum(error**2 for error in errors)) / folds
    return Blind(float(np.mean(aucs)), error, int(member.sum()), int((~member).sum()))


def expected_error(deal: Deal) -> float:
    """The standard error of the leak A = 2 AUC - 1 to expect of one fold's duel by an attack at chance.

    From the variance of the Mann-Whitney statistic, (n1 + n0 + 1) / (12 n1 n0), with half of the scored as members.
    """
    units = int(deal.scored_fold.max()) + 1
    half = len(deal.scored) / units / 2
    return 2 * math.sqrt((2 * half + 1) / (12 * half * half))


def problems(table: pd.DataFrame, schema: Schema, deal: Deal) -> list[str]:
    """What is wrong with a deal, one plain sentence each; an empty list if nothing is."""
    found = []
    named = {"aux": deal.aux, "core": deal.core, "candidates": deal.candidates, "test": deal.test}
    everything = np.concatenate(list(named.values()))
    if len(np.unique(everything)) != len(everything):
        found.append("The parts of the split overlap.")
    if len(everything) != len(table) or not np.isin(everything, np.arange(len(table))).all():
        found.append("The parts of the split do not make up the whole table.")
    identity = schema.patient_id
    if identity is not None and identity in table.columns:
        patients = table[identity].to_numpy()
        kinds = sum(len(np.unique(patients[part])) for part in named.values())
        if kinds != len(np.unique(patients[everything])):
            found.append("A patient is in two parts of the split.")
    if table[[column.name for column in schema.shared]].duplicated().any():
        found.append("The table holds the same record twice.")
    for name, part in (("training", deal.train), ("test", deal.test)):
        found += _class_problems(table[schema.target].to_numpy()[part], schema, name)
    for fold in range(int(deal.scored_fold.max()) + 1):
        inside = deal.scored_member[deal.scored_fold == fold]
        if min(int(inside.sum()), int((~inside).sum())) < 2:
            found.append("A fold has fewer than two members or two non-members among its scored candidates.")
    return found


def _class_problems(truth: Any, schema: Schema, name: str) -> list[str]:
    present = {str(label) for label in truth} if schema.labels else set()
    absent = [label for label in schema.labels if label not in present]
    if not absent:
        return []
    return [f"The {name} part lacks the class “{absent[0]}”: it is too rare, or the part too small."]

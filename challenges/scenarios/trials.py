"""A game dealt on trial, before anybody plays it: what scenarios look at for the check before publishing."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
import pandas as pd

from challenges import blind, subsample
from challenges.blind import ENOUGH_SCORED, GOOD_SCORED
from challenges.findings import Finding
from challenges.scenarios.base import Game
from challenges.schema import Schema, TableError
from challenges.splits import Deal, Positions

# Membership is drawn anew for each evaluation; what is wrong with the deal shows in every draw, bad luck in one.
DRAWS: Final = 3
# Standard errors: chance exceeds the first about once in 400 checks, the second about once in 16,000.
_ODD, _BROKEN = 3.0, 4.0
# The folds of a cross-validation share training records, so that their mean AUC varies more than their errors say:
# over 40 deals of the NHANES table it was 1.10 times as much.
_SPREAD: Final = 1.1
# With fewer records of a class in the test part, the utility moves by several hundredths with a single patient.
_RARE: Final = 10
# Each entry is dealt anew: with this many coins, fewer than two of a side come up once in 17 million deals.
_FEWEST_IN_FOLD: Final = 30


@dataclass(frozen=True, eq=False)
class Trial:
    """A table as one phase may deal it: `deals` are draws of membership that no entry will get.

    `phase` is its kind. `fitted` are the rows that models may be fitted on, ascending: all, unless the table is large.
    """

    phase: str
    seeds: int
    folds: int
    game: Game
    table: pd.DataFrame
    deals: tuple[Deal, ...]
    fitted: Positions

    @property
    def schema(self) -> Schema:
        """The columns of the table."""
        return self.game.schema

    @property
    def deal(self) -> Deal:
        """The first of the draws."""
        return self.deals[0]


def classes(trial: Trial) -> list[Finding]:
    """Every class can be learnt, by defenses and by attacks, and measured."""
    schema, deal, target = trial.schema, trial.deal, trial.table[trial.schema.target]
    parts = {"training": target.iloc[deal.train], "auxiliary": target.iloc[deal.aux], "test": target.iloc[deal.test]}
    if not schema.labels:
        constant = [name for name, values in parts.items() if values.nunique() < 2]
        if constant:
            return [Finding("error", "target-constant", {"part": constant[0]})]
        return [Finding("ok", "target-varies")]
    counts = {name: values.value_counts().reindex(list(schema.labels), fill_value=0) for name, values in parts.items()}
    for name, count in counts.items():
        if count.min() == 0:
            return [Finding("error", "classes-absent", {"label": str(count.idxmin()), "part": name})]
    test = counts["test"]
    if test.min() < _RARE:
        facts = {"label": str(test.idxmin()), "number": int(test.min()), "part": "test"}
        return [Finding("warning", "classes-rare", facts)]
    return [Finding("ok", "classes", {"fewest": int(test.min())})]


def folds(trial: Trial) -> list[Finding]:
    """In each fold there must be members and non-members, in this deal and in that of every entry to come."""
    fewest = int(np.bincount(trial.deal.scored_fold, minlength=trial.folds).min())
    if fewest < _FEWEST_IN_FOLD or not has_both_in_each_fold(trial):
        facts = {"phase": trial.phase, "number": fewest, "least": _FEWEST_IN_FOLD}
        return [Finding("error", "folds-small", facts)]
    return []


def has_both_in_each_fold(trial: Trial) -> bool:
    """Whether two members and two non-members at least are scored in each fold: else nothing can be told apart."""
    deal = trial.deal
    inside = [deal.scored_member[deal.scored_fold == fold] for fold in range(trial.folds)]
    return all(min(int(member.sum()), int((~member).sum())) >= 2 for member in inside)


def standard_error(scored: float) -> float:
    """The standard error of the leak A = 2 AUC - 1 at chance, when half of the scored candidates are members.

    From the variance of the Mann-Whitney statistic, (n1 + n0 + 1) / (12 n1 n0).
    """
    half = scored / 2
    return 2 * math.sqrt((scored + 1) / (12 * half * half))


def size(trial: Trial) -> list[Finding]:
    """Whether there are candidates enough for a leak A to be told from chance."""
    scored, total = len(trial.deal.scored), len(trial.deal.scored) * trial.seeds
    error = standard_error(total)
    facts = {"phase": trial.phase, "scored": scored, "seeds": trial.seeds, "total": total, "error": error}
    if total >= ENOUGH_SCORED:
        return [Finding("ok", "size", facts)]
    more = {"least": ENOUGH_SCORED, "advised": GOOD_SCORED, "advised_error": standard_error(GOOD_SCORED)}
    return [Finding("warning", "size-small", {**facts, **more, "twice": 2 * error})]


def blindness(trial: Trial) -> list[Finding]:
    """The deal draws membership without a look at the records: it cannot be guessed from them, over several draws."""
    table = trial.table.iloc[trial.fitted].reset_index(drop=True)
    try:
        deals = [subsample.restricted(deal, trial.fitted) for deal in trial.deals]
        results = [blind.classifier(table, trial.schema, deal) for deal in deals]
    except TableError as error:
        return [Finding("error", "blind-failed", {"problem": str(error)})]
    auc = float(np.mean([result.auc for result in results]))
    at_chance = [(r.members + r.nonmembers + 1) / (12 * r.members * r.nonmembers) for r in results]  # Mann-Whitney
    z = (auc - 0.5) * len(results) / (_SPREAD * math.sqrt(sum(at_chance)))
    facts = {"auc": auc, "z": round(abs(z), 1)}
    if z > _BROKEN:
        return [Finding("error", "blind-broken", facts)]
    # far below chance is odd, but nothing that an attack could use: cross-validation errs to that side when all is well
    return [Finding("warning", "blind-odd", facts) if abs(z) > _ODD else Finding("ok", "blind", facts)]


def rehearsal(trial: Trial) -> list[Finding]:
    """Why entries could not be rehearsed on the public sample, dealt just as for a rehearsal; nothing if they can."""
    found = [
        Finding("error", f"sample-{finding.code}", finding.facts)
        for finding in classes(trial)
        if finding.level == "error"
    ]
    return found if has_both_in_each_fold(trial) else [*found, Finding("error", "sample-folds")]

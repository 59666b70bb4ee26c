"""What the games of membership inference share: what attacks are told, how their scores become leaks (SCORING 3)."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Final

import numpy as np
from django.utils.formats import number_format
from django.utils.translation import gettext_lazy as _

from challenges.findings import Finding
from challenges.metrics import bootstrap, membership
from challenges.metrics.exposure import Told
from challenges.metrics.rounding import DECIMALS, public
from challenges.scenarios import resamples, trials, words
from challenges.scenarios.base import Board, Floats, Game, Leaks, Scenario, require, write_task
from challenges.scenarios.containers import names_of, people, write_named, write_shuffled
from challenges.scenarios.criteria import MEMBERSHIP, Criterion
from challenges.scenarios.outputs import read_rows
from challenges.scenarios.trials import Trial
from challenges.scenarios.words import Words
from challenges.splits import Deal, Flags

MEMBERSHIP_METRICS: Final = ("auc", "tpr")
# So many non-members are needed before a rate of one in a hundred means anything.
_ENOUGH_NONMEMBERS: Final = 500
_STRICT_FPR, _LENIENT_FPR = 0.01, 0.10
_SCORES: Final = "scores.npy"


class MembershipScenario(Scenario):
    """A game in which attacks tell members of the training data from others.

    An attack is told of candidates, of aux (records that were never trained on) and of some known candidates; its
    result is `scores.npy` (float64, aligned to `deal.scored`). What it gets of the release is the subclass's matter.
    """

    criteria: ClassVar[Mapping[str, Criterion]] = MEMBERSHIP
    words: ClassVar[Words] = words.MEMBERSHIP
    readings: ClassVar[Mapping[str, Any]] = {
        "auc": _(
            "In 100 tries to tell a person in the data from another person, the best attack is right %(rate)s "
            "times%(span)s. Guessing is right %(chance)s times."
        ),
        "tpr": _(
            "If it may wrongly suspect at most %(chance)s of 100 people who are not in the data, it recognises "
            "%(rate)s of 100 people who are%(span)s. Guessing would recognise %(chance)s."
        ),
    }

    @abstractmethod
    def write_release(self, board: Board, release: Path, folder: Path) -> dict[str, str]:
        """Writes for an attack what the defense gave away; returns the entries for task.json."""

    def write_attack(self, board: Board, folder: Path) -> None:
        """Fills the folder of an attack's step."""
        deal, columns = board.deal, board.game.schema.shared
        release = require(board.release)
        files: dict[str, str] = {}
        for name, positions, member in (
            ("candidates", deal.scored, None),
            ("aux", deal.aux, None),
            ("known", deal.revealed, deal.revealed_member),
        ):
            files |= write_named(board, folder, name, people(board, positions, columns, member))
        files |= self.write_release(board, release, folder)
        write_task(self.attack_step, board, folder, files)

    def write_train(self, board: Board, folder: Path) -> dict[str, str]:
        """Writes what a defense may learn from; returns the entry for task.json."""
        return write_shuffled(board, folder, "train", people(board, board.deal.train, board.game.schema.shared))

    def read_scores(self, board: Board, collected: Path, result: Path) -> dict[str, Any]:
        """Turns an attack's `scores` into `scores.npy`."""
        number = len(board.deal.scored)
        values = read_rows(collected, "scores", names_of(board, "candidates", number), ("score",))
        keep_scores(values[:, 0], result)
        return {"rows": number}

    def metrics(self, game: Game) -> tuple[str, ...]:
        """A and B of SCORING 3."""
        return MEMBERSHIP_METRICS

    def leaks(self, board: Board, result: Path) -> Leaks:
        """A and B of each fold (all scored candidates, if there is one fold)."""
        return membership_leaks(board, np.load(result / _SCORES, allow_pickle=False))

    def told(self, board: Board, result: Path) -> Told:
        """The attack's scores."""
        scores = np.load(result / _SCORES, allow_pickle=False)
        return Told(board.deal.scored_member, board.deal.scored_fold, scores[None, :])

    def control_reading(self, details: Sequence[Mapping[str, Any]]) -> str:
        """The mean AUC."""
        mean = sum(detail["auc"] for detail in details) / len(details)
        return _("AUC %(auc)s") % {"auc": number_format(public(mean), DECIMALS)}

    def look(self, trial: Trial) -> list[Finding]:
        """The number of candidates, classes, folds, and the blind control of the deals."""
        return [*trials.size(trial), *trials.classes(trial), *trials.folds(trial), *trials.blindness(trial)]

    def look_at_sample(self, trial: Trial) -> list[Finding]:
        """Whether the sample holds all classes in each part, and members and non-members in each fold."""
        return trials.rehearsal(trial)


def keep_scores(scores: Floats, result: Path) -> None:
    """Writes an attack's result: `scores.npy`, aligned to `deal.scored`."""
    result.mkdir(parents=True, exist_ok=True)
    np.save(result / _SCORES, scores)


def membership_leaks(board: Board, scores: Floats) -> Leaks:
    """A and B of each fold from scores that are aligned to `deal.scored`; higher means "was in the training data"."""
    deal = board.deal
    member, fold, alpha = deal.scored_member, deal.scored_fold, _alpha(deal)
    values, errors = estimates(deal, scores)
    counts = resamples.of_scored(board)
    return Leaks(
        values=values,
        errors=errors,
        replicates=np.stack([_replicates(member[u], scores[u], counts[:, u], alpha) for u in _units(deal)], axis=1),
        detail={
            "auc": membership.roc_auc(member, scores),
            "tpr": membership.tpr_at_fpr(member, scores, alpha),
            "alpha": alpha,
            "advantage": membership.advantage(member, scores),
            "epsilon": membership.audited_epsilon(member, scores, fold),
            "members": int(member.sum()),
            "nonmembers": int((~member).sum()),
        },
    )


def estimates(deal: Deal, scores: Floats) -> tuple[Floats, Floats]:
    """A and B of each fold, and their standard errors, both [folds, 2].

    alpha follows from the duel's non-members, all folds together, so that folds are comparable.
    """
    member, alpha = deal.scored_member, _alpha(deal)
    made = [_unit(member[unit], scores[unit], alpha) for unit in _units(deal)]
    return np.array([values for values, _errors in made]), np.array([errors for _values, errors in made])


def _alpha(deal: Deal) -> float:
    return _STRICT_FPR if int((~deal.scored_member).sum()) >= _ENOUGH_NONMEMBERS else _LENIENT_FPR


def _units(deal: Deal) -> list[Flags]:
    fold = deal.scored_fold
    return [fold == number for number in range(int(fold.max()) + 1)]


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

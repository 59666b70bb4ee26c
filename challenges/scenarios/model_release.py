"""What a defense of `model-membership` leaves: the files of a model, and its answers in the one form that counts."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np

from challenges.scenarios.base import Board, Floats, OutputProblem, link_folder, require
from challenges.schema import Schema
from challenges.splits import Positions

ANSWERS: Final = "answers.npy"
MODEL: Final = "model"
# Rows of probabilities may miss 1 by what rounding and single precision explain.
_SUM_TOLERANCE: Final = 0.01


def keep_model(folder: Path, result: Path, named: str) -> dict[str, int]:
    """Keeps the files of a fitted model for later steps; returns their number and bytes.

    `named` is what the container calls the folder. Raises OutputProblem if there are none.
    """
    if folder.is_symlink() or not folder.is_dir():
        raise OutputProblem("missing", f"The folder {named} was not written.")
    number, size = link_folder(folder, result / MODEL)
    if number == 0:
        raise OutputProblem("missing", f"The folder {named} is empty.")
    return {"files": number, "bytes": size}


def give_model(board: Board, folder: Path) -> None:
    """Gives the new `folder` the files that the step before left."""
    link_folder(require(None if board.previous is None else board.previous / MODEL), folder)


def keep_release(answers: Floats, board: Board, result: Path) -> None:
    """Writes the release: canonical answers, aligned to `deal.queries`; white-box: the model's files too."""
    result.mkdir(parents=True, exist_ok=True)
    np.save(result / ANSWERS, answers)
    if board.game.white_box:
        give_model(board, result / MODEL)


def answers_about(release: Path, board: Board, positions: Positions) -> Floats:
    """The release's answers about these rows of the private table, all of which it was asked about."""
    answers: Floats = np.load(release / ANSWERS, allow_pickle=False)
    return answers[np.searchsorted(board.deal.queries, positions)]


def canonical_answers(values: Floats, schema: Schema) -> Floats:
    """Answers as attacks may see them: probabilities that sum to 1, predictions in the declared range, few decimals.

    Raises OutputProblem for numbers that are no probabilities.
    """
    if schema.labels:
        if (values < 0).any():
            raise OutputProblem("invalid", "The predictions hold negative probabilities.")
        sums = values.sum(axis=1, keepdims=True)
        if (np.abs(sums - 1) > _SUM_TOLERANCE).any():
            raise OutputProblem("invalid", "The probabilities of some rows do not sum to 1.")
        values = values / sums
    else:
        values = np.clip(values, schema.target_column.minimum, schema.target_column.maximum)
    return np.round(values, schema.answer_decimals) + 0.0  # no negative zero: its sign would be a hidden channel

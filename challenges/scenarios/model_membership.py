"""A private model against membership inference: may one learn from its answers whose data it was trained on?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar, Final

import numpy as np
import pandas as pd
import pyarrow as pa
from django.utils.translation import gettext_lazy as _

from challenges import anchors, features, tables
from challenges.anchors import Anchors
from challenges.metrics import bootstrap
from challenges.metrics.utility import score
from challenges.scenarios.base import (
    Board,
    Floats,
    Game,
    OutputProblem,
    Utility,
    link_folder,
    require,
    write_task,
)
from challenges.scenarios.containers import names_of, people, write_named
from challenges.scenarios.membership import MembershipScenario
from challenges.scenarios.outputs import read_rows
from challenges.schema import Schema
from challenges.splits import Deal, derive

# Rows of probabilities may miss 1 by what rounding and single precision explain.
_SUM_TOLERANCE: Final = 0.01
_ANSWERS: Final = "answers.npy"
_MODEL: Final = "model"


class ModelMembership(MembershipScenario):
    """The scenario `model-membership` of DESIGN 4.

    Its release is `answers.npy` (float64, row i answers the i-th of `deal.queries`, one column per
    `schema.answer_columns`), and `model/` where the challenge is white-box.
    """

    slug: ClassVar[str] = "model-membership"
    title: ClassVar[Any] = _("Private model against membership inference")
    summary: ClassVar[Any] = _(
        "Defenses train a model that predicts well without giving its patients away. Attacks see the model's answers "
        "and tell who was in the training data."
    )
    defense_steps: ClassVar[tuple[str, ...]] = ("fit", "predict")

    def collect(self, step: str) -> dict[str, list[str]]:
        """`model/` after fit, `predictions` after predict, `scores` after attack."""
        wanted: dict[str, list[str]] = {"tables": [], "files": [], "folders": []}
        kind, name = {
            "fit": ("folders", _MODEL),
            "predict": ("tables", "predictions"),
            "attack": ("tables", "scores"),
        }[step]
        wanted[kind].append(name)
        return wanted

    def write_inputs(self, step: str, board: Board, folder: Path) -> None:
        """Writes what DESIGN 4 lists for the step. All tables are shuffled; tokens hold for this run only.

        A table and its answers share tokens and order. Raises LookupError for an unknown step.
        """
        if step == self.attack_step:
            self.write_attack(board, folder)
        else:
            files = {"fit": self.write_train, "predict": self._write_predict}[step](board, folder)
            write_task(step, board, folder, files)

    def read_outputs(self, step: str, board: Board, collected: Path, result: Path) -> dict[str, Any]:
        """Turns `model/` into `model/`, `predictions` into `answers.npy` (and `model/`), `scores` into `scores.npy`."""
        return {"fit": self._read_fit, "predict": self._read_predictions, "attack": self.read_scores}[step](
            board, collected, result
        )

    def utility(self, board: Board, release: Path) -> Utility:
        """The challenge's metric over the answers to the test part, resampled within each class."""
        answers = _load(release / _ANSWERS)[np.searchsorted(board.deal.queries, board.deal.test)]
        schema, metric = board.game.schema, board.game.metric
        truth = tables.read(board.table)[schema.target].to_numpy()[board.deal.test]
        strata = np.unique(truth, return_inverse=True)[1] if schema.labels else np.zeros(len(truth), dtype=np.int64)
        counts = bootstrap.draw(derive(board.resample, "test"), strata)
        return Utility(
            value=score(metric, schema, truth, answers),
            replicates=bootstrap.metric(metric, schema, truth, answers, counts),
        )

    def reference_release(self, board: Board, folder: Path) -> None:
        """Answers of a linear model trained on the deal's training part; white-box: its coefficients as JSON."""
        schema, deal = board.game.schema, board.deal
        frame = tables.read(board.table)
        model = features.linear_model(schema)
        model.fit(features.matrix(frame.iloc[deal.train], schema), frame[schema.target].to_numpy()[deal.train])
        answers = features.answers(model, features.matrix(frame.iloc[deal.queries], schema), schema)
        folder.mkdir(parents=True, exist_ok=True)
        np.save(folder / _ANSWERS, canonical_answers(answers, schema))
        if board.game.white_box:
            (folder / _MODEL).mkdir()
            fitted = model[-1]
            facts = {"coefficients": fitted.coef_.tolist(), "intercept": np.atleast_1d(fitted.intercept_).tolist()}
            (folder / _MODEL / "linear.json").write_text(json.dumps(facts), encoding="utf-8")

    # What containers get

    def _write_predict(self, board: Board, folder: Path) -> dict[str, str]:
        link_folder(_previous_model(board), folder / _MODEL)
        queries = people(board, board.deal.queries, board.game.schema.features)
        return {"model": _MODEL, **write_named(board, folder, "queries", queries)}

    def write_release(self, board: Board, release: Path, folder: Path) -> dict[str, str]:
        """The model's answers about everybody of whom an attack is told; white-box: the model's files too."""
        deal = board.deal
        answers = _load(release / _ANSWERS)
        files: dict[str, str] = {}
        for name, about, positions in (
            ("answers", "candidates", deal.scored),
            ("aux_answers", "aux", deal.aux),
            ("known_answers", "known", deal.revealed),
        ):
            given = answers[np.searchsorted(deal.queries, positions)]
            columns = {label: given[:, number] for number, label in enumerate(board.game.schema.answer_columns)}
            files |= write_named(board, folder, name, pa.table(columns), under=about)
        if board.game.white_box:
            link_folder(release / _MODEL, folder / _MODEL)
            files["model"] = _MODEL
        return files

    # Before publishing

    def anchors(self, table: pd.DataFrame, schema: Schema, deal: Deal, game: Game) -> Anchors:
        """The answer that looks at nobody, and the best of a small grid of models."""
        return anchors.compute(table, schema, deal, game.metric)

    # What containers leave

    def _read_fit(self, board: Board, collected: Path, result: Path) -> dict[str, Any]:
        folder = collected / _MODEL
        if folder.is_symlink() or not folder.is_dir():
            raise OutputProblem("missing", "The folder /output/model was not written.")
        number, size = link_folder(folder, result / _MODEL)
        if number == 0:
            raise OutputProblem("missing", "The folder /output/model is empty.")
        return {"files": number, "bytes": size}

    def _read_predictions(self, board: Board, collected: Path, result: Path) -> dict[str, Any]:
        schema, positions = board.game.schema, board.deal.queries
        names = names_of(board, "queries", len(positions))
        values = read_rows(collected, "predictions", names, schema.answer_columns)
        result.mkdir(parents=True, exist_ok=True)
        np.save(result / _ANSWERS, canonical_answers(values, schema))
        if board.game.white_box:
            link_folder(_previous_model(board), result / _MODEL)
        return {"rows": len(positions)}


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


def _previous_model(board: Board) -> Path:
    return require(None if board.previous is None else board.previous / _MODEL)


def _load(path: Path) -> Floats:
    values: Floats = np.load(path, allow_pickle=False)
    return values

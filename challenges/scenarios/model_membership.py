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
from challenges.findings import Finding
from challenges.metrics import bootstrap
from challenges.metrics.utility import score
from challenges.scenarios import trials
from challenges.scenarios.base import (
    Board,
    Floats,
    Game,
    Leaks,
    OutputProblem,
    Scenario,
    Utility,
    link_folder,
    require,
    write_task,
)
from challenges.scenarios.membership import MEMBERSHIP_METRICS, membership_leaks
from challenges.scenarios.outputs import read_rows
from challenges.scenarios.trials import Trial
from challenges.schema import Schema
from challenges.splits import Deal, Positions, derive, shuffle, tokens

# Rows of probabilities may miss 1 by what rounding and single precision explain.
_SUM_TOLERANCE: Final = 0.01
_ANSWERS: Final = "answers.npy"
_SCORES: Final = "scores.npy"
_MODEL: Final = "model"


class ModelMembership(Scenario):
    """The scenario `model-membership` of DESIGN 4.

    Its release is `answers.npy` (float64, row i answers the i-th of `deal.queries`, one column per
    `schema.answer_columns`), and `model/` where the challenge is white-box. An attack's result is `scores.npy`
    (float64, aligned to `deal.scored`).
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
        files = {"fit": self._write_fit, "predict": self._write_predict, "attack": self._write_attack}[step](
            board, folder
        )
        write_task(step, board, folder, files)

    def read_outputs(self, step: str, board: Board, collected: Path, result: Path) -> dict[str, Any]:
        """Turns `model/` into `model/`, `predictions` into `answers.npy` (and `model/`), `scores` into `scores.npy`."""
        return {"fit": self._read_fit, "predict": self._read_predictions, "attack": self._read_scores}[step](
            board, collected, result
        )

    def metrics(self, game: Game) -> tuple[str, ...]:
        """A and B of SCORING 3."""
        return MEMBERSHIP_METRICS

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

    def leaks(self, board: Board, result: Path) -> Leaks:
        """A and B of each fold (all scored candidates, if there is one fold)."""
        return membership_leaks(board, _load(result / _SCORES))

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

    def _write_fit(self, board: Board, folder: Path) -> dict[str, str]:
        train = board.deal.train
        order = train[shuffle(derive(board.key, "train"), len(train))]
        tables.write_arrow(_rows(board, order, with_target=True), folder / "train.parquet")
        return {"train": "train.parquet"}

    def _write_predict(self, board: Board, folder: Path) -> dict[str, str]:
        model = _previous_model(board)
        link_folder(model, folder / _MODEL)
        names, order = _naming(board, "queries", board.deal.queries)
        queries = _rows(board, board.deal.queries[order], with_target=False)
        tables.write_arrow(_with_tokens(names, order, queries), folder / "queries.parquet")
        return {"model": _MODEL, "queries": "queries.parquet"}

    def _write_attack(self, board: Board, folder: Path) -> dict[str, str]:
        release = require(board.release)
        deal, schema = board.deal, board.game.schema
        answers = _load(release / _ANSWERS)
        files: dict[str, str] = {}
        for name, positions, member in (
            ("candidates", deal.scored, None),
            ("aux", deal.aux, None),
            ("known", deal.revealed, deal.revealed_member),
        ):
            names, order = _naming(board, name, positions)
            rows = _rows(board, positions[order], with_target=True)
            if member is not None:
                rows = rows.append_column("member", pa.array(member[order]))
            given = answers[np.searchsorted(deal.queries, positions[order])]
            columns = {label: given[:, number] for number, label in enumerate(schema.answer_columns)}
            answered = "answers" if name == "candidates" else f"{name}_answers"
            files |= {name: f"{name}.parquet", answered: f"{answered}.parquet"}
            tables.write_arrow(_with_tokens(names, order, rows), folder / files[name])
            tables.write_arrow(_with_tokens(names, order, pa.table(columns)), folder / files[answered])
        if board.game.white_box:
            link_folder(release / _MODEL, folder / _MODEL)
            files["model"] = _MODEL
        return files

    # Before publishing

    def look(self, trial: Trial) -> list[Finding]:
        """Classes, folds, the number of candidates, and the blind control of the deals."""
        return trials.membership(trial)

    def look_at_sample(self, trial: Trial) -> list[Finding]:
        """Whether the sample holds all classes in each part, and members and non-members in each fold."""
        return trials.rehearsal(trial)

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
        names = tokens(derive(board.key, "queries"), len(positions))
        values = read_rows(collected, "predictions", names, schema.answer_columns)
        result.mkdir(parents=True, exist_ok=True)
        np.save(result / _ANSWERS, canonical_answers(values, schema))
        if board.game.white_box:
            link_folder(_previous_model(board), result / _MODEL)
        return {"rows": len(positions)}

    def _read_scores(self, board: Board, collected: Path, result: Path) -> dict[str, Any]:
        positions = board.deal.scored
        names = tokens(derive(board.key, "candidates"), len(positions))
        values = read_rows(collected, "scores", names, ("score",))
        result.mkdir(parents=True, exist_ok=True)
        np.save(result / _SCORES, values[:, 0])
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


def _naming(board: Board, name: str, positions: Positions) -> tuple[list[str], Positions]:
    """A token for each position, and the order in which the rows are written."""
    key = derive(board.key, name)
    return tokens(key, len(positions)), shuffle(key, len(positions))


def _rows(board: Board, positions: Positions, *, with_target: bool) -> pa.Table:
    """These rows of the table, in this order, without the patient id and maybe without the target."""
    schema = board.game.schema
    columns = [column.name for column in (schema.shared if with_target else schema.features)]
    return tables.read_arrow(board.table).select(columns).take(pa.array(positions))


def _with_tokens(names: list[str], order: Positions, rows: pa.Table) -> pa.Table:
    return rows.add_column(0, "row", pa.array(names, type=pa.string()).take(pa.array(order)))


def _previous_model(board: Board) -> Path:
    return require(None if board.previous is None else board.previous / _MODEL)


def _load(path: Path) -> Floats:
    values: Floats = np.load(path, allow_pickle=False)
    return values

"""A private model against membership inference: may one learn from its answers whose data it was trained on?"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import pyarrow as pa
from django.utils.translation import gettext_lazy as _
from sklearn.pipeline import Pipeline

from challenges import anchors, features, tables
from challenges.anchors import Anchors
from challenges.metrics import bootstrap
from challenges.metrics.utility import score
from challenges.scenarios import web
from challenges.scenarios.base import (
    Board,
    Game,
    Images,
    Utility,
    link_folder,
    write_task,
)
from challenges.scenarios.containers import names_of, people, write_named
from challenges.scenarios.membership import MembershipScenario
from challenges.scenarios.model_release import (
    ANSWERS,
    MODEL,
    answers_about,
    canonical_answers,
    give_model,
    keep_model,
    keep_release,
)
from challenges.scenarios.options import Option
from challenges.scenarios.outputs import read_rows
from challenges.scenarios.web_answers import read_asked
from challenges.scenarios.web_membership import QUERY_BUDGET, WebMembership
from challenges.schema import Schema
from challenges.splits import Deal, derive


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
    options: ClassVar[tuple[Option, ...]] = (QUERY_BUDGET,)
    others: ClassVar[Mapping[str, Images]] = {web.CONTRACT: WebMembership()}

    def collect(self, step: str) -> dict[str, list[str]]:
        """`model/` after fit, `predictions` after predict, `scores` after attack."""
        wanted: dict[str, list[str]] = {"tables": [], "files": [], "folders": []}
        kind, name = {
            "fit": ("folders", MODEL),
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
        answers = answers_about(release, board, board.deal.test)
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
        schema, model = board.game.schema, _reference(board)
        queries = tables.read(board.table).iloc[board.deal.queries]
        answers = features.answers(model, features.matrix(queries, schema), schema)
        folder.mkdir(parents=True, exist_ok=True)
        np.save(folder / ANSWERS, canonical_answers(answers, schema))
        if board.game.white_box:
            (folder / MODEL).mkdir()
            fitted = model[-1]
            facts = {"coefficients": fitted.coef_.tolist(), "intercept": np.atleast_1d(fitted.intercept_).tolist()}
            (folder / MODEL / "linear.json").write_text(json.dumps(facts), encoding="utf-8")

    # What containers get

    def _write_predict(self, board: Board, folder: Path) -> dict[str, str]:
        return self._write_queries(board, people(board, board.deal.queries, board.game.schema.features), folder)

    def _write_queries(self, board: Board, rows: pa.Table, folder: Path) -> dict[str, str]:
        give_model(board, folder / MODEL)
        return {"model": MODEL, **write_named(board, folder, "queries", rows)}

    def write_release(self, board: Board, release: Path, folder: Path) -> dict[str, str]:
        """The model's answers about everybody of whom an attack is told; white-box: the model's files too."""
        deal = board.deal
        files: dict[str, str] = {}
        for name, about, positions in (
            ("answers", "candidates", deal.scored),
            ("aux_answers", "aux", deal.aux),
            ("known_answers", "known", deal.revealed),
        ):
            given = answers_about(release, board, positions)
            columns = {label: given[:, number] for number, label in enumerate(board.game.schema.answer_columns)}
            files |= write_named(board, folder, name, pa.table(columns), under=about)
        if board.game.white_box:
            link_folder(release / MODEL, folder / MODEL)
            files["model"] = MODEL
        return files

    # Before publishing

    def anchors(self, table: pd.DataFrame, schema: Schema, deal: Deal, game: Game) -> Anchors:
        """The answer that looks at nobody, and the best of a small grid of models."""
        return anchors.compute(table, schema, deal, game.metric)

    # What containers leave

    def _read_fit(self, board: Board, collected: Path, result: Path) -> dict[str, Any]:
        return keep_model(collected / MODEL, result, "/output/model")

    def _read_predictions(self, board: Board, collected: Path, result: Path) -> dict[str, Any]:
        schema, positions = board.game.schema, board.deal.queries
        names = names_of(board, "queries", len(positions))
        values = read_rows(collected, "predictions", names, schema.answer_columns)
        keep_release(canonical_answers(values, schema), board, result)
        return {"rows": len(positions)}

    # Live questions

    def write_questions(self, board: Board, asked: Path, folder: Path) -> int:
        """The predict step of contract anomed/1, with other queries."""
        rows = read_asked(asked, board.game.schema)
        write_task("predict", board, folder, self._write_queries(board, rows, folder))
        return int(rows.num_rows)

    def read_answers(self, board: Board, asked: Path, collected: Path, answers: Path) -> None:
        """Canonical answers, in the order of the question."""
        schema = board.game.schema
        names = names_of(board, "queries", read_asked(asked, schema).num_rows)
        values = read_rows(collected, "predictions", names, schema.answer_columns)
        web.write_arrays(answers, **web.answered(canonical_answers(values, schema), schema))

    def reference_answers(self, board: Board, asked: Path, answers: Path) -> int:
        """Answers of the model of `reference_release`."""
        schema, rows = board.game.schema, read_asked(asked, board.game.schema)
        given = features.answers(_reference(board), features.matrix(rows.to_pandas(), schema), schema)
        web.write_arrays(answers, **web.answered(canonical_answers(given, schema), schema))
        return int(rows.num_rows)


def _reference(board: Board) -> Pipeline:
    """A linear model trained on the deal's training part."""
    schema, deal = board.game.schema, board.deal
    frame = tables.read(board.table)
    model = features.linear_model(schema)
    return model.fit(features.matrix(frame.iloc[deal.train], schema), frame[schema.target].to_numpy()[deal.train])

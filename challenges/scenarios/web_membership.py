"""Published AnoMed images in `model-membership`: anonymizers that predict, deanonymizers that infer memberships."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
from django.utils.translation import gettext_lazy as _

from challenges.scenarios import web, web_answers
from challenges.scenarios.base import Board, Floats, Game, Images, require
from challenges.scenarios.containers import order_of, people
from challenges.scenarios.membership import keep_scores
from challenges.scenarios.model_release import MODEL, answers_about, give_model, keep_model, keep_release
from challenges.scenarios.options import Option
from challenges.splits import Positions

# What a defense may tune by is a part of its training data: no other rows are its own.
_TUNING_ROWS: Final = 1000
# A proxy may answer /fit while the fit goes on: it is over when the model answers.
_PROBE_ROWS: Final = 5

QUERY_BUDGET: Final = Option(
    "query_budget",
    int,
    _(
        "How many records an attack that speaks the web protocol may ask a defense about in one duel, all its "
        "questions together."
    ),
    default=100_000,
    minimum=0,
    maximum=10_000_000,
)


class WebMembership(Images):
    """The web contract of `model-membership`. The same releases and results as by contract anomed/1."""

    def collect(self, step: str) -> dict[str, list[str]]:
        """After fit /persistent_data as the folder `model`, else what was said."""
        return web.collected(MODEL if step == "fit" else web.SAID)

    def write_inputs(self, step: str, board: Board, folder: Path) -> None:
        """Writes the plan and what is served, in the order of the tables of contract anomed/1.

        Raises LookupError for an unknown step.
        """
        {"fit": self._write_fit, "predict": self._write_predict, "attack": self._write_attack}[step](board, folder)

    # What defenses get

    def _write_fit(self, board: Board, folder: Path) -> None:
        schema, train = board.game.schema, board.deal.train
        rows = people(board, train[order_of(board, "train", len(train))], schema.shared)
        x, y = web.inputs(rows, schema), web.targets(rows, schema)
        tuning = slice(0, _TUNING_ROWS)
        empty = np.empty(0, dtype=np.float64)  # so the published challenge serves it: targets are not for defenses
        web.write_arrays(folder / "training.npz", X=x, y=y)
        web.write_arrays(folder / "tuning.npz", X=x[tuning], y=empty)
        web.write_arrays(folder / "tuning_truth.npz", y=y[tuning])
        web.write_arrays(folder / "probe.npz", X=x[:_PROBE_ROWS])
        web.write_plan(
            board,
            folder,
            serve={
                "/data/anonymizer/training": {"file": "training.npz"},
                "/data/anonymizer/tuning": {"file": "tuning.npz"},
                "/data/anonymizer/validation": {"file": "tuning.npz"},
            },
            record={
                "/utility/anonymizer": {
                    "by": "data_split",
                    "limit": web.limit(_TUNING_ROWS, len(schema.answer_columns)),
                    "to": web.by_split(None, None),
                    "mark": {"tuning": {"truth": "tuning_truth.npz", "measure": "labels"}},
                }
            },
            calls=[{"post": "/fit"}, {"post": "/predict", "body": "probe.npz"}],
        )

    def _write_predict(self, board: Board, folder: Path) -> None:
        deal = board.deal
        order = order_of(board, "queries", len(deal.queries))
        rows = people(board, deal.queries[order], board.game.schema.features)
        self._ask(board, web.inputs(rows, board.game.schema), folder)

    def _ask(self, board: Board, x: Floats, folder: Path) -> None:
        """Fills the folder of a defense that is asked about these rows, and told nothing."""
        give_model(board, folder / MODEL)
        calls = []
        for number, rows in enumerate(web.parts(*x.shape)):
            body = web.write_arrays(folder / f"queries-{number}.npz", X=x[rows])
            most = web.limit(rows.stop - rows.start, len(board.game.schema.answer_columns) + 1)
            calls.append({"post": "/predict", "body": body, "save": f"{web.SAID}/prediction-{number}", "limit": most})
        web.write_plan(board, folder, calls=calls)

    # What attacks get

    def _write_attack(self, board: Board, folder: Path) -> None:
        deal, schema = board.deal, board.game.schema
        order = {
            "candidates": order_of(board, "candidates", len(deal.scored)),
            "aux": order_of(board, "aux", len(deal.aux)),
            "known": order_of(board, "known", len(deal.revealed)),
        }
        known, member = deal.revealed[order["known"]], deal.revealed_member[order["known"]]
        for name, positions in {
            "candidates": deal.scored[order["candidates"]],
            "auxiliary": deal.aux[order["aux"]],
            "members": known[member],
            "non-members": known[~member],
            "tuning": known,
        }.items():
            rows = people(board, positions, schema.shared)
            web.write_arrays(folder / f"{name}.npz", X=web.inputs(rows, schema), y=web.targets(rows, schema))
        web.write_arrays(folder / "tuning_truth.npz", y=member)
        self._write_answers(board, folder)
        web.write_plan(
            board,
            folder,
            serve={
                "/data/deanonymizer/members": {"file": "members.npz"},
                "/data/deanonymizer/non-members": {"file": "non-members.npz"},
                "/data/deanonymizer/auxiliary": {"file": "auxiliary.npz"},
                "/data/attack-success-evaluation": {
                    "by": "data_split",
                    "files": web.by_split("tuning.npz", "candidates.npz"),
                },
            },
            record={
                "/utility/deanonymizer": {
                    "by": "data_split",
                    "limit": web.limit(max(len(deal.scored), len(known)), 2),
                    "to": web.by_split(None, f"{web.SAID}/scores"),
                    "mark": {"tuning": {"truth": "tuning_truth.npz", "measure": "membership"}},
                }
            },
            target={"/predict": {"answers": "answers.npz", "budget": budget(board.game), "live": True}},
            calls=[{"post": "/fit"}, {"post": "/evaluate?data_split=validation"}],
        )

    def _write_answers(self, board: Board, folder: Path) -> None:
        """All that a release answers about whom an attack is told, as contract anomed/1 gives it in tables."""
        deal, schema = board.deal, board.game.schema
        positions: Positions = np.sort(np.concatenate([deal.scored, deal.aux, deal.revealed]))
        answers = answers_about(require(board.release), board, positions)
        rows: pa.Table = people(board, positions, schema.features)
        web.write_arrays(folder / "answers.npz", X=web.inputs(rows, schema), **web.answered(answers, schema))

    # What is made of what they say

    def read_outputs(self, step: str, board: Board, collected: Path, result: Path) -> dict[str, Any]:
        """Turns /persistent_data into `model/`, answers to /predict into `answers.npy`, a post into `scores.npy`."""
        read = {"fit": self._read_fit, "predict": self._read_predictions, "attack": self._read_scores}[step]
        return {**read(board, collected, result), "web": web_answers.read_exchange(collected / web.EXCHANGE)}

    def _read_fit(self, board: Board, collected: Path, result: Path) -> dict[str, Any]:
        return keep_model(collected / MODEL, result, "/persistent_data")

    def _read_predictions(self, board: Board, collected: Path, result: Path) -> dict[str, Any]:
        number = len(board.deal.queries)
        said = web_answers.read_predictions(collected / web.SAID, number, board.game.schema)
        answers = np.empty_like(said)
        answers[order_of(board, "queries", number)] = said
        keep_release(answers, board, result)
        return {"rows": number}

    def _read_scores(self, board: Board, collected: Path, result: Path) -> dict[str, Any]:
        number = len(board.deal.scored)
        scores = np.empty(number)
        said = web_answers.read_scores(collected / web.SAID / "scores", number)
        scores[order_of(board, "candidates", number)] = said
        keep_scores(scores, result)
        return {"rows": number}

    def read_account(self, told: Path) -> dict[str, Any]:
        """The same for an exchange that failed."""
        return web_answers.read_exchange(told)

    # Live questions

    def query_budget(self, game: Game) -> int | None:
        """The setting of the challenge."""
        return budget(game)

    def write_questions(self, board: Board, asked: Path, folder: Path) -> int:
        """The predict step with other queries."""
        rows = web_answers.read_asked(asked, board.game.schema)
        self._ask(board, web.inputs(rows, board.game.schema), folder)
        return int(rows.num_rows)

    def read_answers(self, board: Board, asked: Path, collected: Path, answers: Path) -> None:
        """Canonical answers, in the order of the question."""
        schema = board.game.schema
        rows = web_answers.read_asked(asked, schema).num_rows
        said = web_answers.read_predictions(collected / web.SAID, rows, schema)
        web.write_arrays(answers, **web.answered(said, schema))


def budget(game: Game) -> int:
    """The rows that an attack may ask about in one duel of this game."""
    return int(game.options.get(QUERY_BUDGET.name, QUERY_BUDGET.default))

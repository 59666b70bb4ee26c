"""Live questions: rows that an attack makes up, answered by the defense itself, whichever contract it keeps to."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from challenges import tables
from challenges.scenarios import registry, web
from challenges.scenarios.base import Board, OutputProblem
from challenges.scenarios.web_answers import read_asked
from tests.challenges.web_images import (
    Anonymizer,
    Gateway,
    answers_by_age,
    packed,
    released,
    unpacked,
)

MakeBoard = Callable[..., Board]
SCENARIO = registry.get("model-membership")
WEB = SCENARIO.images("web/1")


def test_a_file_defense_and_a_web_defense_answer_a_live_question_alike(make_board: MakeBoard, tmp_path: Path) -> None:
    board = released(make_board("stage"), tmp_path / "release")
    board = replace(board, previous=tmp_path / "release" / "fit" / "result", key=b"a key of the question's own")
    schema = board.game.schema
    x = web.inputs(tables.read_arrow(board.table), schema)[:40].copy()
    x[:, 0] += 0.4  # whole years only: it is asked about the nearest
    asked = tmp_path / "asked.npz"
    asked.write_bytes(packed(X=x.astype(np.float32)))

    for folder in ("web", "web-out", "file", "file-out"):
        (tmp_path / folder).mkdir()
    assert WEB.write_questions(board, asked, tmp_path / "web") == 40
    Gateway(tmp_path / "web", tmp_path / "web-out").run(Anonymizer(labels=False).routes)
    WEB.read_answers(board, asked, tmp_path / "web-out", tmp_path / "web.npz")

    assert SCENARIO.write_questions(board, asked, tmp_path / "file") == 40
    task = json.loads((tmp_path / "file" / "task.json").read_text())
    assert (task["step"], task["files"]) == ("predict", {"model": "model", "queries": "queries.parquet"})
    queries = pd.read_parquet(tmp_path / "file" / "queries.parquet")
    assert list(queries.columns) == ["row", *(column.name for column in schema.features)]
    assert set(queries["smoking"].dropna()) <= set(schema.column("smoking").categories)
    with np.load(tmp_path / "file" / "model" / "nearest.npz") as model:
        shares = answers_by_age(queries["age"].to_numpy(float), model["age"], model["y"])
    given = pd.DataFrame({"row": queries["row"]} | dict(zip(schema.labels, shares.T, strict=True)))
    given.to_csv(tmp_path / "file-out" / "predictions.csv", index=False)
    SCENARIO.read_answers(board, asked, tmp_path / "file-out", tmp_path / "file.npz")

    by_web, by_file = (unpacked((tmp_path / f"{name}.npz").read_bytes()) for name in ("web", "file"))
    assert set(by_web) == set(by_file) == {"prediction", "probabilities"}
    for name in by_web:
        np.testing.assert_array_equal(by_web[name], by_file[name])
    np.testing.assert_array_equal(by_web["probabilities"], np.round(by_web["probabilities"], 4))
    assert by_web["prediction"].dtype == np.int64


def test_a_live_question_has_the_answer_that_the_release_has(make_board: MakeBoard, tmp_path: Path) -> None:
    board = released(make_board(), tmp_path / "release")
    board = replace(board, previous=tmp_path / "release" / "fit" / "result", key=b"another")
    asked = tmp_path / "asked.npz"
    rows = board.deal.scored[:30]
    asked.write_bytes(packed(X=web.inputs(tables.read_arrow(board.table), board.game.schema)[rows]))
    for folder in ("in", "out"):
        (tmp_path / folder).mkdir()
    WEB.write_questions(board, asked, tmp_path / "in")
    Gateway(tmp_path / "in", tmp_path / "out").run(Anonymizer(labels=False).routes)
    WEB.read_answers(board, asked, tmp_path / "out", tmp_path / "answer.npz")
    assert board.release is not None
    release = np.load(board.release / "answers.npy")[np.searchsorted(board.deal.queries, rows)]
    np.testing.assert_array_equal(unpacked((tmp_path / "answer.npz").read_bytes())["probabilities"], release)


@pytest.mark.parametrize("target", ["diabetes", "days"])
def test_rehearsals_are_answered_by_the_platforms_own_model(make_board: MakeBoard, tmp_path: Path, target: str) -> None:
    board = make_board(target)
    SCENARIO.reference_release(board, tmp_path / "reference")
    rows = board.deal.scored
    (tmp_path / "asked").write_bytes(packed(X=web.inputs(tables.read_arrow(board.table), board.game.schema)[rows]))
    assert SCENARIO.reference_answers(board, tmp_path / "asked", tmp_path / "answer.npz") == len(rows)
    given = unpacked((tmp_path / "answer.npz").read_bytes())
    release = np.load(tmp_path / "reference" / "answers.npy")[np.searchsorted(board.deal.queries, rows)]
    if target == "days":
        np.testing.assert_array_equal(given["prediction"], release[:, 0])
        assert set(given) == {"prediction"}
    else:
        np.testing.assert_array_equal(given["probabilities"], release)


@pytest.mark.parametrize(
    ("x", "sentence"),
    [
        (np.zeros((2, 4)), "and 5 columns"),
        (np.zeros((0, 5)), "one row at least"),
        (np.zeros(5), "and 5 columns"),
        (np.full((2, 5), np.inf), "not finite"),
        (np.full((2, 5), np.nan), "Column “age” of “X” has empty cells"),
        (np.array([["a"] * 5]), "must hold numbers"),
    ],
)
def test_questions_that_no_model_can_answer_are_refused(
    make_board: MakeBoard, tmp_path: Path, x: NDArray[Any], sentence: str
) -> None:
    (tmp_path / "asked").write_bytes(packed(X=x))
    with pytest.raises(OutputProblem, match=f"^The question to /predict: .*{sentence}"):
        read_asked(tmp_path / "asked", make_board().game.schema)


def test_questions_are_brought_to_what_the_table_could_hold(make_board: MakeBoard, tmp_path: Path) -> None:
    schema = make_board().game.schema
    age, glucose = schema.column("age"), schema.column("glucose")
    assert age.maximum is not None
    assert glucose.minimum is not None
    asked = [[1e300, 7.0, -1e300, 2.4, np.nan], [25.5, 0.4, 100.26, np.nan, -3]]
    (tmp_path / "asked").write_bytes(packed(X=np.array(asked)))
    rows = read_asked(tmp_path / "asked", schema).to_pylist()
    smoking = schema.column("smoking").categories
    assert rows == [
        {"age": age.maximum, "sex": "male", "glucose": glucose.minimum, "visits": 2, "smoking": None},
        {"age": 26, "sex": "female", "glucose": 100.3, "visits": None, "smoking": smoking[0]},
    ]


def test_games_without_answers_have_no_live_questions(tmp_path: Path) -> None:
    with pytest.raises(LookupError, match="answer no questions"):
        registry.get("synthetic-membership").write_questions(None, tmp_path, tmp_path)  # type: ignore[arg-type]

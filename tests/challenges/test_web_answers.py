"""What web images answer and post, in the many forms that are meant well, and in those that are not."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from challenges.scenarios.base import OutputProblem
from challenges.scenarios.web_answers import read_exchange, read_predictions, read_scores
from challenges.schema import Column, Schema
from tests.challenges.web_images import (
    Floats,
    packed,
)


def schema_of(*labels: str) -> Schema:
    columns = (Column("age", "number", minimum=0, maximum=99, decimals=1), Column("y", "category", "target"))
    return Schema((columns[0], replace(columns[1], categories=labels)), "y")


def answered(folder: Path, schema: Schema, rows: int, **arrays: Any) -> Floats:
    """What is made of an answer to /predict."""
    folder.mkdir(exist_ok=True)
    (folder / "prediction-0").write_bytes(packed(**arrays))
    return read_predictions(folder, rows, schema)


BINARY, WHOLE, THREE = schema_of("no", "yes"), schema_of("10", "2"), schema_of("I", "II", "III")
SURE = [[0, 1], [1, 0]]


@pytest.mark.parametrize(
    ("schema", "arrays", "expected"),
    [
        (BINARY, {"prediction": [1, 0]}, SURE),
        (BINARY, {"prediction": np.array([1, 0], dtype=np.uint8)}, SURE),
        (BINARY, {"prediction": np.array([1.0, -0.0], dtype=np.float16)}, SURE),
        (BINARY, {"prediction": [True, False]}, SURE),
        (BINARY, {"prediction": ["yes", "no"]}, SURE),
        (BINARY, {"prediction": np.array([b"yes", b"no"])}, SURE),
        (BINARY, {"prediction": ["1", "0"]}, SURE),
        (BINARY, {"prediction": [[1], [0]]}, SURE),
        (BINARY, {"prediction": SURE}, SURE),
        (BINARY, {"prediction": np.array(SURE, dtype=bool)}, SURE),
        (BINARY, {"prediction": np.asfortranarray([[0.25, 0.75], [0.5, 0.5]])}, [[0.25, 0.75], [0.5, 0.5]]),
        (BINARY, {"prediction": np.array([[0.25], [0.125]], dtype=np.float32)}, [[0.75, 0.25], [0.875, 0.125]]),
        (BINARY, {"prediction": [0.25, 0.12345]}, [[0.75, 0.25], [0.8766, 0.1234]]),
        (BINARY, {"prediction": [0, 0], "probabilities": [[0.2, 0.8], [0.3, 0.7]]}, [[0.2, 0.8], [0.3, 0.7]]),
        (BINARY, {"prediction": [0, 0], "probabilities": [0.8, 0.7]}, [[0.2, 0.8], [0.3, 0.7]]),
        # Labels that are whole numbers stand for themselves, and columns are in their order, as scikit-learn has it.
        (WHOLE, {"prediction": [2, 10]}, SURE),
        (WHOLE, {"prediction": ["2", "10"]}, SURE),
        (WHOLE, {"prediction": [[0.3, 0.7], [0.6, 0.4]]}, [[0.7, 0.3], [0.4, 0.6]]),
        (THREE, {"prediction": [2, 0]}, [[0, 0, 1], [1, 0, 0]]),
        (THREE, {"prediction": [[2], [0]]}, [[0, 0, 1], [1, 0, 0]]),
        (THREE, {"prediction": [[0.2, 0.3, 0.5], [0.4, 0.1, 0.5]]}, [[0.2, 0.3, 0.5], [0.4, 0.1, 0.5]]),
        (schema_of("1", "x"), {"prediction": ["1", "x"]}, [[1, 0], [0, 1]]),
        (schema_of("1", "x"), {"prediction": [1, 0]}, SURE),
    ],
)
def test_answers_of_many_kinds_are_understood(
    tmp_path: Path, schema: Schema, arrays: dict[str, Any], expected: list[list[float]]
) -> None:
    np.testing.assert_array_equal(answered(tmp_path, schema, 2, **arrays), expected)


@pytest.mark.parametrize(
    ("schema", "arrays", "sentence"),
    [
        (BINARY, {"prediction": [2, 0]}, "labels that are none of the classes: 0, 1"),
        (BINARY, {"prediction": ["yes", "perhaps"]}, "labels that are none of the classes"),
        (WHOLE, {"prediction": [0.5, 0.5]}, "labels that are none of the classes: 10, 2"),
        (BINARY, {"prediction": [0, 1, 0]}, "more cells|has 3 rows; 2 were asked for"),
        (BINARY, {"prediction": [1]}, "has 1 rows; 2 were asked for"),
        (BINARY, {"prediction": [np.nan, 1]}, "not finite"),
        (BINARY, {"prediction": [[np.inf, 0], [1, 0]]}, "not finite"),
        (BINARY, {"prediction": [1.5, 0]}, "between these"),
        (BINARY, {"prediction": [[0.5, 0.5, 0], [1, 0, 0]]}, "more cells|columns"),
        (BINARY, {"prediction": [[0.5, 0.2], [1, 0]]}, "sum to 1"),
        (BINARY, {"prediction": [[1.5, -0.5], [1, 0]]}, "negative probabilities"),
        (BINARY, {"predictions": [0, 1]}, "no array “prediction”"),
        (THREE, {"prediction": [[0.5, 0.5], [1, 0]]}, "2 rows and 3 columns"),
        (BINARY, {"prediction": np.array([1, "x"], dtype=object)}, "neither numbers"),
        (BINARY, {"prediction": [0, 1], "probabilities": ["a", "b"]}, "must hold numbers"),
    ],
)
def test_answers_that_cannot_be_used_are_told_by_their_route(
    tmp_path: Path, schema: Schema, arrays: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(OutputProblem, match=rf"^The answer to POST /predict: .*({sentence})") as problem:
        answered(tmp_path, schema, 2, **arrays)
    assert problem.value.kind == "invalid"


def test_predictions_of_a_number_keep_to_its_range_and_decimals(tmp_path: Path) -> None:
    column = Column("y", "number", "target", minimum=0, maximum=30, decimals=1)
    schema = Schema((Column("age", "integer"), column), "y")
    assert answered(tmp_path, schema, 3, prediction=[1.26, 99, -5]).tolist() == [[1.3], [30], [0]]
    assert answered(tmp_path, schema, 2, prediction=[[1], [2]]).tolist() == [[1], [2]]


def test_an_answer_that_never_came_is_missing(tmp_path: Path) -> None:
    with pytest.raises(OutputProblem, match="POST /predict did not come") as problem:
        read_predictions(tmp_path, 2, BINARY)
    assert problem.value.kind == "missing"


@pytest.mark.parametrize(
    ("arrays", "expected"),
    [
        ({"prediction": [True, False]}, [1, 0]),
        ({"prediction": [[1], [0]]}, [1, 0]),
        ({"prediction": [1.0, 0.0]}, [1, 0]),
        ({"prediction": [True, False], "score": [0.3, -1e300]}, [0.3, -1e300]),
        ({"score": [3, 4]}, [3, 4]),
    ],
)
def test_verdicts_and_scores_are_scores(tmp_path: Path, arrays: dict[str, Any], expected: list[float]) -> None:
    (tmp_path / "scores").write_bytes(packed(**arrays))
    assert read_scores(tmp_path / "scores", 2).tolist() == expected


@pytest.mark.parametrize(
    ("arrays", "sentence"),
    [
        ({"prediction": [0.5, 1]}, "must hold flags"),
        ({"prediction": [2, 1]}, "must hold flags"),
        ({"prediction": ["yes", "no"]}, "must hold numbers|texts"),
        ({"prediction": [1]}, "has 1 rows; 2 were asked for"),
        ({"score": [np.nan, 1]}, "not finite"),
        ({"score": np.array(["1e999", "1"]).astype(np.longdouble)}, "not finite"),
        ({}, "no array “prediction”"),
    ],
)
def test_verdicts_that_cannot_be_used_are_told(tmp_path: Path, arrays: dict[str, Any], sentence: str) -> None:
    (tmp_path / "scores").write_bytes(packed(**arrays))
    with pytest.raises(OutputProblem, match=rf"^The post to /utility/deanonymizer.*({sentence})"):
        read_scores(tmp_path / "scores", 2)


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"routes": 3}', '{"queries": "many"}', '{"calls": 1}', '{"routes": {"x": null}}']
)
def test_a_crooked_account_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "exchange.json").write_text(text)
    with pytest.raises(OutputProblem, match="account of the exchange"):
        read_exchange(tmp_path / "exchange.json")


def test_an_account_is_cut_to_what_pages_can_show(tmp_path: Path) -> None:
    routes = {f"GET /{number}": 404 for number in range(300)} | {"GET /\x1b[31m\n" + "x" * 300: 404}
    (tmp_path / "exchange.json").write_text(json.dumps({"routes": dict(reversed(routes.items()))}))
    read = read_exchange(tmp_path / "exchange.json")
    assert read["queries"] == read["live"] == 0
    assert read["calls"] == read["unasked"] == []
    assert len(read["routes"]) == 100
    assert next(iter(read["routes"])) == "GET /[31m" + "x" * 89

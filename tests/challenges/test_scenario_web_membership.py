"""Model membership played by published AnoMed images: the same results as by the contract of files."""

import json
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import balanced_accuracy_score

from challenges import tables
from challenges.scenarios import registry, web
from challenges.scenarios.base import Board, OutputProblem
from challenges.scenarios.web_answers import read_asked
from challenges.schema import Column, Schema
from tests.challenges.web_images import (
    Gateway,
    answers_by_age,
    exchanged,
    packed,
    released,
    unpacked,
)

MakeBoard = Callable[..., Board]
SCENARIO = registry.get("model-membership")
WEB = SCENARIO.images("web/1")


def infer(gateway: Gateway, _body: bytes) -> bytes:
    """An attack: whoever is answered as is true is a member. It asks the target in three parts."""
    held = unpacked(gateway.get("/data/attack-success-evaluation", "validation"))
    answers = [gateway.predict(part)["probabilities"] for part in np.array_split(held["X"], 3)]
    likely = np.concatenate(answers)[np.arange(len(held["y"])), held["y"]]
    gateway.post("/utility/deanonymizer", packed(prediction=likely > 0.5, score=likely), "validation")
    return b"{}"


def look_around(gateway: Gateway, _body: bytes) -> bytes:
    for name in ("members", "non-members", "auxiliary"):
        held = unpacked(gateway.get(f"/data/deanonymizer/{name}"))
        assert len(gateway.predict(held["X"])["prediction"]) == len(held["y"])
    return b""


@pytest.mark.parametrize("target", ["diabetes", "stage"])
def test_a_web_defense_and_a_file_defense_with_the_same_model_release_the_same(
    make_board: MakeBoard, tmp_path: Path, target: str
) -> None:
    board = make_board(target)
    by_web = released(board, tmp_path / "web")

    for step in ("fit", "predict"):
        (tmp_path / "file" / step).mkdir(parents=True)
    SCENARIO.write_inputs("fit", board, tmp_path / "file" / "fit")
    train = pd.read_parquet(tmp_path / "file" / "fit" / "train.parquet")
    (tmp_path / "file" / "fitted" / "model").mkdir(parents=True)
    board = replace(board, previous=tmp_path / "file" / "fitted")
    SCENARIO.write_inputs("predict", board, tmp_path / "file" / "predict")
    queries = pd.read_parquet(tmp_path / "file" / "predict" / "queries.parquet")
    labels = list(board.game.schema.labels)
    y = train[target].map(labels.index).to_numpy()
    shares = answers_by_age(queries["age"].to_numpy(float), train["age"].to_numpy(float), y)
    (tmp_path / "file" / "out").mkdir()
    pd.DataFrame({"row": queries["row"]} | dict(zip(labels, shares.T, strict=True))).to_parquet(
        tmp_path / "file" / "out" / "predictions.parquet", index=False
    )
    SCENARIO.read_outputs("predict", board, tmp_path / "file" / "out", tmp_path / "file" / "release")

    assert by_web.release is not None
    given = np.load(by_web.release / "answers.npy")
    assert len(np.unique(given)) > 10
    np.testing.assert_array_equal(given, np.load(tmp_path / "file" / "release" / "answers.npy"))
    assert SCENARIO.utility(by_web, by_web.release).value == pytest.approx(
        SCENARIO.utility(board, tmp_path / "file" / "release").value, abs=0
    )


def test_utility_is_what_the_model_scores_when_called_by_hand(make_board: MakeBoard, tmp_path: Path) -> None:
    board = make_board(metric="balanced_accuracy")
    after = released(board, tmp_path, labels=True)
    assert after.release is not None

    rows = tables.read_arrow(board.table)
    x, y = web.inputs(rows, board.game.schema), web.targets(rows, board.game.schema)
    train, test = board.deal.train, board.deal.test
    by_hand = answers_by_age(x[test, 0], x[train, 0], y[train]).argmax(axis=1)
    assert SCENARIO.utility(after, after.release).value == balanced_accuracy_score(y[test], by_hand)


def test_a_web_attack_scores_as_a_file_attack_with_the_same_idea(make_board: MakeBoard, tmp_path: Path) -> None:
    board = released(make_board(), tmp_path)
    facts = exchanged(WEB, "attack", board, tmp_path / "attack", {"/fit": look_around, "/evaluate": infer})
    deal = board.deal
    asked = len(deal.scored) + len(deal.aux) + len(deal.revealed)
    assert facts == {
        "rows": len(deal.scored),
        "web": {
            "routes": {"POST /fit": 201, "POST /evaluate": 201},
            "calls": [],
            "unasked": [],
            "queries": asked,
            "live": 0,
        },
    }

    (tmp_path / "file" / "out").mkdir(parents=True)
    SCENARIO.write_inputs("attack", board, tmp_path / "file")
    rows = pd.read_parquet(tmp_path / "file" / "candidates.parquet").merge(
        pd.read_parquet(tmp_path / "file" / "answers.parquet"), on="row"
    )
    rows["score"] = np.where(rows["diabetes"] == "yes", rows["yes"], rows["no"])
    rows[["row", "score"]].to_csv(tmp_path / "file" / "out" / "scores.csv", index=False)
    SCENARIO.read_outputs("attack", board, tmp_path / "file" / "out", tmp_path / "file" / "result")

    scores = np.load(tmp_path / "attack" / "result" / "scores.npy")
    assert len(np.unique(scores)) > 10
    np.testing.assert_array_equal(scores, np.load(tmp_path / "file" / "result" / "scores.npy"))


def test_a_game_says_who_can_play_it() -> None:
    assert SCENARIO.contracts == ("anomed/1", "web/1")
    assert registry.get("synthetic-membership").contracts == ("anomed/1",)
    assert SCENARIO.images("anomed/1") is SCENARIO
    with pytest.raises(LookupError, match=r"web/1.*synthetic-membership"):
        registry.get("synthetic-membership").images("web/1")


# What is served -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", ["diabetes", "days"])
def test_arrays_hold_the_table_in_the_order_of_the_file_contract(
    make_board: MakeBoard, tmp_path: Path, target: str
) -> None:
    board = make_board(target)
    for folder in ("web", "file"):
        (tmp_path / folder).mkdir()
    WEB.write_inputs("fit", board, tmp_path / "web")
    SCENARIO.write_inputs("fit", board, tmp_path / "file")
    train = pd.read_parquet(tmp_path / "file" / "train.parquet")
    held = unpacked((tmp_path / "web" / "training.npz").read_bytes())

    assert held["X"].dtype == np.float64
    features = board.game.schema.features
    assert [column.name for column in features] == ["age", "sex", "glucose", "visits", "smoking"]
    for number, column in enumerate(features):
        values = train[column.name]
        if column.type == "category":
            values = values.map({name: place for place, name in enumerate(column.categories)})
        np.testing.assert_array_equal(held["X"][:, number], values.astype(float))
    if target == "days":
        np.testing.assert_array_equal(held["y"], train["days"])
    else:
        assert held["y"].dtype == np.int64
        np.testing.assert_array_equal(held["y"], train["diabetes"] == "yes")

    # Tuning data are some of its own, their targets stay with the platform.
    tuning = unpacked((tmp_path / "web" / "tuning.npz").read_bytes())
    np.testing.assert_array_equal(tuning["X"], held["X"][:1000])
    assert tuning["y"].dtype == np.float64
    assert tuning["y"].shape == (0,)
    truth = unpacked((tmp_path / "web" / "tuning_truth.npz").read_bytes())
    np.testing.assert_array_equal(truth["y"], held["y"][:1000])


def test_an_attack_is_told_the_known_records_and_no_truth_about_others(make_board: MakeBoard, tmp_path: Path) -> None:
    board = released(make_board(), tmp_path / "release")
    (tmp_path / "in").mkdir()
    WEB.write_inputs("attack", board, tmp_path / "in")
    gateway = Gateway(tmp_path / "in", tmp_path)
    deal, schema = board.deal, board.game.schema
    rows = tables.read_arrow(board.table)
    x = web.inputs(rows, schema)

    def known(member: bool) -> set[bytes]:
        return {row.tobytes() for row in x[deal.revealed[deal.revealed_member == member]]}

    members = unpacked(gateway.get("/data/deanonymizer/members"))
    others = unpacked(gateway.get("/data/deanonymizer/non-members"))
    assert {row.tobytes() for row in members["X"]} == known(True)
    assert {row.tobytes() for row in others["X"]} == known(False)
    tuning = unpacked(gateway.get("/data/attack-success-evaluation", "tuning"))
    truth = unpacked((tmp_path / "in" / "tuning_truth.npz").read_bytes())["y"]
    assert truth.dtype == np.bool_
    assert {row.tobytes() for row in tuning["X"][truth]} == known(True)

    candidates = unpacked(gateway.get("/data/attack-success-evaluation", "validation"))
    assert set(candidates) == {"X", "y"}
    assert {row.tobytes() for row in candidates["X"]} == {row.tobytes() for row in x[deal.scored]}
    assert "/data/anonymizer/training" not in gateway.plan["serve"]
    assert set(gateway.plan["target"]) == {"/predict"}


def test_the_table_of_answers_says_what_the_release_says(make_board: MakeBoard, tmp_path: Path) -> None:
    board = released(make_board("stage"), tmp_path / "release")
    (tmp_path / "in").mkdir()
    WEB.write_inputs("attack", board, tmp_path / "in")
    held = unpacked((tmp_path / "in" / "answers.npz").read_bytes())
    deal = board.deal
    positions = np.sort(np.concatenate([deal.scored, deal.aux, deal.revealed]))
    assert board.release is not None
    answers = np.load(board.release / "answers.npy")[np.searchsorted(deal.queries, positions)]
    np.testing.assert_array_equal(held["probabilities"], answers)
    np.testing.assert_array_equal(held["prediction"], answers.argmax(axis=1))
    assert not set(positions) & set(deal.test), "nobody may learn the answers about the test part"


def test_the_budget_is_the_organisers(make_board: MakeBoard, tmp_path: Path) -> None:
    board = released(make_board(), tmp_path / "release")
    for number, options in enumerate(({}, {"query_budget": 250})):
        folder = tmp_path / str(number)
        folder.mkdir()
        WEB.write_inputs("attack", replace(board, game=replace(board.game, options=options)), folder)
        plan = json.loads((folder / "plan.json").read_text())
        assert plan["target"]["/predict"]["budget"] == options.get("query_budget", 100_000)
    SCENARIO.check_options({"query_budget": 0})
    with pytest.raises(ValueError, match="query_budget"):
        SCENARIO.check_options({"query_budget": -1})


def test_large_tables_are_asked_about_in_small_parts() -> None:
    assert web.parts(4518, 26) == [slice(0, 3780), slice(3780, 4518)]
    assert web.parts(5000, 2) == [slice(0, 5000)]
    for rows, columns in ((1, 1), (12_345, 7), (20_000, 500), (3, 200_000)):
        parts = web.parts(rows, columns)
        assert [row for part in parts for row in range(part.start, part.stop)] == list(range(rows))
        assert all((part.stop - part.start) * columns * 8 <= 800_000 or part.stop - part.start == 1 for part in parts)


@given(st.lists(st.sampled_from(["a", "b,c", "ü", None]), min_size=1), st.data())
def test_every_table_is_encoded_and_decoded_again(labels: list[str | None], data: st.DataObject) -> None:
    floats = st.one_of(st.none(), st.decimals(-5, 5, places=2).map(float))
    numbers = data.draw(st.lists(floats, min_size=len(labels), max_size=len(labels)))
    schema = Schema(
        (
            Column("name", "category", categories=("a", "b,c", "ü"), missing=True),
            Column("number", "number", minimum=-5, maximum=5, decimals=2, missing=True),
            Column("whole", "integer", minimum=-5, maximum=5, missing=True),
            Column("y", "category", role="target", categories=("no", "yes")),
        ),
        "y",
    )
    whole = [None if number is None else round(number) for number in numbers]
    table = pa.table(
        {
            "name": pa.array(labels, type=pa.string()),
            "number": pa.array(numbers, type=pa.float64()),
            "whole": pa.array(whole, type=pa.int64()),
        }
    )
    x = web.inputs(table, schema)
    assert x.shape == (len(labels), 3)
    assert not np.signbit(x[x == 0]).any()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "asked"
        path.write_bytes(packed(X=x.astype(np.float32)))
        again = read_asked(path, schema)
    assert again.column("name").to_pylist() == labels
    assert again.column("number").to_pylist() == numbers
    assert again.column("whole").to_pylist() == whole


def test_a_fit_that_keeps_nothing_is_told(make_board: MakeBoard, tmp_path: Path) -> None:
    (tmp_path / "out" / "model").mkdir(parents=True)
    (tmp_path / "out" / "exchange.json").write_text("{}")
    with pytest.raises(OutputProblem, match="/persistent_data is empty"):
        WEB.read_outputs("fit", make_board(), tmp_path / "out", tmp_path / "result")


def test_white_box_games_give_a_file_attack_what_fit_kept(make_board: MakeBoard, tmp_path: Path) -> None:
    board = released(make_board(white_box=True), tmp_path / "release")
    (tmp_path / "in").mkdir()
    SCENARIO.write_inputs("attack", board, tmp_path / "in")
    assert (tmp_path / "in" / "model" / "nearest.npz").is_file()
    (tmp_path / "web").mkdir()
    WEB.write_inputs("attack", board, tmp_path / "web")
    assert not (tmp_path / "web" / "model").exists(), "by the web contract nothing serves them"

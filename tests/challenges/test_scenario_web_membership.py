"""Model membership played by published AnoMed images: the same results as by the contract of files."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from sklearn.metrics import balanced_accuracy_score

from challenges import tables
from challenges.scenarios import registry, web
from challenges.scenarios.base import Board, Images
from tests.challenges.web_images import Gateway, Route, packed, unpacked

MakeBoard = Callable[..., Board]
SCENARIO = registry.get("model-membership")
WEB = SCENARIO.images("web/1")
Floats = NDArray[np.float64]


class Anonymizer:
    """A small model: the share of each class among the nearest by age, or its commonest class."""

    def __init__(self, *, labels: bool) -> None:
        self.labels = labels

    def fit(self, gateway: Gateway, _body: bytes) -> bytes:
        held = unpacked(gateway.get("/data/anonymizer/training"))
        (gateway.outputs / "model").mkdir()
        np.savez(gateway.outputs / "model" / "nearest.npz", age=held["X"][:, 0], y=held["y"])
        return b""

    def predict(self, gateway: Gateway, body: bytes) -> bytes:
        with np.load(gateway.inputs / "persistent" / "nearest.npz") as model:
            shares = answers_by_age(unpacked(body)["X"][:, 0], model["age"], model["y"])
        return packed(prediction=shares.argmax(axis=1)) if self.labels else packed(prediction=shares)

    @property
    def routes(self) -> dict[str, Route]:
        return {"/fit": self.fit, "/predict": self.predict}


def answers_by_age(asked: Floats, age: Floats, y: NDArray[Any]) -> Floats:
    """[rows, classes]: of the people within three years of age, the share in each class; class by number."""
    near = np.abs(asked[:, None] - age[None, :]) <= 3
    shares = np.stack([near @ (y == number) + 0.1 for number in range(int(y.max()) + 1)], axis=1)
    return np.asarray(shares / shares.sum(axis=1, keepdims=True))


def exchanged(images: Images, step: str, board: Board, folder: Path, routes: dict[str, Route]) -> dict[str, Any]:
    """One step of a web image; its result is in folder/result."""
    (folder / "in").mkdir(parents=True)
    (folder / "out").mkdir()
    images.write_inputs(step, board, folder / "in")
    Gateway(folder / "in", folder / "out").run(routes)
    return images.read_outputs(step, board, folder / "out", folder / "result")


def released(board: Board, folder: Path, *, labels: bool = False) -> Board:
    """The board with the release of the small anonymizer."""
    image = Anonymizer(labels=labels)
    facts = exchanged(WEB, "fit", board, folder / "fit", image.routes)
    assert facts["files"] == 1
    fitted = replace(board, previous=folder / "fit" / "result")
    facts = exchanged(WEB, "predict", fitted, folder / "predict", image.routes)
    assert facts["rows"] == len(board.deal.queries)
    return replace(board, release=folder / "predict" / "result")


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
        "web": {"routes": {"POST /fit": 201, "POST /evaluate": 201}, "queries": asked, "live": 0},
    }

    (tmp_path / "file" / "out").mkdir(parents=True)
    SCENARIO.write_inputs("attack", board, tmp_path / "file")
    rows = pd.read_parquet(tmp_path / "file" / "candidates.parquet").merge(
        pd.read_parquet(tmp_path / "file" / "answers.parquet"), on="row"
    )
    rows["score"] = np.where(rows["diabetes"] == "yes", rows["yes"], rows["no"])
    rows[["row", "score"]].to_csv(tmp_path / "file" / "out" / "scores.csv", index=False)
    SCENARIO.read_outputs("attack", board, tmp_path / "file" / "out", tmp_path / "file" / "result")

    np.testing.assert_array_equal(
        np.load(tmp_path / "attack" / "result" / "scores.npy"), np.load(tmp_path / "file" / "result" / "scores.npy")
    )


def test_a_game_says_who_can_play_it() -> None:
    assert SCENARIO.contracts == ("anomed/1", "web/1")
    assert registry.get("synthetic-membership").contracts == ("anomed/1",)
    assert SCENARIO.images("anomed/1") is SCENARIO
    with pytest.raises(LookupError, match=r"web/1.*synthetic-membership"):
        registry.get("synthetic-membership").images("web/1")

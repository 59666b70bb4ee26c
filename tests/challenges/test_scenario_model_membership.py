"""One whole game of model membership, played by a container that keeps to the contract."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from challenges import tables
from challenges.metrics import bootstrap, membership
from challenges.scenarios import registry
from challenges.scenarios.base import Board, Game, OutputProblem
from challenges.scenarios.model_release import canonical_answers

MakeBoard = Callable[..., Board]
SCENARIO = registry.get("model-membership")


def write(step: str, board: Board, folder: Path) -> dict[str, Any]:
    """A step's inputs; returns task.json."""
    folder.mkdir(parents=True)
    SCENARIO.write_inputs(step, board, folder)
    task = json.loads((folder / "task.json").read_text(encoding="utf-8"))
    assert isinstance(task, dict)
    return task


def fitted(board: Board, root: Path) -> Board:
    """The board after a fit step that left one file."""
    (root / "fit" / "model" / "deep").mkdir(parents=True)
    (root / "fit" / "model" / "deep" / "weights.bin").write_bytes(b"weights")
    facts = SCENARIO.read_outputs("fit", board, root / "fit", root / "fit-result")
    assert facts == {"files": 1, "bytes": 7}
    return replace(board, previous=root / "fit-result")


def predictions(board: Board, queries: pd.DataFrame, overfit: float = 0.0) -> pd.DataFrame:
    """What a container answers: noise, and with `overfit` the truth about whoever it was trained on."""
    schema = board.game.schema
    random = np.random.default_rng(0)
    if not schema.labels:
        return pd.DataFrame({"row": queries["row"], "prediction": random.normal(10, 2, len(queries))})
    raw = random.random((len(queries), len(schema.labels))) + 0.1
    table = tables.read(board.table)
    seen = table.iloc[board.deal.train][["age", "glucose", "visits", schema.target]]
    truth = queries.merge(seen.drop_duplicates(["age", "glucose", "visits"]), how="left")[schema.target]
    for number, label in enumerate(schema.labels):
        raw[:, number] += overfit * (truth == label)
    shares = raw / raw.sum(axis=1, keepdims=True)
    return pd.DataFrame({"row": queries["row"]} | dict(zip(schema.labels, shares.T, strict=True)))


def released(board: Board, root: Path, overfit: float = 0.0) -> Board:
    """The board with the release of such a container."""
    board = fitted(board, root)
    write("predict", board, root / "predict")
    answers = predictions(board, pd.read_parquet(root / "predict" / "queries.parquet"), overfit)
    (root / "predicted").mkdir()
    answers.sample(frac=1, random_state=1).to_csv(root / "predicted" / "predictions.csv", index=False)
    facts = SCENARIO.read_outputs("predict", board, root / "predicted", root / "release")
    assert facts == {"rows": len(board.deal.queries)}
    return replace(board, release=root / "release", previous=None)


def test_fit_gets_the_training_part_and_a_task(make_board: MakeBoard, tmp_path: Path) -> None:
    board = make_board()
    task = write("fit", board, tmp_path / "in")

    assert set(task) == {
        "contract", "step", "scenario", "challenge", "seed", "target", "columns", "limits", "files",
    }  # fmt: skip
    assert task["contract"] == "anomed/1"
    assert task["files"] == {"train": "train.parquet"}
    assert task["columns"][0] == {"name": "age", "type": "integer", "role": "feature", "minimum": 20, "maximum": 80}
    train = pd.read_parquet(tmp_path / "in" / "train.parquet")
    expected = tables.read(board.table).iloc[board.deal.train]
    assert list(train.columns) == list(expected.columns)
    assert len(train) == len(expected)
    assert train["glucose"].isna().sum() == expected["glucose"].isna().sum()
    assert train["days" if "days" in train else "glucose"].tolist() != expected["glucose"].tolist()
    assert sorted(train["age"]) == sorted(expected["age"])


def test_predict_gets_the_model_and_shuffled_queries_without_the_target(make_board: MakeBoard, tmp_path: Path) -> None:
    board = fitted(make_board(), tmp_path)
    task = write("predict", board, tmp_path / "in")
    assert task["files"] == {"model": "model", "queries": "queries.parquet"}
    assert (tmp_path / "in" / "model" / "deep" / "weights.bin").read_bytes() == b"weights"
    queries = pd.read_parquet(tmp_path / "in" / "queries.parquet")
    assert list(queries.columns) == ["row", "age", "sex", "glucose", "visits", "smoking"]
    assert queries["row"].is_unique
    assert len(queries) == len(board.deal.queries)
    assert queries["age"].tolist() != tables.read(board.table)["age"].to_numpy()[board.deal.queries].tolist()


def test_an_attack_gets_what_the_contract_lists(make_board: MakeBoard, tmp_path: Path) -> None:
    board = released(make_board("stage"), tmp_path)
    task = write("attack", board, tmp_path / "in")
    names = ["candidates", "answers", "aux", "aux_answers", "known", "known_answers"]
    assert task["files"] == {name: f"{name}.parquet" for name in names}
    files = {name: pd.read_parquet(tmp_path / "in" / f"{name}.parquet") for name in names}
    columns = ["row", "age", "sex", "glucose", "visits", "smoking", "stage"]
    assert list(files["candidates"].columns) == list(files["aux"].columns) == columns
    assert list(files["known"].columns) == [*columns, "member"]
    assert files["known"]["member"].dtype == bool
    for name in ("answers", "aux_answers", "known_answers"):
        assert list(files[name].columns) == ["row", "I", "II", "III"]
    assert set(files["answers"]["row"]) == set(files["candidates"]["row"])
    assert len(files["candidates"]) == len(board.deal.scored)

    # Tokens of one run never occur in another, nor in two files of the same.
    rows = pd.concat([files[name]["row"] for name in ("candidates", "aux", "known")])
    assert rows.is_unique
    write("attack", replace(board, key=b"another run"), tmp_path / "other")
    assert not set(rows) & set(pd.read_parquet(tmp_path / "other" / "candidates.parquet")["row"])


def test_answers_stay_with_their_patients(make_board: MakeBoard, tmp_path: Path) -> None:
    board = released(make_board(), tmp_path)
    write("attack", board, tmp_path / "in")
    table = tables.read(board.table).reset_index(names="position")
    release = np.load(tmp_path / "release" / "answers.npy")
    for name in ("candidates", "aux", "known"):
        rows = pd.read_parquet(tmp_path / "in" / f"{name}.parquet")
        answers = pd.read_parquet(
            tmp_path / "in" / ("answers.parquet" if name == "candidates" else f"{name}_answers.parquet")
        )
        joined = rows.merge(answers, on="row").merge(table, on=["age", "sex", "glucose", "visits", "smoking"])
        given = release[np.searchsorted(board.deal.queries, joined["position"])]
        np.testing.assert_array_equal(joined[["no", "yes"]].to_numpy(), given)
        if name == "known":
            truth = dict(zip(board.deal.candidates, board.deal.member, strict=True))
            assert joined["member"].tolist() == [truth[position] for position in joined["position"]]


def test_nothing_an_attack_gets_betrays_membership(make_board: MakeBoard, tmp_path: Path) -> None:
    """Neither the order of the rows nor the tokens nor their answers by an honest model, over many runs."""
    board = released(make_board(), tmp_path)
    position = {age_and_more: n for n, age_and_more in enumerate(_identities(tables.read(board.table)))}
    member = dict(zip(board.deal.candidates, board.deal.member, strict=True))
    by_order, by_token = [], []
    for number in range(12):
        folder = tmp_path / f"run{number}"
        write("attack", replace(board, key=bytes([number])), folder)
        rows = pd.read_parquet(folder / "candidates.parquet")
        truth = np.array([member[position[identity]] for identity in _identities(rows)])
        by_order.append(membership.roc_auc(truth, np.arange(len(truth))))
        by_token.append(membership.roc_auc(truth, rows["row"].str[1:9].map(lambda word: int(word, 16)).to_numpy()))
        schema = pq.read_schema(folder / "candidates.parquet")
        assert schema.metadata is None
        assert pq.read_schema(folder / "known.parquet").names == [*schema.names, "member"]
    error = membership.auc_standard_error(truth, np.arange(len(truth))) / np.sqrt(len(by_order))
    assert abs(np.mean(by_order) - 0.5) < 4 * error
    assert abs(np.mean(by_token) - 0.5) < 4 * error


def _identities(frame: pd.DataFrame) -> list[str]:
    return ["|".join(map(str, row)) for row in frame[["age", "sex", "glucose", "visits", "smoking"]].to_numpy()]


def test_an_overfitted_release_leaks_and_an_honest_one_does_not(make_board: MakeBoard, tmp_path: Path) -> None:
    for name, overfit, low, high in (("honest", 0.0, -0.25, 0.25), ("overfitted", 3.0, 0.5, 1.0)):
        root = tmp_path / name
        board = released(make_board(), root, overfit)
        write("attack", board, root / "in")
        rows = pd.read_parquet(root / "in" / "candidates.parquet")
        answers = pd.read_parquet(root / "in" / "answers.parquet").set_index("row").loc[rows["row"]]
        confidence = np.where(rows["diabetes"] == "yes", answers["yes"], answers["no"])
        (root / "attacked").mkdir()
        pd.DataFrame({"row": rows["row"], "score": confidence}).to_parquet(root / "attacked" / "scores.parquet")
        facts = SCENARIO.read_outputs("attack", board, root / "attacked", root / "result")
        assert facts == {"rows": len(board.deal.scored)}

        leaks = SCENARIO.leaks(board, root / "result")

        assert leaks.values.shape == leaks.errors.shape == (2, 2)
        assert low < leaks.values[:, 0].mean() < high
        assert leaks.detail["alpha"] == 0.10
        assert leaks.detail["members"] + leaks.detail["nonmembers"] == len(board.deal.scored)
        assert (leaks.detail["epsilon"] > 0.5) == (name == "overfitted")
        assert (leaks.errors > 0).all()
        assert json.loads(json.dumps(leaks.detail)) == leaks.detail
        assert leaks.replicates.shape == (bootstrap.RESAMPLES, 2, len(SCENARIO.metrics(board.game)))
        np.testing.assert_allclose(leaks.replicates.mean(axis=0)[:, 0], leaks.values[:, 0], atol=0.03)
        np.testing.assert_allclose(leaks.replicates.std(axis=0)[:, 0], leaks.errors[:, 0], rtol=0.35)


def test_leaks_follow_the_formulas_per_fold(make_board: MakeBoard, tmp_path: Path) -> None:
    board = make_board(folds=3)
    scores = np.random.default_rng(2).normal(size=len(board.deal.scored))
    np.save(tmp_path / "scores.npy", scores)
    leaks = SCENARIO.leaks(board, tmp_path)
    for fold in range(3):
        inside = board.deal.scored_fold == fold
        member = board.deal.scored_member[inside]
        assert leaks.values[fold, 0] == 2 * membership.roc_auc(member, scores[inside]) - 1
        assert leaks.values[fold, 1] == (membership.tpr_at_fpr(member, scores[inside], 0.1) - 0.1) / 0.9
    assert leaks.detail["auc"] == membership.roc_auc(board.deal.scored_member, scores)
    assert leaks.detail["advantage"] == membership.advantage(board.deal.scored_member, scores)


def test_with_500_non_members_the_false_positive_rate_is_one_in_a_hundred(
    make_board: MakeBoard, tmp_path: Path
) -> None:
    board = make_board(folds=1)
    for nonmembers, alpha in ((499, 0.10), (500, 0.01)):
        size = nonmembers + 300
        deal = replace(
            board.deal,
            candidates=np.arange(size),
            member=np.arange(size) >= nonmembers,
            known=np.zeros(size, dtype=bool),
            fold=np.zeros(size, dtype=int),
        )
        np.save(tmp_path / "scores.npy", np.random.default_rng(0).normal(size=size))
        assert SCENARIO.leaks(replace(board, deal=deal), tmp_path).detail["alpha"] == alpha


@pytest.mark.parametrize(
    ("target", "metric"), [("diabetes", "auroc"), ("stage", "balanced_accuracy"), ("days", "r2"), ("days", "mae")]
)
def test_utility_is_scored_on_the_test_part_only(
    make_board: MakeBoard, tmp_path: Path, target: str, metric: str
) -> None:
    board = make_board(target, metric=metric)
    schema = board.game.schema
    truth = tables.read(board.table)[target].to_numpy()[board.deal.queries]
    if schema.labels:
        right = (truth[:, None] == np.array(schema.labels)[None, :]).astype(float)
        wrong = np.roll(right, 1, axis=1)
    else:
        right, wrong = truth[:, None].astype(float), np.full((len(truth), 1), 10.0)
    is_test = np.isin(board.deal.queries, board.deal.test)
    np.save(tmp_path / "answers.npy", np.where(is_test[:, None], right, wrong))
    utility = SCENARIO.utility(board, tmp_path)
    assert utility.value == (0 if metric == "mae" else 1)
    assert (utility.replicates == utility.value).all()


def test_all_seeds_resample_the_test_part_alike_and_the_candidates_each_on_its_own(
    make_board: MakeBoard, tmp_path: Path
) -> None:
    """They share the test patients, so that a mean over seeds is no surer of the utility, but not the coins."""
    first = replace(make_board(), resample=b"the phase's key")
    second = replace(first, seed=first.seed + 1)
    random = np.random.default_rng(2)
    np.save(
        tmp_path / "answers.npy",
        canonical_answers(random.dirichlet((1, 1), len(first.deal.queries)), first.game.schema),
    )
    np.save(tmp_path / "scores.npy", random.random(len(first.deal.scored)))
    utilities = [SCENARIO.utility(board, tmp_path).replicates for board in (first, second)]
    leaks = [SCENARIO.leaks(board, tmp_path).replicates[:, 0, 0] for board in (first, second)]
    assert np.array_equal(*utilities)
    assert abs(np.corrcoef(*leaks)[0, 1]) < 0.2


def test_white_box_attacks_get_the_model_too(make_board: MakeBoard, tmp_path: Path) -> None:
    board = released(make_board(white_box=True), tmp_path)
    task = write("attack", board, tmp_path / "in")
    assert task["files"]["model"] == "model"
    assert (tmp_path / "in" / "model" / "deep" / "weights.bin").read_bytes() == b"weights"


def test_black_box_releases_keep_the_model_to_themselves(make_board: MakeBoard, tmp_path: Path) -> None:
    board = released(make_board(), tmp_path)
    assert [path.name for path in (tmp_path / "release").iterdir()] == ["answers.npy"]
    assert "model" not in write("attack", board, tmp_path / "in")["files"]


@pytest.mark.parametrize("target", ["diabetes", "stage", "days"])
def test_the_reference_release_serves_a_rehearsal(make_board: MakeBoard, tmp_path: Path, target: str) -> None:
    metric = "r2" if target == "days" else "auroc"
    board = make_board(target, white_box=True, metric=metric)
    SCENARIO.reference_release(board, tmp_path / "reference")
    assert SCENARIO.utility(board, tmp_path / "reference").value > (0.1 if metric == "r2" else 0.6)
    task = write("attack", replace(board, release=tmp_path / "reference"), tmp_path / "in")
    assert (tmp_path / "in" / task["files"]["model"] / "linear.json").exists()


def test_a_step_without_its_predecessor_is_the_platforms_fault(make_board: MakeBoard, tmp_path: Path) -> None:
    for step in ("predict", "attack"):
        with pytest.raises(FileNotFoundError):
            write(step, make_board(), tmp_path / step)


def test_inputs_can_be_replayed(make_board: MakeBoard, tmp_path: Path) -> None:
    board = released(make_board(), tmp_path)
    for folder in ("first", "second"):
        write("attack", board, tmp_path / folder)
    for path in (tmp_path / "first").iterdir():
        assert path.read_bytes() == (tmp_path / "second" / path.name).read_bytes()


# Hostile outputs ------------------------------------------------------------------------------------------------------


def test_what_is_collected_belongs_to_the_step() -> None:
    assert SCENARIO.collect("fit") == {"tables": [], "files": [], "folders": ["model"]}
    assert SCENARIO.collect("predict")["tables"] == ["predictions"]
    assert SCENARIO.collect("attack")["tables"] == ["scores"]
    assert SCENARIO.steps == ("fit", "predict", "attack")


def test_a_fit_step_must_leave_a_model_of_regular_files(make_board: MakeBoard, tmp_path: Path) -> None:
    board = make_board()
    with pytest.raises(OutputProblem, match="was not written") as problem:
        SCENARIO.read_outputs("fit", board, tmp_path, tmp_path / "result")
    assert problem.value.kind == "missing"
    (tmp_path / "model").mkdir()
    with pytest.raises(OutputProblem, match="is empty"):
        SCENARIO.read_outputs("fit", board, tmp_path, tmp_path / "result")
    (tmp_path / "model" / "weights").symlink_to("/etc/hostname")
    with pytest.raises(OutputProblem, match="links or special files") as problem:
        SCENARIO.read_outputs("fit", board, tmp_path, tmp_path / "result")
    assert problem.value.kind == "invalid"


BINARY = Game(
    "x", "model-membership", tables.Schema((tables.Column("y", "category", "target", categories=("a", "b")),))
)


def test_probabilities_become_canonical() -> None:
    schema = replace(BINARY.schema, target="y")
    given = np.array([[0.25, 0.75], [0.123456, 0.876544], [0.502, 0.504], [1.0, -0.0]])
    np.testing.assert_array_equal(
        canonical_answers(given, schema), [[0.25, 0.75], [0.1235, 0.8765], [0.499, 0.501], [1, 0]]
    )
    assert not np.signbit(canonical_answers(given, schema)).any()
    for bad, sentence in (([[1.2, -0.2]], "negative"), ([[0.5, 0.6]], "sum to 1"), ([[0.0, 0.0]], "sum to 1")):
        with pytest.raises(OutputProblem, match=sentence):
            canonical_answers(np.array(bad), schema)


def test_estimates_are_rounded_and_kept_in_the_declared_range() -> None:
    days = tables.Column("y", "number", "target", minimum=0, maximum=30, decimals=1)
    schema = tables.Schema((days,), "y")
    np.testing.assert_array_equal(canonical_answers(np.array([[1.26], [99], [-5]]), schema), [[1.3], [30], [0]])
    whole = tables.Schema((tables.Column("y", "integer", "target", minimum=20, maximum=80),), "y")
    assert canonical_answers(np.array([[33.333]]), whole).tolist() == [[33.3]]

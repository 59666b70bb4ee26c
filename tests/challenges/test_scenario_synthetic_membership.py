"""One whole game of synthetic tables, played by a container that keeps to the contract, and by some that do not."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy.spatial.distance import cdist

from challenges import features, splits, tables
from challenges.metrics import bootstrap, membership
from challenges.scenarios import registry
from challenges.scenarios.base import Board, OutputProblem
from challenges.scenarios.membership import estimates
from challenges.scenarios.synthetic_membership import SyntheticMembership, uniform_table

MakeBoard = Callable[..., Board]
SCENARIO = registry.get("synthetic-membership")
COLUMNS = ["age", "sex", "glucose", "visits", "smoking"]


@pytest.fixture
def board_of(make_board: MakeBoard) -> MakeBoard:
    """A board of this game, of the clinic for one target."""

    def make(*args: Any, options: dict[str, Any] | None = None, **how: Any) -> Board:
        board = make_board(*args, **how)
        game = replace(board.game, scenario="synthetic-membership", options=options or {})
        return replace(board, game=game, resample=b"the release's resamples")

    return make


def write(step: str, board: Board, folder: Path) -> dict[str, Any]:
    """A step's inputs; returns task.json."""
    folder.mkdir(parents=True)
    SCENARIO.write_inputs(step, board, folder)
    task = json.loads((folder / "task.json").read_text(encoding="utf-8"))
    assert isinstance(task, dict)
    return task


def copied(board: Board) -> pd.DataFrame:
    """What a container releases that gives its training part away."""
    return tables.read(board.table).iloc[board.deal.train]


def independent(board: Board) -> pd.DataFrame:
    """What a container releases that keeps the columns and nothing between them."""
    train = copied(board)
    return pd.DataFrame(
        {name: train[name].sample(frac=1, replace=True, random_state=n).to_numpy() for n, name in enumerate(train)}
    )


def released(board: Board, root: Path, table: pd.DataFrame) -> Board:
    """The board with this release, written by a container as CSV."""
    folder = root / "released"
    folder.mkdir(parents=True)
    table.to_csv(folder / "release.csv", index=False)
    facts = SCENARIO.read_outputs("release", board, folder, root / "release")
    assert facts == {"rows": len(table)}
    return replace(board, release=root / "release")


def test_a_defense_gets_the_training_part_and_the_number_of_rows(board_of: MakeBoard, tmp_path: Path) -> None:
    board = board_of()
    task = write("release", board, tmp_path / "in")
    assert task["step"] == "release"
    assert task["scenario"] == "synthetic-membership"
    assert task["files"] == {"train": "train.parquet"}
    assert task["rows"] == len(board.deal.train)
    train = pd.read_parquet(tmp_path / "in" / "train.parquet")
    assert list(train.columns) == [*COLUMNS, "diabetes"]
    assert sorted(train["age"]) == sorted(copied(board)["age"])
    assert train["age"].tolist() != copied(board)["age"].tolist()
    assert write("release", board_of(options={"rows": 250}), tmp_path / "other")["rows"] == 250


def test_an_attack_gets_what_the_contract_lists(board_of: MakeBoard, tmp_path: Path) -> None:
    board = board_of("stage")
    board = released(board, tmp_path, copied(board))
    task = write("attack", board, tmp_path / "in")
    assert task["files"] == {name: f"{name}.parquet" for name in ("candidates", "aux", "known", "release")}
    assert "rows" not in task
    files = {name: pd.read_parquet(tmp_path / "in" / f"{name}.parquet") for name in task["files"]}
    columns = [*COLUMNS, "stage"]
    assert list(files["release"].columns) == columns
    assert list(files["candidates"].columns) == list(files["aux"].columns) == ["row", *columns]
    assert list(files["known"].columns) == ["row", *columns, "member"]
    assert len(files["candidates"]) == len(board.deal.scored)
    rows = pd.concat([files[name]["row"] for name in ("candidates", "aux", "known")])
    assert rows.is_unique
    write("attack", replace(board, key=b"another run"), tmp_path / "other")
    again = pd.read_parquet(tmp_path / "other" / "release.parquet")
    assert again["age"].tolist() != files["release"]["age"].tolist()
    assert sorted(again["age"]) == sorted(files["release"]["age"])
    assert not set(rows) & set(pd.read_parquet(tmp_path / "other" / "candidates.parquet")["row"])


def test_the_order_of_a_release_is_the_platforms(board_of: MakeBoard, tmp_path: Path) -> None:
    """A container that writes members first tells nothing by it."""
    board = board_of()
    train = copied(board)
    board = released(board, tmp_path, train.sort_values("age"))
    ages = tables.read(tmp_path / "release" / "release.parquet")["age"].to_numpy()
    assert abs(np.corrcoef(ages, np.arange(len(ages)))[0, 1]) < 0.25
    assert pq.read_schema(tmp_path / "release" / "release.parquet").metadata is None


def nearest(folder: Path) -> pd.DataFrame:
    """An attack: whoever is in the release was in the training data."""
    seen = {tuple(row) for row in pd.read_parquet(folder / "release.parquet")[COLUMNS].astype(str).to_numpy()}
    candidates = pd.read_parquet(folder / "candidates.parquet")
    inside = [float(tuple(row) in seen) for row in candidates[COLUMNS].astype(str).to_numpy()]
    return pd.DataFrame({"row": candidates["row"], "score": inside})


@pytest.mark.parametrize(("make", "low", "high"), [(copied, 0.95, 1.0), (independent, -0.15, 0.15)])
def test_a_copy_leaks_and_independent_columns_do_not(
    board_of: MakeBoard, tmp_path: Path, make: Callable[[Board], pd.DataFrame], low: float, high: float
) -> None:
    board = board_of()
    board = released(board, tmp_path, make(board))
    write("attack", board, tmp_path / "in")
    (tmp_path / "attacked").mkdir()
    nearest(tmp_path / "in").to_parquet(tmp_path / "attacked" / "scores.parquet", index=False)
    facts = SCENARIO.read_outputs("attack", board, tmp_path / "attacked", tmp_path / "result")
    assert facts == {"rows": len(board.deal.scored)}
    leaks = SCENARIO.leaks(board, tmp_path / "result")
    assert leaks.values.shape == leaks.errors.shape == (2, 2)
    assert leaks.replicates.shape == (bootstrap.RESAMPLES, 2, 2)
    assert low <= leaks.values[:, 0].mean() <= high
    assert SCENARIO.metrics(board.game) == ("auc", "tpr")


@pytest.mark.parametrize("decimals", [9, 1, 0])
def test_errors_are_honest_for_an_attack_that_says_the_same_in_every_deal(board_of: MakeBoard, decimals: int) -> None:
    """A nearest neighbour in a table that knows nobody: its scores follow from the records, and are tied when rounded.

    Over fresh coins for the same people, the leak A in standard errors must spread by one around zero.
    """
    board = board_of(folds=2)
    table, schema, deal = tables.read(board.table), board.game.schema, board.deal
    asked, invented = (
        features.matrix(rows, schema, schema.shared)
        for rows in (table.iloc[deal.scored], uniform_table(schema, len(deal.train), seed=5))
    )
    spread = np.nanstd(invented, axis=0) + 1e-9
    apart = cdist(np.nan_to_num(asked / spread), np.nan_to_num(invented / spread), "cityblock")
    scores = -np.round(apart.min(axis=1), decimals)
    off = []
    for number in range(300):
        values, errors = estimates(splits.dealt_again(deal, table, schema, key=b"%d" % number), scores)
        off.append(values[:, 0].mean() / (np.sqrt((errors[:, 0] ** 2).sum()) / len(errors)))
    assert abs(np.mean(off)) < 3 / np.sqrt(len(off))
    assert 0.87 < np.std(off) < 1.13  # three of its own standard errors


def test_nothing_an_attack_gets_betrays_membership(board_of: MakeBoard, tmp_path: Path) -> None:
    """Neither order nor tokens of the candidates, over many runs against a copy of the training part."""
    board = board_of()
    board = released(board, tmp_path, copied(board))
    position = {identity: n for n, identity in enumerate(_identities(tables.read(board.table)))}
    member = dict(zip(board.deal.candidates, board.deal.member, strict=True))
    aucs = []
    for number in range(12):
        write("attack", replace(board, key=bytes([number])), tmp_path / f"run{number}")
        rows = pd.read_parquet(tmp_path / f"run{number}" / "candidates.parquet")
        truth = np.array([member[position[identity]] for identity in _identities(rows)])
        aucs.append(membership.roc_auc(truth, np.arange(len(truth))))
    error = membership.auc_standard_error(truth, np.arange(len(truth))) / np.sqrt(len(aucs))
    assert abs(np.mean(aucs) - 0.5) < 4 * error


def _identities(frame: pd.DataFrame) -> list[str]:
    return ["|".join(map(str, row)) for row in frame[COLUMNS].to_numpy()]


def test_utility_falls_with_what_is_kept_and_facts_say_how_like_it_is(board_of: MakeBoard, tmp_path: Path) -> None:
    board = board_of()
    worth = {
        make.__name__: SCENARIO.utility(board, tmp_path / make.__name__ / "release")
        for make in (copied, independent)
        if released(board, tmp_path / make.__name__, make(board))
    }
    assert worth["copied"].value > worth["independent"].value + 0.15
    assert worth["copied"].replicates.shape == (bootstrap.RESAMPLES,)
    facts = worth["copied"].facts
    assert facts["similarity"]["columns"] == facts["similarity"]["pairs"] == 1
    assert facts["closeness"]["copies"] == 1
    assert facts["closeness"]["copies_by_chance"] == 0
    assert facts["closeness"]["nearest_train"] == 0
    assert facts["closeness"]["nearer_train"] > 0.7
    apart = worth["independent"].facts
    assert apart["similarity"]["columns"] > 0.9
    assert apart["similarity"]["pairs"] < 0.99
    assert apart["closeness"]["copies"] == 0
    assert abs(apart["closeness"]["nearer_train"] - 0.5) < 0.15
    json.dumps(facts)


@pytest.mark.parametrize(("target", "metric"), [("diabetes", "auroc"), ("stage", "balanced_accuracy"), ("days", "r2")])
def test_anchors_are_a_table_that_knows_nobody_and_the_real_one(
    board_of: MakeBoard, tmp_path: Path, target: str, metric: str
) -> None:
    board = board_of(target, metric=metric)
    schema = board.game.schema
    found = SCENARIO.anchors(tables.read(board.table), schema, board.deal, board.game)
    assert found.u1 > found.u0 + 0.1
    assert found.u1 == SCENARIO.utility(released(board, tmp_path, copied(board)), tmp_path / "release").value
    assert found.detail["train"] == len(board.deal.train)
    if metric == "auroc":  # tables of random numbers teach as much right as wrong
        assert abs(found.detail["uniform"] - 0.5) < 0.03
    if metric == "r2":
        assert found.u0 <= 0 < found.u1
        assert found.u0 >= found.detail["uniform"]


def test_a_uniform_table_fits_the_schema(board_of: MakeBoard, tmp_path: Path) -> None:
    board = board_of("days")
    released(board, tmp_path, uniform_table(board.game.schema, len(board.deal.train), seed=1))


def test_the_reference_release_serves_a_rehearsal(board_of: MakeBoard, tmp_path: Path) -> None:
    board = board_of(options={"rows": 300})
    SCENARIO.reference_release(board, tmp_path / "reference")
    release = tables.read(tmp_path / "reference" / "release.parquet")
    assert len(release) == 300
    assert list(release.columns) == [*COLUMNS, "diabetes"]
    task = write("attack", replace(board, release=tmp_path / "reference"), tmp_path / "in")
    assert len(pd.read_parquet(tmp_path / "in" / task["files"]["release"])) == 300
    assert SCENARIO.utility(board, tmp_path / "reference").value > 0.2


def test_an_attack_without_a_release_is_the_platforms_fault(board_of: MakeBoard, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        write("attack", board_of(), tmp_path / "in")


def test_what_is_collected_belongs_to_the_step() -> None:
    assert SCENARIO.collect("release") == {"tables": ["release"], "files": [], "folders": []}
    assert SCENARIO.collect("attack")["tables"] == ["scores"]
    assert SCENARIO.steps == ("release", "attack")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"rows": 99}, "at least 100"),
        ({"rows": 2_000_000}, "at most 1000000"),
        ({"rows": "many"}, "a whole number"),
        ({"rows": True}, "a whole number"),
        ({"columns": 3}, "no option “columns”"),
        ([], "table of names and values"),
    ],
)
def test_impossible_options_are_refused(options: Any, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        SCENARIO.check_options(options)
    SCENARIO.check_options({"rows": 1200})
    SCENARIO.check_options({})


# Hostile releases -----------------------------------------------------------------------------------------------------


def _with(**columns: Any) -> Callable[[pd.DataFrame], pd.DataFrame]:
    return lambda table: table.assign(**columns)


HOSTILE: dict[str, tuple[Callable[[pd.DataFrame], pd.DataFrame], str]] = {
    "a row too few": (lambda table: table.head(len(table) - 1), "were asked for"),
    "a row too many": (lambda table: pd.concat([table, table.head(1)]), "more than"),
    "a column missing": (lambda table: table.drop(columns="age"), "column “age” is missing"),
    "a column too many": (_with(row="r1"), "do not belong there"),
    "the index": (lambda table: table.reset_index(names=""), "without (index=False)"),
    "a number out of range": (_with(age=17), "“age” holds numbers outside its range, 20 to 80"),
    "a huge number": (_with(glucose=1e300), "“glucose” holds numbers outside its range"),
    "infinity": (_with(glucose=np.inf), "“glucose” holds infinite numbers"),
    "a gap where none is allowed": (_with(age=np.nan), "“age” has empty cells"),
    "a category of its own": (_with(sex="canary"), "“sex” holds a text that is none of its categories"),
    "a category with a space": (_with(sex="male "), "none of its categories"),
    "a gap for a category": (_with(sex=None), "“sex” has empty cells"),
    "texts for numbers": (_with(age="forty"), "no number"),
}


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_hostile_releases_end_in_their_sentence(board_of: MakeBoard, tmp_path: Path, name: str, suffix: str) -> None:
    board = board_of()
    spoil, sentence = HOSTILE[name]
    table = spoil(copied(board).reset_index(drop=True))
    if suffix == "csv":
        table.to_csv(tmp_path / "release.csv", index=False)
    else:
        pq.write_table(pa.Table.from_pandas(table, preserve_index=False), tmp_path / "release.parquet")
        sentence = {"texts for numbers": "plain numbers", "a gap for a category": "plain texts"}.get(name, sentence)
    with pytest.raises(OutputProblem) as problem:
        SCENARIO.read_outputs("release", board, tmp_path, tmp_path / "result")
    assert problem.value.kind == "invalid"
    assert sentence in problem.value.sentence
    assert "canary" not in problem.value.sentence
    assert not (tmp_path / "result").exists()


def _arrow(board: Board, **columns: Any) -> pa.Table:
    table = pa.Table.from_pandas(copied(board), preserve_index=False).replace_schema_metadata(None)
    for name, values in columns.items():
        table = table.set_column(table.schema.get_field_index(name), name, values)
    return table


def _bombs(rows: int) -> dict[str, tuple[dict[str, Any], dict[str, Any], str]]:
    long = "x" * 100_000
    return {
        "lists": ({"age": pa.array([[1]] * rows)}, {}, "plain numbers"),
        "nested records": ({"sex": pa.array([{"a": "male"}] * rows)}, {}, "plain texts"),
        "booleans": ({"age": pa.array([True] * rows)}, {}, "plain numbers"),
        "bytes": ({"sex": pa.array([b"male"] * rows)}, {}, "plain texts"),
        "dictionaries": ({"sex": pa.array(["male"] * rows).dictionary_encode()}, {}, "plain texts"),
        "one long text in all rows": ({"sex": pa.array([long] * rows)}, {}, "too long"),
        "a bomb of bytes": (
            {"sex": pa.array([f"{n}{long}" for n in range(rows)])},
            {"use_dictionary": False, "compression": "zstd"},
            "unpacks to more",
        ),
    }


@pytest.mark.parametrize("name", _bombs(1))
def test_releases_that_are_no_plain_table_are_refused(board_of: MakeBoard, tmp_path: Path, name: str) -> None:
    board = board_of()
    columns, how, sentence = _bombs(len(board.deal.train))[name]
    pq.write_table(_arrow(board, **columns), tmp_path / "release.parquet", **how)
    with pytest.raises(OutputProblem, match=sentence) as problem:
        SCENARIO.read_outputs("release", board, tmp_path, tmp_path / "result")
    assert problem.value.kind == "invalid"


def test_a_file_far_too_large_is_not_even_opened(board_of: MakeBoard, tmp_path: Path) -> None:
    (tmp_path / "release.csv").write_bytes(b"a" * (8 << 20))
    with pytest.raises(OutputProblem, match="much larger") as problem:
        SCENARIO.read_outputs("release", board_of(), tmp_path, tmp_path / "result")
    assert problem.value.kind == "too_large"


def test_cells_become_canonical(board_of: MakeBoard, tmp_path: Path) -> None:
    """What could carry a hidden sign is made plain: surplus digits, two zeros, several kinds of nothing."""
    board = board_of()
    table = copied(board).reset_index(drop=True)
    table["glucose"] = table["glucose"].fillna(90) + 0.0123
    table.loc[:4, "glucose"] = np.nan
    table["visits"] = -0.0
    table["age"] = 40.4
    table["smoking"] = table["smoking"].astype("object").where(table.index > 9, "")
    found = tables.read(released(board, tmp_path, table).release / "release.parquet")  # type: ignore[operator]
    assert set(found["age"]) == {40}
    assert pq.read_schema(tmp_path / "release" / "release.parquet").field("age").type == pa.int64()
    assert not np.signbit(found["visits"].to_numpy(dtype=float)).any()
    glucose = found["glucose"].dropna().to_numpy()
    np.testing.assert_array_equal(glucose, np.round(glucose, 1))
    assert found["glucose"].isna().sum() == 5
    assert found["smoking"].isna().sum() >= 10
    assert "" not in set(found["smoking"].dropna())


def test_the_game_is_a_membership_game_for_the_check() -> None:
    assert isinstance(SCENARIO, SyntheticMembership)
    assert SCENARIO.defense_steps == ("release",)
    assert SCENARIO.attack_step == "attack"

"""The public sample holds nobody; the anchors span the scale of utility."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from challenges import anchors, features, samples, splits, tables
from challenges.metrics import utility
from challenges.scenarios.base import Board
from challenges.schema import Column, Schema
from challenges.tables import TableError
from tests.challenges.conftest import clinic

MakeBoard = Callable[..., Board]


@pytest.mark.parametrize("target", ["diabetes", "stage", "days"])
def test_a_sample_looks_like_the_table_and_holds_no_real_patient(
    make_board: MakeBoard, tmp_path: Path, target: str
) -> None:
    board = make_board(target)
    schema, table = board.game.schema, tables.read(board.table)

    sample = samples.generate(table, schema, seed=1)
    tables.write_frame(sample, schema, tmp_path / "sample.parquet")
    sample = tables.read(tmp_path / "sample.parquet")

    assert len(sample) == samples.DEFAULT_ROWS
    assert list(sample.columns) == list(table.columns)
    assert (sample.dtypes == table.dtypes).all()
    assert len(sample.merge(table, how="inner", on=list(table.columns))) == 0
    assert 0.02 < sample["glucose"].isna().mean() < 0.25
    assert table["glucose"].quantile(0.01) - 0.1 <= sample["glucose"].min()
    assert sample["glucose"].max() <= table["glucose"].quantile(0.99) + 0.1
    assert set(sample["smoking"].dropna()) == {"never", "former", "current"}


def test_a_sample_is_repeatable_and_its_columns_are_independent(make_board: MakeBoard) -> None:
    board = make_board()
    schema, table = board.game.schema, tables.read(board.table)
    sample = samples.generate(table, schema, 2000, seed=4)
    pd.testing.assert_frame_equal(sample, samples.generate(table, schema, 2000, seed=4))
    assert not sample.equals(samples.generate(table, schema, 2000, seed=5))
    assert abs(sample["age"].corr(sample["glucose"])) < 0.08 < table["age"].corr(table["glucose"])


def test_a_deal_of_the_sample_can_be_played_also_with_a_rare_class(make_board: MakeBoard) -> None:
    board = make_board("stage")
    schema, table = board.game.schema, tables.read(board.table)
    rare = table[(table["stage"] != "III") | (np.arange(len(table)) % 40 == 0)]
    sample = samples.generate(rare, schema)
    assert sample["stage"].value_counts().min() >= 8
    deal = splits.deal(
        sample, schema, secret=b"public", challenge="clinic", phase="sample", scope="sample", seed=0,
        sizes=splits.Sizes.default(len(sample)), revealed=0.2, folds=2,
    )  # fmt: skip
    for part in (deal.train, deal.aux, deal.test):
        assert set(sample["stage"].iloc[part]) == set(schema.labels)


def test_columns_too_coarse_for_a_sample_are_refused() -> None:
    schema = Schema(
        (
            Column("sex", "category", categories=("f", "m")),
            Column("ill", "category", "target", categories=("no", "yes")),
        ),
        "ill",
    )
    table = pd.DataFrame({"sex": ["f", "f", "m", "m"], "ill": ["no", "yes", "no", "yes"]})
    with pytest.raises(TableError, match="Upload a sample of your own"):
        samples.generate(table, schema)
    with pytest.raises(TableError, match="too small for 2 classes"):
        samples.generate(table, schema, rows=10)


def test_a_sample_has_no_patient_id(tmp_path: Path) -> None:
    frame = clinic().assign(patient=[f"P{row}" for row in range(600)])
    frame.to_csv(tmp_path / "t.csv", index=False)
    schema = tables.profile(tmp_path / "t.csv", ".csv", target="diabetes", patient="patient").schema
    tables.write_canonical(tmp_path / "t.csv", schema, tmp_path / "t.parquet")
    sample = samples.generate(tables.read(tmp_path / "t.parquet"), schema)
    assert "patient" not in sample.columns
    tables.write_frame(sample, schema, tmp_path / "s.parquet")
    assert "patient" not in tables.read(tmp_path / "s.parquet").columns


# Anchors --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "metric", "trivial"),
    [
        ("diabetes", "auroc", 0.5),
        ("diabetes", "balanced_accuracy", 0.5),
        ("stage", "log_loss", None),
        ("days", "r2", None),
        ("days", "mae", None),
    ],
)
def test_the_best_model_beats_the_trivial_answer(
    make_board: MakeBoard, target: str, metric: str, trivial: float | None
) -> None:
    board = make_board(target)
    found = anchors.compute(tables.read(board.table), board.game.schema, board.deal, metric)
    assert found.u1 > found.u0 if utility.HIGHER_IS_BETTER[metric] else found.u1 < found.u0
    if trivial is not None:
        assert found.u0 == trivial
    assert found.detail["best"] in [model["name"] for model in found.detail["models"]]
    if metric == "r2":
        assert -0.1 < found.u0 <= 0


def test_anchors_are_repeatable_and_refuse_what_cannot_be_scored(make_board: MakeBoard) -> None:
    board = make_board()
    table, schema = tables.read(board.table), board.game.schema
    first, second = (anchors.compute(table, schema, board.deal, "auroc") for _ in range(2))
    assert first == second
    with pytest.raises(TableError, match="does not fit the task"):
        anchors.compute(table, schema, board.deal, "r2")
    calm = replace(board.deal, test=np.flatnonzero(table["diabetes"] == "no"))
    with pytest.raises(TableError, match="one class only"):
        anchors.compute(table, schema, calm, "auroc")


def test_a_table_of_noise_leaves_no_room_to_speak_of(make_board: MakeBoard) -> None:
    board = make_board()
    sample = samples.generate(tables.read(board.table), board.game.schema, 600)
    found = anchors.compute(sample, board.game.schema, board.deal, "auroc")
    assert abs(found.u1 - 0.5) < 0.15


def test_categories_become_one_column_each_and_gaps_stay_gaps() -> None:
    schema = Schema((Column("sex", "category", categories=("f", "m")), Column("age", "integer")))
    frame = pd.DataFrame({"sex": ["m", None, "f"], "age": [30, 40, None]})
    np.testing.assert_array_equal(features.matrix(frame, schema), [[0, 1, 30], [0, 0, 40], [1, 0, np.nan]])

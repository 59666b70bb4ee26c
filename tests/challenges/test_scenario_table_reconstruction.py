"""One whole game of table reconstruction, played by containers that keep to the contract, and by some that do not."""

import json
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from challenges import anonymised, splits, tables
from challenges.metrics import bootstrap, risk
from challenges.scenarios import registry
from challenges.scenarios.anonymised_outputs import read_anonymised
from challenges.scenarios.base import Board, Game, OutputProblem
from challenges.scenarios.trials import Trial
from challenges.schema import Column, Schema
from tests.challenges.conftest import clinic

SCENARIO = registry.get("table-reconstruction")
ROLES = {"age": "quasi-identifier", "sex": "quasi-identifier", "glucose": "secret", "smoking": "secret"}
Seat = Callable[..., Board]


@pytest.fixture
def seat(tmp_path: Path) -> Seat:
    """A board of the clinic's table, of which age and sex are known, glucose and smoking secret."""

    def take(target: str = "diabetes", *, rows: pd.DataFrame | None = None, folds: int = 2, **game: Any) -> Board:
        others = [name for name in ("diabetes", "stage", "days") if name != target]
        upload = tmp_path / "upload.csv"
        (clinic().drop(columns=others) if rows is None else rows).to_csv(upload, index=False)
        patient = "patient" if rows is not None else None
        schema = tables.profile(upload, ".csv", target=target, patient=patient, roles=ROLES).schema
        table = tmp_path / f"{target}.parquet"
        tables.write_canonical(upload, schema, table)
        frame = tables.read(table)
        names = len(frame) if patient is None else frame["patient"].nunique()
        deal = splits.deal(
            frame, schema,
            secret=b"the phase's secret", challenge="clinic", phase="development", scope="submission-1", seed=3,
            sizes=splits.Sizes.default(names), revealed=0.2, folds=folds,
        )  # fmt: skip
        rules = Game("clinic", "table-reconstruction", schema, {"seconds": 60}, **game)
        return Board(rules, table, deal, key=b"the run's key", seed=3, resample=b"resample")

    return take


def write(step: str, board: Board, folder: Path) -> dict[str, Any]:
    """A step's inputs; returns task.json."""
    folder.mkdir(parents=True)
    SCENARIO.write_inputs(step, board, folder)
    task = json.loads((folder / "task.json").read_text(encoding="utf-8"))
    assert isinstance(task, dict)
    return task


def leave(folder: Path, table: pd.DataFrame | pa.Table, scheme: Any = "same", suffix: str = ".parquet") -> Path:
    """What a defense leaves in /output."""
    folder.mkdir(parents=True, exist_ok=True)
    if isinstance(table, pa.Table):
        pq.write_table(table, folder / "release.parquet")
    elif suffix == ".csv":
        table.to_csv(folder / "release.csv", index=False)
    else:
        table.to_parquet(folder / "release.parquet", index=False)
    (folder / "scheme.json").write_text(json.dumps({"scheme": scheme}), encoding="utf-8")
    return folder


def released(board: Board, table: pd.DataFrame | pa.Table, folder: Path, **how: Any) -> Board:
    """The board with the release of a defense that left this table."""
    SCENARIO.read_outputs("release", board, leave(folder / "out", table, **how), folder / "release")
    return replace(board, release=folder / "release")


def trained_on(board: Board) -> pd.DataFrame:
    schema = board.game.schema
    return tables.read(board.table).iloc[board.deal.train][[column.name for column in schema.shared]]


def generalised(table: pd.DataFrame) -> pd.DataFrame:
    """Ages in tens, sexes not told apart."""
    tens = [f"[{age // 10 * 10}, {age // 10 * 10 + 9}]" if age < 80 else "80" for age in table["age"]]
    return table.assign(age=tens, sex="{female, male}")


# What containers get --------------------------------------------------------------------------------------------------


def test_a_defense_gets_the_training_part_without_any_row_names(seat: Seat, tmp_path: Path) -> None:
    board = seat()
    task = write("release", board, tmp_path / "in")
    assert task["step"] == "release"
    assert task["scenario"] == "table-reconstruction"
    assert task["files"] == {"table": "table.parquet"}
    assert [column["role"] for column in task["columns"]] == [
        "quasi-identifier", "quasi-identifier", "secret", "feature", "secret", "target",
    ]  # fmt: skip
    given, expected = pd.read_parquet(tmp_path / "in" / "table.parquet"), trained_on(board)
    assert list(given.columns) == list(expected.columns)
    assert sorted(given.fillna(-1).to_csv(index=False).split()) == sorted(
        expected.fillna(-1).to_csv(index=False).split()
    )
    assert given["age"].tolist() != expected["age"].tolist()


def test_an_attack_gets_what_the_contract_lists(seat: Seat, tmp_path: Path) -> None:
    board = seat()
    board = released(board, generalised(trained_on(board)), tmp_path, scheme="generalization")
    task = write("attack", board, tmp_path / "in")
    assert task["files"] == {
        "release": "release.parquet", "scheme": "scheme.json",
        "background": "background.parquet", "aux": "aux.parquet",
    }  # fmt: skip
    assert sorted(path.name for path in (tmp_path / "in").iterdir()) == sorted([*task["files"].values(), "task.json"])
    assert json.loads((tmp_path / "in" / "scheme.json").read_text()) == {"scheme": "generalization"}
    background, aux = (pd.read_parquet(tmp_path / "in" / f"{name}.parquet") for name in ("background", "aux"))
    assert list(background.columns) == ["row", "age", "sex"]
    assert len(background) == len(board.deal.scored)
    assert list(aux.columns) == ["row", *trained_on(board).columns]
    assert len(aux) == len(board.deal.aux)
    assert pd.concat([background["row"], aux["row"]]).is_unique
    table = tables.read(board.table)
    assert sorted(background["age"]) == sorted(table["age"].iloc[board.deal.scored])
    assert sorted(aux["age"]) == sorted(table["age"].iloc[board.deal.aux])
    members = board.deal.scored_member
    assert 0.4 < members.mean() < 0.6  # the others are control persons

    other = write("attack", replace(board, key=b"another run"), tmp_path / "other")
    assert other["files"] == task["files"]
    assert not set(background["row"]) & set(pd.read_parquet(tmp_path / "other" / "background.parquet")["row"])


def test_neither_order_nor_names_betray_who_is_in_the_table(seat: Seat, tmp_path: Path) -> None:
    """Over many runs: people in the table and control persons are mixed."""
    board = seat()
    board = released(board, trained_on(board), tmp_path)
    names = splits.tokens(splits.derive(board.key, "background"), len(board.deal.scored))
    truth = dict(zip(names, board.deal.scored_member, strict=True))
    write("attack", board, tmp_path / "in")
    rows = pd.read_parquet(tmp_path / "in" / "background.parquet")["row"]
    member = np.array([truth[row] for row in rows])
    for ranks in (np.arange(len(rows)), rows.str[1:9].map(lambda word: int(word, 16)).to_numpy()):
        centre = (ranks[member].mean() - ranks[~member].mean()) / ranks.std()
        assert abs(centre) < 4 * 2 / np.sqrt(len(rows))


def test_inputs_can_be_replayed(seat: Seat, tmp_path: Path) -> None:
    board = seat()
    board = released(board, trained_on(board), tmp_path)
    for folder in ("first", "second"):
        write("attack", board, tmp_path / folder)
    for path in (tmp_path / "first").iterdir():
        assert path.read_bytes() == (tmp_path / "second" / path.name).read_bytes()


def test_an_attack_before_its_release_is_the_platforms_fault(seat: Seat, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        write("attack", seat(), tmp_path / "in")


def test_all_rows_of_a_patient_are_on_one_side(seat: Seat, tmp_path: Path) -> None:
    visits = clinic(900).drop(columns=["stage", "days"]).assign(patient=np.arange(900) % 300)
    board = seat(rows=visits)
    patient = tables.read(board.table)["patient"].to_numpy()
    deal = board.deal
    parts = [set(patient[rows]) for rows in (deal.aux, deal.core, deal.candidates, deal.test)]
    assert sum(len(part) for part in parts) == len(set.union(*parts)) == 300
    inside, controls = patient[deal.scored[deal.scored_member]], patient[deal.scored[~deal.scored_member]]
    assert not set(inside) & set(controls)
    assert set(inside) <= set(patient[deal.train])
    assert not set(controls) & set(patient[deal.train])
    folds = pd.Series(deal.scored_fold).groupby(patient[deal.scored]).nunique()
    assert (folds == 1).all()
    # What an attack knows of other people says nothing of those it is asked about.
    board = released(board, trained_on(board), tmp_path)
    write("attack", board, tmp_path / "in")
    assert "patient" not in pd.read_parquet(tmp_path / "in" / "background.parquet")
    assert not set(patient[deal.aux]) & (set(inside) | set(controls))


# Canonical releases ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
def test_a_release_is_written_anew(seat: Seat, tmp_path: Path, suffix: str) -> None:
    board = seat()
    table = generalised(trained_on(board))
    table = table.assign(smoking=table["smoking"].astype("category") if suffix == ".parquet" else table["smoking"])
    board = released(board, table, tmp_path, suffix=suffix, scheme="generalization")
    assert sorted(path.name for path in (tmp_path / "release").iterdir()) == ["release.parquet", "scheme.json"]
    written = pq.read_table(tmp_path / "release" / "release.parquet")
    assert set(written.schema.types) == {pa.string()}
    assert written.schema.metadata is None
    frame = written.to_pandas()
    assert list(frame.columns) == list(trained_on(board).columns)
    assert frame["sex"].unique().tolist() == ["{female, male}"]
    assert sorted(frame["age"]) == sorted(table["age"])
    assert frame["age"].tolist() != table["age"].tolist()
    glucose = trained_on(board)["glucose"]
    assert sorted(frame["glucose"].dropna().astype(float)) == sorted(glucose.dropna())
    assert frame["glucose"].dropna().str.fullmatch(r"\d+\.\d").all()
    assert frame["glucose"].isna().sum() == glucose.isna().sum()


def test_rows_stay_together_when_they_are_shuffled(seat: Seat, tmp_path: Path) -> None:
    board = seat()
    table = trained_on(board)
    board = released(board, table, tmp_path)
    frame = anonymised.drawn(
        anonymised.read(tmp_path / "release" / "release.parquet", board.game.schema), board.game.schema
    )
    pd.testing.assert_frame_equal(
        frame.astype(str).sort_values(list(frame)).reset_index(drop=True).replace("None", "nan"),
        table.astype({"age": float}).astype(str).sort_values(list(frame)).reset_index(drop=True).replace("None", "nan"),
        check_dtype=False,
    )


def test_a_single_row_is_a_release_and_one_too_many_is_not(seat: Seat, tmp_path: Path) -> None:
    board = seat()
    table = trained_on(board)
    collected = leave(tmp_path / "one", table.head(1))
    assert SCENARIO.read_outputs("release", board, collected, tmp_path / "r1") == {"rows": 1, "scheme": "same"}
    for number, sentence in ((0, "no rows"), (len(table) + 1, "more than")):
        some = pd.concat([table, table]).head(number)
        with pytest.raises(OutputProblem, match=sentence) as problem:
            SCENARIO.read_outputs("release", board, leave(tmp_path / str(number), some), tmp_path / "r")
        assert problem.value.kind == "invalid"


@pytest.mark.parametrize(
    ("column", "cell", "sentence"),
    [
        ("age", "19", "outside the declared range"),
        ("age", "[20, 9999]", "outside the declared range"),
        ("age", "canary", "neither a number"),
        ("age", "x" * 5000, "too long"),
        ("sex", "canary", "neither a declared category"),
        ("sex", "{female, canary}", "no declared category"),
        ("sex", 1.5, "categories are texts"),
        ("glucose", np.inf, "not finite"),
    ],
)
def test_cells_that_mean_nothing_are_refused(seat: Seat, tmp_path: Path, column: str, cell: Any, sentence: str) -> None:
    board = seat()
    table = trained_on(board)
    with pytest.raises(OutputProblem, match=sentence) as problem:
        released(board, table.assign(**{column: [cell] * len(table)}), tmp_path)
    assert problem.value.kind == "invalid"
    assert f"“{column}”" in problem.value.sentence
    assert "canary" not in problem.value.sentence
    assert "9999" not in problem.value.sentence


def test_a_long_set_may_not_be_repeated_in_every_row(tmp_path: Path) -> None:
    wards = tuple(f"{number:050d}" for number in range(100))
    column = Column("ward", "category", "feature", categories=wards)
    every = "{" + ", ".join(wards) + "}"
    rows = 20_000  # a hundred megabytes, in a file of a few kilobytes
    pq.write_table(pa.table({"ward": [every] * rows}), tmp_path / "release.parquet")
    with pytest.raises(OutputProblem, match="too long together") as caught:
        read_anonymised(tmp_path, "release", (column,), rows)
    assert caught.value.kind == "too_large"
    pq.write_table(pa.table({"ward": [every] * 1000}), tmp_path / "release.parquet")
    assert len(read_anonymised(tmp_path, "release", (column,), rows)["ward"]) == 1000


def test_other_columns_than_the_tables_are_refused(seat: Seat, tmp_path: Path) -> None:
    board = seat()
    table = trained_on(board)
    for number, wrong in enumerate((table.drop(columns="age"), table.assign(more=1), table.reset_index(names=""))):
        with pytest.raises(OutputProblem):
            released(board, wrong, tmp_path / str(number))


def test_columns_of_other_types_are_refused(seat: Seat, tmp_path: Path) -> None:
    board = seat()
    table = pa.Table.from_pandas(trained_on(board), preserve_index=False)
    rows = table.num_rows
    broken = pa.array([b"\xff\xfe"] * rows, type=pa.binary())
    values = {
        "lists": pa.array([[1]] * rows),
        "dates": pa.array([0] * rows, type=pa.timestamp("s")),
        "truths": pa.array([True] * rows),
        "bytes": broken,
        "no UTF-8": pa.Array.from_buffers(pa.string(), rows, broken.buffers()),
    }
    for name, column in values.items():
        with pytest.raises(OutputProblem, match="“sex”") as problem:
            released(board, table.set_column(1, "sex", column), tmp_path / name)
        assert problem.value.kind == "invalid"


@pytest.mark.parametrize(
    "text",
    [
        "", "{}", "[]", "null", '"same"', '{"scheme": "other"}', '{"scheme": ["same"]}', '{"scheme": {"same": 1}}',
        '{"scheme": "same", "more": 1}', '{"scheme": "same"', "[" * 1000, "\xff",
    ],
)  # fmt: skip
def test_a_scheme_is_one_of_three_words(seat: Seat, tmp_path: Path, text: str) -> None:
    board = seat()
    collected = leave(tmp_path / "out", trained_on(board))
    (collected / "scheme.json").write_text(text, encoding="latin-1")
    with pytest.raises(OutputProblem, match="must hold") as problem:
        SCENARIO.read_outputs("release", board, collected, tmp_path / "result")
    assert problem.value.kind == "invalid"


def test_a_scheme_must_be_there_and_small(seat: Seat, tmp_path: Path) -> None:
    board = seat()
    collected = leave(tmp_path / "out", trained_on(board))
    (collected / "scheme.json").write_text('{"scheme": "same"}' + " " * 2000)
    with pytest.raises(OutputProblem) as problem:
        SCENARIO.read_outputs("release", board, collected, tmp_path / "result")
    assert problem.value.kind == "too_large"
    (collected / "scheme.json").unlink()
    for link in (False, True):
        if link:
            (collected / "scheme.json").symlink_to("/etc/hostname")
        with pytest.raises(OutputProblem) as problem:
            SCENARIO.read_outputs("release", board, collected, tmp_path / "result")
        assert problem.value.kind == "missing"


def test_what_is_collected_belongs_to_the_step() -> None:
    assert SCENARIO.collect("release") == {"tables": ["release"], "files": ["scheme.json"], "folders": []}
    assert SCENARIO.collect("attack") == {"tables": ["guesses"], "files": [], "folders": []}
    assert SCENARIO.steps == ("release", "attack")


# Utility --------------------------------------------------------------------------------------------------------------


def anchors_of(board: Board) -> Any:
    return SCENARIO.anchors(tables.read(board.table), board.game.schema, board.deal, board.game)


@pytest.mark.parametrize(("target", "metric"), [("diabetes", "auroc"), ("stage", "auroc"), ("days", "r2")])
def test_utility_runs_from_an_empty_table_to_the_table_itself(
    seat: Seat, tmp_path: Path, target: str, metric: str
) -> None:
    board = seat(target, metric=metric)
    ends, table = anchors_of(board), trained_on(board)
    found = {}
    for name, some in {
        "whole": table,
        "rough": generalised(table),
        "empty": pd.DataFrame(dict.fromkeys(table, [None] * len(table))),
    }.items():
        release = released(board, some, tmp_path / name).release
        assert release is not None
        found[name] = SCENARIO.utility(board, release)
        assert found[name].replicates.shape == (bootstrap.RESAMPLES,)
        json.dumps(found[name].facts, allow_nan=False)
    assert found["whole"].value == pytest.approx(ends.u1, abs=0.02)  # the rows are in another order
    assert found["empty"].value == pytest.approx(ends.detail["empty"])
    assert found["empty"].value <= ends.u0  # an answer that looks at nobody may be better than the middle of the range
    assert ends.u0 + 0.1 < found["rough"].value < found["whole"].value + 0.05
    assert found["whole"].facts["similarity"]["columns"] == pytest.approx(1)
    assert found["rough"].facts["similarity"]["columns"] > 0.9
    assert found["whole"].facts["smallest_group"] == 1
    assert found["empty"].facts["smallest_group"] == len(table)
    assert found["empty"].facts["empty"] == 1
    if metric == "auroc":
        assert ends.u0 == found["empty"].value == 0.5
    assert abs(found["whole"].replicates.mean() - found["whole"].value) < 0.02


def test_a_target_that_is_a_set_stands_for_each_of_its_classes(seat: Seat) -> None:
    board = seat("stage")
    schema = board.game.schema
    table = trained_on(board).head(3)
    cells = anonymised.of(table, schema) | {
        "stage": anonymised.from_texts(pa.array(["I", "{I, III}", None]), schema.target_column)
    }
    inputs, targets, weights = anonymised.training(cells, schema)
    assert targets.tolist() == ["I", "I", "III", "I", "II", "III"]
    np.testing.assert_allclose(weights, [1, 1 / 2, 1 / 2, 1 / 3, 1 / 3, 1 / 3])
    np.testing.assert_array_equal(
        inputs, np.repeat(anonymised.training(anonymised.of(table, schema), schema)[0], [1, 2, 3], axis=0)
    )


def test_a_number_to_be_predicted_may_be_an_interval(seat: Seat) -> None:
    board = seat("days", metric="r2")
    schema = board.game.schema
    days = schema.target_column
    assert days.minimum is not None
    assert days.maximum is not None
    texts = pa.array(["3.25", "[2.00, 4.00]", None])
    cells = anonymised.of(trained_on(board).head(3), schema) | {"days": anonymised.from_texts(texts, days)}
    _inputs, targets, weights = anonymised.training(cells, schema)
    np.testing.assert_allclose(targets, [3.25, 3, (days.minimum + days.maximum) / 2])
    assert weights.tolist() == [1, 1, 1]


# Leaks ----------------------------------------------------------------------------------------------------------------


def attacked(board: Board, guesses: pd.DataFrame, folder: Path, suffix: str = ".parquet") -> Path:
    """The canonical result of an attack that left these guesses."""
    folder.mkdir(parents=True)
    if suffix == ".csv":
        guesses.to_csv(folder / "guesses.csv", index=False)
    else:
        guesses.to_parquet(folder / "guesses.parquet", index=False)
    facts = SCENARIO.read_outputs("attack", board, folder, folder / "result")
    assert facts == {"rows": len(board.deal.scored)}
    return folder / "result"


def perfect(board: Board) -> pd.DataFrame:
    """The truth about everybody, as an attack would write it."""
    names = splits.tokens(splits.derive(board.key, "background"), len(board.deal.scored))
    truth = tables.read(board.table).iloc[board.deal.scored][["glucose", "smoking"]]
    return truth.assign(row=names).reset_index(drop=True)


def test_metrics_are_the_secret_columns(seat: Seat) -> None:
    assert SCENARIO.metrics(seat().game) == ("glucose", "smoking")


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
def test_who_knows_all_about_people_in_the_table_and_nothing_of_others_has_a_leak_of_one(
    seat: Seat, tmp_path: Path, suffix: str
) -> None:
    board = seat()
    guesses = perfect(board)
    guesses.loc[~board.deal.scored_member, ["glucose", "smoking"]] = None
    leaks = SCENARIO.leaks(board, attacked(board, guesses.sample(frac=1, random_state=0), tmp_path / "x", suffix))
    assert leaks.values.shape == leaks.errors.shape == (2, 2)
    assert leaks.replicates.shape == (bootstrap.RESAMPLES, 2, 2)
    assert (leaks.values > 0.9).all()
    known = tables.read(board.table).iloc[board.deal.scored]["glucose"].notna().to_numpy()
    detail = leaks.detail["glucose"]
    assert (detail["attack"], detail["control"]) == (1, 0)
    assert detail["n_attack"] == (known & board.deal.scored_member).sum()
    assert detail["n_control"] == (known & ~board.deal.scored_member).sum()
    json.dumps(leaks.detail, allow_nan=False)


def test_a_person_gives_away_as_many_secrets_as_are_guessed(seat: Seat, tmp_path: Path) -> None:
    board = seat()
    guesses = perfect(board)
    truth = tables.read(board.table).iloc[board.deal.scored]
    told = SCENARIO.told(board, attacked(board, guesses.assign(smoking=None), tmp_path / "x"))
    assert told is not None
    np.testing.assert_array_equal(told.scores, [truth["glucose"].notna()])
    told = SCENARIO.told(board, attacked(board, guesses, tmp_path / "y"))
    assert told is not None
    np.testing.assert_array_equal(told.scores, [truth["glucose"].notna().astype(int) + truth["smoking"].notna()])
    np.testing.assert_array_equal(told.member, board.deal.scored_member)
    assert set(SCENARIO.criteria) == {"singling_out", "linkability", "inference"}


def test_who_knows_as_much_of_strangers_has_no_leak(seat: Seat, tmp_path: Path) -> None:
    board = seat()
    half = np.arange(len(board.deal.scored)) % 2 == 0
    guesses = perfect(board)
    guesses.loc[half, ["glucose", "smoking"]] = None
    leaks = SCENARIO.leaks(board, attacked(board, guesses, tmp_path / "x"))
    assert (np.abs(leaks.values) < 4 * leaks.errors).all()
    assert (leaks.errors > 0.05).all()


def test_leaks_follow_the_formulas_per_fold(seat: Seat, tmp_path: Path) -> None:
    board = seat(folds=3)
    random = np.random.default_rng(0)
    guesses = perfect(board)
    guesses["glucose"] *= random.choice([1, 1.04, 1.06, 0.96, 0.94], len(guesses))
    guesses["smoking"] = random.choice(["never", "former", "current"], len(guesses))
    leaks = SCENARIO.leaks(board, attacked(board, guesses, tmp_path / "x"))
    truth = tables.read(board.table).iloc[board.deal.scored].reset_index(drop=True)
    right = {
        "glucose": (guesses["glucose"] - truth["glucose"]).abs() <= 0.05 * truth["glucose"] + 1e-9,
        "smoking": guesses["smoking"] == truth["smoking"],
    }
    member, fold = board.deal.scored_member, board.deal.scored_fold
    for number in range(3):
        for place, name in enumerate(("glucose", "smoking")):
            known = truth[name].notna() & (fold == number)
            n_attack, n_control = int((known & member).sum()), int((known & ~member).sum())
            tally = n_attack, int(right[name][known & member].sum()), n_control, int(right[name][known & ~member].sum())
            value, error = risk.signed_risk(*tally)
            assert leaks.values[number, place] == value
            assert leaks.errors[number, place] == error
            spread = leaks.replicates[:, number, place].std()
            assert spread == pytest.approx(error, rel=0.15)
            assert leaks.replicates[:, number, place].mean() == pytest.approx(value, abs=0.3 * error)


def test_a_missing_guess_is_a_miss(seat: Seat, tmp_path: Path) -> None:
    board = seat()
    guesses = perfect(board)
    no_rows = SCENARIO.leaks(board, attacked(board, guesses[board.deal.scored_member], tmp_path / "rows"))
    guesses.loc[~board.deal.scored_member, ["glucose", "smoking"]] = None
    no_cells = SCENARIO.leaks(board, attacked(board, guesses, tmp_path / "cells"))
    np.testing.assert_array_equal(no_rows.values, no_cells.values)
    np.testing.assert_array_equal(no_rows.replicates, no_cells.replicates)
    nothing = SCENARIO.leaks(board, attacked(board, guesses.head(0).astype({"row": "str"}), tmp_path / "nothing"))
    assert (np.abs(nothing.values) < 0.05).all()


def test_guesses_may_lie_outside_the_declared_range(seat: Seat, tmp_path: Path) -> None:
    board = seat()
    wild = perfect(board).assign(glucose=-1e9)
    assert SCENARIO.leaks(board, attacked(board, wild, tmp_path / "x")).detail["glucose"]["attack"] == 0


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda guesses: guesses.assign(row="r0"), "not asked about"),
        (lambda guesses: guesses.assign(row=1), "plain texts"),
        (lambda guesses: guesses.assign(row=None), "plain texts"),
        (lambda guesses: guesses.assign(row=[None, *guesses["row"][1:]]), "not asked about"),
        (lambda guesses: guesses.assign(row=guesses["row"].iloc[0]), "more than once"),
        (lambda guesses: pd.concat([guesses, guesses]), "more than"),
        (lambda guesses: guesses.drop(columns="smoking"), "“smoking” is missing"),
        (lambda guesses: guesses.assign(smoking="canary"), "neither a declared category"),
        (lambda guesses: guesses.assign(smoking="{never, former}"), "plain values"),
        (lambda guesses: guesses.assign(glucose="[90, 100]"), "plain values"),
        (lambda guesses: guesses.assign(glucose=np.inf), "not finite"),
    ],
)
def test_guesses_that_mean_nothing_are_refused(
    seat: Seat, tmp_path: Path, spoil: Callable[[pd.DataFrame], pd.DataFrame], sentence: str
) -> None:
    board = seat()
    with pytest.raises(OutputProblem, match=sentence) as problem:
        attacked(board, spoil(perfect(board)), tmp_path / "x")
    assert problem.value.kind == "invalid"
    assert "canary" not in problem.value.sentence


# Rehearsals and the check ---------------------------------------------------------------------------------------------


def test_the_reference_release_is_rough_and_serves_a_rehearsal(seat: Seat, tmp_path: Path) -> None:
    board = seat()
    SCENARIO.reference_release(board, tmp_path / "reference")
    board = replace(board, release=tmp_path / "reference")
    task = write("attack", board, tmp_path / "in")
    release = pd.read_parquet(tmp_path / "in" / task["files"]["release"])
    assert release["age"].nunique() == 5
    assert release["age"].str.fullmatch(r"\[\d+, \d+[\])]").all()
    assert release.groupby(["age", "sex"]).size().min() >= 5
    assert SCENARIO.utility(board, tmp_path / "reference").value > 0.6
    # Who looks for somebody finds their interval: each age is in exactly one of them.
    cells = anonymised.read(tmp_path / "reference" / "release.parquet", board.game.schema)["age"]
    low, high = cells.bounds.T
    spans = sorted(set(zip(low.tolist(), high.tolist(), strict=True)))
    assert all(later[0] == sooner[1] + 1 for sooner, later in pairwise(spans))


def trial_of(board: Board, schema: Schema | None = None) -> Trial:
    table = tables.read(board.table)
    game = board.game if schema is None else replace(board.game, schema=schema)
    return Trial("development", 1, 2, game, table, (board.deal,) * 2, np.arange(len(table)))


def test_the_check_asks_for_something_to_know_and_something_to_guess(seat: Seat) -> None:
    board = seat()
    codes = {finding.code: finding.level for finding in SCENARIO.look(trial_of(board))}
    assert codes["known-and-secret"] == "ok"
    assert "error" not in codes.values()
    schema = board.game.schema
    for names, code in ((["age", "sex"], "no-known-columns"), (["glucose", "smoking"], "no-secret-columns")):
        changed = schema
        for name in names:
            changed = changed.with_role(name, "feature")
        found = {finding.code: finding.level for finding in SCENARIO.look(trial_of(board, changed))}
        assert found[code] == "error"
    assert SCENARIO.look_at_sample(trial_of(board)) == []

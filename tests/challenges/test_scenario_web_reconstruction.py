"""Table reconstruction played by published AnoMed images: the same results as by the contract of files."""

import io
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

from challenges import anonymised, splits, tables
from challenges.scenarios import registry
from challenges.scenarios.base import Board, Game, OutputProblem
from challenges.schema import Schema
from sandbox.gateway.plan import Plan
from tests.challenges.conftest import clinic
from tests.challenges.web_images import Gateway, Route, exchanged

SCENARIO = registry.get("table-reconstruction")
WEB = SCENARIO.images("web/1")
ROLES = {"age": "quasi-identifier", "sex": "quasi-identifier", "glucose": "secret", "smoking": "secret"}
Anonymise = Callable[[pd.DataFrame], pd.DataFrame]


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Board:
    """The clinic's table, of which age and sex are known, glucose and smoking secret."""
    folder = tmp_path_factory.mktemp("clinic")
    upload = folder / "upload.csv"
    clinic().drop(columns=["stage", "days"]).to_csv(upload, index=False)
    schema = tables.profile(upload, ".csv", target="diabetes", roles=ROLES).schema
    table = folder / "table.parquet"
    tables.write_canonical(upload, schema, table)
    frame = tables.read(table)
    deal = splits.deal(
        frame, schema,
        secret=b"the phase's secret", challenge="clinic", phase="development", scope="submission-1", seed=3,
        sizes=splits.Sizes.default(len(frame)), revealed=0, folds=2,
    )  # fmt: skip
    game = Game("clinic", "table-reconstruction", schema, {"seconds": 60})
    return Board(game, table, deal, key=b"the run's key", seed=3, resample=b"resample")


def parquet(frame: pd.DataFrame) -> bytes:
    """As the published packages send a frame."""
    body = io.BytesIO()
    frame.to_parquet(body, engine="pyarrow")
    return body.getvalue()


def frame_of(body: bytes) -> pd.DataFrame:
    return pd.read_parquet(io.BytesIO(body), engine="pyarrow")


def anonymizer(anonymise: Anonymise, scheme: str = "same") -> dict[str, Route]:
    """A web image that releases what the function makes of the table."""
    kept: list[bytes] = []

    def fit(gateway: Gateway, _body: bytes) -> bytes:
        kept.append(parquet(anonymise(frame_of(gateway.get("/data/anonymizer/leaky")))))
        return b""

    return {
        "/fit": fit,
        "/anon_data": lambda _gateway, _body: kept[0],
        "/anon_data_scheme": lambda _gateway, _body: json.dumps({"scheme": scheme}).encode(),
    }


def released(board: Board, folder: Path, anonymise: Anonymise, scheme: str = "same") -> Board:
    exchanged(WEB, "release", board, folder, anonymizer(anonymise, scheme))
    return replace(board, release=folder / "result")


def by_file(board: Board, folder: Path, anonymise: Anonymise, scheme: str = "same") -> Path:
    """The release of a file image with the same idea."""
    for name in ("in", "out"):
        (folder / name).mkdir(parents=True)
    SCENARIO.write_inputs("release", board, folder / "in")
    anonymise(pd.read_parquet(folder / "in" / "table.parquet")).to_parquet(folder / "out" / "release.parquet")
    (folder / "out" / "scheme.json").write_text(json.dumps({"scheme": scheme}))
    SCENARIO.read_outputs("release", board, folder / "out", folder / "result")
    return folder / "result"


def same_release(one: Path, other: Path) -> bool:
    return all((one / name).read_bytes() == (other / name).read_bytes() for name in ("release.parquet", "scheme.json"))


def itself(frame: pd.DataFrame) -> pd.DataFrame:
    return frame


def aggregated(frame: pd.DataFrame) -> pd.DataFrame:
    """Groups of five by age, each number its group's mean."""
    ranked = frame.sort_values("age").reset_index(drop=True)
    groups = ranked.groupby(np.arange(len(ranked)) // 5)
    for name in ("age", "glucose", "visits"):
        ranked[name] = groups[name].transform("mean")
    return ranked


def look_up(gateway: Gateway, _body: bytes) -> bytes:
    """The attack of a published deanonymizer: the first row with the same age and sex."""
    known = frame_of(gateway.get("/data/deanonymizer/background-knowledge"))
    released = frame_of(gateway.target("/anon_data")).drop_duplicates(["age", "sex"])
    assert json.loads(gateway.target("/anon_data_scheme")) == {"scheme": "same"}
    found = known.reset_index().merge(released, on=["age", "sex"], how="left").set_index("row")
    gateway.post("/utility/deanonymizer", parquet(found))
    return b"{}"


def nothing(_gateway: Gateway, _body: bytes) -> bytes:
    return b""


@pytest.mark.parametrize(("anonymise", "scheme"), [(itself, "same"), (aggregated, "microaggregation")])
def test_a_web_defense_and_a_file_defense_release_the_same(
    board: Board, tmp_path: Path, anonymise: Anonymise, scheme: str
) -> None:
    facts = exchanged(WEB, "release", board, tmp_path / "web", anonymizer(anonymise, scheme))
    rows = len(board.deal.train)
    routes = {"POST /fit": 201, "GET /anon_data": 200, "GET /anon_data_scheme": 200}
    web = {"routes": routes, "calls": [], "unasked": [], "queries": 0, "live": 0}
    assert facts == {"rows": rows, "scheme": scheme, "web": web}
    assert same_release(tmp_path / "web" / "result", by_file(board, tmp_path / "file", anonymise, scheme))


def test_a_web_attack_finds_what_a_file_attack_finds(board: Board, tmp_path: Path) -> None:
    board = released(board, tmp_path / "release", itself)
    exchanged(WEB, "attack", board, tmp_path / "web", {"/fit": nothing, "/evaluate": look_up})

    for name in ("in", "out"):
        (tmp_path / "file" / name).mkdir(parents=True)
    SCENARIO.write_inputs("attack", board, tmp_path / "file" / "in")
    known = pd.read_parquet(tmp_path / "file" / "in" / "background.parquet")
    table = pd.read_parquet(tmp_path / "file" / "in" / "release.parquet").drop_duplicates(["age", "sex"])
    found = known.astype({"age": str}).merge(table, on=["age", "sex"], how="left")
    found[["row", "glucose", "smoking"]].to_parquet(tmp_path / "file" / "out" / "guesses.parquet", index=False)
    SCENARIO.read_outputs("attack", board, tmp_path / "file" / "out", tmp_path / "file" / "result")

    guesses = [tables.read(tmp_path / how / "result" / "guesses.parquet") for how in ("web", "file")]
    assert guesses[0]["glucose"].notna().mean() > 0.5
    pd.testing.assert_frame_equal(*guesses)
    assert SCENARIO.leaks(board, tmp_path / "web" / "result").values.min() > 0.2


def test_the_gateway_reads_the_plans(board: Board, tmp_path: Path) -> None:
    after = released(board, tmp_path / "release", itself)
    plan = Plan.read(tmp_path / "release" / "in" / "plan.json")
    assert plan.record["/utility/anonymizer"].parts == ("anon_data", "anon_scheme")
    assert [call.save for call in plan.calls] == ["", "said/anon_data", "said/anon_data_scheme"]
    (tmp_path / "in").mkdir()
    WEB.write_inputs("attack", after, tmp_path / "in")
    plan = Plan.read(tmp_path / "in" / "plan.json")
    assert plan.record["/utility/deanonymizer"].to == {"": "said/guesses"}
    assert set(plan.target) == {"/anon_data", "/anon_data_scheme"}
    assert set(plan.serve) == {"/data/deanonymizer/background-knowledge", "/data/deanonymizer/auxiliary"}


def test_an_attack_gets_the_background_under_row_names(board: Board, tmp_path: Path) -> None:
    board = released(board, tmp_path / "release", itself)
    for name in ("web", "file"):
        (tmp_path / name).mkdir()
    WEB.write_inputs("attack", board, tmp_path / "web")
    SCENARIO.write_inputs("attack", board, tmp_path / "file")
    for name in ("background", "aux"):
        by_web = pd.read_parquet(tmp_path / "web" / f"{name}.parquet")
        assert by_web.index.name == "row"
        expected = pd.read_parquet(tmp_path / "file" / f"{name}.parquet").set_index("row")
        pd.testing.assert_frame_equal(by_web, expected, check_dtype=False, check_index_type=False)


# What tables look like ------------------------------------------------------------------------------------------------


def cells_of(board: Board, release: Path) -> dict[str, list[str | None]]:
    read = anonymised.read(release / "release.parquet", board.game.schema)
    return {name: cells.texts for name, cells in read.items()}


def read_as(board: Board, folder: Path, frame: pd.DataFrame | pa.Table) -> dict[str, list[str | None]]:
    """The canonical texts of a released table's columns, in its own order."""
    said = folder / "out" / "said"
    said.mkdir(parents=True)
    if isinstance(frame, pa.Table):
        pq.write_table(frame, said / "anon_data")
    else:
        (said / "anon_data").write_bytes(parquet(frame))
    (said / "anon_data_scheme").write_text('{"scheme": "generalization"}')
    (folder / "out" / "exchange.json").write_text("{}")
    WEB.read_outputs("release", board, folder / "out", folder / "result")
    read = cells_of(board, folder / "result")
    back = np.argsort(splits.shuffle(splits.derive(board.key, "release"), len(read["age"])))
    return {name: [texts[at] for at in back] for name, texts in read.items()}


FOUR = pd.DataFrame(
    {
        "age": [30, 40, 50, 60],
        "sex": ["female", "male", "male", "female"],
        "glucose": [100.5, 90.0, np.nan, 120.0],
        "visits": [1, 2, 3, 4],
        "smoking": ["never", "former", None, "current"],
        "diabetes": ["no", "no", "yes", "yes"],
    }
)
PAIRS = [(30, 39), (40, 44), (50, 50), (60, 80)]
RANGES = ["[30, 39]", "[40, 44]", "50", "[60, 80]"]


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        (PAIRS, RANGES),
        ([list(pair) for pair in PAIRS], RANGES),
        ([np.array(pair, dtype=float) for pair in PAIRS], RANGES),
        ([{"min": low, "max": high} for low, high in PAIRS], RANGES),
        ([str(pair) for pair in PAIRS], RANGES),
        ([str(list(pair)) for pair in PAIRS], RANGES),
        ([f"{low}-{high}" for low, high in PAIRS], RANGES),
        ([f"{low}–{high}" for low, high in PAIRS], RANGES),
        (pd.arrays.IntervalArray.from_tuples(PAIRS, closed="both"), RANGES),
        (
            pd.arrays.IntervalArray.from_tuples([(29, 39), (39, 44), (49, 50), (59, 80)]),
            ["[30, 39]", "[40, 44]", "50", "[60, 80]"],
        ),
        (
            pd.cut(FOUR["age"], [20, 45, 65]).astype(str),
            ["[21, 45]", "[21, 45]", "[46, 65]", "[46, 65]"],
        ),
        (pd.cut(FOUR["age"], [20, 45, 65], right=False).astype(str), ["[20, 44]", "[20, 44]", "[45, 64]", "[45, 64]"]),
        ([(30.2, 39.9), (40.0, 40.4), (49.6, 49.7), (19.94, 80.0)], ["[31, 39]", "40", "50", "[20, 80]"]),
        ([None, (40, 44), (), (np.nan, np.nan)], [None, "[40, 44]", None, None]),
        ([(-5, 300), (0, 10), (90, 99), (30, 30)], ["[20, 80]", "20", "80", "30"]),
        ([(30, None), (None, 30), (30,), (40, 41)], ["[30, 80]", "[20, 30]", "30", "[40, 41]"]),
        (["*", "", "nan", "40"], [None, None, None, "40"]),
        ([30.4, 39.6, -3, 1e300], ["30", "40", "20", "80"]),
        (pd.Series([30, 40, None, 50], dtype="Int64"), ["30", "40", None, "50"]),
        (pd.Series([30, 40, 40, 50], dtype="category"), ["30", "40", "40", "50"]),
        (np.array([30, 40, 50, 60], dtype=np.uint8), ["30", "40", "50", "60"]),
        (np.array([30, 40, 50, 60], dtype=np.float16), ["30", "40", "50", "60"]),
    ],
)
def test_numbers_and_ranges_in_many_forms(board: Board, tmp_path: Path, cells: Any, expected: list[str | None]) -> None:
    assert board.game.schema.column("age").minimum == 20
    read = read_as(board, tmp_path, FOUR.drop(columns="age").assign(age=cells))
    assert read["age"] == expected
    assert read["glucose"] == ["100.5", "90.0", None, "120.0"]


@pytest.mark.parametrize("between", ["_", "="])
def test_categories_one_hot(board: Board, tmp_path: Path, between: str) -> None:
    hot = pd.get_dummies(FOUR, columns=["sex", "smoking"], prefix_sep=between)
    hot[f"sex{between}male"] = True
    read = read_as(board, tmp_path, hot)
    assert read["sex"] == ["{female, male}", "male", "male", "{female, male}"]
    assert read["smoking"] == ["never", "former", None, "current"]
    assert read["diabetes"] == ["no", "no", "yes", "yes"]


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        (["female", "*", "", "male"], ["female", None, None, "male"]),
        (["{female, male}", "male", None, "nan"], ["{female, male}", "male", None, None]),
        ([["female", "male"], ["male"], [], None], ["{female, male}", "male", None, None]),
        (pd.Series(["female", "male", "male", None], dtype="category"), ["female", "male", "male", None]),
        ([None] * 4, [None] * 4),
    ],
)
def test_categories_in_many_forms(board: Board, tmp_path: Path, cells: Any, expected: list[str | None]) -> None:
    read = read_as(board, tmp_path, FOUR.assign(sex=cells))
    assert read["sex"] == expected


def test_least_and_greatest_may_stand_in_columns_of_their_own(board: Board, tmp_path: Path) -> None:
    low, high = zip(*PAIRS, strict=True)
    read = read_as(board, tmp_path, FOUR.drop(columns="age").assign(age_max=high, age_min=low))
    assert read["age"] == RANGES


def test_an_index_and_columns_of_no_game_are_passed_over(board: Board, tmp_path: Path) -> None:
    frame = FOUR.assign(group=1)[sorted([*FOUR.columns, "group"], reverse=True)]
    frame.index = pd.MultiIndex.from_tuples([(n, "x") for n in range(4)], names=[None, "age_group"])
    assert read_as(board, tmp_path, frame)["age"] == ["30", "40", "50", "60"]


def test_metadata_of_a_table_is_not_believed(board: Board, tmp_path: Path) -> None:
    table = pa.Table.from_pandas(FOUR).replace_schema_metadata(
        {b"pandas": json.dumps({"index_columns": ["age"], "columns": [{"name": "\0" * 9}], "x": "[" * 9999}).encode()}
    )
    assert read_as(board, tmp_path, table)["age"] == ["30", "40", "50", "60"]


@pytest.mark.parametrize(
    ("frame", "sentence"),
    [
        (FOUR.drop(columns="age"), "The column “age” is missing"),
        (FOUR.iloc[:0], "no rows"),
        (FOUR.assign(age=["a", "b", "c", "d"]), "“age” holds a text that is neither a number nor a range"),
        (FOUR.assign(age=["(" + " " * 5000 + "x"] * 4), "too long"),
        (FOUR.assign(age=[(1, 2, 3)] * 4), "more than two numbers"),
        (FOUR.assign(age=[[1] * 2000] * 4), "lists that are too long"),
        (FOUR.assign(age=[(50, 30)] * 4), "upper bound is below"),
        (FOUR.assign(age=[("a", "b")] * 4), "neither numbers nor flags"),
        (FOUR.assign(age=[{"a": 1, "b": 2, "c": 3}] * 4), "cells of several parts"),
        (FOUR.assign(age=pd.to_datetime(["2020-01-01"] * 4)), "neither numbers nor flags"),
        (FOUR.assign(age=pd.period_range("2020", periods=4)), "neither numbers nor flags"),
        (FOUR.assign(age=[b"30"] * 4), "neither numbers nor flags"),
        (FOUR.drop(columns="age").assign(age_min=1), "one is missing"),
        (FOUR.assign(sex=["female", "other", "x", "y"]), "“sex” holds"),
        (FOUR.assign(sex=[0, 1, 1, 0]), "its categories are texts"),
        (FOUR.assign(sex=[["other"]] * 4), "no declared category"),
        (FOUR.assign(sex=[[1]] * 4), "something else than categories"),
        (FOUR.assign(sex=[{"min": 1, "max": 2}] * 4), "cells of several parts"),
        (FOUR.drop(columns="sex").assign(sex_male=2), "must hold flags"),
        (pd.concat([FOUR] * 500), "rows"),
    ],
)
def test_tables_that_cannot_be_used_are_told_by_their_route(
    board: Board, tmp_path: Path, frame: pd.DataFrame, sentence: str
) -> None:
    with pytest.raises(OutputProblem, match=rf"^The answer to GET /anon_data: .*{sentence}"):
        read_as(board, tmp_path, frame)


@pytest.mark.parametrize("body", [b"", b"PAR1", b"PAR1" + bytes(100) + b"PAR1", b"[]"])
def test_what_is_no_table_is_told(board: Board, tmp_path: Path, body: bytes) -> None:
    said = tmp_path / "said"
    said.mkdir()
    (said / "anon_data").write_bytes(body)
    with pytest.raises(OutputProblem, match="GET /anon_data: The file"):
        WEB.read_outputs("release", board, tmp_path, tmp_path / "result")


def test_a_scheme_that_is_none_is_told(board: Board, tmp_path: Path) -> None:
    with pytest.raises(OutputProblem, match="GET /anon_data_scheme must hold"):
        released(board, tmp_path, itself, "k-anonymity")


# What attacks see -----------------------------------------------------------------------------------------------------


def test_an_attack_gets_plain_columns_as_in_the_table(board: Board, tmp_path: Path) -> None:
    board = released(board, tmp_path / "release", itself)
    (tmp_path / "in").mkdir()
    WEB.write_inputs("attack", board, tmp_path / "in")
    seen = pd.read_parquet(tmp_path / "in" / "release.parquet")
    leaky = pd.read_parquet(tmp_path / "release" / "in" / "table.parquet")
    assert list(seen.columns) == list(leaky.columns)
    order = list(leaky.columns)
    pd.testing.assert_frame_equal(
        seen.sort_values(order, ignore_index=True), leaky.sort_values(order, ignore_index=True)
    )


def test_an_attack_gets_ranges_as_pairs_and_sets_one_hot_and_they_can_be_read_again(
    board: Board, tmp_path: Path
) -> None:
    frame = FOUR.assign(age=[*PAIRS[:3], None], sex=["{female, male}", "male", None, "female"])
    read_as(board, tmp_path, frame)
    board = replace(board, release=tmp_path / "result")
    (tmp_path / "in").mkdir()
    WEB.write_inputs("attack", board, tmp_path / "in")
    seen = pd.read_parquet(tmp_path / "in" / "release.parquet")
    assert list(seen.columns) == [
        "age", "sex_female", "sex_male", "glucose", "visits", "smoking", "diabetes",
    ]  # fmt: skip
    by_visits = seen.set_index("visits")
    assert [None if age is None else tuple(age) for age in by_visits["age"].loc[[1, 2, 3, 4]]] == [
        (30, 39), (40, 44), (50, 50), None,
    ]  # fmt: skip
    assert by_visits.loc[[1, 2, 3, 4], "sex_female"].tolist() == [True, False, False, True]
    assert by_visits.loc[[1, 2, 3, 4], "sex_male"].tolist() == [True, True, False, False]
    again = read_as(board, tmp_path / "again", seen)
    order = np.argsort(again["visits"])
    assert [again["age"][at] for at in order] == ["[30, 39]", "[40, 44]", "50", None]
    assert [again["sex"][at] for at in order] == ["{female, male}", "male", None, "female"]


# Guesses --------------------------------------------------------------------------------------------------------------


def guessed(board: Board, folder: Path, guess: Callable[[pd.DataFrame], pd.DataFrame]) -> pd.DataFrame:
    """What is kept of an attack that makes guesses from the background."""

    def evaluate(gateway: Gateway, _body: bytes) -> bytes:
        known = frame_of(gateway.get("/data/deanonymizer/background-knowledge"))
        gateway.post("/utility/deanonymizer", parquet(guess(known)))
        return b""

    after = released(board, folder / "release", itself)
    exchanged(WEB, "attack", after, folder / "attack", {"/fit": nothing, "/evaluate": evaluate})
    return tables.read(folder / "attack" / "result" / "guesses.parquet")


def expected(board: Board) -> list[float]:
    ages = tables.read(board.table)["age"].iloc[board.deal.scored]
    return [age + 0.123 for age in ages]


def by_age(known: pd.DataFrame) -> pd.DataFrame:
    return known.assign(glucose=known["age"] + 0.123, smoking="never", diabetes="yes")


@pytest.mark.parametrize(
    "keep",
    [
        lambda frame: frame,
        lambda frame: frame.sample(frac=1, random_state=1),
        lambda frame: frame.reset_index(),
        lambda frame: frame.rename_axis(index=None).sample(frac=1, random_state=2),
        lambda frame: frame.reset_index(drop=True),
        lambda frame: frame.reset_index(drop=True).set_axis(range(7, len(frame) + 7)),
        lambda frame: frame[["smoking", "glucose"]],
    ],
)
def test_guesses_are_known_by_their_index_or_by_their_order(
    board: Board, tmp_path: Path, keep: Callable[[pd.DataFrame], pd.DataFrame]
) -> None:
    guesses = guessed(board, tmp_path, lambda known: keep(by_age(known)))
    assert guesses["glucose"].tolist() == pytest.approx(expected(board), abs=1e-9)
    assert set(guesses["smoking"]) == {"never"}


def test_rows_and_secrets_that_are_not_guessed_stay_empty(board: Board, tmp_path: Path) -> None:
    guesses = guessed(board, tmp_path, lambda known: by_age(known)[["glucose"]].iloc[:10])
    assert guesses["glucose"].notna().sum() == 10
    assert guesses["smoking"].isna().all()


@pytest.mark.parametrize(
    ("guess", "sentence"),
    [
        (lambda known: by_age(known).iloc[:9].reset_index(drop=True), "9 rows without the index of the background"),
        (lambda known: by_age(known).rename(index=lambda name: name[::-1]), "rows that were not asked about"),
        (lambda known: by_age(pd.concat([known.iloc[:3], known.iloc[:3]])), "more than once"),
        (lambda known: known, "None of these columns is there: glucose, smoking"),
        (lambda known: by_age(known).assign(glucose=[(1, 2)] * len(known)), "must hold plain values"),
        (lambda known: by_age(known).assign(glucose=np.inf), "not finite"),
        (lambda known: by_age(known).assign(smoking="{never, former}"), "must hold plain values"),
        (lambda known: by_age(pd.concat([known, known])), "rows"),
    ],
)
def test_guesses_that_cannot_be_used_are_told_by_their_route(
    board: Board, tmp_path: Path, guess: Callable[[pd.DataFrame], pd.DataFrame], sentence: str
) -> None:
    with pytest.raises(OutputProblem, match=rf"^The post to /utility/deanonymizer: .*{sentence}"):
        guessed(board, tmp_path, guess)


def test_the_schema_of_these_tests_is_the_clinics(board: Board) -> None:
    schema: Schema = board.game.schema
    assert list(FOUR.columns) == [column.name for column in schema.shared]

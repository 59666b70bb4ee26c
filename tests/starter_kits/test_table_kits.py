"""The kits of table reconstruction play against each other, on invented patients and by the platform's own scenario.

Their code runs as a participant would start it: as a script, with nothing but the environment of the contract.
"""

import fcntl
import importlib
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from challenges import anonymised, splits, tables
from challenges.generalised import Cells, Choice, Interval, render
from challenges.scenarios import registry
from challenges.scenarios.base import Board, Game, Leaks
from challenges.schema import Column, Schema
from tests.starter_kits.test_kits import start_container

KITS = Path(__file__).parents[2] / "starter_kits"
DEFENSES = ("identity", "suppression", "mondrian-k5", "mondrian-k20", "microaggregation", "noise")
ATTACKS = ("random-guesses", "gower-linkage", "mode-reconstruction", "attribute-boosting")
SCENARIO = registry.get("table-reconstruction")
SCHEMA = Schema(
    (
        Column("age", "integer", "quasi-identifier", minimum=20, maximum=80),
        Column("height", "number", "quasi-identifier", minimum=140, maximum=210, decimals=1, missing=True),
        Column("sex", "category", "quasi-identifier", categories=("female", "male")),
        Column(
            "region", "category", "quasi-identifier", categories=("east", "north, or so", "south", "west"), missing=True
        ),
        Column("weight", "number", "secret", minimum=30, maximum=200, decimals=1, missing=True),
        Column("smoking", "category", "secret", categories=("current", "former", "never"), missing=True),
        Column("empty", "number", "feature", minimum=0, maximum=1, decimals=2, missing=True),
        Column("pulse", "integer", minimum=40, maximum=140),
        Column("ill", "category", "target", categories=("no", "yes")),
    ),
    "ill",
)


def invent(rows: int = 900) -> pd.DataFrame:
    random = np.random.default_rng(11)
    age = random.integers(20, 81, rows)
    pulse = random.normal(75, 12, rows).clip(40, 140).round()
    risk = (age - 50) / 12 + (pulse - 75) / 15
    frame = pd.DataFrame(
        {
            "age": age,
            "height": random.normal(172, 9, rows).clip(140, 210).round(1),
            "sex": random.choice(["female", "male"], rows),
            "region": random.choice(["east", "north, or so", "south", "west"], rows, p=[0.5, 0.3, 0.15, 0.05]),
            "weight": random.normal(80, 20, rows).clip(30, 200).round(1),
            "smoking": random.choice(["current", "former", "never"], rows, p=[0.2, 0.3, 0.5]),
            "empty": np.nan,
            "pulse": pulse.astype(int),
            "ill": np.where(risk + random.normal(0, 1, rows) > 0.5, "yes", "no"),
        }
    )
    for column in ("height", "region", "weight", "smoking"):
        frame.loc[random.random(rows) < 0.04, column] = None
    return frame


def seat(folder: Path, frame: pd.DataFrame, schema: Schema = SCHEMA) -> Board:
    folder.mkdir(parents=True, exist_ok=True)
    tables.write_frame(frame, schema, folder / "table.parquet")
    deal = splits.deal(
        frame, schema,
        secret=b"secret", challenge="invented", phase="development", scope="1", seed=0,
        sizes=splits.Sizes(len(frame) // 5, len(frame) // 10, len(frame) // 2), revealed=0,
    )  # fmt: skip
    return Board(Game("invented", SCENARIO.slug, schema, {"cpus": 1}), folder / "table.parquet", deal, b"key", 5)


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Board:
    return seat(tmp_path_factory.mktemp("clinic"), invent())


def start(kit: str, step: str, inputs: Path, outputs: Path) -> None:
    outputs.mkdir()
    paths = {"ANOMED_STEP": step, "ANOMED_INPUT": str(inputs), "ANOMED_OUTPUT": str(outputs)}
    folder, size = ("mondrian-k5", {"K": "20"}) if kit == "mondrian-k20" else (kit, {})
    environment = os.environ | paths | size | {"PYTHONPATH": str(KITS / "base")}
    program = KITS / folder / ("defense.py" if kit in DEFENSES else "attack.py")
    done = subprocess.run([sys.executable, program], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def play(kit: str, step: str, board: Board, folder: Path, begin: Callable[..., None] = start) -> Path:
    """One step as the arena does it; returns the folder of the canonical result."""
    (folder / "in").mkdir(parents=True)
    SCENARIO.write_inputs(step, board, folder / "in")
    begin(kit, step, folder / "in", folder / "out")
    SCENARIO.read_outputs(step, board, folder / "out", folder / "result")
    return folder / "result"


@pytest.fixture(scope="module")
def released(board: Board, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Board]:
    """The board with the release of a defense; each is made once."""
    made: dict[str, Board] = {}

    def release(defense: str) -> Board:
        if defense not in made:
            folder = tmp_path_factory.mktemp(defense)
            made[defense] = replace(board, release=play(defense, "release", board, folder / "release"))
        return made[defense]

    return release


def table_of(board: Board) -> dict[str, Cells]:
    assert board.release is not None
    return anonymised.read(board.release / "release.parquet", board.game.schema)


def facts_of(board: Board) -> dict[str, float]:
    return anonymised.facts(table_of(board), board.game.schema, len(board.deal.train))


def leaks_of(attack: str, board: Board, folder: Path) -> Leaks:
    return SCENARIO.leaks(board, play(attack, "attack", board, folder))


# Defenses -------------------------------------------------------------------------------------------------------------


def test_identity_changes_nothing(released: Callable[[str], Board]) -> None:
    board = released("identity")
    frame = anonymised.drawn(table_of(board), SCHEMA)
    train = tables.read(board.table).iloc[board.deal.train]
    for column in SCHEMA.shared:
        kept, given = (table[column.name].astype(object).fillna("").astype(str) for table in (frame, train))
        assert sorted(kept.str.removesuffix(".0")) == sorted(given.str.removesuffix(".0"))


def test_suppression_keeps_rows_and_nothing_else(released: Callable[[str], Board]) -> None:
    facts = facts_of(released("suppression"))
    assert (facts["rows"], facts["plain"], facts["empty"]) == (1, 0, 1)


@pytest.mark.parametrize(("kit", "k"), [("mondrian-k5", 5), ("mondrian-k20", 20)])
def test_mondrian_makes_groups_that_cover_their_patients(released: Callable[[str], Board], kit: str, k: int) -> None:
    board = released(kit)
    table, facts = table_of(board), facts_of(released(kit))
    assert k <= facts["smallest_group"] < 2 * k
    assert facts["rows"] == 1
    # Whoever is in the table is still allowed by the cells of some row, with their own secret beside.
    train = tables.read(board.table).iloc[board.deal.train]
    low, high = table["age"].bounds.T
    weight = table["weight"].expected[:, 0]
    for person in train[train["weight"].notna()].head(50).to_dict("records"):
        sex = table["sex"].shares[:, SCHEMA.column("sex").categories.index(person["sex"])]
        fitting = (low <= person["age"]) & (person["age"] <= high) & (sex > 0)
        assert (weight[fitting] == person["weight"]).any()
    assert not table["age"].plain.all()


def test_microaggregation_makes_groups_with_the_same_means(released: Callable[[str], Board]) -> None:
    board = released("microaggregation")
    table, train = table_of(board), tables.read(board.table).iloc[board.deal.train]
    assert facts_of(board)["smallest_group"] >= 5
    for column in ("age", "weight"):
        means = table[column].expected[:, 0]
        assert np.nanmean(means) == pytest.approx(train[column].mean(), abs=1)
        assert np.nanstd(means) < train[column].std()
        assert table[column].plain.mean() > 0.9


def test_noise_leaves_no_number_as_it_was_but_the_columns_as_they_were(released: Callable[[str], Board]) -> None:
    board = released("noise")
    table, train = table_of(board), tables.read(board.table).iloc[board.deal.train]
    noisy = table["weight"].expected[:, 0]
    assert np.nanmean(noisy) == pytest.approx(train["weight"].mean(), abs=3)
    assert np.nanstd(noisy) == pytest.approx(train["weight"].std(), rel=0.15)
    assert np.isin(noisy, train["weight"]).mean() < 0.5
    assert table["empty"].empty.all()


# Attacks --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("attack", ["gower-linkage", "mode-reconstruction", "attribute-boosting"])
def test_attack_finds_people_in_an_unprotected_table(
    released: Callable[[str], Board], attack: str, tmp_path: Path
) -> None:
    leaks = leaks_of(attack, released("identity"), tmp_path / "duel")
    assert leaks.values.min() > (0.25 if attack == "attribute-boosting" else 0.8)


@pytest.mark.parametrize("attack", ATTACKS)
def test_no_attack_finds_anybody_in_an_empty_table(
    released: Callable[[str], Board], attack: str, tmp_path: Path
) -> None:
    leaks = leaks_of(attack, released("suppression"), tmp_path / "duel")
    assert (np.abs(leaks.values) < 4 * leaks.errors).all()


def test_random_guesses_are_no_better_than_chance(released: Callable[[str], Board], tmp_path: Path) -> None:
    leaks = leaks_of("random-guesses", released("identity"), tmp_path / "duel")
    assert (np.abs(leaks.values) < 4 * leaks.errors).all()


def test_larger_groups_leak_less(released: Callable[[str], Board], tmp_path: Path) -> None:
    found = {
        kit: float(leaks_of("mode-reconstruction", released(kit), tmp_path / kit).values.mean())
        for kit in ("identity", "mondrian-k5", "mondrian-k20")
    }
    assert found["identity"] - 0.3 > found["mondrian-k5"] > found["mondrian-k20"] - 0.03
    assert 0.05 < found["mondrian-k5"] < 0.5


@pytest.mark.parametrize("defense", ["mondrian-k5", "microaggregation", "noise"])
@pytest.mark.parametrize("attack", ATTACKS[1:])  # the first does not look at it
def test_every_attack_reads_every_release(
    released: Callable[[str], Board], attack: str, defense: str, tmp_path: Path
) -> None:
    leaks = leaks_of(attack, released(defense), tmp_path / "duel")
    assert np.isfinite(leaks.values).all()
    assert all(leaks.detail[name]["attack"] > 0.02 for name in ("weight", "smoking"))  # they do guess


@pytest.mark.parametrize("kit", [*DEFENSES, *ATTACKS])
def test_kit_bears_a_small_table_whose_secrets_hardly_vary(kit: str, tmp_path: Path) -> None:
    frame = invent(90).assign(smoking="never", weight=np.nan)
    frame.loc[0, "weight"] = 80.0
    board = seat(tmp_path, frame)
    if kit in DEFENSES:
        play(kit, "release", board, tmp_path / "step")
    else:
        board = replace(board, release=play("identity", "release", board, tmp_path / "release"))
        play(kit, "attack", board, tmp_path / "step")


# In containers, closed as in the arena -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> None:
    """These kits as images; built when they are not up to date, by one test process at a time."""
    with (tmp_path_factory.getbasetemp().parent / "kits.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        subprocess.run([sys.executable, KITS / "build.py", *DEFENSES, *ATTACKS], check=True)


@pytest.mark.timeout(900)
def test_kits_play_in_their_containers(images: None, board: Board, tmp_path: Path) -> None:
    smallest = {}
    for kit in DEFENSES:
        found = replace(board, release=play(kit, "release", board, tmp_path / kit, start_container))
        smallest[kit] = facts_of(found)["smallest_group"]
    assert smallest["identity"] == 1
    assert smallest["mondrian-k5"] >= 5
    assert smallest["mondrian-k20"] >= 20  # what its Dockerfile changes
    board = replace(board, release=tmp_path / "identity" / "result")
    for kit in ATTACKS:
        leaks = SCENARIO.leaks(board, play(kit, "attack", board, tmp_path / kit, start_container))
        assert np.isfinite(leaks.values).all()


# Cells ----------------------------------------------------------------------------------------------------------------

ODD = Column("odd", "category", categories=("a", "b, c", 'say "d"', "{e}", "b", "{a, b}"))
FINE = Column("fine", "number", minimum=-100, maximum=100, decimals=2)
WHOLE = Column("whole", "integer", minimum=0, maximum=50)


@pytest.fixture(scope="module")
def anomed_cells() -> Any:
    """The kits' helper, imported as they do."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(KITS / "base"))
        return importlib.import_module("anomed_cells")


@given(st.data())
def test_kits_and_platform_read_the_same_out_of_a_cell(anomed_cells: Any, data: st.DataObject) -> None:
    column = data.draw(st.sampled_from([ODD, FINE, WHOLE]))
    if column is ODD:
        cell: Any = Choice(tuple(sorted(data.draw(st.sets(st.integers(0, 5), min_size=1)))))
    else:
        unit = 100 if column is FINE else 1
        assert column.minimum is not None
        assert column.maximum is not None
        grid = st.integers(int(column.minimum) * unit, int(column.maximum) * unit)
        low, high = sorted([data.draw(grid), data.draw(grid)])
        ends = (data.draw(st.booleans()), data.draw(st.booleans())) if high - low > 1 else (True, True)
        cell = Interval(low / unit, high / unit, *ends)
    platform = Cells(column, (cell, None), np.array([0, 1]))
    texts = pd.Series([render(cell, column), None], dtype="str")
    if column is ODD:
        np.testing.assert_allclose(anomed_cells.shares(texts, column.to_json())[0], platform.shares[0])
    else:
        np.testing.assert_allclose(anomed_cells.spans(texts, column.to_json()), platform.bounds)
    np.testing.assert_allclose(
        anomed_cells.expected(texts.to_frame(column.name), [column.to_json()]), platform.expected
    )


@given(st.sets(st.integers(0, 5), min_size=1), st.integers(0, 50), st.integers(0, 50))
def test_what_kits_write_is_what_the_platform_reads(anomed_cells: Any, chosen: set[int], one: int, other: int) -> None:
    labels = [ODD.categories[position] for position in sorted(chosen)]
    written = Cells.from_texts([anomed_cells.choice(labels)], np.array([0]), ODD)
    if len(labels) == 2 and labels == ["a", "b"]:
        assert written.distinct[0] == Choice((5,))  # "{a, b}" is a category of its own here, and goes first
    else:
        assert written.distinct[0] == Choice(tuple(sorted(chosen)))
    low, high = sorted([one, other])
    assert Cells.from_texts([anomed_cells.interval(low, high)], np.array([0]), WHOLE).distinct[0] == Interval(low, high)


def test_the_best_guess_is_right_for_most(anomed_cells: Any) -> None:
    column = WHOLE.to_json()
    random = np.random.default_rng(3)
    for _case in range(50):
        truths, weights = random.integers(1, 50, 20).astype(float), random.random(20)
        guess = anomed_cells.most_likely(truths, weights, column)

        def right(value: float, truths: np.ndarray = truths, weights: np.ndarray = weights) -> float:
            return float(weights[np.abs(value - truths) <= 0.05 * truths].sum())

        assert right(guess) >= max(right(value) for value in truths) - 1e-9
    assert anomed_cells.most_likely(np.array([np.nan]), np.ones(1), column) is None
    assert anomed_cells.most_likely(np.eye(6)[[1, 1, 2]], np.array([1, 1, 1.5]), ODD.to_json()) == "b, c"

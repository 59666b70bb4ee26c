"""The kits of synthetic tables play against each other, on NHANES and by the platform's own scenario.

Their code runs as a participant would start it: as a script, with nothing but the environment of the contract.
"""

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from challenges import splits, tables
from challenges.scenarios import registry
from challenges.scenarios.base import Board, Game, Leaks
from challenges.schema import Column, Schema

ROOT = Path(__file__).parents[2]
KITS = ROOT / "starter_kits"
NHANES = ROOT / "challenges" / "bundled" / "nhanes-nutrition-synthetic" / "data.parquet"
DEFENSES = (
    "uniform-table", "bootstrap-copy", "independent-marginals", "gaussian-copula", "sequential-cart", "smoothed-cart",
    "dp-mst",
)  # fmt: skip
# The kit anonymeter needs packages of its own: it is tried in its image only.
ATTACKS = ("nearest-neighbour", "domias", "shared-values")
# Kits that are another kit's code with something else in the environment, as their Dockerfiles say.
VARIANTS = {"smoothed-cart": ("sequential-cart", {"SMOOTH": "1"})}
SCENARIO = registry.get("synthetic-membership")


def seat(table: Path, schema: Schema, sizes: splits.Sizes, secret: bytes = b"secret") -> Board:
    deal = splits.deal(
        tables.read(table), schema,
        secret=secret, challenge="invented", phase="development", scope="1", seed=0, sizes=sizes,
    )  # fmt: skip
    return Board(Game("invented", SCENARIO.slug, schema, {"cpus": 1}), table, deal, b"key", 5, resample=b"resample")


@pytest.fixture(scope="module")
def nhanes(tmp_path_factory: pytest.TempPathFactory) -> Board:
    """5,018 patients: their bodies, blood and diet, and whether their glucose is raised."""
    schema = tables.profile(NHANES, ".parquet", target="raised_glucose").schema
    table = tmp_path_factory.mktemp("nhanes") / "table.parquet"
    tables.write_canonical(NHANES, schema, table)
    return seat(table, schema, splits.Sizes(1000, 500, 2400))


def start(kit: str, step: str, inputs: Path, outputs: Path) -> None:
    outputs.mkdir()
    folder, changed = VARIANTS.get(kit, (kit, {}))
    paths = {"ANOMED_STEP": step, "ANOMED_INPUT": str(inputs), "ANOMED_OUTPUT": str(outputs)}
    environment = os.environ | paths | changed | {"PYTHONPATH": str(KITS / "base")}
    program = KITS / folder / ("attack.py" if step == "attack" else "defense.py")
    done = subprocess.run([sys.executable, program], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def play(kit: str, step: str, board: Board, folder: Path) -> Path:
    """One step as the arena does it; returns the folder of the canonical result."""
    (folder / "in").mkdir(parents=True)
    SCENARIO.write_inputs(step, board, folder / "in")
    start(kit, step, folder / "in", folder / "out")
    SCENARIO.read_outputs(step, board, folder / "out", folder / "result")
    return folder / "result"


@pytest.fixture(scope="module")
def released(nhanes: Board, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Board]:
    """The board with the release of a defense; each is made once."""
    made: dict[str, Board] = {}

    def release(defense: str) -> Board:
        if defense not in made:
            folder = tmp_path_factory.mktemp(defense)
            made[defense] = replace(nhanes, release=play(defense, "release", nhanes, folder / "release"))
        return made[defense]

    return release


@pytest.fixture(scope="module")
def leak(
    released: Callable[[str], Board], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str, str], tuple[float, float]]:
    """A of one attack on one defense and its standard error; each duel is fought once."""
    fought: dict[tuple[str, str], Leaks] = {}

    def duel(attack: str, defense: str) -> tuple[float, float]:
        if (attack, defense) not in fought:
            board = released(defense)
            result = play(attack, "attack", board, tmp_path_factory.mktemp("duel") / "step")
            fought[attack, defense] = SCENARIO.leaks(board, result)
        leaks = fought[attack, defense]
        return float(leaks.values[0, 0]), float(leaks.errors[0, 0])

    return duel


def table_of(board: Board) -> pd.DataFrame:
    assert board.release is not None
    return tables.read(board.release / "release.parquet")


def utility(board: Board) -> float:
    assert board.release is not None
    return SCENARIO.utility(board, board.release).value


# Defenses -------------------------------------------------------------------------------------------------------------


def test_uniform_table_knows_nothing_of_the_patients(
    released: Callable[[str], Board], nhanes: Board, tmp_path: Path
) -> None:
    others = seat(nhanes.table, nhanes.game.schema, splits.Sizes(1000, 500, 2400), secret=b"others")
    # As many rows, whoever is in training.
    asked = {"rows": len(nhanes.deal.train)}
    others = replace(others, game=replace(others.game, options=asked))
    there = tables.read(play("uniform-table", "release", others, tmp_path / "others") / "release.parquet")
    pd.testing.assert_frame_equal(table_of(released("uniform-table")), there)


def test_bootstrap_copy_releases_nothing_but_patients(released: Callable[[str], Board], nhanes: Board) -> None:
    table, train = table_of(released("bootstrap-copy")), tables.read(nhanes.table).iloc[nhanes.deal.train]
    assert len(table.merge(train.drop_duplicates(), how="inner")) == len(table) == len(train)


@pytest.mark.parametrize("kit", ["gaussian-copula", "sequential-cart", "smoothed-cart", "dp-mst"])
def test_defense_keeps_how_columns_hang_together(released: Callable[[str], Board], nhanes: Board, kit: str) -> None:
    table, train = table_of(released(kit)), tables.read(nhanes.table).iloc[nhanes.deal.train]
    noisy = kit == "dp-mst"
    kept = table["bmi"].corr(table["waist_cm"]) / train["bmi"].corr(train["waist_cm"])
    assert kept > (0.5 if noisy else 0.85)
    # Who skipped the questions about food skipped them all.
    skipped = table[["energy_kcal", "fat_g"]].isna()
    if not noisy:  # a tree of noisy counts has no room for it
        assert (skipped["energy_kcal"] == skipped["fat_g"]).mean() > 0.97
    for column in ("age", "bmi", "energy_kcal"):
        assert table[column].median() == pytest.approx(train[column].median(), rel=0.15 if noisy else 0.1)
        assert table[column].isna().mean() == pytest.approx(train[column].isna().mean(), abs=0.04)
    for sex, share in train["sex"].value_counts(normalize=True).items():
        assert (table["sex"] == sex).mean() == pytest.approx(share, abs=0.06)


def test_independent_marginals_keep_columns_and_lose_how_they_hang_together(
    released: Callable[[str], Board], nhanes: Board
) -> None:
    table, train = table_of(released("independent-marginals")), tables.read(nhanes.table).iloc[nhanes.deal.train]
    assert abs(table["bmi"].corr(table["waist_cm"])) < 0.1
    for column in ("age", "bmi", "energy_kcal"):
        assert table[column].median() == pytest.approx(train[column].median(), rel=0.1)
        # The heaviest patient of all does not show.
        assert table[column].max() <= train[column].max()


def test_utility_grows_with_what_is_kept(released: Callable[[str], Board]) -> None:
    useless = max(utility(released(kit)) for kit in ("uniform-table", "independent-marginals"))
    assert min(utility(released(kit)) for kit in ("gaussian-copula", "sequential-cart")) > useless + 0.08
    assert utility(released("dp-mst")) > 0.53


# Attacks --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("attack", ATTACKS)
def test_attack_finds_nothing_where_nothing_is(leak: Callable[..., tuple[float, float]], attack: str) -> None:
    found, error = leak(attack, "uniform-table")
    assert abs(found) < 3.5 * error


@pytest.mark.parametrize("attack", ATTACKS)
def test_attack_finds_who_was_copied(leak: Callable[..., tuple[float, float]], attack: str) -> None:
    assert leak(attack, "bootstrap-copy")[0] > 0.3


def test_leak_grows_with_what_is_kept(leak: Callable[..., tuple[float, float]]) -> None:
    marginals, copula, smoothed, cart = (
        max(leak(attack, kit)[0] for attack in ("domias", "shared-values"))
        for kit in ("independent-marginals", "gaussian-copula", "smoothed-cart", "sequential-cart")
    )
    assert marginals < 0.12 > copula
    # Values that are handed on as they are give most away: see the README of shared-values.
    assert cart > 0.3 > smoothed > 0


@pytest.mark.parametrize("attack", ATTACKS)
def test_differential_privacy_holds(leak: Callable[..., tuple[float, float]], attack: str) -> None:
    found, error = leak(attack, "dp-mst")
    assert found < 0.05 + 3 * error


# A table as nasty as they come: a column without a cell, one that never varies, a category that nobody has.

ODD = Schema(
    (
        Column("age", "integer", "quasi-identifier", minimum=20, maximum=80),
        Column("empty", "number", minimum=0, maximum=1, decimals=2, missing=True),
        Column("blank", "category", categories=("a", "b"), missing=True),
        Column("site", "integer", minimum=1, maximum=1),
        Column("sex", "category", categories=("female", "male", "other"), missing=True),
        Column("weight", "number", minimum=40, maximum=150, decimals=1, missing=True),
        Column("ill", "category", "target", categories=("no", "yes")),
    ),
    "ill",
)


@pytest.fixture(scope="module", params=["some ill", "nobody ill"])
def odd(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Board:
    random = np.random.default_rng(11)
    rows = 400
    frame = pd.DataFrame({"age": random.integers(20, 81, rows), "empty": np.nan, "blank": None, "site": 1})
    frame["sex"] = random.choice(["female", "male"], rows)
    frame["weight"] = random.normal(80, 15, rows).clip(40, 150).round(1)
    frame.loc[random.random(rows) < 0.3, ["sex", "weight"]] = None
    frame["ill"] = np.where((frame["age"] > 60) & (request.param == "some ill"), "yes", "no")
    table = tmp_path_factory.mktemp("odd") / "table.parquet"
    tables.write_frame(frame, ODD, table)
    return seat(table, ODD, splits.Sizes(80, 40, 200))


@pytest.mark.parametrize("kit", DEFENSES)
def test_defense_bears_an_odd_table(odd: Board, kit: str, tmp_path: Path) -> None:
    table = tables.read(play(kit, "release", odd, tmp_path / "step") / "release.parquet")
    assert len(table) == len(odd.deal.train)
    assert (table["site"] == 1).all()
    if kit not in ("uniform-table", "dp-mst"):
        assert table["empty"].isna().all()
        assert 0.15 < table["weight"].isna().mean() < 0.45


@pytest.mark.parametrize("kit", ATTACKS)
def test_attack_bears_an_odd_table(odd: Board, kit: str, tmp_path: Path) -> None:
    board = replace(odd, release=play("bootstrap-copy", "release", odd, tmp_path / "release"))
    scores = np.load(play(kit, "attack", board, tmp_path / "step") / "scores.npy")
    assert np.isfinite(scores).all()
    assert len(scores) == len(odd.deal.scored)


# The mechanism of dp-mst ----------------------------------------------------------------------------------------------


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("mechanism", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["mechanism"] = module
    spec.loader.exec_module(module)
    return module


mechanism = load(KITS / "dp-mst" / "mechanism.py")
patients = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2)), min_size=1, max_size=30)


@given(st.floats(0.01, 20), st.floats(1e-9, 0.1))
def test_the_zcdp_budget_gives_the_promised_epsilon(epsilon: float, delta: float) -> None:
    rho = mechanism.zcdp(epsilon, delta)
    assert rho + 2 * np.sqrt(rho * np.log(1 / delta)) == pytest.approx(epsilon)


@given(patients, st.tuples(st.integers(0, 3), st.integers(0, 2)), st.lists(st.floats(0, 20), min_size=7, max_size=7))
def test_one_patient_more_changes_what_is_measured_by_one(
    there: list[tuple[int, int]], one: tuple[int, int], noisy: list[float]
) -> None:
    columns = [np.array(noisy[:4]), np.array(noisy[4:])]
    before, after = ([np.array(code) for code in zip(*people, strict=True)] for people in (there, [*there, one]))
    scores = [mechanism.surprise(codes, 0, 1, columns) for codes in (before, after)]
    assert abs(scores[0] - scores[1]) <= 1 + 1e-9
    counts = [mechanism.pair_counts(codes, 0, 1, columns) for codes in (before, after)]
    assert np.abs(counts[0] - counts[1]).sum() == 1


def test_counts_carry_the_noise_that_their_budget_asks_for() -> None:
    noise = mechanism.Noise(np.random.default_rng(1))
    drawn = noise.counts(np.full(20_000, 7.0), rho=0.02)
    assert drawn.mean() == pytest.approx(7, abs=0.2)
    assert drawn.std() == pytest.approx(5, rel=0.03)  # sqrt(1 / (2 * 0.02))


def test_choices_follow_the_exponential_mechanism() -> None:
    noise = mechanism.Noise(np.random.default_rng(1))
    drawn = np.bincount([noise.choice(np.array([0.0, 1.0, 2.0]), rho=0.5) for _ in range(20_000)], minlength=3)
    weights = np.exp(2 * np.array([0.0, 1.0, 2.0]) / 2)  # epsilon = sqrt(8 * 0.5)
    assert drawn / drawn.sum() == pytest.approx(weights / weights.sum(), abs=0.015)


def test_the_parts_of_the_budget_are_the_whole() -> None:
    parts = (mechanism.COLUMNS, mechanism.CHOICE, mechanism.PAIRS)
    assert sum(parts) == pytest.approx(1)


def test_a_pair_is_fitted_to_its_columns_also_where_nobody_is() -> None:
    fitted = mechanism.fitted(np.array([[3.0, 0, 1], [0, 0, 0]]), np.array([9.0, 0]), np.array([6.0, 0, 3]))
    assert fitted == pytest.approx(np.array([[6.0, 0, 3], [0, 0, 0]]))


@given(st.lists(st.floats(-50, 50), min_size=2, max_size=12))
def test_proper_counts_are_the_nearest_ones(noisy: list[float]) -> None:
    given_counts = np.array(noisy)
    found = mechanism.proper(given_counts)
    total = max(given_counts.sum(), 1.0)
    assert found.min() >= 0
    assert found.sum() == pytest.approx(total)
    # The projection onto a simplex moves all that stays above 0 by the same (Duchi et al., ICML 2008).
    moved = found - given_counts
    shift = moved[np.argmax(found)]
    assert np.allclose(moved[found > 0], shift, atol=1e-6)
    assert (given_counts[found == 0] + shift <= 1e-6).all()


def test_without_noise_the_tree_finds_the_chain_that_made_the_data() -> None:
    random = np.random.default_rng(3)
    codes = [random.integers(0, 3, 4000)]
    for _ in range(4):
        codes.append(np.where(random.random(4000) < 0.8, codes[-1], random.integers(0, 3, 4000)))
    noise = mechanism.Noise(random)
    columns = mechanism.noisy_columns(codes, [3] * 5, 1e6, noise)
    tree = mechanism.grow(codes, columns, 1e6, noise)
    assert sorted(tuple(sorted(branch[:2])) for branch in tree.branches) == [(0, 1), (1, 2), (2, 3), (3, 4)]
    drawn = tree.draw(20_000, random)
    for one, other in ((0, 1), (0, 4)):
        wanted = (codes[one] == codes[other]).mean()
        assert (drawn[one] == drawn[other]).mean() == pytest.approx(wanted, abs=0.03)

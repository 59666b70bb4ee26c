"""The kits of contract web/1 play against each other and against kits of files, in containers, by the real sandbox."""

import fcntl
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import docker
import numpy as np
import pytest

from challenges import splits, tables
from challenges.scenarios import registry
from challenges.scenarios.base import Board, Game, Leaks
from challenges.schema import Column, Schema
from tests.starter_kits.test_kits import KITS, LABELS, Patients
from tests.starter_kits.test_table_kits import invent, seat
from tests.web_images import build_template
from tests.web_play import FILES, Table, table

WEB_KITS = ("web-anonymizer", "web-memoriser", "web-deanonymizer")
WEB_KITS += ("web-table-anonymizer", "web-table-identity", "web-table-deanonymizer")
FILE_KITS = ("random-forest", "calibrated-loss", "mondrian-k5", "gower-linkage")
MEMBERSHIP, RECONSTRUCTION = registry.get("model-membership"), registry.get("table-reconstruction")
METRICS = {"binary": "auroc", "multiclass": "balanced_accuracy", "regression": "r2"}

pytestmark = [pytest.mark.timeout(900), pytest.mark.django_db(transaction=True)]


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> None:
    """The kits as images; built when they are not up to date, by one test process at a time."""
    with (tmp_path_factory.getbasetemp().parent / "kits.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        subprocess.run([sys.executable, KITS / "build.py", *WEB_KITS, *FILE_KITS], check=True)


@pytest.fixture
def play(images: None, settings: Any, tmp_path: Path) -> Iterator[Table]:
    with table(settings, tmp_path / "private") as made:
        yield made


def membership(kind: str, folder: Path) -> Board:
    """A board of invented patients: two classes, three, or a number to predict; gaps and a category in X."""
    patients = Patients.invent(kind)
    fields = ("name", "type", "role", "minimum", "maximum", "decimals", "missing")
    columns = [
        Column(**{field: one[field] for field in fields if field in one}, categories=tuple(one.get("categories", ())))
        for one in patients.columns
    ]
    schema = Schema(
        tuple(replace(column, decimals=1) if column.name == "weight" else column for column in columns), "risk"
    )
    frame = patients.table.drop(columns="row").assign(noise=lambda table: table["noise"].round(4))
    tables.write_frame(frame, schema, folder / "table.parquet")
    deal = splits.deal(
        frame, schema, secret=b"secret", challenge="invented", phase="development", scope="1", seed=0,
        sizes=splits.Sizes(100, 20, 300), revealed=0.2,
    )  # fmt: skip
    game = Game("invented", "model-membership", schema, {"seconds": 100, "cpus": 1}, metric=METRICS[kind])
    return Board(game, folder / "table.parquet", deal, b"key", 5, resample=b"resample")


def modelled(play: Table, kit: str, board: Board, contract: str = "web/1") -> Board:
    """The board with what a defense answers in model membership."""
    fitted = play.result(f"anomed/{kit}", "fit", board, contract)
    return replace(board, release=play.result(f"anomed/{kit}", "predict", replace(board, previous=fitted), contract))


def leaks(play: Table, attack: str, board: Board, contract: str = "web/1") -> Leaks:
    scenario = registry.get(board.game.scenario)
    return scenario.leaks(board, play.result(f"anomed/{attack}", "attack", replace(board, key=b"duel"), contract))


def worth(board: Board) -> float:
    assert board.release is not None
    return registry.get(board.game.scenario).utility(board, board.release).value


@pytest.mark.parametrize("kind", LABELS)
def test_web_attack_finds_whom_a_memoriser_knows_and_not_whom_noise_hides(
    play: Table, kind: str, tmp_path: Path
) -> None:
    board = membership(kind, tmp_path)
    leaky, private = modelled(play, "web-memoriser", board), modelled(play, "web-anonymizer", board)
    assert worth(leaky) > {"binary": 0.7, "multiclass": 0.4, "regression": 0.2}[kind]
    assert worth(private) > {"binary": 0.55, "multiclass": 0.3, "regression": -0.5}[kind]
    assert leaks(play, "web-deanonymizer", leaky).values.mean(axis=0)[0] > 0.9
    if kind == "binary":  # four standard errors of so few candidates
        assert abs(leaks(play, "web-deanonymizer", private).values.mean(axis=0)[0]) < 0.35


def test_web_and_file_images_meet(play: Table, tmp_path: Path) -> None:
    board = membership("binary", tmp_path)
    by_web, by_files = modelled(play, "web-memoriser", board), modelled(play, "random-forest", board, FILES)
    assert leaks(play, "calibrated-loss", by_web, FILES).values.mean(axis=0)[0] > 0.8
    assert leaks(play, "web-deanonymizer", by_files).values.mean(axis=0)[0] > 0.8


def test_the_published_template_runs_as_it_is(play: Table, tmp_path: Path) -> None:
    """Root, nginx before gunicorn, labels as answers, an evaluation URL that is wrong."""
    build_template()
    board = membership("binary", tmp_path)
    fitted = play.result("anomed-test/web-template", "fit", board)
    release = play.result("anomed-test/web-template", "predict", replace(board, previous=fitted))
    answers = np.load(release / "answers.npy")
    assert set(np.unique(answers)) == {0, 1}
    assert worth(replace(board, release=release)) > 0.6


def released(play: Table, kit: str, board: Board, contract: str = "web/1") -> Board:
    """The board with the table that a defense releases."""
    return replace(board, release=play.result(f"anomed/{kit}", "release", board, contract))


def told(found: Leaks) -> dict[str, float]:
    """The residual risk of each secret."""
    return {name: detail["value"] for name, detail in found.detail.items()}


def test_tables_over_the_web(play: Table, tmp_path: Path) -> None:
    board = seat(tmp_path, invent())
    identity, means = released(play, "web-table-identity", board), released(play, "web-table-anonymizer", board)
    assert worth(identity) > worth(means) > 0.55
    for attack, contract in (("web-table-deanonymizer", "web/1"), ("gower-linkage", FILES)):
        assert min(told(leaks(play, attack, identity, contract)).values()) > 0.9
        found = told(leaks(play, attack, means, contract))
        assert found["weight"] < 0.1
        assert found["smoking"] < 0.4  # five who are alike may well smoke alike
    ranges = released(play, "mondrian-k5", board, FILES)
    assert max(told(leaks(play, "web-table-deanonymizer", ranges)).values()) < 0.3


def test_kits_add_only_their_code_to_the_base(images: None) -> None:
    engine = docker.from_env()
    base = engine.images.get("anomed/base-web")
    assert base.attrs["Size"] < 700e6
    assert base.labels["org.anomed.contract"] == "web/1"
    for kit in WEB_KITS:
        image = engine.images.get(f"anomed/{kit}")
        assert image.attrs["RootFS"]["Layers"][:-1] == base.attrs["RootFS"]["Layers"]
        assert image.labels["org.anomed.contract"] == "web/1"

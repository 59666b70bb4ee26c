"""Results as files: they read back, and the boards can be computed again from them alone."""

import json
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from django.core.management import CommandError, call_command

from challenges.metrics import duel as metrics
from challenges.models import Challenge
from submissions import actions, results_readme
from submissions.models import Duel, Standing, Submission
from tests import played

pytestmark = pytest.mark.django_db

TABLES = ("matrix", "releases", "boards", "intervals", "controls", "entries")


@pytest.fixture
def folder(ready: Callable[..., Submission], met: Submission, tmp_path: Path) -> Path:
    """The results of a phase with two defenses, a failed duel, and constants of its own."""
    Submission.objects.filter(pk=met.pk).update(declared_epsilon=8.0, note="secret plan of Team Ada")
    other = ready("ben", "defense", name="second")
    played.release(other)
    played.duels(other, loss=0.1)
    ready("ben", "attack", name="broken")
    Duel.objects.pending().update(state="failed", reason="crashed")
    target = tmp_path / "results"
    call_command("challenge_results", "clinic", str(target), stdout=StringIO())
    return target


def test_tables_read_back_alike_from_csv_and_parquet(folder: Path) -> None:
    for name in TABLES:
        csv, parquet = pd.read_csv(folder / f"{name}.csv"), pd.read_parquet(folder / f"{name}.parquet")
        assert list(csv.columns) == list(parquet.columns)
        assert len(csv) == len(parquet)
        for column in csv.select_dtypes("number").columns.intersection(parquet.select_dtypes("number").columns):
            assert np.allclose(csv[column], parquet[column].astype(float), equal_nan=True), (name, column)
    assert pd.read_parquet(folder / "matrix.parquet")[["leak_auc", "error_tpr", "unit"]].notna().sum().min() > 0
    assert len(pd.read_csv(folder / "entries.csv")) == Submission.objects.count()


def test_the_boards_follow_from_the_files_alone(folder: Path) -> None:
    matrix, releases = pd.read_csv(folder / "matrix.csv"), pd.read_csv(folder / "releases.csv")
    boards = pd.read_csv(folder / "boards.csv").set_index("entry")
    constants = json.loads((folder / "constants.json").read_text())
    entered = pd.read_csv(folder / "entries.csv").set_index("entry")["entered_at"]
    leaks = [f"leak_{name}" for name in constants["leaks"]]
    computed = 0
    for defense, rows in matrix[(matrix.state == "done") & ~matrix.voided].groupby("defense"):
        attacks = sorted(rows.attack.unique(), key=entered.get)  # type: ignore[arg-type]
        units = [rows[rows.attack == attack].sort_values(["seed", "unit"])[leaks].to_numpy() for attack in attacks]
        worst = metrics.crossfit(np.array(units).swapaxes(0, 1))
        utility = metrics.normalised_utility(
            releases[releases.defense == defense].raw_utility,
            constants["trivial_utility"],
            constants["reference_utility"],
        )
        privacy = metrics.privacy(worst.value, constants["reference_leak"])
        row = boards.loc[defense]
        assert worst.mean == pytest.approx(row.worst_leak)
        assert utility == pytest.approx(row.utility)
        assert privacy == pytest.approx(row.privacy)
        score = metrics.defense_score(utility, privacy) if row.qualified else 0.0
        assert score == pytest.approx(row.score)
        assert Standing.objects.get(submission=defense).score == pytest.approx(score)
        computed += 1
    assert computed == 2


def test_every_column_is_explained(folder: Path) -> None:
    readme = (folder / "README.md").read_text()
    for name in TABLES:
        section = readme.split(f"## {name}.csv")[1].split("\n## ")[0]
        for column in pd.read_csv(folder / f"{name}.csv").columns:
            assert f"| `{column}` | " in section, (name, column)
    assert "Leaks and utilities are between 0" in readme


def test_failed_duels_are_rows_without_a_unit(folder: Path) -> None:
    matrix = pd.read_csv(folder / "matrix.csv")
    failed = matrix[matrix.state == "failed"]
    assert set(failed.attack_name) == {"broken"}
    assert failed[["unit", "leak_auc", "leak_tpr"]].isna().all(axis=None)
    assert set(failed.failure) == {"crashed"}


def test_nothing_of_the_private_data_is_in_the_files(folder: Path, clinic: Challenge) -> None:
    for path in folder.glob("*.*"):
        content = path.read_bytes()
        for secret in (b"canary-", clinic.dataset.sha256.encode(), b"secret plan", b"@uni.test", b"patients.csv"):
            assert secret not in content, (path.name, secret)


def test_nothing_is_overwritten(folder: Path, tmp_path: Path) -> None:
    before = (folder / "matrix.csv").read_bytes()
    with pytest.raises(CommandError, match="nothing is overwritten"):
        call_command("challenge_results", "clinic", str(folder))
    (tmp_path / "file").write_text("mine")
    with pytest.raises(CommandError, match="nothing is overwritten"):
        call_command("challenge_results", "clinic", str(tmp_path / "file"))
    assert (folder / "matrix.csv").read_bytes() == before


def test_unknown_challenges_and_phases_are_refused(clinic: Challenge, tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="no challenge"):
        call_command("challenge_results", "nowhere", str(tmp_path / "a"))
    with pytest.raises(CommandError, match="no such phase"):
        call_command("challenge_results", "clinic", str(tmp_path / "a"), phase="final")


def test_an_empty_phase_has_empty_tables_with_all_columns(clinic: Challenge, tmp_path: Path) -> None:
    call_command("challenge_results", "clinic", str(tmp_path / "a"), stdout=StringIO())
    matrix = pd.read_csv(tmp_path / "a" / "matrix.csv")
    assert len(matrix) == 0
    assert list(matrix.columns) == results_readme.matrix_columns(("auc", "tpr"))


def test_a_void_duel_is_marked(met: Submission, tmp_path: Path, olga: Any) -> None:
    duel = Duel.objects.select_related("attack__challenge", "release__submission").get(attack__name="sharp")
    actions.void_duel(duel=duel, reason="The release held a mark.", by=olga)
    call_command("challenge_results", "clinic", str(tmp_path / "a"), phase="development", stdout=StringIO())
    matrix = pd.read_csv(tmp_path / "a" / "matrix.csv")
    assert set(matrix[matrix.voided].attack_name) == {"sharp"}
    assert set(matrix[matrix.voided].void_reason) == {"The release held a mark."}

"""A small clinic, whose table serves the tests of tables, deals and scenarios."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from challenges import splits, tables
from challenges.scenarios.base import Board, Game

ROWS = 600


def clinic(rows: int = ROWS) -> pd.DataFrame:
    """Patients with gaps, categories and three possible targets: `diabetes`, `stage` and `days`."""
    random = np.random.default_rng(5)
    age = random.integers(20, 81, rows)
    glucose = np.round(random.normal(100, 20, rows) + age / 4, 1)
    risk = (glucose - 112) / 20 + random.normal(0, 1, rows)
    frame = pd.DataFrame(
        {
            "age": age,
            "sex": random.choice(["female", "male"], rows),
            "glucose": glucose,
            "visits": pd.array(random.integers(0, 9, rows), dtype="Int64"),
            "smoking": random.choice(["never", "former", "current"], rows),
            "diabetes": np.where(risk > 0.5, "yes", "no"),
            "stage": np.select([risk < 0, risk < 1], ["I", "II"], "III"),
            "days": np.round(risk * 3 + 10, 2),
        }
    )
    frame.loc[random.random(rows) < 0.1, "glucose"] = np.nan
    frame.loc[random.random(rows) < 0.1, "visits"] = pd.NA
    frame.loc[random.random(rows) < 0.05, "smoking"] = None
    return frame


@pytest.fixture
def write_csv(tmp_path: Path) -> Callable[..., Path]:
    """Writes text (or bytes) as a CSV file and returns its path."""

    def write(content: str | bytes, name: str = "upload.csv") -> Path:
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write


@pytest.fixture
def make_board(tmp_path: Path) -> Callable[..., Board]:
    """A board of the clinic for one target, in a folder of its own."""

    def make(target: str = "diabetes", *, white_box: bool = False, folds: int = 2, metric: str = "auroc") -> Board:
        others = [name for name in ("diabetes", "stage", "days") if name != target]
        upload = tmp_path / f"{target}.csv"
        clinic().drop(columns=others).to_csv(upload, index=False)
        schema = tables.profile(upload, ".csv", target=target).schema
        table = tmp_path / f"{target}.parquet"
        tables.write_canonical(upload, schema, table)
        frame = tables.read(table)
        deal = splits.deal(
            frame,
            schema,
            secret=b"the phase's secret",
            challenge="clinic",
            phase="development",
            scope="submission-1",
            seed=3,
            sizes=splits.Sizes.default(len(frame)),
            revealed=0.2,
            folds=folds,
        )
        game = Game("clinic", "model-membership", schema, {"seconds": 60}, metric=metric, white_box=white_box)
        return Board(game, table, deal, key=b"the run's key", seed=3)

    return make

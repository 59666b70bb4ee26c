"""The kits of signal linkage at work on virtual persons of the bundled sample."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

ROOT = Path(__file__).parents[2]
KITS = ROOT / "starter_kits"
SAMPLE = ROOT / "challenges" / "bundled" / "glucose-traces" / "sample.parquet"
DEFENSES = ("identity-traces", "flat-traces", "smooth-traces", "group-traces", "noise-traces")
ATTACKS = ("trace-random", "trace-nearest", "trace-aux")
RELEASED, STRANGERS = 100, 40  # the rest of the sample is aux


@pytest.fixture(scope="module")
def persons() -> pd.DataFrame:
    return pd.read_parquet(SAMPLE).drop(columns="impaired")


def named(prefix: str, table: pd.DataFrame) -> pd.DataFrame:
    table = table.reset_index(drop=True)
    table.insert(0, "row", [f"{prefix}{number}" for number in range(len(table))])
    return table


def of_day(persons: pd.DataFrame, day: str) -> pd.DataFrame:
    return persons[[name for name in persons if str(name).startswith(day)]]


def start(kit: str, folder: Path, step: str, **tables: pd.DataFrame) -> pd.DataFrame:
    """What the kit writes in this step."""
    inputs, outputs = folder / "in", folder / "out"
    inputs.mkdir(parents=True)
    outputs.mkdir()
    for name, table in tables.items():
        table.to_parquet(inputs / f"{name}.parquet", index=False)
    names = {str(name) for table in tables.values() for name in table if name != "row"}
    columns: list[dict[str, object]] = [
        {
            "name": name,
            "type": "integer",
            "role": "feature" if name.startswith("later") else "quasi-identifier",
            "minimum": 40,
            "maximum": 400,
        }
        for name in sorted(names)
    ]
    columns.append({"name": "impaired", "type": "category", "role": "target", "categories": ["no", "yes"]})
    files = {name: f"{name}.parquet" for name in tables}
    task = {"contract": "anomed/1", "step": step, "seed": 5, "target": "impaired", "columns": columns, "files": files}
    (inputs / "task.json").write_text(json.dumps(task), encoding="utf-8")
    paths = {"ANOMED_STEP": step, "ANOMED_INPUT": str(inputs), "ANOMED_OUTPUT": str(outputs)}
    program = KITS / kit / ("defense.py" if step == "release" else "attack.py")
    environment = os.environ | paths | {"PYTHONPATH": str(KITS / "base")}
    done = subprocess.run([sys.executable, program], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (written,) = outputs.iterdir()
    return pd.read_parquet(written)


def release_of(kit: str, persons: pd.DataFrame, folder: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The traces that a defense got and what it made of them, in the same order."""
    traces = named("t", of_day(persons[:RELEASED], "later"))
    shuffled = traces.sample(frac=1, random_state=2)
    made = start(kit, folder, "release", traces=shuffled)
    assert list(made.columns) == list(traces.columns)
    assert sorted(made["row"]) == sorted(traces["row"])
    return traces, made.set_index("row").loc[traces["row"]].reset_index()


@pytest.mark.parametrize("kit", DEFENSES)
def test_defense_gives_every_row_back_inside_the_ranges(kit: str, persons: pd.DataFrame, tmp_path: Path) -> None:
    traces, made = release_of(kit, persons, tmp_path)
    values = made.drop(columns="row").to_numpy(float)
    assert np.isfinite(values).all()
    assert values.min() >= 40
    assert values.max() <= 400
    own = traces.drop(columns="row").to_numpy(float)
    if kit == "group-traces":
        assert pd.DataFrame(values).value_counts().min() >= 5
    if kit == "identity-traces":
        assert (values == own).all()
    elif kit == "flat-traces":
        assert len(np.unique(values)) == 1
    else:
        assert (values != own).any(axis=1).all(), "everybody's trace is changed"
        level, before = values.mean(axis=1), own.mean(axis=1)
        assert np.corrcoef(level, before)[0, 1] > 0.3, "and still says something about them"


def test_noise_is_new_in_every_run(persons: pd.DataFrame, tmp_path: Path) -> None:
    (_, first), (_, second) = (release_of("noise-traces", persons, tmp_path / name) for name in ("first", "second"))
    assert not first.equals(second)


def found(kit: str, release: pd.DataFrame, persons: pd.DataFrame, folder: Path) -> float:
    """The share of released persons whose trace the attack points at."""
    asked = named("p", of_day(persons[: RELEASED + STRANGERS], "earlier"))
    aux = named("a", persons[RELEASED + STRANGERS :])
    shown = release.sample(frac=1, random_state=4)
    guesses = start(kit, folder, "attack", release=shown, background=asked.sample(frac=1, random_state=3), aux=aux)
    assert list(guesses.columns) == ["row", "match"]
    assert sorted(guesses["row"]) == sorted(asked["row"])
    assert guesses["match"].dropna().isin(release["row"]).all()
    matches = guesses.set_index("row").loc[asked["row"][:RELEASED], "match"].to_numpy()
    return float((matches == release["row"].to_numpy()).mean())


@pytest.mark.parametrize(
    ("kit", "least", "most"), [("trace-random", 0, 0.1), ("trace-nearest", 0.3, 1), ("trace-aux", 0.4, 1)]
)
def test_attack_finds_people_in_traces_as_recorded(
    kit: str, least: float, most: float, persons: pd.DataFrame, tmp_path: Path
) -> None:
    traces, _made = release_of("identity-traces", persons, tmp_path / "release")
    assert least <= found(kit, traces, persons, tmp_path / "attack") <= most


@pytest.mark.parametrize("kit", ["trace-nearest", "trace-aux"])
@pytest.mark.parametrize(("defense", "most"), [("flat-traces", 0.1), ("smooth-traces", 0.4)])
def test_attack_bears_levelled_traces(
    kit: str, defense: str, most: float, persons: pd.DataFrame, tmp_path: Path
) -> None:
    _traces, made = release_of(defense, persons, tmp_path / "release")
    assert found(kit, made, persons, tmp_path / "attack") < most

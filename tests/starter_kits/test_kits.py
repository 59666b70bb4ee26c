"""Every starter kit does its steps on small invented patients: two classes, three, or a number to predict.

The kits' own code runs as a participant would start it: as a script, with nothing but the environment of the contract.
"""

import fcntl
import json
import os
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import docker
import numpy as np
import pandas as pd
import pytest

KITS = Path(__file__).parents[2] / "starter_kits"
PROGRAMS = dict.fromkeys(("majority", "random-forest", "logistic-regression", "over-trained", "dp-sgd"), "defense.py")
PROGRAMS |= dict.fromkeys(("random", "calibrated-loss", "lira", "rmia"), "attack.py")
LABELS = {"binary": ["no", "yes"], "multiclass": ["high", "low", "middle"], "regression": []}
MEMBERS, STRANGERS, AUX = 150, 150, 300


@dataclass(frozen=True)
class Patients:
    """Invented patients and their columns: numbers, a category, missing cells, and a column that never varies."""

    columns: list[dict[str, Any]]
    table: pd.DataFrame
    labels: list[str]

    @classmethod
    def invent(cls, kind: str) -> "Patients":
        random = np.random.default_rng(7)
        count = MEMBERS + STRANGERS + AUX
        age = random.integers(20, 81, count)
        weight = random.normal(80, 15, count).clip(40, 150).round(1)
        sex = random.choice(["female", "male"], count)
        risk = (age - 50) / 15 + (weight - 80) / 15 + (sex == "male") + random.normal(0, 1.5, count)
        table = pd.DataFrame({"age": age, "weight": weight, "sex": sex, "site": 1, "noise": random.normal(0, 1, count)})
        table.loc[random.random(count) < 0.2, "weight"] = np.nan
        table.loc[random.random(count) < 0.2, "sex"] = None
        levels = {
            "binary": np.where(risk > 1, "yes", "no"),
            "multiclass": np.select([risk < -0.5, risk > 1.5], ["low", "high"], "middle"),
            "regression": risk.round(2),
        }
        table["risk"] = levels[kind]
        target = {"type": "category", "categories": LABELS[kind]}
        if kind == "regression":
            target = {"type": "number", "minimum": -15.0, "maximum": 15.0, "decimals": 2}
        columns = [
            {"name": "age", "type": "integer", "minimum": 20, "maximum": 80, "role": "quasi-identifier"},
            {"name": "weight", "type": "number", "minimum": 40, "maximum": 150, "role": "feature", "missing": True},
            {"name": "sex", "type": "category", "categories": ["female", "male"], "role": "feature", "missing": True},
            {"name": "site", "type": "integer", "minimum": 1, "maximum": 1, "role": "feature"},
            {"name": "noise", "type": "number", "minimum": -6, "maximum": 6, "decimals": 4, "role": "feature"},
            {"name": "risk", "role": "target", **target},
        ]
        return cls(columns, table.assign(row=[f"r{number:04}" for number in range(count)]), LABELS[kind])

    @property
    def answer_columns(self) -> list[str]:
        return self.labels or ["prediction"]

    def prepare(self, folder: Path, step: str, **tables: pd.DataFrame) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        for name, table in tables.items():
            table.to_parquet(folder / f"{name}.parquet", index=False)
        files = {name: f"{name}.parquet" for name in tables}
        task = {
            "contract": "anomed/1",
            "step": step,
            "scenario": "model-membership",
            "challenge": "invented",
            "seed": 3,
        }
        task |= {"target": "risk", "columns": self.columns, "limits": {"cpus": 1}, "files": files}
        (folder / "task.json").write_text(json.dumps(task), encoding="utf-8")
        return folder


@pytest.fixture(scope="module", params=list(LABELS))
def patients(request: pytest.FixtureRequest) -> Patients:
    return Patients.invent(request.param)


def start(kit: str, step: str, inputs: Path, outputs: Path) -> None:
    outputs.mkdir()
    paths = {"ANOMED_STEP": step, "ANOMED_INPUT": str(inputs), "ANOMED_OUTPUT": str(outputs)}
    environment = os.environ | paths | {"PYTHONPATH": str(KITS / "base")}
    program = KITS / kit / PROGRAMS[kit]
    done = subprocess.run([sys.executable, program], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def train_and_ask(kit: str, patients: Patients, folder: Path, begin: Any = start) -> pd.DataFrame:
    """What the defense answers about everybody, after training on the first MEMBERS of them."""
    train = patients.table[:MEMBERS].drop(columns="row")
    begin(kit, "fit", patients.prepare(folder / "fit", "fit", train=train), folder / "fitted")
    inputs = patients.prepare(folder / "ask", "predict", queries=patients.table.drop(columns="risk"))
    (folder / "fitted" / "model").rename(inputs / "model")
    begin(kit, "predict", inputs, folder / "asked")
    answers = pd.read_parquet(folder / "asked" / "predictions.parquet")
    assert list(answers.columns) == ["row", *patients.answer_columns]
    assert sorted(answers["row"]) == sorted(patients.table["row"])
    return answers.set_index("row").loc[patients.table["row"]]


def quality(patients: Patients, answers: pd.DataFrame, rows: slice) -> float:
    """Share of right answers, or the correlation with the truth where that is a number."""
    truth = patients.table["risk"].to_numpy()[rows]
    if not patients.labels:
        return float(np.corrcoef(answers["prediction"].to_numpy()[rows], truth.astype(float))[0, 1])
    return float((answers.idxmax(axis=1).to_numpy()[rows] == truth).mean())


def check_answers(patients: Patients, answers: pd.DataFrame) -> None:
    assert np.isfinite(answers.to_numpy()).all()
    if patients.labels:
        assert (answers.to_numpy() >= 0).all()
        assert np.allclose(answers.sum(axis=1), 1, atol=1e-6)


def test_majority_answers_alike_whoever_is_asked_about(patients: Patients, tmp_path: Path) -> None:
    answers = train_and_ask("majority", patients, tmp_path)
    check_answers(patients, answers)
    assert (answers.nunique() == 1).all()


@pytest.fixture(scope="module")
def forest(patients: Patients, tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    """The answers of a forest that was trained on the members, as attacks may see them."""
    return train_and_ask("random-forest", patients, tmp_path_factory.mktemp("forest")).round(4)


def test_random_forest_knows_its_patients_by_heart(patients: Patients, forest: pd.DataFrame) -> None:
    check_answers(patients, forest)
    assert quality(patients, forest, slice(0, MEMBERS)) > 0.99
    assert quality(patients, forest, slice(MEMBERS, None)) < 0.9


def test_over_trained_network_knows_its_patients_by_heart(patients: Patients, tmp_path: Path) -> None:
    answers = train_and_ask("over-trained", patients, tmp_path)
    check_answers(patients, answers)
    assert quality(patients, answers, slice(0, MEMBERS)) > quality(patients, answers, slice(MEMBERS, None)) + 0.15


def test_logistic_regression_predicts_better_than_the_commonest_answer(patients: Patients, tmp_path: Path) -> None:
    answers = train_and_ask("logistic-regression", patients, tmp_path)
    check_answers(patients, answers)
    commonest = patients.table["risk"].value_counts(normalize=True).max()
    assert quality(patients, answers, slice(MEMBERS, None)) > commonest + 0.05


def duel(kit: str, patients: Patients, answered: pd.DataFrame, folder: Path, begin: Any = start) -> np.ndarray:
    """The attack's scores: members first, then as many strangers."""
    answers = answered.reset_index()
    candidates, aux = patients.table[: MEMBERS + STRANGERS], patients.table[-AUX:]
    shuffled = candidates.sample(frac=1, random_state=1)
    inputs = patients.prepare(
        folder / "duel",
        "attack",
        candidates=shuffled,
        answers=answers[answers["row"].isin(candidates["row"])],
        aux=aux,
        aux_answers=answers[answers["row"].isin(aux["row"])],
    )
    begin(kit, "attack", inputs, folder / "attacked")
    scores = pd.read_parquet(folder / "attacked" / "scores.parquet")
    assert list(scores.columns) == ["row", "score"]
    assert sorted(scores["row"]) == sorted(candidates["row"])
    return scores.set_index("row")["score"].loc[candidates["row"]].to_numpy()


def auc(scores: np.ndarray) -> float:
    members, strangers = scores[:MEMBERS, None], scores[None, MEMBERS:]
    return float((members > strangers).mean() + (members == strangers).mean() / 2)


@pytest.mark.parametrize("kit", ["calibrated-loss", "lira", "rmia"])
def test_attack_tells_members_of_a_forest_from_strangers(
    kit: str, patients: Patients, forest: pd.DataFrame, tmp_path: Path
) -> None:
    scores = duel(kit, patients, forest, tmp_path)
    assert np.isfinite(scores).all()
    assert auc(scores) > 0.8


def test_random_attack_is_no_better_than_chance(patients: Patients, forest: pd.DataFrame, tmp_path: Path) -> None:
    four_standard_errors = 4 / np.sqrt(6 * (MEMBERS + STRANGERS) / 2)  # of a Mann-Whitney statistic, equal groups
    assert abs(auc(duel("random", patients, forest, tmp_path)) - 0.5) < four_standard_errors


# A class so rare that a random part of the patients may well lack it.


def with_rare_class(ill: list[int]) -> Patients:
    """Patients of whom only those in the given rows are ill."""
    patients = Patients.invent("binary")
    rows = np.arange(len(patients.table))
    return replace(patients, table=patients.table.assign(risk=np.where(np.isin(rows, ill), "yes", "no")))


@pytest.mark.parametrize("in_aux", [0, 1, 4])
@pytest.mark.parametrize("kit", ["calibrated-loss", "lira", "rmia"])
def test_attack_bears_a_rare_class(kit: str, in_aux: int, tmp_path: Path) -> None:
    last = MEMBERS + STRANGERS + AUX
    patients = with_rare_class([1, 2, MEMBERS, MEMBERS + 1, *range(last - in_aux, last)])
    answers = train_and_ask("random-forest", patients, tmp_path).round(4)
    assert np.isfinite(duel(kit, patients, answers, tmp_path)).all()


@pytest.mark.parametrize("ill", [[1], [MEMBERS]], ids=["one ill patient", "nobody ill"])
@pytest.mark.parametrize("kit", ["majority", "random-forest", "logistic-regression", "over-trained"])
def test_defense_bears_a_rare_class(kit: str, ill: list[int], tmp_path: Path) -> None:
    patients = with_rare_class(ill)
    check_answers(patients, train_and_ask(kit, patients, tmp_path))


# From here on in containers, closed as in the arena.


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> None:
    """All kits as images; built when they are not up to date, by one test process at a time."""
    with (tmp_path_factory.getbasetemp().parent / "kits.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        subprocess.run([sys.executable, KITS / "build.py"], check=True)


def start_container(kit: str, step: str, inputs: Path, outputs: Path) -> None:
    outputs.mkdir()
    outputs.chmod(0o777)
    binds = {str(inputs): {"bind": "/input", "mode": "ro"}, str(outputs): {"bind": "/output", "mode": "rw"}}
    docker.from_env().containers.run(
        f"anomed/{kit}",
        environment={"ANOMED_STEP": step, "ANOMED_INPUT": "/input", "ANOMED_OUTPUT": "/output"},
        volumes=binds,
        network_mode="none",
        read_only=True,
        user="65534:65534",
        cap_drop=["ALL"],
        security_opt=["no-new-privileges:true"],
        pids_limit=256,
        mem_limit="2g",
        nano_cpus=10**9,
        tmpfs={"/tmp": "rw,noexec,nosuid,nodev,size=64m,mode=1777"},
        remove=True,
    )


@pytest.mark.timeout(900)
def test_dp_sgd_learns_in_its_container(images: None, patients: Patients, tmp_path: Path) -> None:
    answers = train_and_ask("dp-sgd", patients, tmp_path, start_container)
    check_answers(patients, answers)
    # So few patients allow for little at epsilon 2; more than nothing is enough here.
    assert answers.nunique().min() > 100


@pytest.mark.timeout(900)
def test_a_larger_epsilon_allows_for_more_in_its_container(images: None, tmp_path: Path) -> None:
    patients = Patients.invent("binary")
    found = {}
    for kit in ("dp-sgd-1", "dp-sgd-8"):
        answers = train_and_ask(kit, patients, tmp_path / kit, start_container)
        check_answers(patients, answers)
        found[kit] = answers
    assert not np.allclose(found["dp-sgd-1"], found["dp-sgd-8"])


@pytest.mark.timeout(900)
@pytest.mark.parametrize("kit", ["majority", "random-forest", "logistic-regression", "over-trained"])
def test_defense_runs_in_its_container(images: None, kit: str, tmp_path: Path) -> None:
    patients = Patients.invent("binary")
    check_answers(patients, train_and_ask(kit, patients, tmp_path, start_container))


@pytest.mark.timeout(900)
@pytest.mark.parametrize("kit", ["random", "calibrated-loss", "lira", "rmia"])
def test_attack_runs_in_its_container(images: None, kit: str, tmp_path: Path) -> None:
    patients = Patients.invent("binary")
    answers = train_and_ask("random-forest", patients, tmp_path, start_container)
    assert np.isfinite(duel(kit, patients, answers, tmp_path, start_container)).all()


@pytest.mark.timeout(900)
def test_kit_adds_only_its_code_to_the_base(images: None) -> None:
    engine = docker.from_env()
    layers = {name: engine.images.get(f"anomed/{name}").attrs["RootFS"]["Layers"] for name in ("base", "base-torch")}
    assert layers["base-torch"][: len(layers["base"])] == layers["base"]
    for kit in PROGRAMS:
        image = engine.images.get(f"anomed/{kit}")
        base = layers["base-torch" if kit == "dp-sgd" else "base"]
        assert image.attrs["RootFS"]["Layers"][:-1] == base
        assert image.history()[1 if "LABEL" in image.history()[0]["CreatedBy"] else 0]["Size"] < 100_000


def test_build_refuses_a_kit_that_does_not_exist() -> None:
    done = subprocess.run([sys.executable, KITS / "build.py", "nothing"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "no kit named nothing" in done.stderr

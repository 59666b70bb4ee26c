"""Published AnoMed images in the whole arena: uploaded through the client, run beside private data, scored.

Each image is built before; what they are worth and give away is compared with the same images called by hand.
"""

import io
import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from shutil import copytree
from typing import Any

import docker
import httpx
import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_breast_cancer
from sklearn.metrics import roc_auc_score

from tests.arena import ORGANISER, ROOT, Arena, patients, wait_for, write_challenge
from tests.web_images import build_app, build_kits, build_template

pytestmark = [pytest.mark.xdist_group("arena"), pytest.mark.timeout(900)]

KITS = ("web-anonymizer", "web-memoriser", "web-deanonymizer")
KITS += ("web-table-anonymizer", "web-table-identity", "web-table-deanonymizer", "calibrated-loss")
# Longer than gunicorn lets a worker think by default (30 s), and longer than a challenge allows.
LONG, LIMIT, TOO_LONG = 35, 60, 60
SHORT_LIMIT = 30
# More than the training data in rehearsals have: the fit is to be long beside private data only.
ROWS = 180


@pytest.fixture(scope="module")
def images() -> dict[str, str]:
    """The images' names by what they are."""
    build_kits(*KITS)
    return {
        "template": build_template(),
        "dishonest": build_app("dishonest"),
        "long": build_app("slow", "web-anonymizer", FIT_ROWS=ROWS, FIT_SECONDS=LONG),
        "too long": build_app("slow", "web-anonymizer", FIT_ROWS=ROWS, FIT_SECONDS=TOO_LONG),
        **{kit: f"anomed/{kit}" for kit in KITS},
    }


def registry(rows: int = 700) -> pd.DataFrame:
    """Invented patients who can be told apart by what others know of them, and two secrets."""
    random = np.random.default_rng(3)
    table = patients(rows)
    weight = random.normal(80, 15, rows).clip(40, 150).round(1)
    risk = (table["age"] - 50) / 10 + (weight - 80) / 10
    return pd.DataFrame(
        {
            "age": table["age"],
            "height": random.normal(172, 9, rows).round(1),
            "sex": table["sex"],
            "weight": weight,
            "hba1c": random.normal(5.7, 0.8, rows).round(1).clip(4, 12),
            **{name: random.normal(100, 15, rows).round(1) for name in ("pulse", "lipids", "iron", "sodium")},
            "high_pressure": np.where(risk + random.normal(0, 1, rows) > 0, "yes", "no"),
        }
    )


def publish(running: Arena) -> None:
    """Four challenges: breast cancer (scikit-learn's), NHANES, a small clinic with a short limit, and a table's."""
    limits = {"seconds": LIMIT, "memory_mb": 1024, "cpus": 1, "gpus": 0, "output_mb": 64, "pids": 256}
    cancer = load_breast_cancer(as_frame=True).frame
    data = {"file": "data.csv", "target": "target"}
    folders = [write_challenge(running.var / "cancer", cancer, slug="breast-cancer", data=data, limits=limits)]
    folders += [write_challenge(running.var / "clinic", patients(800), limits={**limits, "seconds": SHORT_LIMIT})]
    folders += [
        write_challenge(
            running.var / "registry",
            registry(),
            **{
                "slug": "registry",
                "scenario": "table-reconstruction",
                "limits": limits,
                "constants": {"reference_leak": 0.2, "utility_threshold": 0.5, "revealed": 0.0},
                "data": {"file": "data.csv", "target": "high_pressure"},
                "data.roles": {
                    **dict.fromkeys(("age", "height", "sex"), "quasi-identifier"),
                    **dict.fromkeys(("weight", "hba1c"), "secret"),
                },
            },
        )
    ]
    nhanes = Path(copytree(ROOT / "challenges" / "bundled" / "nhanes-diabetes", running.var / "nhanes"))
    text = (nhanes / "challenge.toml").read_text()
    (nhanes / "challenge.toml").write_text(re.sub(r"^daily = 3", "daily = 30", text, flags=re.MULTILINE))
    for folder in [*folders, nhanes]:
        running.manage("challenge_import", str(folder), "--organiser", ORGANISER, "--publish")


@pytest.fixture(scope="module")
def arena(images: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Arena]:
    """Bases are registered: the one in which the gateway runs, and the one of the kits."""
    running = Arena(var=tmp_path_factory.mktemp("arena"), settings={"ANOMED_RUN_SLOTS": "4"})
    running.start()
    try:
        publish(running)
        for base in ("anomed/base", "anomed/base-web"):
            running.manage("base_image_add", str(saved(base, running.var)), base)
        yield running
    finally:
        running.stop()
        if leftover := running.containers():
            pytest.fail(f"Containers were left over: {leftover}")


def saved(image: str, folder: Path) -> Path:
    """The archive that `docker save` makes."""
    path = folder / f"{image.replace('/', '-')}.tar"
    if not path.exists():
        subprocess.run(["docker", "save", "--output", str(path), image], check=True)
    return path


# Who enters what, in which challenge, in which team: uploaded as the archive that `docker save` makes.
ENTRIES = [
    ("breast-cancer", "--defense", "web-anonymizer", "Dora"),
    ("breast-cancer", "--defense", "template", "Dora"),
    ("breast-cancer", "--attack", "web-deanonymizer", "Axel"),
    ("breast-cancer", "--attack", "dishonest", "Axel"),
    ("nhanes-diabetes", "--defense", "web-anonymizer", "Dora"),
    ("nhanes-diabetes", "--defense", "web-memoriser", "Dora"),
    ("nhanes-diabetes", "--attack", "web-deanonymizer", "Axel"),
    ("nhanes-diabetes", "--attack", "calibrated-loss", "Axel"),
    ("registry", "--defense", "web-table-anonymizer", "Dora"),
    ("registry", "--defense", "web-table-identity", "Dora"),
    ("registry", "--attack", "web-table-deanonymizer", "Axel"),
    ("clinic", "--defense", "too long", "Dora"),
    ("breast-cancer", "--defense", "long", "Lars"),
]
OVER = ("scored", "failed")


@pytest.fixture(scope="module")
def entries(arena: Arena, images: dict[str, str]) -> dict[tuple[str, str], dict[str, Any]]:
    """All entries at the end of all their duels, as the API tells their teams, by challenge and image."""
    for team in ("Dora", "Axel", "Lars"):
        arena.sign_up(mail(team)).close()
        arena.token(mail(team))
        for challenge in dict.fromkeys(slug for slug, _, _, who in ENTRIES if who == team):
            arena.anomed(mail(team), "join", challenge, "--team", f"Team {team}", "--accept-rules")
    ids = {}
    for challenge, kind, name, team in ENTRIES:
        contract = ["--contract", "web/1"] if name == "template" else []
        archive = str(saved(images[name], arena.var))
        said = arena.anomed(mail(team), "submit", challenge, kind, archive, "--name", name, "--json", *contract)
        ids[challenge, name] = (mail(team), json.loads(said.splitlines()[-1])["id"])

    def told() -> dict[tuple[str, str], dict[str, Any]]:
        return {key: arena.api(email, f"submissions/{entry}") for key, (email, entry) in ids.items()}

    def finished() -> Any:
        seen = told()
        duels = sum(entry["duels"]["total"] - entry["duels"]["done"] for entry in seen.values())
        return seen if duels == 0 and all(entry["state"] in OVER for entry in seen.values()) else None

    return dict(wait_for(finished, seconds=600, what="all entries are over"))


def mail(team: str) -> str:
    return f"{team.lower()}@uni.example.org"


Entries = dict[tuple[str, str], dict[str, Any]]


def leak(arena: Arena, entries: Entries, challenge: str, defense: str, attack: str) -> Any:
    """What a duel showed in detail."""
    query = (
        "select d.state, d.detail from submissions_duel d join submissions_release r on r.id = d.release_id "
        "where replace(d.attack_id, '-', '') = ? and replace(r.submission_id, '-', '') = ?"
    )
    ids = [entries[challenge, name]["id"].replace("-", "") for name in (attack, defense)]
    [(state, detail)] = arena.query(query, *ids)
    assert state == "done"
    return json.loads(detail)


def test_all_are_scored_but_the_one_that_takes_too_long(arena: Arena, entries: Entries) -> None:
    states = {key: (entry["state"], entry["failure"]) for key, entry in entries.items()}
    late = states.pop(("clinic", "too long"))
    assert {state for state, _ in states.values()} == {"scored"}, states
    assert (late[0], late[1]["reason"]) == ("failed", "timeout")


def test_a_fit_of_half_a_minute_is_no_trouble(entries: Entries) -> None:
    assert entries["breast-cancer", "long"]["score"]["utility"] > 0.5


def test_of_a_fit_that_took_too_long_nothing_runs_on(arena: Arena, entries: Entries) -> None:
    [(run, seconds)] = arena.query("select id, seconds from sandbox_run where reason = 'timeout'")
    assert SHORT_LIMIT <= seconds < SHORT_LIMIT + 20
    run = f"{run[:8]}-{run[8:12]}-{run[12:16]}-{run[16:20]}-{run[20:]}" if "-" not in run else run
    assert docker.from_env().containers.list(all=True, filters={"label": f"anomed.run={run}"}) == []
    assert arena.query("select count(*) from sandbox_slot where run_id is not null") == [(0,)]


@pytest.mark.parametrize(
    ("challenge", "name"),
    [("breast-cancer", "web-anonymizer"), ("breast-cancer", "template"), ("nhanes-diabetes", "web-anonymizer")],
)
def test_utility_is_what_the_same_model_scores_by_hand(
    arena: Arena, images: dict[str, str], entries: Entries, challenge: str, name: str
) -> None:
    """The fitted model is asked about the test rows over plain HTTP; its answers, rounded as attacks see them."""
    entry = entries[challenge, name]["id"]
    folder = arena.var / f"by-hand-{challenge}-{name}"
    folder.mkdir()
    arena.manage("shell", "--command", TEST_ROWS.format(entry=entry, folder=folder))
    with np.load(folder / "test.npz") as held:
        asked, truth = held["X"], held["y"]
    said = ask_by_hand(images[name], folder / "model", asked)
    predicted = said[:, 1].astype(float).round(4) if said.ndim == 2 else said
    [(utility,)] = arena.query(
        "select utility from submissions_release where replace(submission_id, '-', '') = ?", entry.replace("-", "")
    )
    assert utility == pytest.approx(roc_auc_score(truth, predicted), abs=1e-12)  # sums in another order
    assert entries[challenge, name]["score"]["utility"] > 0.5


# What the platform knows and nobody else: the test rows of a defense's deal, and the folder that its fit left.
TEST_ROWS = """
import numpy as np, shutil
from challenges.scenarios import web
from challenges.scenarios.containers import people
from submissions import scoring
from submissions.models import Step
step = Step.objects.get(submission="{entry}", name="predict", phase__isnull=False)
board = scoring.board_of(step)
schema = board.game.schema
rows = people(board, board.deal.test, schema.shared)
np.savez("{folder}/test.npz", X=web.inputs(rows, schema), y=web.targets(rows, schema))
shutil.copytree(board.previous / "model", "{folder}/model")
"""


def ask_by_hand(image: str, model: Path, rows: Any) -> Any:
    """The array `prediction` of POST /predict, from an open container with this fitted model."""
    engine = docker.from_env()
    subprocess.run(["chmod", "-R", "a+rwX", str(model)], check=True)
    made = engine.containers.run(
        image,
        detach=True,
        environment={"CHALLENGE_HOST": "nobody"},
        volumes={str(model): {"bind": "/persistent_data"}},
        tmpfs={"/etc/nginx/sites-enabled": ""},  # else nginx's welcome page hides the template's server
    )
    try:
        made.reload()
        url = f"http://{made.attrs['NetworkSettings']['Networks']['bridge']['IPAddress']}"
        wait_for(lambda: alive(url), seconds=60, what=f"{image} answers")
        body = io.BytesIO()
        np.savez_compressed(body, X=rows)
        answer = httpx.post(f"{url}/predict", content=body.getvalue(), timeout=60)
        assert answer.status_code == 201, answer.text
        with np.load(io.BytesIO(answer.content)) as held:
            return held["prediction"]
    finally:
        made.remove(force=True)


def alive(url: str) -> bool:
    try:
        return "alive" in httpx.get(url, timeout=5).json()["message"]
    except (httpx.HTTPError, ValueError):
        return False


@pytest.mark.parametrize("attack", ["web-deanonymizer", "calibrated-loss"])
def test_a_memoriser_leaks_and_noise_does_not_by_web_and_by_file(arena: Arena, entries: Entries, attack: str) -> None:
    by_heart = leak(arena, entries, "nhanes-diabetes", "web-memoriser", attack)
    noisy = leak(arena, entries, "nhanes-diabetes", "web-anonymizer", attack)
    assert by_heart["auc"] > 0.95
    assert 0.4 < noisy["auc"] < 0.6


def test_means_of_five_hide_whom_the_table_as_it_is_shows(arena: Arena, entries: Entries) -> None:
    shown = leak(arena, entries, "registry", "web-table-identity", "web-table-deanonymizer")
    hidden = leak(arena, entries, "registry", "web-table-anonymizer", "web-table-deanonymizer")
    assert min(detail["value"] for detail in shown.values()) > 0.9
    assert max(detail["value"] for detail in hidden.values()) < 0.3  # about 0, with a standard error of 0.08


TOPICS = ["training data", "leaky table", "role of an anonymizer", "role of the platform", "file", "folder", "host"]
TOPICS += ["another container", "internet", "another identifier", "another split", "a score of its own"]
TOPICS += ["its result from the answer", "a second validation"]


def test_a_dishonest_attack_gets_nothing_and_its_log_says_so(arena: Arena, entries: Entries) -> None:
    """Its verdicts are read off the names, as the published package's own draw would let it: they are chance."""
    rows = arena.query(
        "select r.id from sandbox_run r join submissions_step s on s.run_id = r.id "
        "where replace(s.submission_id, '-', '') = ? and s.duel_id is not null",
        entries["breast-cancer", "dishonest"]["id"].replace("-", ""),
    )
    assert len(rows) >= 2
    for (run,) in rows:
        name = run if "-" in run else f"{run[:8]}-{run[8:12]}-{run[12:16]}-{run[16:20]}-{run[20:]}"
        log = (arena.var / "private" / "runs" / name / "log.txt").read_text()
        tried = dict(re.findall(r"^TRIED (.+?): (.+)$", log, re.MULTILINE))
        assert {topic for topic in TOPICS if any(what.startswith(topic) for what in tried)} == set(TOPICS), log
        assert {what: outcome for what, outcome in tried.items() if not outcome.startswith("refused")} == {}
    for defense in ("web-anonymizer", "template"):
        assert abs(leak(arena, entries, "breast-cancer", defense, "dishonest")["auc"] - 0.5) < 0.2
    # Nobody else may read that log.
    answer = httpx.get(
        f"{arena.url}/api/v1/submissions/{entries['breast-cancer', 'dishonest']['id']}/log",
        headers={"Authorization": f"Token {arena.token(mail('Dora'))}"},
    )
    assert answer.status_code == 404


def test_layers_of_the_base_are_sent_and_kept_once(arena: Arena, images: dict[str, str], entries: Entries) -> None:
    """What the arena stores of a kit is its own layer; the engine shares the rest with the base."""
    engine = docker.from_env()
    base = engine.images.get("anomed/base-web").attrs["RootFS"]["Layers"]
    assert engine.images.get(images["web-memoriser"]).attrs["RootFS"]["Layers"][: len(base)] == base
    stored = sum(path.stat().st_size for path in (arena.var / "private").rglob("*") if path.is_file())
    sizes = [engine.images.get(image).attrs["Size"] for image in images.values()]
    assert stored < sum(sizes) / 2

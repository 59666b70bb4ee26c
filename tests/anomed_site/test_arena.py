"""The whole arena at work: real site, workers, containers and browser. Slow, and the reason to trust the rest."""

import contextlib
import io
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import SkipTest
from urllib.parse import urldefrag, urljoin

import httpx
import hypothesis
import pandas as pd
import pytest
import schemathesis
from anomed import archives, images
from playwright.sync_api import Browser
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from sklearn.datasets import load_breast_cancer

from tests.arena import LEASE_SECONDS, ORGANISER, PASSWORD, ROOT, Arena, build, patients, wait_for, write_challenge

pytestmark = pytest.mark.xdist_group("arena")

# A value that a real table would not hold twice, in the middle of a column's range.
CANARY_NUMBER = 103.9173

# A defense that tries to tell its team what it read: in its log, its errors, its model and the names of its columns.
NOSY = """
import sys
from anomed_task import INPUT, OUTPUT, run

def fit(task):
    train = task.table("train")
    for stream in (sys.stdout, sys.stderr):
        print(train.to_csv(), file=stream)
    (OUTPUT / "model").mkdir()
    (OUTPUT / "model" / "train.csv").write_text(train.to_csv())

def predict(task):
    stolen = (INPUT / "model" / "train.csv").read_text()
    private = "103.9173" in stolen
    print(stolen)
    queries = task.table("queries")
    answers = queries[["row"]].assign(no=0.5, yes=0.5)
    if private:
        answers = answers.assign(**{f"stolen 103.9173 {number}": 1.0 for number in range(3)})
    answers.to_csv(OUTPUT / "predictions.csv", index=False)

run(fit=fit, predict=predict)
"""

# An attack that takes a while, so that its worker can be killed in the middle.
SLOW = """
import time
from anomed_task import run

def attack(task):
    time.sleep(3)
    candidates = task.table("candidates")
    task.save("scores", candidates[["row"]].assign(score=0.0))

run(attack=attack)
"""


@pytest.fixture(scope="module")
def arena(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Arena]:
    """A published challenge `clinic`, whose private table holds canaries; the base image is registered."""
    running = Arena(var=tmp_path_factory.mktemp("arena"))
    running.start()
    try:
        table = patients(800)
        table.loc[::40, "glucose"] = CANARY_NUMBER
        folder = write_challenge(running.var / "clinic", table)
        running.manage("challenge_import", str(folder), "--organiser", ORGANISER, "--publish")
        archive = running.var / "base.tar"
        subprocess.run(["docker", "save", "--output", str(archive), "anomed/base"], check=True)
        running.manage("base_image_add", str(archive), "anomed/base")
        archive.unlink()
        yield running
    finally:
        running.stop()
        if leftover := running.containers():
            pytest.fail(f"Containers were left over: {leftover}")


def join(arena: Arena, email: str, team: str) -> None:
    arena.sign_up(email).close()
    arena.anomed(email, "join", "clinic", "--team", team, "--accept-rules")


@pytest.mark.browser
def test_a_newcomer_signs_up_joins_uploads_and_watches_the_board(arena: Arena, browser: Browser) -> None:
    arena.anomed(ORGANISER, "submit", "clinic", "--attack", "anomed/random", "--as", "baseline", "--wait")
    archive = thin_archive(arena, "anomed/logistic-regression")
    page, watcher = (browser.new_context(viewport={"width": 1280, "height": 900}).new_page() for _ in range(2))
    problems: list[str] = []
    page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)

    page.goto(f"{arena.url}/accounts/signup/")
    page.fill("input[name=email]", "nora@uni.example.org")
    page.fill("input[name=password1]", PASSWORD)
    page.fill("input[name=password2]", PASSWORD)
    page.click("main button[type=submit]")
    page.goto(f"{arena.url}/challenges/clinic/join/")
    page.fill("input[name=team]", "Team Nora")
    page.check("input[type=checkbox]")
    page.click("main form button")

    watcher.goto(f"{arena.url}/challenges/clinic/boards/")
    assert "Team Nora" not in watcher.inner_text("main")

    page.goto(f"{arena.url}/challenges/clinic/submit/")
    page.check("input[name=kind][value=defense]")
    page.set_input_files("input[type=file]", str(archive))
    page.click("[data-upload-start]")
    page.wait_for_url(re.compile(r"/submissions/[0-9a-f-]{36}/"), timeout=60_000)
    page.get_by_role("link", name="See the boards").wait_for(timeout=120_000)  # no reload: the timeline is live
    watcher.locator("main").get_by_text("Team Nora").first.wait_for(timeout=30_000)
    assert problems == []


def thin_archive(arena: Arena, image: str) -> Path:
    """The archive of an image without the base's layers, made by the client as it does before an upload."""
    bases = httpx.get(f"{arena.url}/api/v1/base-images", timeout=30).json()
    layers = frozenset(layer for base in bases for layer in base["layers"])
    with images.saved(images.find(image)) as stream:
        made = archives.thin_stream(stream, layers)
    path = arena.var / f"{image.replace('/', '-')}.tar"
    with made.file, path.open("wb") as target:
        made.file.seek(0)
        shutil.copyfileobj(made.file, target)
    return path


@pytest.mark.browser
def test_an_organiser_publishes_a_csv_and_a_kit_runs_in_it(arena: Arena, browser: Browser) -> None:
    """scikit-learn's breast cancer set, by an organiser who knows only the admin; then an unchanged starter kit."""
    csv = arena.var / "wdbc.csv"
    load_breast_cancer(as_frame=True).frame.to_csv(csv, index=False)
    page = browser.new_context(viewport={"width": 1280, "height": 900}, locale="en").new_page()
    page.goto(f"{arena.url}/admin/challenges/challenge/add/")
    page.fill("input[name=login]", ORGANISER)
    page.fill("input[name=password]", PASSWORD)
    page.click("main button[type=submit]")
    page.fill("#id_title", "Breast cancer")
    page.fill("#id_summary", "Who was in the training data of a tumour model?")
    page.select_option("#id_scenario", "model-membership")
    page.click("input[name=_save]")
    page.wait_for_url("**/data/")
    page.set_input_files("input[type=file]", str(csv))
    page.fill("[name=target]", "target")
    page.click("input[value=Upload]")
    assert "569 records" in page.inner_text("#content")
    page.goto(page.url.replace("/data/", "/check/"))
    page.click("input[value='Run the check']")
    page.get_by_text("Passed").first.wait_for(timeout=120_000)  # the page refreshes itself
    assert "Too few records for firm conclusions" in page.inner_text("#content")
    page.goto(page.url.replace("/check/", "/publish/"))
    page.click("#content input[type=submit]")
    page.get_by_text("The challenge is published.").wait_for()

    arena.sign_up("bob@uni.example.org").close()
    arena.anomed("bob@uni.example.org", "join", "breast-cancer", "--team", "Team Bob", "--accept-rules")
    shown = arena.anomed(
        "bob@uni.example.org", "submit", "breast-cancer", "--defense", "anomed/logistic-regression", "--wait"
    )
    assert "scored" in shown
    board = arena.api("bob@uni.example.org", "challenges/breast-cancer/boards")
    assert board["defenses"][0]["utility"] > 0.5


def test_a_defense_that_talks_is_heard_by_nobody(arena: Arena) -> None:
    join(arena, "eve@uni.example.org", "Team Eve")
    build(arena.var / "nosy", "anomed-test/nosy", NOSY)
    arena.anomed("eve@uni.example.org", "submit", "clinic", "--defense", "anomed-test/nosy", "--wait", status=1)

    entry = arena.api("eve@uni.example.org", "challenges/clinic/submissions")["results"][0]
    assert entry["failure"]["reason"] != "rehearsal_failed", entry["failure"]
    assert (entry["state"], entry["failure"]["reason"]) == ("failed", "output_invalid")
    raw_logs = b"".join(path.read_bytes() for path in (arena.var / "private" / "runs").glob("*/log.txt"))
    assert str(CANARY_NUMBER).encode() in raw_logs, "the container never saw a canary: this test would prove nothing"

    seen = dict(_everything_reachable(arena, "eve@uni.example.org"))
    assert f"/submissions/{entry['id']}/" in " ".join(seen), "the crawl has missed the entry's own page"
    for path, text in seen.items():
        assert "canary-" not in text, path
        assert str(CANARY_NUMBER) not in text, path
    sample = pd.read_parquet(io.BytesIO(httpx.get(f"{arena.url}/api/v1/challenges/clinic/sample").content))
    assert CANARY_NUMBER not in set(sample["glucose"])
    for path in (arena.var / "logs").iterdir():
        assert str(CANARY_NUMBER) not in path.read_text(), path


def _everything_reachable(arena: Arena, email: str) -> Iterator[tuple[str, str]]:
    """Every page and API answer that a signed-in participant comes to by following links, and what they can guess."""
    session = httpx.Client(base_url=arena.url, timeout=60, headers={"Origin": arena.url})
    session.get("/accounts/login/")
    form = {"login": email, "password": PASSWORD, "csrfmiddlewaretoken": session.cookies["csrftoken"]}
    assert session.post("/accounts/login/", data=form).status_code == 302
    ids = [row[0] for row in arena.query("select id from submissions_submission")]
    runs = [row[0] for row in arena.query("select id from sandbox_run")]
    api = ["me", "challenges", "challenges/clinic", "base-images", "schema"]
    api += [f"challenges/clinic/{name}" for name in ("boards", "matrix", "submissions", "sample")]
    api += [f"submissions/{one}{tail}" for one in ids for tail in ("", "/log")]
    todo = {"/", *(f"/api/v1/{path}" for path in api), *(f"/submissions/{one}/log/" for one in ids)}
    todo |= {f"/submissions/{one}/log/?run={run}" for one in ids for run in runs}
    todo |= {f"/private/runs/{run}/log.txt" for run in runs} | {
        f"/static/../private/runs/{run}/log.txt" for run in runs
    }
    done: set[str] = set()
    while todo:
        path = todo.pop()
        done.add(path)
        if path.startswith(("/accounts/logout", "/live/", "/static/vendor/")):
            continue
        answer = session.get(path)
        yield path, answer.text
        if "html" in answer.headers.get("content-type", ""):
            links = (urldefrag(urljoin(path, link))[0] for link in re.findall(r'(?:href|src)="([^"]+)"', answer.text))
            todo |= {link for link in links if link.startswith("/") and link not in done}


def test_killing_workers_loses_nothing(arena: Arena) -> None:
    join(arena, "ken@uni.example.org", "Team Ken")
    join(arena, "kim@uni.example.org", "Team Kim")
    build(arena.var / "slow", "anomed-test/slow", SLOW)
    arena.anomed("ken@uni.example.org", "submit", "clinic", "--defense", "anomed/majority", "--wait")
    for _ in range(2):
        arena.anomed("kim@uni.example.org", "submit", "clinic", "--attack", "anomed-test/slow")
    killed = 0
    under_way = (
        "select r.worker from sandbox_run r where r.state = 'running' and r.private and r.started_at is not null"
    )
    while killed < 2:
        wait_for(lambda: arena.query(under_way), seconds=90, what="an attack runs on private data")
        victims = _busy_workers(arena)
        for pid in victims:
            os.kill(pid, signal.SIGKILL)
        killed += len(victims)

    mine = "select id from submissions_submission where name = 'slow'"
    done = f"select count(*) from submissions_duel where state = 'done' and attack_id in ({mine})"
    pending = "select count(*) from submissions_duel where state = 'pending'"
    alive = "select count(*) from submissions_submission where state not in ('scored', 'failed')"
    wait_for(
        lambda: arena.query(pending)[0][0] == 0 and arena.query(alive)[0][0] == 0,
        seconds=60 + 10 * LEASE_SECONDS,
        what="every duel is over",
    )
    defenses = arena.query(
        "select count(*) from submissions_release r join submissions_submission s on s.id = r.submission_id "
        "join challenges_challenge c on c.id = s.challenge_id where c.slug = 'clinic'"
    )[0][0]
    assert arena.query(done)[0][0] == 2 * defenses
    assert arena.query(
        "select max(n) from (select count(*) n from submissions_duel group by attack_id, release_id)"
    ) == [(1,)]
    assert arena.query("select count(*) from sandbox_run where attempt > 1")[0][0] >= 1
    busy = "select count(*) from sandbox_slot where run_id is not null"
    assert arena.query(busy)[0][0] == 0


def _busy_workers(arena: Arena) -> list[int]:
    """Worker processes that hold a run now, by the process id in the run's worker name."""
    rows = arena.query("select worker from sandbox_run where state = 'running' and private")
    named = {int(number) for (worker,) in rows for number in re.findall(r"\d+", worker)}
    return [pid for pid in arena.workers() if pid in named]


@pytest.fixture(scope="module")
def api_schema(arena: Arena) -> Any:
    """The API's own description of itself, with the headers of a participant who has joined."""
    join(arena, "fuzz@uni.example.org", "Team Fuzz")
    return schemathesis.openapi.from_url(f"{arena.url}/api/v1/schema?format=json")


@pytest.fixture(scope="module")
def fuzz_token(arena: Arena) -> str:
    return arena.token("fuzz@uni.example.org")


@schemathesis.serializer("application/offset+octet-stream")
def as_they_are(_context: Any, value: Any) -> bytes:
    """How made-up bytes of an upload travel."""
    return value if isinstance(value, bytes) else str(value).encode()


def test_whatever_is_sent_the_api_does_not_break(api_schema: Any, fuzz_token: str) -> None:
    """Every operation with data made from its own description, and with data that break it."""
    tried = 0
    for found in api_schema.get_all_operations():
        operation = found.ok()
        if (operation.method, operation.path) == ("delete", "/api/v1/token"):
            continue  # it would give the token of the other examples back
        for mode in GenerationMode:
            tried += _fuzz(operation, mode, fuzz_token)
    assert tried > 200


def _fuzz(operation: Any, mode: Any, token: str) -> int:
    tried = 0

    @hypothesis.settings(max_examples=12, deadline=None, database=None, suppress_health_check=[*hypothesis.HealthCheck])
    @hypothesis.given(case=operation.as_strategy(generation_mode=mode))
    def send(case: Any) -> None:
        nonlocal tried
        case.call_and_validate(checks=[not_a_server_error], headers={"Authorization": f"Token {token}"})
        tried += 1

    with contextlib.suppress(hypothesis.errors.Unsatisfiable, SkipTest):  # nothing can be broken in this way
        send()
    return tried


def test_the_deploy_check_is_clean(arena: Arena) -> None:
    settings = {"ANOMED_SITE_URL": "https://arena.example.org", "EMAIL_URL": "smtp://localhost:25"}
    command = [sys.executable, "manage.py", "check", "--deploy", "--fail-level", "WARNING"]
    done = subprocess.run(command, cwd=ROOT, env={**arena.environment, **settings}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr

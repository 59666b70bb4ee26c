"""Entering, resuming and following a submission, with connections that break."""

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Arena = Any  # the fixtures' class stands in conftest.py
Anomed = Any
MIB = 1 << 20


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """A file of 3.5 MiB; sent with --full, so it need not be an image."""
    path = tmp_path / "kit.tar"
    path.write_bytes(os.urandom(3 * MIB + MIB // 2))
    return path


def received(arena: Arena) -> bytes:
    (content,) = arena.received.values()
    return bytes(content)


def test_submit_an_archive(signed_in: Arena, anomed: Anomed, archive: Path) -> None:
    done = anomed(
        "submit", "demo", "--defense", archive, "-m", "first try", "--name", "Ours", "--full", "--chunk", 1, "--wait"
    )
    assert done.returncode == 0, done.stderr
    assert received(signed_in) == archive.read_bytes()
    assert [call[0] for call in signed_in.calls if call[1].startswith("uploads/")] == ["HEAD"] + ["PATCH"] * 4
    (submission,) = signed_in.submissions.values()
    assert (submission["kind"], submission["name"], submission["note"]) == ("defense", "Ours", "first try")
    assert "scored: utility 0.75, privacy 0.50, score 0.60, rank 2" in done.stdout
    assert "\x1b" not in done.stdout + done.stderr


def test_submit_an_image_as_an_organiser(
    signed_in: Arena, anomed: Anomed, docker_images: dict[str, str], base_layers: list[str]
) -> None:
    signed_in.base_layers = base_layers
    done = anomed("submit", "demo", "--attack", docker_images["kit"], "--as", "baseline")
    assert done.returncode == 0, done.stderr
    assert "of base layers are on the server already" in done.stdout
    (submission,) = signed_in.submissions.values()
    assert (submission["kind"], submission["role"]) == ("attack", "baseline")
    assert submission["name"].startswith("anomed-client-test-")
    assert submission["name"].endswith("-kit.tar")
    assert len(received(signed_in)) == submission["upload"]["size"] < 50_000


def test_full_sends_every_layer(
    signed_in: Arena, anomed: Anomed, docker_images: dict[str, str], base_layers: list[str]
) -> None:
    signed_in.base_layers = base_layers
    assert anomed("submit", "demo", "--defense", docker_images["kit"], "--full").returncode == 0
    assert len(received(signed_in)) > 300_000


def test_broken_connections_are_survived(signed_in: Arena, anomed: Anomed, archive: Path) -> None:
    signed_in.cuts = [700_000, 0, 100_000, MIB]
    done = anomed("submit", "demo", "--defense", archive, "--full", "--chunk", 1)
    assert done.returncode == 0, done.stderr
    assert received(signed_in) == archive.read_bytes()


def test_a_line_that_stays_dead_tells_how_to_resume(
    signed_in: Arena, anomed: Anomed, archive: Path, monkeypatch: pytest.MonkeyPatch, home: Path
) -> None:
    from anomed import uploads
    from anomed.api import Api
    from anomed.problems import Unreachable

    monkeypatch.setattr(uploads, "FIRST_PAUSE", 0.001)
    submission = signed_in.enter(
        {"kind": "defense", "note": "", "file_name": "kit.tar", "size": archive.stat().st_size}, "demo"
    )
    signed_in.cuts = [MIB] + [0] * 100
    seen: list[int] = []
    with Api(signed_in.url) as api, archive.open("rb") as file, pytest.raises(Unreachable, match=f"after {MIB} bytes"):
        uploads.send(api, submission["upload"]["url"], file, archive.stat().st_size, seen=seen.append, tries=4)
    assert 100 - len(signed_in.cuts) == 5


def test_ctrl_c_then_resume(
    signed_in: Arena, anomed: Anomed, docker_images: dict[str, str], base_layers: list[str], tmp_path: Path
) -> None:
    """The image is saved and thinned again, and only what is missing travels."""
    signed_in.hold = 1
    command = [sys.executable, "-m", "anomed", "submit", "demo", "--defense", docker_images["kit"], "--chunk", "1"]
    signed_in.base_layers = base_layers
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as process:
        wait_for(lambda: any(signed_in.received.values()))
        process.send_signal(signal.SIGINT)
        _, complaint = process.communicate(timeout=30)
    (id,) = signed_in.submissions
    assert process.returncode == 130
    assert complaint == f"Stopped. Go on with: anomed submit --resume {id}\n"

    whole = bytes(signed_in.received[id])
    del signed_in.received[id][len(whole) // 2 :]  # as if the line had broken halfway
    signed_in.hold = None
    signed_in.base_layers = []  # the server's list may change in between: the note knows what was left out
    done = anomed("submit", "--resume", id, "--wait")
    assert done.returncode == 0, done.stderr
    assert hashlib.sha256(received(signed_in)).digest() == hashlib.sha256(whole).digest()
    assert "no unfinished upload" in anomed("submit", "--resume", id).stderr


def test_resume_refuses_a_file_that_changed(signed_in: Arena, anomed: Anomed, archive: Path) -> None:
    signed_in.upload_url = "https://evil.example/uploads/{id}"
    done = anomed("submit", "demo", "--defense", archive, "--full")
    assert done.returncode == 2
    assert "Your token stays here" in done.stderr
    archive.write_bytes(b"another")
    (id,) = signed_in.submissions
    done = anomed("submit", "--resume", id)
    assert done.returncode == 2
    assert "is not what it was" in done.stderr
    assert not received(signed_in)


def test_not_joined(signed_in: Arena, anomed: Anomed, archive: Path) -> None:
    done = anomed("submit", "second", "--defense", archive, "--full")
    assert done.returncode == 2
    assert "anomed join second" in done.stderr


def test_over_quota(signed_in: Arena, anomed: Anomed, archive: Path, home: Path) -> None:
    error = {
        "type": "client_error",
        "errors": [{"code": "quota", "detail": "Your team has used its 5 entries of today.", "attr": None}],
    }
    signed_in.answers = [(200, {"slug": "demo", "joined": True}), (403, error)]
    done = anomed("submit", "demo", "--defense", archive, "--full")
    assert (done.returncode, done.stderr) == (2, "Your team has used its 5 entries of today.\n")
    assert not list(home.glob("uploads/*"))


def test_no_such_file_or_image(signed_in: Arena, anomed: Anomed, tmp_path: Path) -> None:
    (tmp_path / "note.tar").write_bytes(b"no tar")
    for source, sentence in {
        "./absent.tar": "There is no file ./absent.tar.",
        "anomed-client-test-absent": "neither a file nor an image named",
        "note.tar": "no image archive",
    }.items():
        done = anomed("submit", "demo", "--defense", source)
        assert done.returncode == 2
        assert sentence in done.stderr
    assert not signed_in.submissions


REHEARSED = {"step": "fit", "rehearsal": True, "state": "succeeded", "seconds": 2.4}
STORY: list[dict[str, Any]] = [
    {"state": "checking"},
    {"state": "rehearsing", "steps": [REHEARSED | {"state": "running", "seconds": None}]},
    {"state": "running", "steps": [REHEARSED], "duels": {"done": 1, "total": 3}},
    {"state": "running", "duels": {"done": 1, "total": 3}},
    {"state": "scored", "duels": {"done": 3, "total": 3}, "score": {"score": 0.31, "rank": 1}},
]


def test_wait_tells_each_change_once(signed_in: Arena, anomed: Anomed, archive: Path) -> None:
    signed_in.story = [dict(part) for part in STORY]
    done = anomed("submit", "demo", "--attack", archive, "--full", "--wait")
    assert done.returncode == 0, done.stderr
    told = done.stdout.splitlines()
    assert told[-1] == "scored: score 0.31, rank 1"
    for line in ("checking: the archive is being checked", "  fit (rehearsal): succeeded, 2 s"):
        assert told.count(line) == 1
    assert signed_in.not_modified == 1


def test_json_lines_of_a_wait(signed_in: Arena, anomed: Anomed, archive: Path) -> None:
    signed_in.story = [dict(part) for part in STORY]
    done = anomed("submit", "demo", "--attack", archive, "--full", "--wait", "--json")
    states = [json.loads(line)["state"] for line in done.stdout.splitlines()]
    assert states == ["uploading", "checking", "rehearsing", "running", "scored"]
    assert "The archive is on the server." in done.stderr


def test_a_failed_rehearsal_shows_reason_and_log(signed_in: Arena, anomed: Anomed, archive: Path) -> None:
    failure = {
        "reason": "rehearsal_failed",
        "cause": "crashed",
        "sentence": "The rehearsal ended with an error.",
        "hint": "Read the log.",
        "detail": "exit 1",
    }
    signed_in.story = [{"state": "failed", "failure": failure}]
    done = anomed("submit", "demo", "--defense", archive, "--full", "--wait")
    assert done.returncode == 1
    told = done.stdout.splitlines()
    start = told.index("failed: rehearsal_failed (crashed)")
    assert told[start + 1 : start + 4] == ["The rehearsal ended with an error.", "exit 1", "Read the log."]
    assert told[-1] == "  | ModuleNotFoundError: No module named 'torch'"


ROUTES = [
    {"request": "POST /fit", "by": "platform", "status": 500, "outcome": "failed"},
    {"request": "GET /data/\x1b[31mred", "by": "server", "status": 404, "outcome": "refused"},
    {"request": "POST /utility/deanonymizer", "by": "server", "status": None, "outcome": "unasked"},
]


def test_a_web_server_is_entered_as_one(signed_in: Arena, anomed: Anomed, archive: Path) -> None:
    anomed("submit", "demo", "--attack", archive, "--full", "--contract", "web/1")
    anomed("submit", "demo", "--attack", archive, "--full")
    assert [entry["contract"] for entry in signed_in.submissions.values()] == ["web/1", ""]
    refused = anomed("submit", "demo", "--attack", archive, "--full", "--contract", "web/2")
    assert (refused.returncode, refused.stderr) == (2, "--contract takes anomed/1 or web/1.\n")


def test_the_routes_of_a_failed_rehearsal_are_shown(signed_in: Arena, anomed: Anomed, archive: Path) -> None:
    failure = {"reason": "rehearsal_failed", "cause": "crashed", "sentence": "It ended.", "hint": "", "detail": ""}
    steps = [REHEARSED | {"state": "failed", "routes": ROUTES}]
    signed_in.story = [{"state": "failed", "failure": failure, "steps": steps}]
    done = anomed("submit", "demo", "--attack", archive, "--full", "--wait")
    assert done.returncode == 1
    lines = [re.split(r"\s*[│┃|]\s*", line.strip("│┃ ")) for line in done.stdout.splitlines()]
    assert ["fit", "POST /fit", "platform", "500", "failed"] in lines
    assert ["fit", "POST /utility/deanonymizer", "server", "–", "unasked"] in lines
    assert "\x1b" not in done.stdout


def test_status_says_how_much_an_attack_has_asked(signed_in: Arena, anomed: Anomed, archive: Path) -> None:
    asked = {"budget": 400, "exact": False, "defenses": [{"defense": "0", "name": "linear", "rows": 100}]}
    signed_in.story = [{"state": "scored", "questions": asked}]
    anomed("submit", "demo", "--attack", archive, "--full")
    (id,) = signed_in.submissions
    assert "  asked linear: up to 100 of 400 rows\n" in anomed("status", id).stdout
    asked["exact"] = True
    assert "  asked linear: 100 of 400 rows\n" in anomed("status", id).stdout


def test_nobody_waits_for_what_is_secret_until_the_reveal(signed_in: Arena, anomed: Anomed, archive: Path) -> None:
    signed_in.story = [{"state": "checking"}, {"state": "queued", "late": True, "sealed": True}]
    done = anomed("submit", "demo", "--defense", archive, "--full", "--wait")
    assert done.returncode == 0
    assert done.stdout.splitlines()[-1].startswith("late: it runs in the final, without a rank.")


def test_status_log_withdraw(signed_in: Arena, anomed: Anomed, archive: Path) -> None:
    signed_in.story = [{"state": "queued"}]
    anomed("submit", "demo", "--defense", archive, "--full", "-m", "my note")
    (id,) = signed_in.submissions
    assert "queued: waiting for a free place" in anomed("status", id).stdout
    assert json.loads(anomed("status", id, "--json").stdout)["state"] == "queued"
    assert "my note" in anomed("status").stdout
    assert json.loads(anomed("status", "--challenge", "demo", "--json").stdout)["id"] == id
    assert anomed("log", id).stdout == signed_in.log
    assert anomed("withdraw", id).returncode == 2  # nobody to ask: it wants --yes
    assert anomed("withdraw", id, "--yes").stdout == f"Submission {id} is withdrawn.\n"
    assert anomed("status", id, "--wait").returncode == 1
    assert anomed("status", "unknown").returncode == 2


def test_ctrl_c_while_waiting(signed_in: Arena, anomed: Anomed, archive: Path) -> None:
    signed_in.story = [{"state": "queued"}]
    command = [sys.executable, "-m", "anomed", "submit", "demo", "--defense", str(archive), "--full", "--wait"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        wait_for(lambda: any(entry["state"] == "queued" for entry in signed_in.submissions.values()))
        process.send_signal(signal.SIGINT)
        _, complaint = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "goes on without you" in complaint


def wait_for(reached: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not reached():
        assert time.monotonic() < deadline
        time.sleep(0.05)

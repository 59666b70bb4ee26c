"""The commands as a shell runs them, against a small arena over real HTTP."""

import json
import os
import re
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

TOKEN = "t0ken-of-ada"
Arena = Any  # the fixtures' class stands in conftest.py
Anomed = Any


def test_sign_in_with_a_password(arena: Arena, anomed: Anomed, home: Path) -> None:
    done = anomed("login", "--server", arena.url, "--email", "ada@example.org", "--password-stdin", stdin="secret\n")
    assert (done.returncode, done.stdout) == (0, f"Signed in with {arena.url} as ada@example.org.\n")
    assert stat.S_IMODE((home / "config.json").stat().st_mode) == 0o600
    assert anomed("challenges").returncode == 0


def test_wrong_password(arena: Arena, anomed: Anomed, home: Path) -> None:
    done = anomed("login", "--server", arena.url, "--email", "ada@example.org", "--password-stdin", stdin="guess\n")
    assert (done.returncode, done.stderr) == (2, "Email or password is wrong.\n")
    assert not home.exists()


def test_wrong_token(arena: Arena, anomed: Anomed) -> None:
    done = anomed("challenges", ANOMED_SERVER=arena.url, ANOMED_TOKEN="stale")
    assert done.returncode == 2
    assert "Sign in again: anomed login" in done.stderr


def test_no_server_known(anomed: Anomed) -> None:
    done = anomed("challenges")
    assert done.returncode == 2
    assert "anomed login --server" in done.stderr


def test_environment_overrides_what_is_stored(signed_in: Arena, anomed: Anomed) -> None:
    assert anomed("status", ANOMED_TOKEN="stale").returncode == 2
    done = anomed("status", ANOMED_SERVER="http://localhost:1")
    assert done.returncode == 2  # the stored token belongs to another server
    assert "not signed in with http://localhost:1" in done.stderr


def test_unreachable_server(anomed: Anomed) -> None:
    done = anomed("challenges", ANOMED_SERVER="http://127.0.0.1:9", ANOMED_TOKEN=TOKEN)
    assert done.returncode == 3
    assert "cannot be reached" in done.stderr
    assert "Traceback" not in done.stderr


def test_plain_http_elsewhere_is_refused_before_a_password_is_asked(anomed: Anomed) -> None:
    done = anomed("login", "--server", "http://arena.example.org", "--email", "a", "--password-stdin", stdin="secret\n")
    assert done.returncode == 2
    assert "not encrypted" in done.stderr


def test_an_answer_that_is_no_arena(arena: Arena, anomed: Anomed) -> None:
    arena.boards = ["odd"]
    done = anomed("board", "demo", ANOMED_SERVER=arena.url, ANOMED_TOKEN=TOKEN)
    assert done.returncode == 2
    assert "does not understand" in done.stderr


def test_sign_out_revokes_and_forgets(signed_in: Arena, anomed: Anomed, home: Path) -> None:
    assert anomed("logout").returncode == 0
    assert ("DELETE", "token") in signed_in.calls
    assert TOKEN not in (home / "config.json").read_text()
    assert anomed("logout").returncode == 2


def test_challenges_of_all_pages(signed_in: Arena, anomed: Anomed) -> None:
    assert [json.loads(line)["slug"] for line in anomed("challenges", "--json").stdout.splitlines()] == [
        "demo",
        "second",
    ]
    assert "second" in anomed("challenges").stdout


def test_join_needs_the_rules(signed_in: Arena, anomed: Anomed) -> None:
    done = anomed("join", "second", "--team", "Ada")
    assert done.returncode == 2
    assert "--accept-rules" in done.stderr
    done = anomed("join", "second", "--team", "Ada", "--accept-rules")
    assert (done.returncode, done.stdout) == (0, "You take part in second as Ada.\n")


def test_boards(signed_in: Arena, anomed: Anomed) -> None:
    row = {
        "rank": 1,
        "rank_last": 3,
        "submission": "s1",
        "team": "\x1b[31mMallory",
        "name": "[b]x[/b]",
        "role": "",
        "utility": 0.5,
        "privacy": 0.25,
    }
    row |= {
        "worst_leak": 0.123,
        "intervals": {"worst_leak": [0.1, 0.15]},
        "score": 0.4,
        "qualified": True,
        "duels": 3,
        "pending": 1,
    }
    signed_in.boards = {"version": 1, "defenses": [row], "attacks": []}
    shown = anomed("board", "demo").stdout
    assert "\x1b" not in shown
    assert re.search(r"1-3 .* Mallory .* \[b\]x\[/b\] .* 0\.12 .* yes", shown)
    assert "(0.10-0.15)" in shown
    assert "Attacks: none yet." in shown
    (line,) = anomed("board", "demo", "--json").stdout.splitlines()
    assert json.loads(line) == {"board": "defenses"} | row


def test_matrix(signed_in: Arena, anomed: Anomed) -> None:
    signed_in.matrix = {
        "defenses": [
            {"submission": "d1", "name": "forest", "team": "Ada"},
            {"submission": "d2", "name": "dp", "team": "Bob"},
        ],
        "attacks": [{"submission": "a1", "name": "lira", "team": "Eve"}],
        "cells": [
            {"attack": "a1", "defense": "d1", "leak": 0.31, "state": "scored"},
            {"attack": "a1", "defense": "d2", "leak": None, "state": "queued"},
        ],
    }
    assert re.search(r"lira \(Eve\) .* 0\.31 .* queued", anomed("matrix", "demo").stdout)
    assert len(anomed("matrix", "demo", "--json").stdout.splitlines()) == 2


def test_sample(signed_in: Arena, anomed: Anomed, tmp_path: Path) -> None:
    assert anomed("sample", "demo").returncode == 0
    assert (tmp_path / "demo-sample.parquet").read_bytes() == b"PAR1 sample PAR1"
    assert anomed("sample", "demo", "-o", "-").stdout == "PAR1 sample PAR1"
    done = anomed("sample", "nowhere", "-o", "x.parquet")
    assert (done.returncode, done.stderr) == (2, "Not found.\n")
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["demo-sample.parquet"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["submit"],
        ["submit", "demo"],
        ["submit", "demo", "--defense", "a", "--attack", "b"],
        ["submit", "demo", "--defense", "a", "--as", "king"],
        ["submit", "demo", "--resume", "x"],
        ["nonsense"],
    ],
)
def test_usage(signed_in: Arena, anomed: Anomed, arguments: list[str]) -> None:
    done = anomed(*arguments)
    assert done.returncode == 2
    assert done.stderr
    assert "Traceback" not in done.stderr


def test_a_reader_that_goes_away(signed_in: Arena, anomed: Anomed) -> None:
    signed_in.log = "line\n" * 100_000
    signed_in.submissions["s1"] = {"id": "s1"}
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as closed:
        done = subprocess.run(
            [sys.executable, "-m", "anomed", "log", "s1"], stdout=closed, stderr=subprocess.PIPE, check=False
        )
    assert (done.returncode, done.stderr) == (1, b"")  # as other programs in a pipe: silent, not successful

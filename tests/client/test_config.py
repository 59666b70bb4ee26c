"""Tokens and notes stay with the user, and each token with its server."""

import stat
from pathlib import Path

import pytest
from anomed import config
from anomed.problems import Problem

NOTE = config.Note("an/id", "https://a.example", "/tmp/kit.tar", False, ("sha256:1",), 5, "00")


def test_an_account_is_remembered_for_its_server_only(home: Path) -> None:
    config.remember(config.Account("https://a.example", "token-a"))
    config.remember(config.Account("http://b.example", "token-b", insecure=True))
    assert config.default_server() == "http://b.example"
    assert config.account("https://a.example") == config.Account("https://a.example", "token-a")
    assert config.account("http://b.example").insecure
    assert config.account("https://c.example").token == ""
    config.forget("http://b.example")
    assert config.account("http://b.example").token == ""
    assert config.account("https://a.example").token == "token-a"


def test_nobody_else_can_read_what_is_stored(home: Path) -> None:
    config.remember(config.Account("https://a.example", "token-a"))
    config.keep_note(NOTE)
    files = [path for path in home.rglob("*") if path.is_file()]
    assert len(files) == 2
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}
    assert {stat.S_IMODE(path.stat().st_mode) for path in (home, home / "uploads")} == {0o700}


def test_a_note_comes_back_until_it_is_dropped(home: Path) -> None:
    config.keep_note(NOTE)
    assert config.note("an/id") == NOTE
    assert [path.parent for path in home.rglob("*.json")] == [home / "uploads"]  # an id with a slash leaves no folder
    config.drop_note("an/id")
    with pytest.raises(Problem, match="no unfinished upload an/id"):
        config.note("an/id")


def test_a_damaged_file_is_said_so(home: Path) -> None:
    home.mkdir(parents=True)
    (home / "config.json").write_text("{")
    with pytest.raises(Problem, match=r"config\.json is not readable"):
        config.default_server()

"""The health endpoint: green when this process can serve, red with the name of what is wrong."""

from pathlib import Path
from typing import Any

import pytest
from django.test import Client

from anomed_site import health

pytestmark = pytest.mark.django_db(transaction=True)  # the check has a database connection of its own


def test_all_is_well(client: Client) -> None:
    answer = client.get("/healthz")
    assert answer.status_code == 200
    assert answer.json() == {"Database": "OK", "PrivateFolder": "OK"}


def test_a_private_folder_that_is_gone_is_named(client: Client, settings: Any, tmp_path: Path) -> None:
    settings.PRIVATE_ROOT = tmp_path / "gone"
    answer = client.get("/healthz")
    assert answer.status_code == 500
    assert "cannot be written" in answer.json()["PrivateFolder"]


def test_a_full_disk_is_named(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "LEAST_FREE", 2**62)
    answer = client.get("/healthz")
    assert answer.status_code == 500
    assert "full" in answer.json()["PrivateFolder"]

"""The health endpoint: green when this process can serve, red with the name of what is wrong."""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.test import Client

from anomed_site import health, heartbeat

pytestmark = pytest.mark.django_db(transaction=True)  # the check has a database connection of its own


def test_all_is_well(client: Client) -> None:
    answer = client.get("/healthz")
    assert answer.status_code == 200
    assert answer.json() == {"Database": "OK", "PrivateFolder": "OK", "Clusters": "OK"}


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


@pytest.fixture
def cluster(settings: Any, tmp_path: Path) -> Callable[..., None]:
    """A cluster `runs` of two workers whose signs are so many seconds old."""
    settings.VAR = tmp_path
    heartbeat.begin("runs", 2)

    def signs(**seconds: float) -> None:
        for name, age in seconds.items():
            path = heartbeat.folder_of("runs") / name.replace("_", "-")
            path.touch()
            os.utime(path, (time.time() - age, time.time() - age))

    return signs


def clusters(client: Client) -> str:
    return str(client.get("/healthz").json()["Clusters"])


def test_cluster_that_has_just_been_started_is_well(client: Client, cluster: Any) -> None:
    assert clusters(client) == "OK"


@pytest.mark.parametrize("sign", ["sentinel", "beat"])
def test_cluster_without_a_sign_of_life_is_named(client: Client, cluster: Any, sign: str) -> None:
    cluster(**{sign: 61})
    assert client.get("/healthz").status_code == 500
    assert "runs" in clusters(client)
    heartbeat.end("runs")  # in order
    assert clusters(client) == "OK"


def test_cluster_whose_workers_are_all_busy_is_well(client: Client, cluster: Any) -> None:
    cluster(beat=1000, busy_1=3, busy_2=4)
    assert clusters(client) == "OK"
    cluster(busy_2=61)  # it was, and now it waits in vain
    assert "runs" in clusters(client)


def test_names_of_hosts_are_not_told(client: Client, cluster: Any) -> None:
    heartbeat.begin("runs-node2.clinic.example", 1)
    sign = heartbeat.folder_of("runs-node2.clinic.example") / heartbeat.BEAT
    os.utime(sign, (0, 0))
    assert clusters(client) == "Unavailable: No sign of life of the cluster: runs."


def test_clusters_of_other_machines_are_not_ours(client: Client, cluster: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster(beat=1000)
    monkeypatch.setattr("socket.gethostname", lambda: "elsewhere")
    assert clusters(client) == "OK"

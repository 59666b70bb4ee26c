"""/metrics: who may ask, what the parser of Prometheus reads there, and what it costs."""

import os
import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings as django_settings
from django.test import Client
from django.utils import timezone
from django_q.models import Schedule
from prometheus_client.parser import text_string_to_metric_families

from anomed_site import clusters, heartbeat, metrics
from sandbox import alarms
from sandbox.models import Alarm, Copy, Gpu, Host, Image, Run, Slot
from submissions.models import Submission

pytestmark = pytest.mark.django_db

TOKEN = "a token of some length"
Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


@pytest.fixture
def scrape(client: Client, settings: Any) -> Callable[[], Samples]:
    """Asks as Prometheus does, and reads the answer with its own parser."""
    settings.METRICS_TOKEN = TOKEN

    def scrape() -> Samples:
        answer = client.get("/metrics", headers={"Authorization": f"Bearer {TOKEN}"})
        assert answer.status_code == 200
        families = text_string_to_metric_families(answer.content.decode())
        return {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in families
            for sample in family.samples
        }

    return scrape


def at(name: str, **labels: str) -> tuple[str, frozenset[tuple[str, str]]]:
    return name, frozenset(labels.items())


def make_run(image: Image, **facts: Any) -> Run:
    now = timezone.now()
    fields = {"purpose": "submission-step", "step": "fit", "owner": "team-1", "queued_at": now, "due_at": now}
    return Run.objects.create(**{**fields, "image": image, **facts})


class TestWhoMayAsk:
    def test_without_a_token_there_is_nothing(self, client: Client, settings: Any) -> None:
        assert client.get("/metrics").status_code == 404
        assert client.get("/metrics", headers={"Authorization": "Bearer "}).status_code == 404
        settings.METRICS_TOKEN = TOKEN
        for header in (
            "",
            "Bearer ",
            TOKEN,
            f"Token {TOKEN}",
            f"Bearer {TOKEN[:-1]}",
            f"Bearer {TOKEN}x",
            "Bearer \xe9",
        ):
            assert client.get("/metrics", headers={"Authorization": header}).status_code == 404

    def test_being_an_operator_is_no_token(self, admin_client: Client, settings: Any) -> None:
        settings.METRICS_TOKEN = TOKEN
        assert admin_client.get("/metrics").status_code == 404


class TestSandbox:
    def test_an_empty_arena(self, scrape: Callable[[], Samples]) -> None:
        found = scrape()
        for priority in ("rehearsal", "release", "duel"):
            assert found[at("anomed_queue_runs", **{"class": priority})] == 0
            assert found[at("anomed_queue_oldest_seconds", **{"class": priority})] == 0
        assert found[at("anomed_runs_ended_total", outcome="succeeded")] == 0
        assert found[at("anomed_run_seconds_bucket", outcome="timeout", le="+Inf")] == 0
        assert found[at("anomed_leases_lost_total")] == 0
        assert found[at("anomed_rounds_overdue_seconds")] < 3600
        Schedule.objects.filter(name="sandbox.look").update(next_run=timezone.now() - timedelta(hours=2))
        assert scrape()[at("anomed_rounds_overdue_seconds")] >= 7200
        assert 0 < found[at("anomed_disk_free_bytes")] <= found[at("anomed_disk_bytes")]

    def test_queue(self, scrape: Callable[[], Samples], image: Image) -> None:
        ago = timezone.now() - timedelta(seconds=100)
        make_run(image, priority=30, queued_at=ago)
        make_run(image, priority=30)
        make_run(image, priority=7)
        found = scrape()
        assert found[at("anomed_queue_runs", **{"class": "rehearsal"})] == 2
        assert 100 <= found[at("anomed_queue_oldest_seconds", **{"class": "rehearsal"})] < 200
        assert found[at("anomed_queue_runs", **{"class": "7"})] == 1

    def test_outcomes(self, scrape: Callable[[], Samples], image: Image) -> None:
        for seconds in (0.5, 5.0, 5.1, 20_000.0):
            make_run(image, state="succeeded", seconds=seconds)
        make_run(image, state="failed", reason="timeout", seconds=60.2, lost_leases=2, faults=1)
        make_run(image, state="failed", reason="platform_fault", lost_leases=1, faults=3)
        make_run(image, state="cancelled")
        make_run(image, state="running")
        found = scrape()
        buckets = [
            found[at("anomed_run_seconds_bucket", outcome="succeeded", le=le)] for le in ("1.0", "5.0", "10.0", "+Inf")
        ]
        assert buckets == [1, 2, 3, 4]
        assert found[at("anomed_run_seconds_sum", outcome="succeeded")] == pytest.approx(20_010.6)
        assert found[at("anomed_run_seconds_count", outcome="platform_fault")] == 0
        assert found[at("anomed_runs_ended_total", outcome="platform_fault")] == 1
        assert found[at("anomed_runs_ended_total", outcome="timeout")] == 1
        assert found[at("anomed_runs_ended_total", outcome="cancelled")] == 1
        assert found[at("anomed_runs_under_way")] == 1
        assert found[at("anomed_leases_lost_total")] == 3
        assert found[at("anomed_platform_faults_total")] == 4

    def test_hosts(self, scrape: Callable[[], Samples], image: Image) -> None:
        run = make_run(image, state="running")
        now = timezone.now()
        host = Host.objects.create(
            name="one",
            url="unix:///one",
            heartbeat=now - timedelta(seconds=90),
            state="draining",
            complaint="Wall gone.",
        )
        Host.objects.create(name="gone", url="unix:///gone", state="retired")
        for number in (1, 2, 3):
            Slot.objects.create(host=host, number=number, run=run if number == 1 else None)
        for uuid, lost in (("GPU-a", None), ("GPU-b", None), ("GPU-c", now)):
            Gpu.objects.create(host=host, uuid=uuid, memory_mb=1, lost_at=lost, run=run if uuid == "GPU-a" else None)
        Copy.objects.create(host=host, image=image)
        Alarm.objects.create(kind="disk", sentence="Full.")
        Alarm.objects.create(kind="disk", sentence="Full.", cleared_at=now)
        found = scrape()
        expected = {
            "slots": 3, "slots_used": 1, "gpus": 2, "gpus_used": 1, "gpus_lost": 1, "images": 1, "complaint": 1,
            "image_bytes": image.size, "image_room_bytes": 100 * 10**9,
        }  # fmt: skip
        assert {name: found[at(f"anomed_host_{name}", host="one")] for name in expected} == expected
        assert found[at("anomed_host_state", host="one", state="draining")] == 1
        assert found[at("anomed_host_state", host="one", state="active")] == 0
        assert 90 <= found[at("anomed_host_heartbeat_age_seconds", host="one")] < 190
        assert not [name for name, labels in found if ("host", "gone") in labels]
        assert found[at("anomed_alarms_open")] == 1


class TestSubmissions:
    def test_uploads(self, scrape: Callable[[], Samples], ready: Callable[..., Submission]) -> None:
        entry = ready("ada", "defense")
        Submission.objects.filter(pk=entry.pk).update(state="uploading")
        type(entry.upload).objects.update(offset=7)
        found = scrape()
        assert found[at("anomed_uploads")] == 1
        assert found[at("anomed_upload_bytes")] == 7
        assert found[at("anomed_entries_under_way", state="uploading")] == 1


class TestRequests:
    def test_nobody_makes_up_a_label(self, client: Client, scrape: Callable[[], Samples]) -> None:
        client.get("/")
        client.get("/no/such/place-of-mallory/")
        client.generic("MALLORY", "/")
        found = scrape()
        assert found[at("anomed_http_requests_total", view="home", method="GET", status="200")] >= 1
        assert found[at("anomed_http_requests_total", view="none", method="GET", status="404")] >= 1
        assert found[at("anomed_http_requests_total", view="home", method="other", status="405")] >= 1
        assert "mallory" not in repr(list(found)).lower()

    def test_one_process_answers_for_all(self, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
        script = "import django; django.setup(); from anomed_site.metrics import REQUESTS; "
        script += "REQUESTS.labels('home', 'GET', '200').inc()"
        environment = {**os.environ, "DJANGO_SETTINGS_MODULE": "anomed_site.settings"}
        for _ in range(2):
            subprocess.run(
                [sys.executable, "-c", script], env=environment, cwd=django_settings.BASE_DIR, check=True, timeout=120
            )
        text = metrics.generate_latest(metrics._requests()).decode()
        assert 'anomed_http_requests_total{method="GET",status="200",view="home"} 2.0' in text


def test_the_number_of_questions_does_not_grow(
    client: Client, settings: Any, image: Image, django_assert_num_queries: Any
) -> None:
    settings.METRICS_TOKEN = TOKEN
    for number in range(5):
        host = Host.objects.create(name=f"host {number}", url="unix:///none")
        Slot.objects.create(host=host, number=1)
        Gpu.objects.create(host=host, uuid=f"GPU-{number}", memory_mb=1)
        make_run(image, priority=number)
        make_run(image, state="failed", reason="crashed", seconds=number)
    with django_assert_num_queries(14):
        client.get("/metrics", headers={"Authorization": f"Bearer {TOKEN}"})


class TestClusters:
    @pytest.fixture(autouse=True)
    def own_folder(self, settings: Any, tmp_path: Path) -> None:
        settings.VAR = tmp_path

    def test_signs_of_life(self, scrape: Callable[[], Samples]) -> None:
        heartbeat.begin("runs", workers=2)
        assert scrape()[at("anomed_cluster_silent_seconds", cluster="runs")] < 100
        assert list(clusters.conditions()) == []

    def test_silence(self, scrape: Callable[[], Samples]) -> None:
        heartbeat.begin("runs", workers=2)
        for path in heartbeat.folder_of("runs").iterdir():
            os.utime(path, (0, 0))
        assert scrape()[at("anomed_cluster_silent_seconds", cluster="runs")] > 1000
        (condition,) = clusters.conditions()
        assert (condition.kind, condition.subject) == ("cluster_silent", "runs")
        assert clusters.conditions in alarms._watches

"""What is raised, when it is over, and what operators are told: each once."""

import smtplib
from collections import namedtuple
from datetime import datetime, timedelta
from typing import Any

import pytest
from django.core import mail
from django.utils import timezone, translation
from django_q.models import Schedule

from sandbox import alarms, insight, waiting
from sandbox.alarms import Condition
from sandbox.models import Alarm, Gpu, Host, Image, Run, Slot
from sandbox.waiting import For

pytestmark = pytest.mark.django_db

Usage = namedtuple("Usage", "total used free")
ROOMY = Usage(100 * 10**9, 50 * 10**9, 50 * 10**9)


@pytest.fixture(autouse=True)
def operators(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Mail addresses, a disk with room, and no conditions of other rooms."""
    settings.OPERATORS = ["op@hospital.test"]
    settings.SANDBOX = {}
    monkeypatch.setattr(alarms, "_watches", [])
    fill_disk(monkeypatch, 50)


def fill_disk(monkeypatch: pytest.MonkeyPatch, free_percent: int) -> None:
    usage = Usage(100 * 10**9, (100 - free_percent) * 10**9, free_percent * 10**9)
    monkeypatch.setattr(insight.shutil, "disk_usage", lambda _path: usage)


def ago(minutes: float) -> datetime:
    return timezone.now() - timedelta(minutes=minutes)


@pytest.fixture
def one(db: None) -> Host:
    """A host that is in order, with two slots."""
    host = Host.objects.create(name="one", url="unix:///one", heartbeat=timezone.now(), walls=["standard"])
    for number in (1, 2):
        Slot.objects.create(host=host, number=number)
    return host


@pytest.fixture
def image(db: None) -> Image:
    return Image.objects.create(image_id="sha256:" + "0" * 64)


def queued(image: Image, minutes: float = 0, **facts: Any) -> Run:
    limits = {"gpus": facts.get("gpus", 0), "gpu_memory_mb": facts.pop("gpu_memory_mb", 0)}
    fields = {"purpose": "questions", "step": "fit", "owner": "ada", "queued_at": ago(minutes), "due_at": ago(minutes)}
    return Run.objects.create(image=image, limits=limits, **{**fields, **facts})


def raised() -> set[tuple[str, str]]:
    alarms.look()
    return set(Alarm.objects.filter(cleared_at=None).values_list("kind", "subject"))


class TestTelling:
    def test_once_when_raised_and_once_when_over(self, monkeypatch: pytest.MonkeyPatch) -> None:
        fill_disk(monkeypatch, 10)
        for _ in range(3):
            assert raised() == {("disk_low", "")}
        assert len(mail.outbox) == 1
        assert mail.outbox[0].to == ["op@hospital.test"]
        assert "Disk filling up" in mail.outbox[0].subject
        assert "10 % (10.0 GB) are free" in mail.outbox[0].body
        fill_disk(monkeypatch, 50)
        assert raised() == {("disk_low", "")}  # not seen for less than five minutes
        Alarm.objects.update(seen_at=ago(6))
        assert raised() == set()
        assert raised() == set()
        assert [message.subject for message in mail.outbox][1:] == ["[AnoMed Arena] Over: Disk filling up"]
        assert Alarm.objects.get().cleared_at is not None

    def test_what_comes_and_goes_is_one_alarm(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for free in (10, 50) * 4:
            fill_disk(monkeypatch, free)
            alarms.look()
        assert Alarm.objects.count() == 1
        assert len(mail.outbox) == 1

    def test_it_comes_again_after_it_was_over(self, monkeypatch: pytest.MonkeyPatch) -> None:
        fill_disk(monkeypatch, 10)
        Alarm.objects.create(kind="disk_low", sentence="Long ago.", cleared_at=ago(100))
        assert raised() == {("disk_low", "")}
        assert len(mail.outbox) == 1

    def test_another_process_that_was_faster_tells(self) -> None:
        condition = Condition("disk_low", "", "Low.")
        alarms._raise(condition)
        alarms._raise(condition)
        assert len(mail.outbox) == 1

    def test_without_operators_or_a_mail_server_it_still_stands(
        self, monkeypatch: pytest.MonkeyPatch, settings: Any
    ) -> None:
        def refuse(*_args: Any) -> None:
            raise smtplib.SMTPServerDisconnected

        fill_disk(monkeypatch, 10)
        monkeypatch.setattr(alarms, "send_mail", refuse)
        assert raised() == {("disk_low", "")}
        settings.OPERATORS = []
        fill_disk(monkeypatch, 3)
        assert ("disk_full", "") in raised()
        assert mail.outbox == []

    def test_in_the_language_of_the_site(self, monkeypatch: pytest.MonkeyPatch, settings: Any) -> None:
        fill_disk(monkeypatch, 10)
        with translation.override("de"):
            assert raised() == {("disk_low", "")}
        assert "free" in Alarm.objects.get().sentence

    def test_it_is_looked_each_minute(self) -> None:
        schedule = Schedule.objects.get(name="sandbox.look")
        assert (schedule.func, schedule.minutes, schedule.cluster) == ("sandbox.tasks.look", 1, "web")


class TestHosts:
    def test_a_host_that_is_in_order(self, one: Host) -> None:
        assert raised() == set()

    def test_silence(self, one: Host) -> None:
        Host.objects.update(heartbeat=ago(4))
        assert raised() == set()
        Host.objects.update(heartbeat=ago(7))
        assert raised() == {("host_silent", "one")}
        assert "7 minutes" in Alarm.objects.get().sentence

    @pytest.mark.parametrize("state", ["retired", "drained"])
    def test_silence_of_hosts_that_were_put_away(self, one: Host, state: str) -> None:
        Host.objects.update(heartbeat=ago(7000), state=state, complaint="Old.")
        assert raised() == set()

    def test_a_host_that_has_not_joined_yet(self, one: Host) -> None:
        Host.objects.update(
            url="tcp://one:2376", heartbeat=None, state="cordoned", complaint="It has not answered yet."
        )
        assert raised() == set()

    def test_complaints_and_lost_gpus(self, one: Host) -> None:
        Host.objects.update(complaint="The engine is too old.")
        Gpu.objects.create(host=one, uuid="GPU-a", memory_mb=1, lost_at=timezone.now())
        Gpu.objects.create(host=one, uuid="GPU-b", memory_mb=1)
        assert raised() == {("host_complaint", "one"), ("gpu_lost", "GPU-a")}


class TestQueue:
    def test_runs_that_no_host_can_take(self, one: Host, image: Image) -> None:
        for number in range(3):
            queued(image, minutes=5, walls=["gvisor"], owner=f"team-{number}")
        queued(image, minutes=5, gpus=2, gpu_memory_mb=40_000)
        queued(image, minutes=1, walls=["userns"])  # a host may just be joining
        raised()
        sentences = sorted(Alarm.objects.values_list("sentence", flat=True))
        assert sentences == [
            "Runs wait in vain. No host has as many GPUs as it wants: 2, of at least 40000 MB.",
            "Runs wait in vain. No host offers all walls that it demands: gvisor, standard.",
        ]

    def test_runs_that_no_worker_takes(self, one: Host, image: Image) -> None:
        queued(image, minutes=9)
        assert raised() == set()
        queued(image, minutes=11)
        assert raised() == {("runs_stuck", "")}

    def test_waiting_while_others_are_taken_is_no_alarm(self, one: Host, image: Image) -> None:
        queued(image, minutes=100)
        queued(image, state="succeeded", started_at=ago(2), finished_at=ago(1))
        assert raised() == set()

    def test_waiting_for_a_busy_host_is_no_alarm(self, one: Host, image: Image) -> None:
        queued(image, minutes=100)
        for slot in Slot.objects.all():
            Slot.objects.filter(pk=slot.pk).update(run=queued(image, state="running", started_at=ago(90)))
        assert raised() == set()


class TestWaiting:
    """What a run waits for, in the order in which the questions are asked."""

    def of(self, run: Run) -> For:
        return waiting.of(run, insight.hosts()).what

    def test_rest(self, one: Host, image: Image) -> None:
        assert self.of(queued(image, due_at=timezone.now() + timedelta(minutes=1))) == For.REST

    def test_no_host_at_all(self, image: Image) -> None:
        assert self.of(queued(image)) == For.HOSTS

    def test_walls(self, one: Host, image: Image) -> None:
        Host.objects.update(walls=[])
        assert self.of(queued(image)) == For.HOSTS
        assert self.of(queued(image, private=False)) == For.HOSTS

    def test_gpus(self, one: Host, image: Image) -> None:
        other = queued(image, state="running")
        gpu = Gpu.objects.create(host=one, uuid="GPU-a", memory_mb=24_000, lost_at=timezone.now())
        run = queued(image, gpus=1, gpu_memory_mb=20_000)
        assert self.of(run) == For.HOSTS
        Gpu.objects.update(lost_at=None, run=other)
        assert self.of(run) == For.ROOM
        Gpu.objects.update(run=None)
        assert self.of(run) == For.WORKER
        assert self.of(queued(image, gpus=1, gpu_memory_mb=gpu.memory_mb + 1)) == For.HOSTS

    def test_service(self, one: Host, image: Image) -> None:
        run = queued(image)
        Host.objects.update(state="cordoned")
        assert self.of(run) == For.SERVICE
        Host.objects.update(state="active", avoid_until=timezone.now() + timedelta(minutes=1))
        assert self.of(run) == For.SERVICE

    def test_oldest_first(self, one: Host, image: Image) -> None:
        runs = [queued(image, minutes=minutes) for minutes in (1, 30, 20)]
        found = waiting.oldest(insight.hosts(), most=2)
        assert [waiting_run.run for waiting_run in found] == [runs[1], runs[2]]
        assert 1800 <= found[0].seconds < 1900


def test_the_list_names_kinds_in_words(admin_client: Any) -> None:
    Alarm.objects.create(kind="no_host", sentence="Runs wait in vain.")
    assert "No host for a run</a>" in admin_client.get("/admin/sandbox/alarm/").content.decode()

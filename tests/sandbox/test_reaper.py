"""The reaper's round: what it removes, what it must not touch, and whom it wakes."""

import os
import time
import uuid
from datetime import timedelta

import pytest
from django.conf import settings as django_settings
from django.utils import timezone
from django_q.models import OrmQ, Schedule

from sandbox import housekeeping, leases, reaper, supply, tasks, wakeups
from sandbox.blobs import blob_path
from sandbox.conf import blob_root, scratch_root
from sandbox.engine import ATTEMPT, RUN, Engine
from sandbox.engine_images import HOLDER_TAG
from sandbox.models import Host, Image, Run, Slot
from sandbox.workers import worker_is_gone, worker_name

DEAD = worker_name().rpartition(":")[0] + ":1"  # this process id, but born at another time


def test_worker_names():
    assert worker_is_gone(worker_name()) is False
    assert worker_is_gone(DEAD) is True
    assert worker_is_gone("elsewhere:1:2") is None
    assert worker_is_gone("nonsense") is None


def test_rounds_do_not_pile_up(monkeypatch):
    rounds = []

    def sweep():
        rounds.append("begun")
        tasks.sweep()  # the next one comes by before this one has ended

    monkeypatch.setattr(reaper, "sweep", sweep)
    tasks.sweep()
    assert rounds == ["begun"]
    tasks.sweep()
    assert rounds == ["begun", "begun"]


def test_host_that_answers_nonsense_keeps_nobody_waiting(transactional_db):
    hosts = [Host.objects.create(name=name, url=f"unix:///{name}") for name in ("odd", "well")]

    def visit(host):
        return {"well": "visited"}[host.name]

    odd, well = reaper._side_by_side(visit, hosts)
    assert isinstance(odd, KeyError)
    assert well == "visited"


def test_container_that_a_run_has_left_for_another_host_goes(transactional_db):
    here, there = (Host.objects.create(name=name, url=f"unix:///{name}") for name in ("here", "there"))
    image = Image.objects.create(image_id="sha256:" + "0" * 64)
    run = Run.objects.create(purpose="questions", step="x", image=image, state="running", attempt=2, host=there)

    def is_kept(attempt, host):
        return reaper._is_under_way({RUN: str(run.pk), ATTEMPT: str(attempt)}, host)

    assert is_kept(2, there)
    assert is_kept(1, there)  # it may be taken over
    assert not is_kept(1, here)
    assert not is_kept(0, there)


class TestEngine:
    def test_chambers_of_dead_workers_go(self, host, engine):
        engine.prepare("dead", 1, DEAD, 2)
        engine.prepare("alive", 1, worker_name(), 2)
        engine.prepare("elsewhere", 1, "elsewhere:1:2", 2)
        reaper.sweep()
        assert {found["Labels"]["anomed.holder"] for found in engine.containers()} == {"alive", "elsewhere"}
        assert {found["Labels"]["anomed.holder"] for found in engine.volumes()} == {"alive", "elsewhere"}

    def test_who_leaves_does_not_take_what_another_machine_works_with(self, host, engine, queue):
        run = queue("true")
        assert leases.claim("elsewhere:1:2") is not None
        engine.prepare("theirs", 1, "elsewhere:1:2", 1)
        assert reaper.leave() == {}
        assert len(engine.containers()) == 1
        Run.objects.filter(pk=run.pk).update(lease_until=timezone.now() - timedelta(seconds=1))
        assert reaper.leave() == {}
        assert engine.containers() == []

    def test_old_chambers_go(self, host, engine, monkeypatch):
        two_hours_ago = time.time() - 2 * 3600
        monkeypatch.setattr(time, "time", lambda: two_hours_ago)
        engine.prepare("old", 1, "elsewhere:1:2", 1)
        monkeypatch.undo()
        reaper.sweep()
        assert engine.containers() == []
        assert engine.volumes() == []

    def test_other_installations_are_left_alone(self, host, engine, settings):
        other = Engine(settings.DOCKER_HOST_URL, uuid.uuid4().hex)
        try:
            other.prepare("other", 1, DEAD, 1)
            reaper.sweep()
            reaper.remove_everything()
            assert len(other.containers()) == 1
            assert len(other.volumes()) == 2
        finally:
            reaper.sweep_engine(other, everything=True)
            other._client.remove_image(f"{other.prefix}/holder:{HOLDER_TAG}")

    def test_host_is_noted(self, host):
        reaper.sweep()
        host.refresh_from_db()
        assert host.heartbeat is not None
        assert host.engine["ServerVersion"]

    def test_host_that_does_not_answer_is_avoided(self, host, queue):
        queue("true")
        Host.objects.update(url="tcp://127.0.0.1:9")
        reaper.sweep()
        assert leases.claim("me") is None
        Host.objects.update(url=django_settings.DOCKER_HOST_URL)
        reaper.sweep()
        assert leases.claim("me") is not None


class TestFiles:
    def test_working_files_of_attempts_that_are_over(self, host, queue):
        run = queue("true")
        leases.claim("me")
        for name in (f"{run.pk}.1", f"{run.pk}.0", "nonsense.1"):
            (scratch_root() / name).mkdir(parents=True)
        housekeeping.sweep_files()
        assert [path.name for path in scratch_root().iterdir()] == [f"{run.pk}.1"]

    def test_checks_that_were_killed(self, settings):
        incoming = blob_root().parent / "incoming"
        (incoming / "new").mkdir(parents=True)
        (incoming / "old").mkdir()
        os.utime(incoming / "old", (0, 0))
        housekeeping.sweep_files()
        assert [path.name for path in incoming.iterdir()] == ["new"]


class TestImages:
    """Whatever is older than a day and serves nobody goes; all else stays."""

    @staticmethod
    def age(image: Image) -> Image:
        Image.objects.filter(pk=image.pk).update(created_at=timezone.now() - timedelta(days=2))
        for digest in (image.image_id, *image.layers):
            os.utime(blob_path(blob_root(), digest), (0, 0))
        return image

    def test_unused_images_go_with_what_only_they_had(self, host, make_image, queue):
        unused, used, base = (self.age(make_image(script)) for script in ("true", "true # used", "true # base"))
        queue(used)
        Image.objects.filter(pk=base.pk).update(is_base=True)
        young = make_image("true # young")
        reaper.sweep()
        assert set(Image.objects.all()) == {used, base, young}
        assert not blob_path(blob_root(), unused.image_id).exists()
        for image in (used, base, young):  # they share a layer with the one that went
            assert all(blob_path(blob_root(), digest).exists() for digest in (image.image_id, *image.layers))

    def test_other_rooms_keep_theirs(self, host, make_image, ready, settings):
        """Without the sandbox knowing them."""
        settings.SANDBOX = {**settings.SANDBOX, "max_archive_bytes": 1000}
        image = self.age(make_image("true"))
        entry = ready("ada", "attack")
        type(entry).objects.filter(pk=entry.pk).update(image=image)
        reaper.sweep()
        assert Image.objects.filter(pk=image.pk).exists()
        type(entry).objects.filter(pk=entry.pk).update(image=None)
        reaper.sweep()
        assert not Image.objects.filter(pk=image.pk).exists()

    def test_image_that_is_entered_again_is_young_again(self, host, make_image):
        image = self.age(make_image("true"))
        assert make_image("true") == image
        reaper.sweep()
        assert Image.objects.filter(pk=image.pk).exists()
        assert blob_path(blob_root(), image.image_id).exists()

    def test_blobs_of_no_image(self, host):
        blob_root().mkdir(parents=True)
        for name in ("old", "new"):
            (blob_root() / name).write_bytes(b"a layer of an image that was refused")
        os.utime(blob_root() / "old", (0, 0))
        reaper.sweep()
        assert [path.name for path in blob_root().iterdir()] == ["new"]

    def test_engines_forget_images_without_a_row(self, host, engine, make_image):
        gone, known = make_image("true"), make_image("true # known")
        for image in (gone, known):
            supply.supply(host, image)
        engine.prepare("alive", 1, worker_name(), 1)  # whose image has no row, and stays
        gone.delete()
        reaper.sweep()
        assert not engine.has_image(gone.image_id)
        assert engine.has_image(known.image_id)
        assert engine._client.inspect_image(f"{engine.prefix}/holder:{HOLDER_TAG}")


class TestWakeups:
    def test_one_for_each_run_that_could_go(self, host, queue):
        for _ in range(3):
            queue("true")
        OrmQ.objects.all().delete()
        assert wakeups.wake_workers() == 2  # slots
        assert OrmQ.objects.filter(key="runs").count() == 2
        assert wakeups.wake_workers() == 0  # they are on their way

    def test_again_when_a_cluster_has_fetched_them_and_nothing_came_of_it(self, host, queue):
        queue("true")
        OrmQ.objects.update(lock=timezone.now() + timedelta(days=7))
        assert wakeups.wake_workers() == 1

    def test_also_for_a_run_whose_worker_vanished(self, host, queue):
        queue("true")
        leases.claim("a worker that dies")
        OrmQ.objects.all().delete()
        Slot.objects.filter(run=None).delete()
        assert wakeups.wake_workers() == 0
        Run.objects.update(lease_until=timezone.now() - timedelta(seconds=1))
        assert wakeups.wake_workers() == 1

    def test_at_once_for_a_run_whose_worker_is_certainly_dead(self, host, queue):
        queue("true")
        leases.claim(DEAD)
        OrmQ.objects.all().delete()
        assert wakeups.wake_workers() == 1

    def test_host_that_answers_again_is_used_again(self, host, queue):
        queue("true")
        OrmQ.objects.all().delete()
        Host.objects.update(avoid_until=timezone.now() + timedelta(minutes=1), url="unix:///nowhere.sock")
        wakeups.tick()
        assert not OrmQ.objects.exists()
        Host.objects.update(url=django_settings.DOCKER_HOST_URL)
        wakeups.tick()
        assert OrmQ.objects.filter(key="runs").count() == 1
        assert leases.claim("me") is not None

    def test_none_without_work(self, host):
        assert wakeups.wake_workers() == 0


@pytest.mark.django_db
def test_the_reaper_is_scheduled_once():
    assert Schedule.objects.filter(func="sandbox.tasks.sweep", cluster="web").count() == 1

"""What other rooms and the operator ask of the sandbox."""

import shutil
from io import StringIO

import pytest
from django.core.management import CommandError, call_command
from django.db import transaction
from django.urls import reverse
from django_q.models import OrmQ
from image_builder import ImageBuilder, member, tar

from sandbox import actions, reasons
from sandbox.conf import blob_root
from sandbox.limits import Limits
from sandbox.models import Host, Image, Run, Slot
from sandbox.reasons import Reason, Rejected

pytestmark = pytest.mark.django_db

QUEUED = {"purpose": "questions", "step": "fit", "collect": {}, "owner": "ada", "priority": 0, "private": True}


class TestQueue:
    def test_run_and_wakeup(self):
        image = Image.objects.create(image_id="sha256:1")
        run = actions.queue(image=image, limits={"seconds": 5, "gpus": 2}, **QUEUED)
        assert run.wants == Limits(seconds=5, gpus=2)
        assert run.gpus == 2
        assert OrmQ.objects.filter(key="runs").count() == 1
        assert str(run.pk) not in str(OrmQ.objects.get(key="runs").task)

    def test_wakeup_joins_the_transaction(self):
        image = Image.objects.create(image_id="sha256:1")
        with transaction.atomic():
            actions.queue(image=image, limits={}, **QUEUED)
            transaction.set_rollback(True)
        assert not Run.objects.exists()
        assert not OrmQ.objects.filter(key="runs").exists()

    @pytest.mark.parametrize("limits", [{"seconds": 0}, {"seconds": "9"}, {"gpus": -1}, {"cpus": 0}, {"wishes": 3}])
    def test_limits_that_make_no_sense(self, limits):
        image = Image.objects.create(image_id="sha256:1")
        with pytest.raises(ValueError, match="limit"):
            actions.queue(image=image, limits=limits, **QUEUED)


class TestLocalHost:
    def test_slots(self):
        host = actions.ensure_local_host(slots=3)
        assert actions.ensure_local_host(slots=3) == host
        assert host.slots.count() == 3
        actions.ensure_local_host(slots=1)
        assert [slot.number for slot in host.slots.all()] == [1]

    def test_slot_in_use_stays(self):
        host = actions.ensure_local_host(slots=2)
        image = Image.objects.create(image_id="sha256:1")
        Slot.objects.filter(number=2).update(run=actions.queue(image=image, limits={}, **QUEUED))
        actions.ensure_local_host(slots=1)
        assert host.slots.count() == 2


class TestBaseImages:
    def test_command(self, tmp_path):
        builder = ImageBuilder()
        out = StringIO()
        call_command("base_image_add", str(builder.docker_archive(tmp_path / "base.tar")), "python", stdout=out)
        image = Image.objects.bases().get()
        assert (image.image_id, image.name) == (builder.image_id, "python")
        assert builder.image_id in out.getvalue()

    def test_same_image_entered_before(self, tmp_path):
        archive = ImageBuilder().docker_archive(tmp_path / "base.tar")
        entered = actions.store_image(checked=actions.check_archive(archive=archive))
        assert actions.register_base_image(archive=archive, name="python") == entered
        assert actions.store_image(checked=actions.check_archive(archive=archive)).is_base

    def test_command_says_what_is_wrong(self, tmp_path):
        (tmp_path / "x").write_bytes(b"x")
        with pytest.raises(CommandError, match="docker save"):
            call_command("base_image_add", str(tmp_path / "x"), "python")
        with pytest.raises(CommandError, match="There is no file"):
            call_command("base_image_add", str(tmp_path / "y"), "python")


class TestFullDisk:
    """The last of the disk is not for images; that it is short is no fault of theirs."""

    def test_image_that_would_fill_it(self, tmp_path, settings):
        archive = ImageBuilder(layers=[tar(member("large", bytes(3_000_000)))]).docker_archive(tmp_path / "image.tar")
        settings.SANDBOX = {"disk_reserve_bytes": shutil.disk_usage(tmp_path).total}
        with pytest.raises(Rejected, match="too little room") as caught:
            actions.check_archive(archive=archive)
        assert caught.value.reason == Reason.PLATFORM_FAULT
        assert not list(blob_root().glob("*"))
        settings.SANDBOX = {"disk_reserve_bytes": 0}
        assert actions.check_archive(archive=archive).size > 3_000_000

    def test_image_that_is_too_large_anyway(self, tmp_path, settings):
        archive = ImageBuilder(layers=[tar(member("large", bytes(3_000_000)))]).docker_archive(tmp_path / "image.tar")
        settings.SANDBOX = {"disk_reserve_bytes": 0, "max_image_bytes": 1_000_000}
        with pytest.raises(Rejected, match="unpacks to more than 1 MB") as caught:
            actions.check_archive(archive=archive)
        assert caught.value.reason == Reason.IMAGE_INVALID


@pytest.mark.parametrize("reason", Reason)
def test_each_reason_has_a_sentence_and_a_hint(reason):
    assert reasons.sentence(reason).endswith(".")
    assert reasons.hint(reason.value).endswith(".")


@pytest.mark.parametrize("model", ["run", "image", "host"])
def test_operators_may_look_and_not_touch(admin_client, model, settings):
    plain = {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"}
    settings.STORAGES = {**settings.STORAGES, "staticfiles": plain}  # nothing has been collected
    actions.ensure_local_host(slots=1)
    image = Image.objects.create(image_id="sha256:1")
    run = actions.queue(image=image, limits={}, **QUEUED)
    shown = {"run": run, "image": image, "host": Host.objects.get()}[model]
    assert admin_client.get(reverse(f"admin:sandbox_{model}_changelist")).status_code == 200
    assert admin_client.get(reverse(f"admin:sandbox_{model}_change", args=[shown.pk])).status_code == 200
    may_add = 200 if model == "host" else 403  # hosts join here, too
    assert admin_client.get(reverse(f"admin:sandbox_{model}_add")).status_code == may_add
    assert admin_client.post(reverse(f"admin:sandbox_{model}_delete", args=[shown.pk])).status_code == 403

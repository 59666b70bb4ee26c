"""What goes when its time is over, and what must not."""

import os
from collections.abc import Collection
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from django.utils import timezone
from django_q.models import Schedule

from sandbox import reaper, retention
from sandbox.blobs import blob_path
from sandbox.conf import blob_root, private_root
from sandbox.models import Image, Run

pytestmark = pytest.mark.django_db


class Needs:
    """A room above that needs what it is told to need."""

    def __init__(self) -> None:
        self.runs: set[UUID] = set()
        self.kept: set[int] = set()

    def results(self, runs: Collection[UUID]) -> set[UUID]:
        return self.runs & set(runs)

    def images(self, images: Collection[int], since: datetime) -> set[int]:
        return self.kept & set(images)


@pytest.fixture(autouse=True)
def needs(monkeypatch: pytest.MonkeyPatch) -> Needs:
    needs = Needs()
    monkeypatch.setattr(retention, "_keepers", [needs])
    return needs


@pytest.fixture(autouse=True)
def policy(settings: Any) -> None:
    settings.SANDBOX = {"keep_logs_days": 30, "keep_results_days": 3, "keep_images_days": 60}


def ago(days: float) -> datetime:
    return timezone.now() - timedelta(days=days)


def write(path: Path, size: int, *, days: float = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * size)
    age(path, days)
    return path


def age(path: Path, days: float) -> None:
    os.utime(path, (ago(days).timestamp(),) * 2)


def image(number: int, *layers: str, days: float = 0, **fields: Any) -> Image:
    """An image whose blobs have 100 bytes each."""
    image = Image.objects.create(
        image_id="sha256:" + str(number) * 64,
        layers=[f"sha256:{layer * 64}" for layer in layers],
        created_at=ago(days),
        **fields,
    )
    for digest in (image.image_id, *image.layers):
        write(blob_path(blob_root(), digest), 100, days=days)
    return image


def ended(days: float, image: Image, **facts: Any) -> Run:
    """A run that ended so many days ago, with its log (10 bytes) and result (20)."""
    fields = {"purpose": "questions", "step": "fit", "owner": "ada", "state": "succeeded", "finished_at": ago(days)}
    run = Run.objects.create(image=image, **{**fields, **facts})
    write(run.log_path, 10)
    write(run.result_folder / "model" / "weights.bin", 20)
    return run


def numbers(tallies: list[retention.Tally]) -> dict[str, tuple[int, int]]:
    return {tally.what: (tally.number, tally.size) for tally in tallies if tally.number}


class TestRuns:
    def test_results_go_first_then_logs_then_the_folder(self) -> None:
        runs = {days: ended(days, image(1) if days == 1 else Image.objects.get()) for days in (1, 5, 40)}
        assert numbers(retention.sweep()) == {"results of runs": (2, 40), "logs of runs": (1, 10)}
        assert runs[1].log_path.exists()
        assert runs[1].result_folder.exists()
        assert runs[5].log_path.exists()
        assert not runs[5].result_folder.exists()
        assert not runs[40].folder.exists()
        assert numbers(retention.sweep()) == {}
        assert Run.objects.count() == 3

    def test_a_dry_run_counts_and_touches_nothing(self) -> None:
        run = ended(40, image(1, "a", days=90))
        Run.objects.update(finished_at=ago(90))
        found = numbers(retention.sweep(dry_run=True))
        assert found == {"results of runs": (1, 20), "logs of runs": (1, 10), "images": (1, 200)}
        assert run.log_path.exists()
        assert run.result_folder.exists()
        assert Image.objects.held().exists()
        assert numbers(retention.sweep()) == found

    def test_what_a_later_step_reads_stays(self, needs: Needs) -> None:
        needed, other = (ended(40, picture) for picture in (image(1), image(2)))
        needs.runs = {needed.pk}
        retention.sweep()
        assert needed.result_folder.exists()
        assert not other.result_folder.exists()

    def test_runs_that_have_not_ended_keep_everything(self) -> None:
        run = ended(40, image(1), state="running", finished_at=None, queued_at=ago(400))
        assert numbers(retention.sweep()) == {}
        assert run.result_folder.exists()

    def test_zero_days_are_for_ever(self, settings: Any) -> None:
        settings.SANDBOX = {"keep_logs_days": 0, "keep_results_days": 0, "keep_images_days": 0}
        ended(4000, image(1, days=5000))
        assert numbers(retention.sweep()) == {}

    def test_folders_without_a_run(self) -> None:
        run = ended(0, image(1))
        gone, young = (run.folder.parent / name for name in ("0" * 32, "1" * 32))
        for folder in (gone, young, run.folder.parent / "not an id"):
            write(folder / "log.txt", 10)
            age(folder, 2)
        age(young, 0)
        assert numbers(retention.sweep()) == {"folders of runs that are gone": (1, 10)}
        assert not gone.exists()
        assert young.exists()

    def test_a_link_is_not_followed(self, tmp_path: Path) -> None:
        treasure = write(tmp_path / "treasure" / "file", 1000)
        run = ended(40, image(1))
        (run.result_folder / "link").symlink_to(treasure.parent)
        retention.sweep()
        assert not run.result_folder.exists()
        assert treasure.exists()

    def test_nothing_to_clean(self) -> None:
        assert not (private_root() / "runs").exists()
        assert numbers(retention.sweep()) == {}


class TestImages:
    def test_an_old_image_goes_with_what_only_it_has(self) -> None:
        old, young = image(1, "a", "b", days=90), image(2, "b", days=1)
        ended(70, old)
        assert numbers([retention.sweep_images()]) == {"images": (1, 200)}
        old.refresh_from_db()
        assert old.removed_at is not None
        left = {path.name[0] for path in blob_root().iterdir()}
        assert left == {"2", "b"}
        young.refresh_from_db()
        assert young.removed_at is None

    @pytest.mark.parametrize("why", ["queued", "running", "recent", "young", "base", "needed", "for ever"])
    def test_reasons_to_stay(self, why: str, needs: Needs, settings: Any) -> None:
        picture = image(1, "a", days=1 if why == "young" else 90, is_base=why == "base")
        if why in ("queued", "running"):
            ended(90, picture, state=why, finished_at=None)
        if why == "recent":
            ended(59, picture)
        if why == "needed":
            needs.kept = {picture.pk}
        if why == "for ever":
            settings.SANDBOX = {"keep_images_days": 0}
        assert numbers([retention.sweep_images()]) == {}
        assert Image.objects.held().get() == picture
        assert len(list(blob_root().iterdir())) == 2

    def test_a_blob_that_a_check_has_just_renewed_stays(self) -> None:
        old = image(1, "a", days=90)
        age(blob_path(blob_root(), old.layers[0]), 0)
        assert numbers([retention.sweep_images()]) == {"images": (1, 100)}
        assert blob_path(blob_root(), old.layers[0]).exists()


def test_an_image_that_was_let_go_comes_back_when_it_is_entered_again(host, engine, make_image, run) -> None:
    """Through the real check and the real engine, which has to drop its copy in between."""
    picture = make_image("echo 7 > /output/answer.txt")
    first = run(picture)
    assert first.state == "succeeded"
    Run.objects.filter(state="queued").delete()  # the step that follows
    Run.objects.update(finished_at=ago(90))
    Image.objects.update(created_at=ago(90))
    for path in blob_root().iterdir():
        age(path, 90)
    assert retention.sweep_images().number == 1
    assert list(blob_root().iterdir()) == []
    reaper.sweep()
    assert engine.loaded_images() == set()
    again = make_image("echo 7 > /output/answer.txt")
    assert again.pk == picture.pk
    assert again.removed_at is None
    assert run(again).state == "succeeded"


def test_the_daily_round_is_scheduled() -> None:
    schedules = Schedule.objects.filter(name__endswith=".clean")
    assert {schedule.func for schedule in schedules} == {"sandbox.tasks.clean", "submissions.tasks.clean"}
    assert {schedule.schedule_type for schedule in schedules} == {Schedule.DAILY}

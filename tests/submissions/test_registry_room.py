"""The room that the registry takes: what bounds it, and what goes when."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.utils import timezone

from submissions.models import Push, Submission, Team
from submissions.registry import alarms, conf, names, pushes, room, store
from submissions.registry.keeper import Keeper
from tests.arena import wait_for
from tests.sandbox.image_builder import ImageBuilder, member, tar
from tests.submissions.conftest import answers
from tests.submissions.registries import Pusher

pytestmark = pytest.mark.django_db


@pytest.fixture
def mine(teams: dict[str, Team]) -> str:
    return f"{names.prefix(teams['ada'])}/mine"


def image_of(name: str, size: int = 100_000) -> ImageBuilder:
    return ImageBuilder(layers=[tar(member(name, bytes(size)))])


def again(keeper: Keeper) -> None:
    """As after a restart of the arena."""
    keeper.__exit__()
    keeper.__enter__()
    wait_for(answers, seconds=30, what="the registry answers")


def test_the_kernel_bounds_a_layer(settings: Any, registry: Keeper, pusher: Callable[..., Pusher], mine: str) -> None:
    settings.SANDBOX = {**settings.SANDBOX, "max_archive_bytes": 1 << 20}
    again(registry)
    ada = pusher("ada", "mine")
    assert ada.blob(mine, bytes(3 << 20)).is_error
    assert room.used_bytes() <= 1 << 20
    assert ada.blob(mine, b"a small one").status_code == 201
    registry.mind()


def test_what_no_image_refers_to_goes(registry: Keeper, pusher: Callable[..., Pusher], mine: str) -> None:
    ada = pusher("ada", "mine")
    kept = ada.image(mine, "attack", image_of("kept"), compress=False)
    ada.image(mine, "defense", image_of("replaced"), compress=False)
    ada.image(mine, "defense", image_of("newer"), compress=False)
    assert ada.blob(mine, bytes(150_000)).status_code == 201  # never in a manifest
    before = room.used_bytes()
    again(registry)
    assert before - room.used_bytes() > 250_000
    assert dict(store.tags(mine))["attack"] == kept
    newer = image_of("newer").oci_blobs()[1]["digest"]
    assert dict(store.tags(mine))["defense"] == newer
    assert store.manifest(mine, newer)
    # Whoever pushes again what has gone sends it again, and it is whole.
    ada.image(mine, "defense", image_of("replaced"), compress=False)
    again(registry)
    assert dict(store.tags(mine))["defense"] == image_of("replaced").oci_blobs()[1]["digest"]


def test_after_a_week_an_entered_image_leaves_the_registry(
    registry: Keeper, pusher: Callable[..., Pusher], mine: str
) -> None:
    digest = pusher("ada", "mine").image(mine, "attack", image_of("old"))
    pushes.sweep()
    push = Push.objects.get()
    pushes.receive(push.pk)
    pushes.sweep()
    assert dict(store.tags(mine)) == {"attack": digest}
    Push.objects.update(pushed_at=timezone.now() - timedelta(days=8))
    pushes.sweep()
    assert dict(store.tags(mine)) == {}
    again(registry)
    assert room.used_bytes() == 0
    assert list(store.repositories()) == []
    pushes.sweep()
    assert Submission.objects.get().state == "checking"


def test_a_push_under_way_is_not_cleared_up(registry: Keeper, pusher: Callable[..., Pusher], mine: str) -> None:
    digest = pusher("ada", "mine").image(mine, "attack", image_of("slow"))
    pushes.note(repository=mine, tag="attack", digest=digest)
    Push.objects.update(pushed_at=timezone.now() - timedelta(days=8))
    pushes.sweep()
    assert dict(store.tags(mine)) == {"attack": digest}


def test_nobody_is_cut_off_by_the_daily_cleaning(
    registry: Keeper, pusher: Callable[..., Pusher], mine: str, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("submissions.registry.keeper._LOOK_SECONDS", 0.0)
    settings.REGISTRY = {**settings.REGISTRY, "clean_seconds": 0.0}
    ada = pusher("ada", "mine")
    assert room.is_quiet()
    begun = ada.http.post(f"/{mine}/blobs/uploads/")
    place = f"{conf.url()}{begun.headers['Location']}"
    sent = ada.http.patch(place, content=b"half", headers={"Content-Type": "application/octet-stream"})
    assert sent.status_code == 202
    assert not room.is_quiet()
    process = registry._process
    registry.mind()
    assert registry._process is process
    monkeypatch.setattr(room, "is_quiet", lambda: True)
    registry.mind()
    assert registry._process is not process


def test_a_full_registry_drops_what_is_unfinished_and_closes_until_there_is_room(
    registry: Keeper,
    pusher: Callable[..., Pusher],
    mine: str,
    settings: Any,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setattr("submissions.registry.keeper._LOOK_SECONDS", 0.0)
    ada = pusher("ada", "mine")
    ada.image(mine, "attack", image_of("whole", 200_000), compress=False)
    begun = ada.http.post(f"/{mine}/blobs/uploads/")
    ada.http.patch(
        f"{conf.url()}{begun.headers['Location']}",
        content=bytes(500_000),
        headers={"Content-Type": "application/octet-stream"},
    )
    settings.REGISTRY = {**settings.REGISTRY, "max_bytes": 300_000}
    assert room.is_full()
    registry.mind()
    assert room.used_bytes() < 300_000
    wait_for(answers, seconds=30, what="the registry answers again")
    assert dict(store.tags(mine))

    settings.REGISTRY = {**settings.REGISTRY, "max_bytes": 100_000}
    registry.mind()
    assert not answers()
    registry.mind()
    settings.REGISTRY = {**settings.REGISTRY, "max_bytes": 300_000}
    registry.mind()
    wait_for(answers, seconds=30, what="the registry answers again")


def test_where_room_is_short_images_that_were_fetched_go(
    registry: Keeper, pusher: Callable[..., Pusher], mine: str, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("submissions.registry.keeper._LOOK_SECONDS", 0.0)
    other = mine.replace("mine", "other")
    pusher("ada", "mine").image(mine, "attack", image_of("fetched", 200_000), compress=False)
    pushes.sweep()
    pushes.receive(Push.objects.get().pk)
    waiting = pusher("ada", "other").image(other, "attack", image_of("waiting", 200_000), compress=False)
    pushes.sweep()
    settings.REGISTRY = {**settings.REGISTRY, "max_bytes": 300_000}
    registry.mind()
    wait_for(answers, seconds=30, what="the registry answers again")
    assert list(store.repositories()) == [other]
    assert dict(store.tags(other)) == {"attack": waiting}
    pushes.receive(Push.objects.get(repository=other).pk)
    assert set(Submission.objects.values_list("state", flat=True)) == {"checking"}


def test_a_registry_that_ended_is_started_again(registry: Keeper, monkeypatch: pytest.MonkeyPatch) -> None:
    first = registry._process
    assert first is not None
    first.kill()
    first.wait()
    registry.mind()  # it has lived for a moment only: not at once
    assert not answers()
    monkeypatch.setattr("submissions.registry.keeper._LOOK_SECONDS", 0.0)
    registry.mind()
    wait_for(answers, seconds=30, what="the registry answers again")


def test_operators_are_told_of_a_registry_that_is_full_or_silent(registry: Keeper, settings: Any) -> None:
    assert list(alarms.conditions()) == []
    settings.REGISTRY = {**settings.REGISTRY, "max_bytes": -1}
    assert [one.subject for one in alarms.conditions()] == ["full"]
    registry.__exit__()
    settings.REGISTRY = {**settings.REGISTRY, "max_bytes": 10**9}
    assert [one.subject for one in alarms.conditions()] == ["silent"]
    settings.REGISTRY = {**settings.REGISTRY, "address": ""}
    assert list(alarms.conditions()) == []


def test_nothing_of_the_registry_is_readable_for_others(registry: Keeper) -> None:
    for name in ("signing.pem", "config.json", "certificate.pem", "storage"):
        assert (conf.root() / name).stat().st_mode & 0o077 == 0, name

"""How a push becomes an entry, once, and what never does. The registry is real; what it tells is told by hand."""

import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from django_q.models import OrmQ

from anomed_site.models import User
from challenges.models import Challenge
from sandbox import actions as sandbox
from sandbox.models import Run
from submissions import tasks, uploads
from submissions.models import Push, Submission, Team
from submissions.registry import names, pushes, store
from submissions.registry.keeper import Keeper
from tests.arena import wait_for
from tests.sandbox.image_builder import (
    INDEX_TYPE,
    LAYER_TYPE,
    MANIFEST_TYPE,
    TEXT_LAYER,
    ImageBuilder,
    descriptor,
    member,
    sha256,
    tar,
)
from tests.submissions.registries import Pusher

pytestmark = pytest.mark.django_db
CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"


@pytest.fixture
def mine(teams: dict[str, Team]) -> str:
    return f"{names.prefix(teams['ada'])}/mine"


@pytest.fixture
def ada_pushes(pusher: Callable[..., Pusher], mine: str) -> Callable[..., str]:
    """Ada pushes a whole image; returns its digest. Nobody is told yet."""

    def push(tag: str = "attack", image: ImageBuilder | None = None, **more: Any) -> str:
        return pusher("ada", "mine").image(mine, tag, image or ImageBuilder(), **more)

    return push


def told(repository: str, digest: str, tag: str = "attack") -> Push:
    """The registry tells of a push, and the worker does its part."""
    pushes.note(repository=repository, tag=tag, digest=digest)
    push = Push.objects.get(repository=repository, tag=tag, digest=digest)
    pushes.receive(push.pk)
    push.refresh_from_db()
    return push


def manifest(config: bytes, layers: list[dict[str, Any]], **more: Any) -> bytes:
    facts = {"schemaVersion": 2, "mediaType": MANIFEST_TYPE, "config": descriptor(config, CONFIG_TYPE), **more}
    return json.dumps({**facts, "layers": layers}).encode()


def index(*descriptors: dict[str, Any]) -> bytes:
    return json.dumps({"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": list(descriptors)}).encode()


def platform(os: str, architecture: str) -> dict[str, Any]:
    return {"platform": {"os": os, "architecture": architecture}}


@pytest.mark.parametrize("compress", [True, False])
@pytest.mark.parametrize("kind", ["defense", "attack"])
def test_a_push_becomes_an_entry_that_goes_the_way_of_all(
    ada_pushes: Callable[..., str], mine: str, ada: User, kind: str, compress: bool
) -> None:
    push = told(mine, ada_pushes(kind, compress=compress), kind)
    entry = Submission.objects.get()
    assert push.submission == entry
    assert (entry.kind, entry.name, entry.created_by, entry.state) == (kind, "mine", ada, "checking")
    tasks.check_image(str(entry.pk))
    entry.refresh_from_db()
    assert (entry.state, entry.failure_detail) == ("rehearsing", "")
    assert entry.image is not None
    assert entry.image.image_id == ImageBuilder().image_id


def test_a_pushed_image_says_itself_that_it_is_a_web_server(ada_pushes: Callable[..., str], mine: str) -> None:
    labels = {"org.anomed.contract": "web/1"}
    told(mine, ada_pushes(image=ImageBuilder(config={"Cmd": ["/hello"], "Labels": labels})))
    entry = Submission.objects.get()
    assert entry.contract == ""
    tasks.check_image(str(entry.pk))
    entry.refresh_from_db()
    assert (entry.state, entry.contract) == ("rehearsing", "web/1")
    assert Run.objects.get().contract == "web/1"


def test_telling_twice_makes_one_entry(ada_pushes: Callable[..., str], mine: str) -> None:
    digest = ada_pushes()
    told(mine, digest)
    told(mine, digest)
    pushes.sweep()
    assert Submission.objects.count() == Push.objects.count() == 1


def test_the_same_image_under_another_name_or_tag_is_entered_again(
    ada_pushes: Callable[..., str], pusher: Callable[..., Pusher], mine: str
) -> None:
    told(mine, ada_pushes("attack"))
    told(mine, ada_pushes("defense"), "defense")
    told(
        mine.replace("mine", "other"),
        pusher("ada", "other").image(mine.replace("mine", "other"), "attack", ImageBuilder()),
    )
    assert Submission.objects.count() == 3


def test_a_push_that_nobody_told_of_is_found(ada_pushes: Callable[..., str], mine: str) -> None:
    digest = ada_pushes()
    pushes.sweep()
    assert Push.objects.get().digest == digest
    pushes.receive(Push.objects.get().pk)
    assert Submission.objects.get().state == "checking"


def test_a_fetch_goes_on_where_a_killed_worker_left_off(
    ada_pushes: Callable[..., str], mine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(submission: Submission, layout: Any) -> None:
        uploads.append(upload=submission.upload, offset=0, chunks=[next(layout.stream()), b"half"][:1])

    with monkeypatch.context() as killed:
        killed.setattr(pushes, "_copy", die)
        push = told(mine, ada_pushes(image=ImageBuilder(layers=[TEXT_LAYER, tar(member("big", bytes(3 << 20)))])))
    entry = Submission.objects.get()
    assert 0 < entry.upload.offset < entry.upload.size
    pushes.receive(push.pk)
    entry.refresh_from_db()
    assert entry.state == "checking"
    assert sandbox.check_archive(archive=entry.upload.path)


def test_a_base_image_that_came_meanwhile_costs_the_team_nothing(
    ada_pushes: Callable[..., str], mine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = ImageBuilder()
    with monkeypatch.context() as killed:
        killed.setattr(pushes, "_copy", lambda *_: None)
        push = told(mine, ada_pushes(image=image))
    sandbox.register_base_image(archive=image.docker_archive(tmp_path / "base.tar"), name="base")
    pushes.receive(push.pk)
    entry = Submission.objects.get()
    assert (entry.state, entry.failure_reason) == ("failed", "platform_fault")
    again = told(mine, push.digest)
    assert again.submission is not None
    assert again.submission.state == "checking"


def test_layers_of_base_images_are_not_fetched(
    ada_pushes: Callable[..., str], mine: str, tmp_path: Path, settings: Any
) -> None:
    base = ImageBuilder(layers=[tar(member("base", b"b" * 100_000))])
    sandbox.register_base_image(archive=base.docker_archive(tmp_path / "base.tar"), name="base")
    told(mine, ada_pushes(image=ImageBuilder(layers=[*base.layers, TEXT_LAYER]), compress=False))
    entry = Submission.objects.get()
    assert entry.upload.size < 40_000
    tasks.check_image(str(entry.pk))
    entry.refresh_from_db()
    assert (entry.state, entry.failure_detail) == ("rehearsing", "")


# -- what becomes no entry, and how the team learns of it


def test_another_tag_is_explained_on_the_teams_page(
    ada_pushes: Callable[..., str], mine: str, client: Client, ada: User, ben: User, clinic: Challenge
) -> None:
    told(mine, ada_pushes("latest"), "latest")
    assert not Submission.objects.exists()
    client.force_login(ada)
    page = client.get(reverse("challenge_submissions", args=[clinic.slug])).content.decode()
    assert f"{mine}:latest" in page
    assert "push it again, with “:defense” or “:attack”" in page
    client.force_login(ben)
    assert mine not in client.get(reverse("challenge_submissions", args=[clinic.slug])).content.decode()


@pytest.mark.parametrize(
    ("limits", "said"),
    [
        ({"daily_quota": 0}, "Your team has used all its entries of the last 24 hours. Try again later."),
        ({"status": "closed"}, "This challenge does not take entries now."),
    ],
)
def test_what_actions_refuse_is_told_and_can_be_pushed_again(
    ada_pushes: Callable[..., str], mine: str, limits: dict[str, Any], said: str
) -> None:
    digest = ada_pushes()
    Challenge.objects.update(**limits)
    assert told(mine, digest).refusal == said
    pushes.sweep()
    assert Push.objects.get().refusal == said
    Challenge.objects.update(daily_quota=50, status="published")
    assert told(mine, digest).submission is not None


def test_an_image_larger_than_an_upload_may_be_is_not_fetched(
    ada_pushes: Callable[..., str], mine: str, settings: Any, tmp_path: Path
) -> None:
    digest = ada_pushes(image=ImageBuilder(layers=[tar(member("big", bytes(2 << 20)))]), compress=False)
    settings.SANDBOX = {**settings.SANDBOX, "max_archive_bytes": 1 << 20}
    assert "The file is larger than" in told(mine, digest).refusal
    assert not list((tmp_path / "private").glob("uploads/*"))


def test_of_an_index_the_image_for_this_platform_is_taken_once(
    pusher: Callable[..., Pusher], ada_pushes: Callable[..., str], mine: str
) -> None:
    ada = pusher("ada", "mine")
    arm, ours = ImageBuilder(architecture="arm64"), ImageBuilder()
    for image in (arm, ours):
        ada.image(mine, "part", image)
    found = [(image.oci_blobs(compress=True)[1], image.architecture) for image in (arm, ours)]
    attestation = {**found[0][0], **platform("unknown", "unknown")}
    text = index(attestation, *({**one, **platform("linux", architecture)} for one, architecture in found))
    assert ada.manifest(mine, "attack", text, INDEX_TYPE).status_code == 201
    told(mine, f"sha256:{sha256(text)}")
    entry = Submission.objects.get()
    tasks.check_image(str(entry.pk))
    entry.refresh_from_db()
    assert entry.image is not None
    assert entry.image.image_id == ours.image_id


def test_an_index_in_an_index_and_one_without_our_platform_are_refused(
    pusher: Callable[..., Pusher], ada_pushes: Callable[..., str], mine: str
) -> None:
    ada = pusher("ada", "mine")
    ada_pushes("part")
    inner = index({**ImageBuilder().oci_blobs(compress=True)[1], **platform("linux", "amd64")})
    assert ada.manifest(mine, "inner", inner, INDEX_TYPE).status_code == 201
    outer = index({**descriptor(inner, INDEX_TYPE), **platform("linux", "amd64")})
    assert ada.manifest(mine, "attack", outer, INDEX_TYPE).status_code == 201
    assert "not an image of a kind that can run here" in told(mine, f"sha256:{sha256(outer)}").refusal
    empty = index()
    assert ada.manifest(mine, "attack", empty, INDEX_TYPE).status_code == 201
    assert "exactly one image for linux/amd64" in told(mine, f"sha256:{sha256(empty)}").refusal


def test_a_forged_layer_is_found_by_the_check(ada_pushes: Callable[..., str], mine: str) -> None:
    """The configuration claims a layer that the registry holds of another team, and sends an empty one."""
    stolen = f"sha256:{sha256(tar(member('secret', b'of another team')))}"
    told(mine, ada_pushes(image=ImageBuilder(diff_ids=[stolen])))
    entry = Submission.objects.get()
    tasks.check_image(str(entry.pk))
    entry.refresh_from_db()
    assert (entry.state, entry.failure_reason) == ("failed", "image_invalid")
    assert "does not have the digest" in entry.failure_detail


@pytest.mark.parametrize("lie", [-1, 1])
def test_a_size_that_lies_ends_the_entry(pusher: Callable[..., Pusher], mine: str, lie: int, tmp_path: Path) -> None:
    ada, image = pusher("ada", "mine"), ImageBuilder()
    for data in (TEXT_LAYER, image.config_json):
        assert ada.blob(mine, data).status_code == 201
    layer = descriptor(TEXT_LAYER, LAYER_TYPE)
    text = manifest(image.config_json, [{**layer, "size": layer["size"] + lie}])
    assert ada.manifest(mine, "attack", text).status_code == 201
    told(mine, f"sha256:{sha256(text)}")
    entry = Submission.objects.get()
    assert (entry.state, entry.failure_reason) == ("failed", "image_invalid")
    assert "incomplete" in entry.failure_detail


@pytest.mark.parametrize("size", [10**15, 10**30])
def test_a_monstrous_size_costs_nothing(pusher: Callable[..., Pusher], mine: str, size: int) -> None:
    ada, image = pusher("ada", "mine"), ImageBuilder()
    for data in (TEXT_LAYER, image.config_json):
        assert ada.blob(mine, data).status_code == 201
    text = manifest(image.config_json, [{**descriptor(TEXT_LAYER, LAYER_TYPE), "size": size}])
    answer = ada.manifest(mine, "attack", text)
    if answer.status_code != 201:  # the registry itself reads sizes of 64 bits only
        assert size == 10**30
        return
    assert "The file is larger than" in told(mine, f"sha256:{sha256(text)}").refusal


ELSEWHERE = {"urls": ["http://169.254.169.254/latest/meta-data"]}


@pytest.mark.parametrize(
    ("kind", "more"),
    [
        (LAYER_TYPE, ELSEWHERE),
        ("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", ELSEWHERE),
        ("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", {}),
        ("application/vnd.oci.image.layer.nondistributable.v1.tar", ELSEWHERE),
        ("application/vnd.oci.image.layer.nondistributable.v1.tar", {}),
    ],
)
def test_no_layer_is_fetched_from_elsewhere(
    pusher: Callable[..., Pusher], mine: str, kind: str, more: dict[str, Any]
) -> None:
    """The registry refuses most of these, and we all that it lets pass."""
    ada, image = pusher("ada", "mine"), ImageBuilder()
    for data in (TEXT_LAYER, image.config_json):
        assert ada.blob(mine, data).status_code == 201
    text = manifest(image.config_json, [descriptor(TEXT_LAYER, kind, **more)])
    if ada.manifest(mine, "attack", text).is_error:
        assert dict(store.tags(mine)) == {}
    else:
        assert "kept elsewhere" in told(mine, f"sha256:{sha256(text)}").refusal
    assert not Submission.objects.exists()


@pytest.mark.parametrize("text", [b"", b"[]", b"{}", b'{"layers": 7}', b"[" * 100_000, b'{"layers": [], "Layers": []}'])
def test_a_manifest_of_nonsense_is_refused(
    ada_pushes: Callable[..., str], mine: str, monkeypatch: pytest.MonkeyPatch, text: bytes
) -> None:
    digest = ada_pushes()
    monkeypatch.setattr(store, "manifest", lambda *_: (text, MANIFEST_TYPE))
    assert told(mine, digest).refusal
    assert not Submission.objects.exists()


def test_old_and_huge_manifests_are_not_taken(pusher: Callable[..., Pusher], mine: str) -> None:
    ada = pusher("ada", "mine")
    first = json.dumps(
        {"schemaVersion": 1, "name": mine, "tag": "attack", "architecture": "amd64", "fsLayers": [], "history": []}
    ).encode()
    for kind in ("v1+json", "v1+prettyjws"):
        assert ada.manifest(mine, "attack", first, f"application/vnd.docker.distribution.manifest.{kind}").is_error
    assert ada.manifest(mine, "attack", manifest(b"{}", [], padding="x" * (5 << 20))).is_error
    pushes.sweep()
    assert not Push.objects.exists()


def test_a_layer_has_the_digest_that_it_is_sent_under(pusher: Callable[..., Pusher], mine: str) -> None:
    assert pusher("ada", "mine").blob(mine, b"something", digest=f"sha256:{sha256(b'else')}").status_code == 400


def test_pushes_to_no_teams_repository_are_nobodys(teams: dict[str, Team], mine: str) -> None:
    for name in ("library/debian", f"{mine}/../../x", mine.upper(), "", "x" * 1000):
        pushes.note(repository=name, tag="attack", digest=f"sha256:{'0' * 64}")
    pushes.note(repository=mine, tag="attack", digest="sha256:../../etc/passwd")
    pushes.note(repository=mine, tag="x" * 129, digest=f"sha256:{'0' * 64}")
    assert not Push.objects.exists()


def test_a_flood_of_pushes_makes_no_flood_of_jobs(mine: str) -> None:
    for number in range(pushes._MOST_OPEN + 5):
        pushes.note(repository=mine, tag="attack", digest=f"sha256:{number:064x}")
    assert OrmQ.objects.count() == pushes._MOST_OPEN
    refused = Push.objects.exclude(refusal="")
    assert refused.count() == 5
    push = refused.earliest("pk")
    pushes.note(repository=mine, tag="attack", digest=push.digest)  # pushed again at once: no better
    assert OrmQ.objects.count() == pushes._MOST_OPEN
    Push.objects.exclude(pk=push.pk).update(refusal="dealt with")
    pushes.note(repository=mine, tag="attack", digest=push.digest)
    assert OrmQ.objects.count() == pushes._MOST_OPEN + 1


def test_a_sweep_ends_in_time_however_many_tags_there_are(
    ada_pushes: Callable[..., str], mine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ada_pushes()
    monkeypatch.setattr(pushes, "_SWEEP_SECONDS", -1.0)
    pushes.sweep()
    assert not Push.objects.exists()


def test_images_of_a_team_that_is_gone_leave_the_registry(ada_pushes: Callable[..., str], mine: str) -> None:
    digest = ada_pushes()
    Team.objects.all().delete()
    pushes.sweep()
    with pytest.raises(store.Missing):
        store.manifest(mine, digest)


def test_an_image_that_is_gone_is_named_incomplete(ada_pushes: Callable[..., str], mine: str) -> None:
    digest = ada_pushes()
    store.delete(mine, digest)
    assert "incomplete" in told(mine, digest).refusal


def test_while_the_registry_is_away_a_push_waits(ada_pushes: Callable[..., str], mine: str, registry: Keeper) -> None:
    digest = ada_pushes()
    registry.__exit__()
    push = told(mine, digest)
    assert (push.refusal, push.entered) == ("", False)
    registry.__enter__()
    wait_for(store.answers, seconds=30, what="the registry answers")
    asked = OrmQ.objects.count()
    pushes.sweep()
    assert OrmQ.objects.count() == asked  # a worker may still be at it
    Push.objects.update(pushed_at=timezone.now() - timedelta(seconds=21))
    pushes.sweep()
    assert OrmQ.objects.count() == asked + 1
    pushes.receive(push.pk)
    assert Submission.objects.get().state == "checking"

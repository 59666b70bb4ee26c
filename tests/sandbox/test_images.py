"""What happens to an uploaded archive before any engine sees it."""

import gzip
import io
import json
import tarfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from image_builder import (
    INDEX_TYPE,
    TEXT_LAYER,
    ImageBuilder,
    descriptor,
    member,
    sha256,
    tar,
    write_layout,
)

from sandbox import archives, images
from sandbox.archives import Caps
from sandbox.blobs import blob_path, load_stream
from sandbox.images import CheckedImage
from sandbox.reasons import Reason, Rejected

CAPS = Caps(unpacked_bytes=50_000_000, members=500, entries=2000, layers=127)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "blobs" / "sha256"


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    return tmp_path / "upload.tar"


@pytest.fixture
def check(store: Path) -> Callable[..., CheckedImage]:
    """Checks an archive as the server does, in an isolated child."""

    def check(path: Path, base_layers: frozenset[str] = frozenset(), caps: Caps = CAPS) -> CheckedImage:
        return images.check_archive(path, store, base_layers, caps=caps, seconds=60, memory_mb=512)

    return check


@pytest.fixture
def refusal(check: Callable[..., CheckedImage], store: Path) -> Callable[..., str]:
    """The sentence with which an archive is refused. Nothing of it may stay."""

    def refusal(path: Path, **more: Any) -> str:
        with pytest.raises(Rejected) as caught:
            check(path, **more)
        assert caught.value.reason == Reason.IMAGE_INVALID
        assert not list(store.glob("*"))
        assert not list((store.parent / "incoming").glob("*"))
        assert caught.value.detail.endswith(".")
        return caught.value.detail

    return refusal


class TestHonestArchives:
    def test_docker_archive(self, check, archive, store):
        image = ImageBuilder(config={"Entrypoint": ["/run"], "Cmd": ["now"], "Env": ["A=1"], "Labels": {"org.x": "y"}})

        checked = check(image.docker_archive(archive))

        assert checked.image_id == image.image_id
        assert checked.layers == (f"sha256:{sha256(TEXT_LAYER)}",)
        assert checked.size == len(TEXT_LAYER)
        assert checked.entrypoint == ("/run",)
        assert checked.labels == {"org.x": "y"}
        assert blob_path(store, checked.layers[0]).read_bytes() == TEXT_LAYER
        assert blob_path(store, image.image_id).read_bytes() == image.config_json

    def test_gzipped_docker_archive(self, check, archive):
        image = ImageBuilder()
        image.docker_archive(archive)
        archive.write_bytes(gzip.compress(archive.read_bytes()))
        assert check(archive).image_id == image.image_id

    def test_gzip_of_several_members(self, check, archive):
        image = ImageBuilder()
        data = image.docker_archive(archive).read_bytes()
        archive.write_bytes(gzip.compress(data[:700]) + gzip.compress(data[700:]) + bytes(100))
        assert check(archive).image_id == image.image_id

    @pytest.mark.parametrize("compress", [False, True])
    def test_oci_layout(self, check, archive, store, compress):
        image = ImageBuilder()
        checked = check(image.oci_archive(archive, compress=compress))
        assert checked.image_id == image.image_id
        assert blob_path(store, checked.layers[0]).read_bytes() == TEXT_LAYER

    def test_layout_and_docker_manifest_together(self, check, archive):
        """What `docker save` of the containerd image store writes."""
        image = ImageBuilder()
        files, manifest = image.oci_blobs(compress=True)
        layer = next(name for name, blob in files.items() if blob.startswith(b"\x1f\x8b"))
        config = f"blobs/sha256/{sha256(image.config_json)}"
        files["manifest.json"] = json.dumps([{"Config": config, "RepoTags": ["a:b"], "Layers": [layer]}]).encode()
        assert check(write_layout(archive, files, [manifest])).image_id == image.image_id

    def test_buildx_index_in_index_with_attestations(self, check, archive):
        image = ImageBuilder()
        files, manifest = image.oci_blobs()
        manifest["platform"] = {"os": "linux", "architecture": "amd64"}
        proof = descriptor(b"{}", manifest["mediaType"], platform={"os": "unknown", "architecture": "unknown"})
        other = descriptor(b"[]", manifest["mediaType"], platform={"os": "linux", "architecture": "arm64"})
        inner = json.dumps({"manifests": [manifest, proof, other]}).encode()
        files[f"blobs/sha256/{sha256(inner)}"] = inner
        assert check(write_layout(archive, files, [descriptor(inner, INDEX_TYPE)])).image_id == image.image_id

    def test_links_inside_the_archive(self, check, archive):
        """Older engines save a layer that occurs twice once, and link to it."""
        image = ImageBuilder(layers=[TEXT_LAYER, TEXT_LAYER])
        config = f"{sha256(image.config_json)}.json"
        manifest = json.dumps([{"Config": config, "Layers": ["a/layer.tar", "b/layer.tar"]}]).encode()
        archive.write_bytes(
            tar(
                member("a/layer.tar", TEXT_LAYER),
                member("b/layer.tar", type=tarfile.SYMTYPE, linkname="../a/layer.tar"),
                member(config, image.config_json),
                member("manifest.json", manifest),
            )
        )
        assert len(check(archive).layers) == 2

    def test_empty_variable_is_allowed(self, check, archive):
        image = ImageBuilder(config={"Cmd": ["/x"], "Env": ["LD_LIBRARY_PATH=", "PATH=/bin"]})
        assert check(image.docker_archive(archive)).image_id == image.image_id

    def test_switched_off_healthcheck_is_allowed(self, check, archive):
        image = ImageBuilder(config={"Cmd": ["/x"], "Healthcheck": {"Test": ["NONE"]}})
        assert check(image.docker_archive(archive)).image_id == image.image_id

    def test_checked_twice_is_the_same(self, check, archive):
        image = ImageBuilder()
        assert check(image.docker_archive(archive)) == check(archive)


class TestThinArchives:
    def test_layer_of_a_base_image_may_be_absent(self, check, archive, store, tmp_path):
        base = ImageBuilder()
        base_layers = frozenset(check(base.docker_archive(tmp_path / "base.tar")).layers)
        image = ImageBuilder(layers=[TEXT_LAYER, tar(member("mine", b"1"))])

        checked = check(image.docker_archive(archive, without=(0,)), base_layers)

        assert checked.image_id == image.image_id
        assert checked.size == sum(len(layer) for layer in image.layers)
        assert all(blob_path(store, layer).exists() for layer in checked.layers)

    def test_another_teams_layer_may_not(self, check, archive, tmp_path):
        """The blob store has it, and still: who cannot show a layer does not get it."""
        check(ImageBuilder().docker_archive(tmp_path / "of_another_team.tar"))
        thief = ImageBuilder(layers=[TEXT_LAYER, tar(member("mine", b"1"))])
        with pytest.raises(Rejected, match="not one of this server's base images"):
            check(thief.docker_archive(archive, without=(0,)))

    def test_empty_blob_does_not_stand_for_a_layer(self, refusal, archive):
        secret = f"sha256:{sha256(tar(member('secret', b'of another team')))}"
        image = ImageBuilder(layers=[bytes(1024)], diff_ids=[secret])
        assert "does not have the digest" in refusal(image.docker_archive(archive))


class TestNoImage:
    @pytest.mark.parametrize(
        "content", [b"", b"PK\x03\x04 a zip file", b"\0" * 4096, b"\x89PNG\r\n" * 500, b"<html>" * 400]
    )
    def test_something_else(self, refusal, archive, content):
        archive.write_bytes(content)
        assert "docker save" in refusal(archive)

    def test_some_other_tar(self, refusal, archive):
        archive.write_bytes(tar(member("Dockerfile", b"FROM scratch")))
        assert "neither manifest.json nor index.json" in refusal(archive)

    @pytest.mark.parametrize("magic", [b"\x28\xb5\x2f\xfd", b"\xfd7zXZ\0", b"BZh91AY"])
    def test_other_compression(self, refusal, archive, magic):
        archive.write_bytes(magic + b"x" * 1000)
        assert "Use gzip, or none" in refusal(archive)

    def test_empty_manifest(self, refusal, archive):
        archive.write_bytes(tar(member("manifest.json", b"[]")))
        assert "holds no image" in refusal(archive)

    def test_several_images(self, refusal, archive):
        one, two = ImageBuilder(), ImageBuilder(config={"Cmd": ["/other"]})
        entries = [json.loads(image.docker_members()[-1][1])[0] for image in (one, two)]
        members = [*one.docker_members()[:-1], two.docker_members()[1]]
        archive.write_bytes(tar(*members, member("manifest.json", json.dumps(entries).encode())))
        assert "holds 2 images" in refusal(archive)

    def test_several_images_in_a_layout(self, refusal, archive):
        files, first = ImageBuilder().oci_blobs()
        more, second = ImageBuilder(config={"Cmd": ["/other"]}).oci_blobs()
        assert "holds 2 images" in refusal(write_layout(archive, files | more, [first, second]))

    @pytest.mark.parametrize(
        "text", [b"{", b"[" * 100_000, b'{"a": 1, "A": 2}', b'[{"Config": 1, "Layers": []}]', b"[[]]", b"\xff"]
    )
    def test_damaged_description(self, refusal, archive, text):
        archive.write_bytes(tar(member("manifest.json", text)))
        assert "damaged" in refusal(archive)


class TestTruncated:
    def test_tar(self, refusal, archive):
        image = ImageBuilder(layers=[tar(member("big", bytes(300_000)))])
        data = image.docker_archive(archive).read_bytes()
        archive.write_bytes(data[:200_000])
        assert "cut off" in refusal(archive)

    @pytest.mark.parametrize("kept", [0.3, 0.9, 0.999])
    def test_gzip(self, refusal, archive, kept):
        data = gzip.compress(ImageBuilder().docker_archive(archive).read_bytes())
        archive.write_bytes(data[: int(len(data) * kept)])
        assert "cut off" in refusal(archive)

    def test_layer(self, refusal, archive):
        whole = tar(member("big", b"x" * 100_000))
        image = ImageBuilder(layers=[whole[:50_000]])
        assert "empty or damaged" in refusal(image.docker_archive(archive))

    def test_gzipped_layer(self, refusal, archive):
        image = ImageBuilder()
        files, manifest = image.oci_blobs(compress=True)
        name = next(name for name, blob in files.items() if blob.startswith(b"\x1f\x8b"))
        files[name] = files[name][:-9]
        assert "cut off" in refusal(write_layout(archive, files, [manifest]))


class TestHostileArchives:
    @pytest.mark.parametrize("name", ["../../etc/cron.d/x", "/etc/passwd", "a/../../b", "a\nb"])
    def test_path_that_leads_out(self, refusal, archive, name):
        archive.write_bytes(tar(member(name, b"x"), *ImageBuilder().docker_members()))
        assert "leads out" in refusal(archive)

    @pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE])
    @pytest.mark.parametrize("target", ["/etc/shadow", "../../etc/shadow", "x/../../../etc/shadow"])
    def test_link_that_leads_out(self, refusal, archive, kind, target):
        archive.write_bytes(tar(member("layer.tar", type=kind, linkname=target), *ImageBuilder().docker_members()))
        assert "leads out" in refusal(archive)

    def test_links_in_a_circle(self, refusal, archive):
        links = [member(a, type=tarfile.SYMTYPE, linkname=b) for a, b in (("x.json", "y"), ("y", "x.json"))]
        manifest = json.dumps([{"Config": "x.json", "Layers": ["l"]}]).encode()
        archive.write_bytes(tar(*links, member("manifest.json", manifest)))
        assert "damaged" in refusal(archive)

    @pytest.mark.parametrize("kind", [tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE])
    def test_special_files(self, refusal, archive, kind):
        archive.write_bytes(tar(member("x", type=kind), *ImageBuilder().docker_members()))
        assert "special files" in refusal(archive)

    def test_same_file_twice(self, refusal, archive):
        archive.write_bytes(tar(*ImageBuilder().docker_members(), member("manifest.json", b"[]")))
        assert "same file twice" in refusal(archive)

    def test_config_whose_name_lies(self, refusal, archive):
        image = ImageBuilder()
        layer, _config, manifest = image.docker_members()
        forged = member(f"{sha256(image.config_json)}.json", image.config_json.replace(b"/hello", b"/other"))
        archive.write_bytes(tar(layer, forged, manifest))
        assert "digest that its name claims" in refusal(archive)

    def test_blob_whose_name_lies(self, refusal, archive):
        files, manifest = ImageBuilder().oci_blobs()
        name = next(name for name, blob in files.items() if blob == TEXT_LAYER)
        files[name] = tar(member("other", b"1"))
        assert "digest that its name claims" in refusal(write_layout(archive, files, [manifest]))

    def test_layer_bomb(self, refusal, archive):
        """A few kilobytes of gzip that unpack to many times the limit."""
        image = ImageBuilder(layers=[tar(member("zeros", bytes(60_000_000)))])
        assert archive.parent
        image.oci_archive(archive, compress=True)
        assert archive.stat().st_size < 200_000
        assert "unpacks to more than 50 MB" in refusal(archive)

    def test_bomb_around_the_archive(self, refusal, archive):
        archive.write_bytes(gzip.compress(tar(member("zeros", bytes(60_000_000)))))
        assert "unpacks to more than 50 MB" in refusal(archive)

    def test_bomb_of_headers(self, refusal, archive):
        """A long name that claims to need gigabytes must not get them."""
        info = tarfile.TarInfo("././@LongLink")
        info.type = tarfile.GNUTYPE_LONGNAME
        info.size = 40 << 30
        archive.write_bytes(gzip.compress(info.tobuf(tarfile.GNU_FORMAT) + bytes(90_000_000)))
        refusal(archive)

    def test_too_many_layers(self, refusal, archive):
        assert "128 layers" in refusal(ImageBuilder(layers=[TEXT_LAYER] * 128).oci_archive(archive))

    def test_too_many_files_in_the_archive(self, refusal, archive):
        archive.write_bytes(tar(*(member(str(number)) for number in range(501))))
        assert "more than 500 files" in refusal(archive)

    def test_too_many_entries_in_the_layers(self, refusal, archive):
        image = ImageBuilder(layers=[tar(*(member(f"{part}{n}") for n in range(1100))) for part in "ab"])
        assert "more than 2000 files" in refusal(image.docker_archive(archive))

    @pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
    @pytest.mark.parametrize("name", ["../out", "a/../../out", "x" * 150 + "/../../out"])
    def test_layer_entry_that_leads_out(self, refusal, archive, form, name):
        image = ImageBuilder(layers=[tar(member(name, b"x"), format=form)])
        assert "'..' in it" in refusal(image.docker_archive(archive))

    def test_hard_link_that_leads_out(self, refusal, archive):
        image = ImageBuilder(layers=[tar(member("x", type=tarfile.LNKTYPE, linkname="../../etc/shadow"))])
        assert "'..' in it" in refusal(image.docker_archive(archive))

    @pytest.mark.parametrize(
        "sparse",
        [
            member("hole", type=tarfile.GNUTYPE_SPARSE),
            member(
                "hole", pax_headers={"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "9" * 12}
            ),
        ],
    )
    def test_sparse_file_in_a_layer(self, refusal, archive, sparse):
        assert "sparse" in refusal(ImageBuilder(layers=[tar(sparse)]).docker_archive(archive))

    def test_index_in_index_in_index(self, refusal, archive):
        files, manifest = ImageBuilder().oci_blobs()
        for _ in range(4):
            inner = json.dumps({"manifests": [manifest]}).encode()
            files[f"blobs/sha256/{sha256(inner)}"] = inner
            manifest = descriptor(inner, INDEX_TYPE)
        assert "nested" in refusal(write_layout(archive, files, [manifest]))

    def test_digest_with_a_path_in_it(self, refusal, archive):
        files, manifest = ImageBuilder().oci_blobs()
        assert "damaged" in refusal(write_layout(archive, files, [manifest | {"digest": "sha256:../../etc/passwd"}]))


class TestConfigurations:
    def test_other_architecture(self, refusal, archive):
        sentence = refusal(ImageBuilder(architecture="arm64").docker_archive(archive))
        assert "linux/arm64" in sentence
        assert "--platform linux/amd64" in sentence

    def test_other_architecture_in_an_index(self, refusal, archive):
        files, manifest = ImageBuilder(architecture="arm64").oci_blobs()
        manifest["platform"] = {"os": "linux", "architecture": "arm64"}
        assert "linux/arm64" in refusal(write_layout(archive, files, [manifest]))

    @pytest.mark.parametrize(
        ("config", "said"),
        [
            ({"Cmd": ["/x"], "Volumes": {"/data": {}}}, "VOLUME"),
            ({"Cmd": ["/x"], "volumes": {"/data": {}}}, "VOLUME"),
            ({"Cmd": ["/x"], "Volumes": {"/persistent_data": {}, "/persistent_data/x": {}}}, "VOLUME"),
            ({"Cmd": ["/x"], "Volumes": ["/persistent_data"]}, "damaged"),
            ({"Cmd": ["/x"], "OnBuild": ["RUN true"]}, "ONBUILD"),
            ({"Cmd": ["/x"], "Healthcheck": {"Test": ["CMD", "/x"]}}, "HEALTHCHECK NONE"),
            ({"Cmd": ["/x"], "Env": ["LD_PRELOAD=/x.so"]}, "ENV LD_PRELOAD="),
            ({"Cmd": ["/x"], "Env": ["NVIDIA_VISIBLE_DEVICES=all"]}, "ENV NVIDIA_VISIBLE_DEVICES="),
            ({"Cmd": ["/x"], "Env": ["A=" + "x" * 70_000]}, "too long"),
            ({"Cmd": ["/x"], "Env": ["nonsense"]}, "damaged"),
            ({"Cmd": ["/x"], "Labels": {"a": 1}}, "damaged"),
            ({"Cmd": ["/x"], "Volumes": None, "VOLUMES": {"/data": {}}}, "damaged"),
            ({"Cmd": "/x"}, "damaged"),
            ({"Cmd": ["/x"], "User": 7}, "damaged"),
            ({}, "ENTRYPOINT or CMD"),
            ({"Entrypoint": [], "Cmd": None}, "ENTRYPOINT or CMD"),
        ],
    )
    def test_refused(self, refusal, archive, config, said):
        assert said in refusal(ImageBuilder(config=config).docker_archive(archive))

    def test_volume_of_published_images(self, check, archive):
        config = {"Cmd": ["/x"], "Volumes": {"/persistent_data": {}}}
        assert check(ImageBuilder(config=config).docker_archive(archive)).config()["volumes"] == ("/persistent_data",)

    def test_layers_that_are_too_few(self, refusal, archive):
        digests = [f"sha256:{sha256(TEXT_LAYER)}"] * 2
        assert "damaged" in refusal(ImageBuilder(diff_ids=digests).docker_archive(archive))

    def test_no_layers(self, refusal, archive):
        assert "0 layers" in refusal(ImageBuilder(layers=[], diff_ids=[]).docker_archive(archive))

    def test_zstd_layers(self, refusal, archive):
        assert "zstd" in refusal(ImageBuilder().oci_archive(archive, media_suffix="+zstd"))

    def test_zstd_layer_that_does_not_say_so(self, refusal, archive):
        assert "zstd" in refusal(ImageBuilder(layers=[b"\x28\xb5\x2f\xfd" + bytes(2000)]).docker_archive(archive))


class TestLoading:
    def test_our_own_manifest_has_no_tags(self, check, archive, store):
        image = ImageBuilder(tags=["ubuntu:latest", "registry/other-team/secret:1"])
        checked = check(image.docker_archive(archive))

        data = b"".join(load_stream(store, checked.image_id, list(checked.layers)))

        with tarfile.open(fileobj=io.BytesIO(data)) as written:
            manifest = json.load(written.extractfile("manifest.json"))
            layer = written.extractfile(manifest[0]["Layers"][0]).read()
        assert manifest[0]["RepoTags"] is None
        assert layer == TEXT_LAYER
        assert b"ubuntu" not in data

    def test_layers_that_the_engine_has_do_not_travel(self, check, archive, store):
        checked = check(ImageBuilder().docker_archive(archive))
        thin = b"".join(load_stream(store, checked.image_id, list(checked.layers), held=frozenset(checked.layers)))
        assert b"hello\n" not in thin


def test_memory_stays_small(archive, tmp_path):
    """A large archive is read in pieces, in the child too."""
    staging = tmp_path / "staging"
    staging.mkdir()
    image = ImageBuilder(layers=[tar(member("data", bytes(range(256)) * 400_000))])
    image.docker_archive(archive)
    tracemalloc.start()
    try:
        archives.read(archive, staging, Caps(10**9, 100, 100, 100))
        _now, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 16_000_000

"""Thin archives hold all of an image but the server's layers: archives of the real engine, and newer ones by hand."""

import gzip
import hashlib
import io
import json
import tarfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import pytest
from anomed import images
from anomed.archives import Archive, thin_file, thin_stream
from anomed.problems import Problem

Layer = Callable[..., bytes]


def members(file: IO[bytes], *, strict: bool = True) -> dict[str, bytes]:
    """Names and contents; a thin archive holds plain files only."""
    file.seek(0)
    with tarfile.open(fileobj=file) as tar:
        assert not strict or all(member.isreg() for member in tar.getmembers())
        return {member.name: tar.extractfile(member).read() for member in tar.getmembers() if member.isreg()}  # type: ignore[union-attr]


def archive_of(files: dict[str, bytes]) -> io.BytesIO:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    buffer.seek(0)
    return buffer


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def modern(layers: list[bytes], *, compressed: bool, manifest: bool = True) -> dict[str, bytes]:
    """An image as Docker 25 and newer save it: OCI blobs, and manifest.json beside them."""
    packed = [gzip.compress(layer, mtime=0) if compressed else layer for layer in layers]
    config = json.dumps(
        {"rootfs": {"type": "layers", "diff_ids": [f"sha256:{sha256(layer)}" for layer in layers]}}
    ).encode()
    description = {
        "schemaVersion": 2,
        "config": {"digest": f"sha256:{sha256(config)}", "size": len(config)},
        "layers": [{"digest": f"sha256:{sha256(blob)}", "size": len(blob)} for blob in packed],
    }
    content = json.dumps(description).encode()
    files = {f"blobs/sha256/{sha256(blob)}": blob for blob in [config, content, *packed]}
    files["index.json"] = json.dumps({"manifests": [{"digest": f"sha256:{sha256(content)}"}]}).encode()
    files["oci-layout"] = b'{"imageLayoutVersion": "1.0.0"}'
    if manifest:
        names = [f"blobs/sha256/{sha256(blob)}" for blob in packed]
        entry = {"Config": f"blobs/sha256/{sha256(config)}", "RepoTags": ["kit:latest"], "Layers": names}
        files["manifest.json"] = json.dumps([entry]).encode()
    return files


def save_thin(name: str, base_layers: list[str]) -> Archive:
    with images.saved(images.find(name)) as stream:
        return thin_stream(stream, base_layers)


def test_saved_image_travels_without_the_servers_layers(
    docker_images: dict[str, str], base_layers: list[str], docker: Callable[..., str]
) -> None:
    thin = save_thin(docker_images["kit"], base_layers)
    found = members(thin.file)
    (image,) = json.loads(found["manifest.json"])
    description = json.loads(docker("image", "inspect", docker_images["kit"]))[0]
    assert thin.left_out > 300_000
    assert sum(map(len, found.values())) < 50_000
    assert f"sha256:{sha256(found[image['Config']])}" == description["Id"]
    digests = [f"sha256:{sha256(found[name])}" if name in found else None for name in image["Layers"]]
    assert digests == [None, *description["RootFS"]["Layers"][1:]]


def test_thin_archive_and_base_layer_make_the_image_again(
    docker_images: dict[str, str], base_layers: list[str], docker: Callable[..., str], tmp_path: Path
) -> None:
    docker("save", docker_images["base"], "-o", str(tmp_path / "base.tar"))
    with (tmp_path / "base.tar").open("rb") as file:
        layer = next(
            content for content in members(file, strict=False).values() if f"sha256:{sha256(content)}" == base_layers[0]
        )
    thin = members(save_thin(docker_images["kit"], base_layers).file)
    whole = {json.loads(thin["manifest.json"])[0]["Layers"][0]: layer} | thin
    loaded = docker("load", content=archive_of(whole).getvalue())
    assert json.loads(docker("image", "inspect", docker_images["kit"]))[0]["Id"] in loaded


def test_a_file_is_thinned_like_the_stream(
    docker_images: dict[str, str], base_layers: list[str], docker: Callable[..., str], tmp_path: Path
) -> None:
    path = tmp_path / "kit.tar"
    docker("save", docker_images["kit"], "-o", str(path))
    packed = tmp_path / "kit.tar.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    with path.open("rb") as plain, packed.open("rb") as zipped:
        first, second = thin_file(plain, base_layers), thin_file(zipped, base_layers)
    assert first.file.read() == second.file.read() == save_thin(docker_images["kit"], base_layers).file.read()


def test_the_same_image_gives_the_same_bytes(docker_images: dict[str, str], base_layers: list[str]) -> None:
    first, second = (save_thin(docker_images["kit"], base_layers).file.read() for _ in range(2))
    assert first == second


def test_a_file_that_shares_nothing_is_sent_as_it_is(layer_tar: Layer) -> None:
    file = archive_of(modern([layer_tar(a=b"a")], compressed=False))
    assert thin_file(file, ["sha256:" + "0" * 64]) == Archive(file, 0)


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("manifest", [False, True])
@pytest.mark.parametrize("thin", [thin_file, thin_stream])
def test_modern_archives(
    layer_tar: Layer, compressed: bool, manifest: bool, thin: Callable[[IO[bytes], list[str]], Archive]
) -> None:
    base, own = layer_tar(base=b"b" * 50_000), layer_tar(own=b"o" * 100)
    files = modern([base, own, base], compressed=compressed, manifest=manifest)
    found = members(thin(archive_of(files), [f"sha256:{sha256(base)}"]).file)
    gone = gzip.compress(base, mtime=0) if compressed else base
    assert set(files) - set(found) == {f"blobs/sha256/{sha256(gone)}"}
    assert all(found[name] == files[name] for name in found if name != "manifest.json")
    if manifest:
        (before,), (after,) = json.loads(files["manifest.json"]), json.loads(found["manifest.json"])
        assert after == before | {"RepoTags": None}


def test_links_between_layers_are_resolved(layer_tar: Layer) -> None:
    base, own = layer_tar(base=b"b"), layer_tar(own=b"o")
    config = json.dumps({"rootfs": {"diff_ids": [f"sha256:{sha256(layer)}" for layer in (base, own, own)]}}).encode()
    buffer = archive_of({"a/layer.tar": base, "b/layer.tar": own, "c.json": config})
    with tarfile.open(fileobj=buffer, mode="a") as tar:
        link = tarfile.TarInfo("c/layer.tar")
        link.type, link.linkname = tarfile.SYMTYPE, "../b/layer.tar"
        tar.addfile(link)
        content = json.dumps([{"Config": "c.json", "Layers": ["a/layer.tar", "b/layer.tar", "c/layer.tar"]}]).encode()
        info = tarfile.TarInfo("manifest.json")
        info.size = len(content)
        tar.addfile(info, io.BytesIO(content))
    buffer.seek(0)
    found = members(thin_stream(buffer, [f"sha256:{sha256(base)}"]).file)
    assert set(found) == {"b/layer.tar", "c.json", "manifest.json"}
    assert json.loads(found["manifest.json"])[0]["Layers"] == ["a/layer.tar", "b/layer.tar", "b/layer.tar"]


def test_large_layers_take_little_memory(layer_tar: Layer, tmp_path: Path) -> None:
    path = tmp_path / "large.tar"
    layers = [layer_tar(base=bytes(40_000_000)), layer_tar(own=bytes(40_000_001))]
    path.write_bytes(archive_of(modern(layers, compressed=False)).getvalue())
    base = f"sha256:{sha256(layers.pop(0))}"
    layers.clear()
    tracemalloc.start()
    try:
        with path.open("rb") as file:
            assert thin_stream(file, [base]).left_out > 40_000_000
        assert tracemalloc.get_traced_memory()[1] < 12_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "no image archive"),
        (b"not a tar at all" * 100, "no image archive"),
        (archive_of({"readme.txt": b"hello"}).getvalue(), "neither manifest.json nor index.json"),
        (gzip.compress(archive_of({"manifest.json": b"[" + b" " * 9000}).getvalue(), mtime=0)[:60], "damaged"),
    ],
)
def test_what_is_no_image_is_said_so(content: bytes, sentence: str) -> None:
    with pytest.raises(Problem, match=sentence):
        thin_file(io.BytesIO(content), [])


def test_a_torn_archive_is_said_so(docker_images: dict[str, str], docker: Callable[..., str], tmp_path: Path) -> None:
    docker("save", docker_images["kit"], "-o", str(tmp_path / "kit.tar"))
    torn = (tmp_path / "kit.tar").read_bytes()[:200_000]
    with pytest.raises(Problem, match="damaged"):
        thin_stream(io.BytesIO(torn), [])


@pytest.mark.parametrize("manifest", [{}, [], [{}], [{"Layers": ["a"], "Config": "absent"}], [1, 2], "x"])
def test_an_image_that_makes_no_sense_is_left_to_the_server(manifest: Any) -> None:
    file = archive_of({"manifest.json": json.dumps(manifest).encode()})
    assert thin_file(file, ["sha256:x"]) == Archive(file, 0)


def test_an_unknown_image_is_said_so(docker_images: dict[str, str]) -> None:
    with pytest.raises(Problem, match="neither a file nor an image named anomed-client-test-absent here"):
        images.find("anomed-client-test-absent")
    with pytest.raises(Problem, match="neither a file here nor the name"):
        images.find("--help")


def test_without_docker(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Problem, match="no docker command"):
        images.find("kit")


def test_an_engine_that_does_not_answer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/absent.sock")
    with pytest.raises(Problem, match="does not answer"):
        images.find("kit")


def test_docker_save_that_fails_gives_its_reason(docker_images: dict[str, str]) -> None:
    absent = images.Image("sha256:" + "0" * 64, 0)
    with pytest.raises(Problem, match="docker save failed: Error response from daemon"), images.saved(absent) as stream:
        thin_stream(stream, [])

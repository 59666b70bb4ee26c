"""Archives that are no honest images. No container is needed: they are refused before an engine sees them."""

import gzip
import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import docker

from tests.hostile.archives import Base, Thin, image
from tests.hostile.model import AT_THE_DOOR, SCORED, Case, Outcome, refused, rehearsal
from tests.sandbox.image_builder import (
    INDEX_TYPE,
    ImageBuilder,
    descriptor,
    member,
    sha256,
    tar,
    write_layout,
)

_POLITE = 'say("user", os.getuid(), held=os.getuid() == 65534)\npolite()'
_READER = "The archive is read once, in an isolated child, and nothing in it is believed."
_CAPS = "Unpacked bytes, files and layers are counted as they come, in an isolated child."
_CONFIG = "The image's configuration is checked before any engine sees it."


def _case(
    id: str, tries: str, make: Callable[[Path, Base], Any], expected: Outcome, stops: str = _READER, **more: Any
) -> Case:
    def write(path: Path, base: Base) -> Path:
        made = make(path, base)
        if isinstance(made, bytes):
            path.write_bytes(made)
        elif isinstance(made, ImageBuilder):
            made.docker_archive(path)
        return path

    return Case(id, "archives", tries, stops, archive=write, expected=expected, silent=True, **more)


def _runs(id: str, tries: str, stops: str, *, files: tuple[Any, ...] = (), expected=SCORED, **more: Any) -> Case:
    """An image that passes the check, and does no harm when it runs."""
    return Case(id, "archives", tries, stops, program=_POLITE, files=files, expected=expected, **more)


def _image(base: Base, **config: Any) -> Thin:
    return image(base, "archive", "polite()", {}, config=config)


def _with_member(*members: Any) -> Callable[[Path, Base], bytes]:
    return lambda path, base: tar(*members, *_image(base).docker_members())


def _with_layer(*members: Any) -> Callable[[Path, Base], Thin]:
    def make(path: Path, base: Base) -> Thin:
        made = _image(base)
        made.layers.append(tar(*members))
        return made

    return make


def _configured(**config: Any) -> Callable[[Path, Base], Thin]:
    return lambda path, base: _image(base, **config)


def _bomb(path: Path, base: Base) -> bytes:
    """A layer of a gigabyte of zeros, in a megabyte of gzip, under its true digest."""
    made = _image(base)
    header = member("zeros")[0]
    header.size = 1 << 30
    zeros = bytes(1 << 20)
    packed = io.BytesIO()
    with gzip.GzipFile(fileobj=packed, mode="wb", compresslevel=1) as file:
        file.write(header.tobuf())
        for _ in range(1024):
            file.write(zeros)
        file.write(bytes(1024))
    name = "0" * 64 + "/layer.tar"
    config = json.loads(made.config_json)
    config["rootfs"]["diff_ids"].append("sha256:" + "0" * 64)
    text = json.dumps(config).encode()
    manifest = [{"Config": "config.json", "RepoTags": None, "Layers": [f"{n}/layer.tar" for n in range(99)]}]
    return tar(
        member(name, packed.getvalue()),
        member("config.json", text),
        member("manifest.json", json.dumps(manifest).encode()),
    )


def _gzip_bomb(path: Path, base: Base) -> None:
    with gzip.open(path, "wb", compresslevel=1) as file:
        header = tarfile.TarInfo("zeros")
        header.size = 2 << 30
        file.write(header.tobuf())
        for _ in range(2048):
            file.write(bytes(1 << 20))


def _many_layers(path: Path, base: Base) -> bytes:
    layer = tar(member("x"))
    names = ["layer.tar"] * 10_000
    config = {"architecture": "amd64", "os": "linux", "config": {"Cmd": ["x"]}}
    config["rootfs"] = {"type": "layers", "diff_ids": [f"sha256:{sha256(layer)}"] * 10_000}
    manifest = [{"Config": "config.json", "RepoTags": None, "Layers": names}]
    return tar(
        member("layer.tar", layer), member("config.json", json.dumps(config).encode()),
        member("manifest.json", json.dumps(manifest).encode()),
    )  # fmt: skip


def _many_files(path: Path, base: Base) -> bytes:
    return tar(*(member(f"{number}.json", b"{}") for number in range(5000)), *_image(base).docker_members())


def _digest_lies(path: Path, base: Base) -> Thin:
    made = _image(base)
    made.diff_ids = [*base.layers, "sha256:" + "1" * 64]
    return made


def _config_lies(path: Path, base: Base) -> bytes:
    made = _image(base)
    name = f"{sha256(made.config_json)}.json"
    changed = made.config_json.replace(b'"Cmd": null', b'"Cmd": ["x"]')
    files = [(info, changed if info.name == name else content) for info, content in made.docker_members()]
    for info, content in files:
        info.size = len(content)
    return tar(*files)


def _foreign_layer(path: Path, base: Base) -> Thin:
    """Claims a layer that another image of this server has, without bringing it: the polite opponent's own."""
    made = _image(base)
    other = image(base, "opponent-trivial", "from inside import *\npolite()", {})
    made.base = (*base.layers, f"sha256:{sha256(other.layers[0])}")
    return made


def _foreign_layer_empty(path: Path, base: Base) -> bytes:
    """Claims it by digest, with an empty file in its place: an engine would take its own copy."""
    made = _foreign_layer(path, base)
    name = made.base[-1].removeprefix("sha256:") + "/layer.tar"
    return tar(member(name, b""), *made.docker_members())


def _nested_index(path: Path, base: Base) -> None:
    files, manifest = _whole().oci_blobs()
    for _ in range(6):
        index = json.dumps({"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": [manifest]}).encode()
        files[f"blobs/sha256/{sha256(index)}"] = index
        manifest = descriptor(index, INDEX_TYPE)
    write_layout(path, files, [manifest])


def _looping_index(path: Path, base: Base) -> None:
    """An index that claims to be the one that holds it."""
    files, _manifest = _whole().oci_blobs()
    write_layout(path, files, [{"mediaType": INDEX_TYPE, "digest": "sha256:" + "2" * 64, "size": 100}])


def _lying_blob(path: Path, base: Base) -> None:
    files, manifest = _whole().oci_blobs()
    name = next(iter(files))
    files[name] = tar(member("other", b"content"))
    write_layout(path, files, [manifest])


def _whole() -> ImageBuilder:
    return ImageBuilder(config={"Cmd": ["/x"]})


def _cut(path: Path, base: Base) -> bytes:
    return gzip.compress(tar(*_image(base).docker_members()))[:-200]


def _deep_json(path: Path, base: Base) -> bytes:
    deep = b"[" * 1_000_000 + b"]" * 1_000_000
    return tar(member("manifest.json", deep))


def _two_cases(path: Path, base: Base) -> bytes:
    """Two names that an engine takes for one: the check would read one, the engine the other."""
    made = _image(base)
    text = made.config_json.replace(b'"config": {', b'"Config": {"Volumes": {"/x": {}}}, "config": {', 1)
    manifest = [{"Config": "config.json", "RepoTags": None, "Layers": ["layer.tar"]}]
    described = member("manifest.json", json.dumps(manifest).encode())
    return tar(member("layer.tar", made.layers[0]), member("config.json", text), described)


def _tagged(path: Path, base: Base) -> Path:
    made = image(base, "foreign-tags", _POLITE, {})
    made.tags = ["anomed/base:latest", "anomed/majority:latest", "hostile/claimed:1"]
    return made.docker_archive(path)


def _no_tag(name: str) -> list[str]:
    return [f"{name} is a tag of the engine now"] if docker.from_env().api.images(name=name) else []


def _sparse_layer(base: Base) -> Thin:
    made = _image(base)
    info = member("sparse")[0]
    info.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": str(1 << 50)}
    made.layers.append(tar((info, b"")))
    return made


def _for_architecture(base: Base, architecture: str) -> Thin:
    made = _image(base)
    made.architecture = architecture
    return made


CASES = [
    _case("path-traversal", "A file whose path climbs out of the archive.",
          _with_member(member("../../../../etc/cron.d/hostile", b"* * * * * root true\n")), refused("leads out")),
    _case("absolute-path", "A file with an absolute path.",
          _with_member(member("/etc/cron.d/hostile", b"x")), refused("leads out")),
    _case("absolute-link", "A link to the host's passwords, in place of a layer.",
          _with_member(member("layer", type=tarfile.SYMTYPE, linkname="/etc/shadow")), refused("leads out")),
    _case("climbing-link", "A link that climbs out of the archive.",
          _with_member(member("a/layer", type=tarfile.LNKTYPE, linkname="../../../etc/shadow")), refused("leads out")),
    _case("special-file", "A device and a FIFO in the archive.",
          _with_member(member("fifo", type=tarfile.FIFOTYPE)), refused("special files")),
    _case("same-name-twice", "The same file twice, with different content.",
          _with_member(member("manifest.json", b"[]")), refused("same file twice")),
    _case("layer-traversal", "A layer with a path that climbs out of the image.",
          _with_layer(member("../../../../etc/hostile", b"x")), refused("leads out of the image")),
    _case("layer-hard-link", "A layer with a hard link to a file outside of the image.",
          _with_layer(member("shadow", type=tarfile.LNKTYPE, linkname="../../../../etc/shadow")),
          refused("leads out of the image")),
    _case("layer-sparse", "A layer with a sparse file of a petabyte.",
          lambda path, base: _sparse_layer(base), refused("sparse")),
    _case("layer-bomb", "A layer of a gigabyte of zeros in a megabyte of gzip.",
          _bomb, refused("unpacks to more"), _CAPS),
    _case("gzip-bomb", "An archive that unpacks to two gigabytes from two megabytes.",
          _gzip_bomb, refused("unpacks to more"), _CAPS),
    _case("ten-thousand-layers", "Ten thousand layers.", _many_layers, refused("10000 layers"), _CAPS),
    _case("thousands-of-files", "Five thousand files beside the image.", _many_files, refused("more than"), _CAPS),
    _case("digest-lies", "A layer that is not what the configuration says.",
          _digest_lies, refused("does not have the digest")),
    _case("config-lies", "A configuration under the digest of another one.", _config_lies, refused("digest")),
    _case("blob-lies", "An OCI blob under the digest of another one.", _lying_blob, refused("digest")),
    _case("foreign-layer", "Claims a layer of another team's image, to read their files.",
          _foreign_layer, refused("not in the archive"), "Only layers of public base images may be absent."),
    _case("foreign-layer-empty", "Claims it with an empty file in its place.",
          _foreign_layer_empty, refused("empty or damaged"), "Every layer's digest is recomputed."),
    _case("wrong-architecture", "An image for another kind of computer.",
          lambda path, base: _for_architecture(base, "arm64"), refused("arm64"), _CONFIG),
    _case("nested-indexes", "OCI indexes in indexes in indexes.", _nested_index, refused("nested")),
    _case("absent-index", "An OCI index that points at what is not there.", _looping_index, refused("damaged")),
    _case("cut-off-gzip", "A gzip file that is cut off.", _cut, refused("cut off")),
    _case("deep-json", "A manifest of a million brackets.", _deep_json, refused("damaged")),
    _case("two-spellings", "A setting in two spellings, of which the check may read one and the engine the other.",
          _two_cases, refused("damaged")),
    _case("several-images", "Two images in one archive.",
          lambda path, base: tar(member("manifest.json", json.dumps([{"Config": "a", "Layers": []}] * 2).encode())),
          refused("2 images")),
    _case("not-an-archive", "A text in place of an archive.", lambda path, base: b"MZ" + b"hello " * 1000,
          refused("not an archive")),
    _case("no-image", "A tar of something else.", lambda path, base: tar(member("readme.txt", b"hello")),
          refused("no image")),
    _case("empty-file", "A file of no bytes.",
          lambda path, base: b"", AT_THE_DOOR, "The API asks for at least one byte."),
    _case("healthcheck", "A HEALTHCHECK, which an engine would run beside the program, in its own time.",
          _configured(Healthcheck={"Test": ["CMD", "python", "-c", "pass"], "Interval": 10**9}),
          refused("HEALTHCHECK"), _CONFIG),
    _case("onbuild", "ONBUILD triggers.", _configured(OnBuild=["RUN true"]), refused("ONBUILD"), _CONFIG),
    _case("volume", "A VOLUME, which an engine would make writable without bound, past the read-only root.",
          _configured(Volumes={"/hoard": {}}), refused("VOLUME"), _CONFIG),
    _case("huge-environment", "An environment of a megabyte.",
          _configured(Env=[f"V{n}={'x' * 1000}" for n in range(1000)]), refused("too long"), _CONFIG),
    _case("ld-preload", "LD_PRELOAD, for whatever of ours is started inside.",
          _configured(Env=["LD_PRELOAD=/app/evil.so"]), refused("LD_PRELOAD"), _CONFIG),
    _case("nvidia-environment", "NVIDIA_VISIBLE_DEVICES=all, for GPUs that it was not given.",
          _configured(Env=["NVIDIA_VISIBLE_DEVICES=all"]), refused("NVIDIA_VISIBLE_DEVICES"), _CONFIG),
    _case("no-entrypoint", "An image that has nothing to run.",
          _configured(Entrypoint=None, Cmd=None), refused("neither an entrypoint nor a command"), _CONFIG),
    _runs("root-user", "Asks to run as root.", "It runs as 65534:65534, whatever the image says.",
          config={"User": "0:0"}, walls=("user",)),
    _runs("foreign-tags", "Brings tags that are other images' names on the engine.",
          "The image is loaded from a stream of our own, which has no tags.",
          archive=_tagged, check=lambda entry: _no_tag("hostile/claimed")),
    _runs("whiteouts", "Whiteouts with names that could remove what lies above: “.wh..”, “.wh..wh..opq”, “.wh.”.",
          "The engine unpacks layers in a process that sees nothing but the image; ours are names in a stream.",
          files=(member("app/.wh..wh..opq"), member("etc/.wh.shadow"), member("usr/.wh.nothing"))),
    _runs("whiteout-up", "A whiteout of the folder above.", "The engine refuses to unpack it.",
          expected=rehearsal("image_invalid"), silent=True, files=(member("app/.wh..."),)),
    _runs("layer-through-link", "A layer that replaces a folder by a link out, and then writes through it.",
          "The engine unpacks layers inside the image's own root.",
          expected=rehearsal("image_invalid"), silent=True,
          files=(member("out", type=tarfile.SYMTYPE, linkname="/../../../../tmp"), member("out/anomed-hostile", b"x")),
          check=lambda entry: ["a file got out"] if Path("/tmp/anomed-hostile").exists() else []),
    _runs("missing-folder", "A working folder that is not there, and is a file.", "It is the image's own fault.",
          config={"WorkingDir": "/app/main.py"}, expected=rehearsal("crashed"), silent=True),
    _runs("relative-folder", "A working folder whose path is relative.", "It is the image's own fault.",
          config={"WorkingDir": "app/../.."}, expected=rehearsal("crashed"), gvisor=(SCORED,), silent=True),
    _runs("empty-program", "A program whose name is empty.", "It is the image's own fault.",
          config={"Entrypoint": [""]}, expected=rehearsal("crashed"), silent=True),
    _runs("missing-program", "A program that is not there.", "It is the image's own fault.",
          config={"Entrypoint": ["/nowhere"]}, expected=rehearsal("crashed"), silent=True),
]  # fmt: skip

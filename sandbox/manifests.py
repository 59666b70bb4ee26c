"""Finding the one image in an archive: docker-archive (`docker save`, podman) or OCI layout (buildx, skopeo, podman).

docker-archive: https://github.com/moby/docker-image-spec v1.2, "Combined Image JSON + Filesystem Changeset Format".
OCI layout: https://github.com/opencontainers/image-spec v1.1, image-layout.md, image-index.md, manifest.md.
"""

import json
import re
from dataclasses import dataclass
from typing import Any

from sandbox.archives import Contents, Staged
from sandbox.reasons import gettext_noop
from sandbox.tarscan import refused

MAX_JSON_BYTES = 4 << 20
MAX_DEPTH = 3  # buildx puts an index into an index; nothing puts more
DIGEST = re.compile(r"sha256:([0-9a-f]{64})")
_BLOB_NAME = re.compile(r"(?:blobs/sha256/([0-9a-f]{64})|([0-9a-f]{64})\.json)")
_INDEX_TYPES = ("application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json")
PLATFORM = ("linux", "amd64")


@dataclass(frozen=True)
class Found:
    """The image's configuration, and its layers from the bottom up; None where the archive leaves one out."""

    config: bytes
    config_digest: str
    layers: tuple[Staged | None, ...]


def find(contents: Contents, max_layers: int) -> Found:
    """The archive's only image. Raises `Rejected` if there is none, or more than one, or if something is damaged."""
    if contents.get("manifest.json"):
        return _docker(contents, max_layers)
    if contents.get("index.json"):
        return _oci(contents, max_layers)
    raise refused(
        gettext_noop(
            "The archive holds no image: it has neither manifest.json nor index.json. Upload the file that "
            "`docker save IMAGE` writes (not `docker export`, and not the build folder)."
        )
    )


def parse(data: bytes) -> Any:
    """JSON. Raises `Rejected` if two names of an object differ in case only: an engine would mix them up."""
    try:
        return json.loads(data, object_pairs_hook=_object)
    except (ValueError, RecursionError) as error:
        raise refused(_DAMAGED) from error


_DAMAGED = gettext_noop("The archive's description of the image is damaged. Save the image anew and upload it again.")
_LIES = gettext_noop("A file of the archive does not have the digest that its name claims. Save the image anew.")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({name.casefold() for name, _value in pairs}) != len(pairs):
        raise refused(_DAMAGED)
    return dict(pairs)


def _text(contents: Contents, name: str) -> bytes:
    """A small file's content, whose digest must be the one that its name claims, if it claims one."""
    staged = contents.get(name)
    if staged is None or staged.size > MAX_JSON_BYTES:
        raise refused(_DAMAGED)
    _check_name(name, staged)
    return staged.path.read_bytes()


def _check_name(name: str, staged: Staged) -> None:
    claim = _BLOB_NAME.fullmatch(name)
    if claim and staged.raw not in claim.groups():
        raise refused(_LIES)


def _docker(contents: Contents, max_layers: int) -> Found:
    entries = parse(_text(contents, "manifest.json"))
    if not isinstance(entries, list) or not entries:
        raise refused(gettext_noop("The archive holds no image. Upload the file that `docker save IMAGE` writes."))
    if len(entries) > 1:
        raise _several(len(entries))
    entry = entries[0]
    if not isinstance(entry, dict) or not isinstance(entry.get("Config"), str):
        raise refused(_DAMAGED)
    names = entry.get("Layers")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise refused(_DAMAGED)
    _check_count(len(names), max_layers)
    config = _text(contents, entry["Config"])
    layers = tuple(contents.get(name) for name in names)
    for name, layer in zip(names, layers, strict=True):
        if layer:
            _check_name(name, layer)
            _check_layer(layer)
    return Found(config, _digest_of(contents, entry["Config"]), layers)


def _digest_of(contents: Contents, name: str) -> str:
    staged = contents.get(name)
    if staged is None:
        raise refused(_DAMAGED)
    return staged.digest


def _several(count: int) -> Exception:
    text = gettext_noop("The archive holds %(count)d images. Save exactly one: `docker save IMAGE`.")
    return refused(text % {"count": count})


def _check_count(count: int, max_layers: int) -> None:
    if not 1 <= count <= max_layers:
        text = gettext_noop("The image has %(count)d layers; it must have between 1 and %(limit)d.")
        raise refused(text % {"count": count, "limit": max_layers})


def _check_layer(layer: Staged) -> None:
    if layer.compression:
        raise refused(
            gettext_noop("A layer is compressed with zstd, which is not supported. Export the image with gzip or none.")
        )
    if not layer.is_layer:
        raise refused(
            gettext_noop("A layer of the image is empty or damaged. Save the image anew and upload it again.")
        )


def _oci(contents: Contents, max_layers: int) -> Found:
    descriptor = _choose(_images(contents, parse(_text(contents, "index.json")), 1))
    manifest = parse(_blob(contents, descriptor))
    layers = manifest.get("layers") if isinstance(manifest, dict) else None
    if not isinstance(layers, list):
        raise refused(_DAMAGED)
    _check_count(len(layers), max_layers)
    config = _blob(contents, manifest.get("config"))
    staged = tuple(_oci_layer(contents, layer) for layer in layers)
    return Found(config, _hex(manifest["config"]), staged)


def _images(contents: Contents, index: Any, depth: int) -> list[dict[str, Any]]:
    """The descriptors of all images in an index and in those below it, without buildx's attestations."""
    descriptors = index.get("manifests") if isinstance(index, dict) else None
    if not isinstance(descriptors, list) or len(descriptors) > 100:
        raise refused(_DAMAGED)
    found: dict[str, dict[str, Any]] = {}
    for descriptor in descriptors:
        _hex(descriptor)
        if _is_attestation(descriptor):
            continue
        if descriptor.get("mediaType") in _INDEX_TYPES:
            if depth >= MAX_DEPTH:
                raise refused(gettext_noop("The archive has indexes nested in indexes. Save the image anew."))
            below = parse(_blob(contents, descriptor))
            found |= {image["digest"]: image for image in _images(contents, below, depth + 1)}
        else:
            found[descriptor["digest"]] = descriptor
    return list(found.values())


def _is_attestation(descriptor: dict[str, Any]) -> bool:
    platform = descriptor.get("platform")
    unknown = isinstance(platform, dict) and platform.get("os") == platform.get("architecture") == "unknown"
    annotations = descriptor.get("annotations")
    marked = isinstance(annotations, dict) and "vnd.docker.reference.type" in annotations
    return unknown or marked


def _choose(images: list[dict[str, Any]]) -> dict[str, Any]:
    """The one for our platform. Without a platform in the index, the configuration will tell."""
    if not images:
        raise refused(gettext_noop("The archive holds no image. Upload the file that `docker save IMAGE` writes."))
    fitting = [image for image in images if _platform(image) in (None, PLATFORM)]
    if not fitting:
        raise wrong_platform("/".join(_platform(images[0]) or ("?",)))
    if len(fitting) > 1:
        raise _several(len(fitting))
    return fitting[0]


def _platform(image: dict[str, Any]) -> tuple[str, str] | None:
    platform = image.get("platform")
    if not isinstance(platform, dict):
        return None
    return str(platform.get("os"))[:40], str(platform.get("architecture"))[:40]


def wrong_platform(found: str) -> Exception:
    """An image for another kind of computer."""
    text = gettext_noop("The image is for %(found)s, not for linux/amd64. Build it with `--platform linux/amd64`.")
    return refused(text % {"found": found if found.isprintable() else "?"})


def _hex(descriptor: Any) -> str:
    digest = descriptor.get("digest") if isinstance(descriptor, dict) else None
    claim = DIGEST.fullmatch(digest) if isinstance(digest, str) else None
    if claim is None:
        raise refused(_DAMAGED)
    return claim[1]


def _blob(contents: Contents, descriptor: Any) -> bytes:
    return _text(contents, f"blobs/sha256/{_hex(descriptor)}")


def _oci_layer(contents: Contents, descriptor: Any) -> Staged | None:
    name = f"blobs/sha256/{_hex(descriptor)}"
    if str(descriptor.get("mediaType", "")).endswith("+zstd"):
        raise refused(
            gettext_noop("A layer is compressed with zstd, which is not supported. Export the image with gzip or none.")
        )
    layer = contents.get(name)
    if layer:
        _check_name(name, layer)
        _check_layer(layer)
    return layer

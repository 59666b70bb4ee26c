"""A pushed image as the archive that an upload would have brought: an OCI layout in a tar, streamed from the registry.

What the manifest says is used to know what to fetch, and how much at most. That layers and configuration are what they
claim to be is for the check of the archive to find out, as with any upload.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from sandbox import manifests
from sandbox.reasons import Rejected, gettext_noop
from sandbox.streams import END, header, padding
from sandbox.tarscan import refused
from submissions.registry import store
from submissions.registry.names import DIGEST

_FOREIGN = ("foreign", "nondistributable")


@dataclass(frozen=True)
class Blob:
    """What a manifest says about a file of the image: its digest, and its size in bytes."""

    digest: str
    size: int


@dataclass(frozen=True)
class Pushed:
    """An image in the registry: its manifest as it was pushed, and what that refers to."""

    repository: str
    manifest: bytes
    media_type: str
    config: Blob
    layers: tuple[Blob, ...]

    @property
    def digest(self) -> str:
        return f"sha256:{hashlib.sha256(self.manifest).hexdigest()}"


def find(repository: str, digest: str, *, max_layers: int) -> Pushed:
    """The image for our platform behind a digest, which may be an index of several.

    Raises Rejected with a plain sentence, store.Missing, store.Unreachable.
    """
    text, media_type = store.manifest(repository, digest)
    if media_type in store.INDEX_TYPES:
        text, media_type = store.manifest(repository, _choose(manifests.parse(text)))
    if media_type not in store.MANIFEST_TYPES:
        raise refused(gettext_noop("This is not an image of a kind that can run here. Push it with a newer Docker."))
    manifest = manifests.parse(text)
    layers = manifest.get("layers") if isinstance(manifest, dict) else None
    if not isinstance(layers, list) or not 1 <= len(layers) <= max_layers:
        what = gettext_noop("The image must have between 1 and %(limit)d layers.")
        raise refused(what % {"limit": max_layers})
    return Pushed(repository, text, media_type, _blob(manifest.get("config")), tuple(map(_blob, layers)))


def public_layers(image: Pushed, base_layers: frozenset[str]) -> frozenset[str]:
    """Digests of layers that need not be fetched: by the configuration they are those of public base images.

    A configuration that lies gets the base's layer in its place, which is what it claims.
    """
    if image.config.size > store.MOST_TEXT:
        return frozenset()
    text = b"".join(store.blob(image.repository, image.config.digest, image.config.size))
    config = manifests.parse(text)
    rootfs = config.get("rootfs") if isinstance(config, dict) else None
    diff_ids = rootfs.get("diff_ids") if isinstance(rootfs, dict) else None
    if not isinstance(diff_ids, list) or len(diff_ids) != len(image.layers):
        return frozenset()
    public = [isinstance(diff_id, str) and diff_id in base_layers for diff_id in diff_ids]
    own = {layer.digest for layer, is_public in zip(image.layers, public, strict=True) if not is_public}
    return frozenset(layer.digest for layer in image.layers) - own


@dataclass(frozen=True)
class Layout:
    """The archive of an image without the layers `left_out`. The same bytes each time, so that a stream can resume."""

    image: Pushed
    left_out: frozenset[str]

    @property
    def size(self) -> int:
        """Bytes of the whole archive."""
        return sum(len(header(name, size)) + size + len(padding(size)) for name, size, _content in self._members()) + (
            len(END)
        )

    def stream(self) -> Iterator[bytes]:
        """The archive in pieces. Raises store.Missing where a blob has not the size that the manifest says."""
        for name, size, content in self._members():
            yield header(name, size)
            if isinstance(content, bytes):
                yield content
            else:
                yield from store.blob(self.image.repository, content.digest, content.size)
            yield padding(size)
        yield END

    def _members(self) -> Iterator[tuple[str, int, bytes | Blob]]:
        descriptor = {"mediaType": self.image.media_type, "digest": self.image.digest, "size": len(self.image.manifest)}
        texts = {
            "oci-layout": b'{"imageLayoutVersion":"1.0.0"}',
            "index.json": json.dumps({"schemaVersion": 2, "manifests": [descriptor]}).encode(),
            _file(self.image.digest): self.image.manifest,
        }
        for name, text in texts.items():
            yield name, len(text), text
        blobs = {blob.digest: blob for blob in (self.image.config, *self.image.layers)}
        for digest, blob in blobs.items():
            if digest not in self.left_out:
                yield _file(digest), blob.size, blob


def _file(digest: str) -> str:
    return f"blobs/sha256/{digest.removeprefix('sha256:')}"


def _choose(index: Any) -> str:
    """The digest of the one image for our platform."""
    entries = index.get("manifests") if isinstance(index, dict) else None
    if not isinstance(entries, list):
        raise _damaged()
    fitting = {
        entry.get("digest")
        for entry in entries
        if isinstance(entry, dict)
        and isinstance(platform := entry.get("platform"), dict)
        and (platform.get("os"), platform.get("architecture")) == manifests.PLATFORM
        and isinstance(entry.get("digest"), str)
    }
    if len(fitting) != 1:
        what = gettext_noop(
            "What you pushed must hold exactly one image for linux/amd64. Build it with `--platform linux/amd64`."
        )
        raise refused(what)
    return str(fitting.pop())


def _blob(descriptor: Any) -> Blob:
    if not isinstance(descriptor, dict):
        raise _damaged()
    digest, size, kind = descriptor.get("digest"), descriptor.get("size"), str(descriptor.get("mediaType", ""))
    if not isinstance(digest, str) or not DIGEST.fullmatch(digest):
        raise _damaged()
    if not isinstance(size, int) or isinstance(size, bool) or size < 0:
        raise _damaged()
    if descriptor.get("urls") or any(word in kind for word in _FOREIGN):
        raise refused(
            gettext_noop("A layer of the image is said to be kept elsewhere. Push an image with all its layers.")
        )
    return Blob(digest, size)


def _damaged() -> Rejected:
    return refused(gettext_noop("The manifest of the image is damaged. Push the image again."))

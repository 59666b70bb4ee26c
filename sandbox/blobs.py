"""The blob store: layers and configurations of checked images, each under the SHA-256 of its unpacked content.

Only a check that has recomputed a digest writes here, so an image can be put together from blobs without asking again.
"""

import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sandbox.streams import END, file_in_tar, header, padding


def blob_path(root: Path, digest: str) -> Path:
    """Where the blob `sha256:<hex>` is, or would be."""
    return root / digest.removeprefix("sha256:")


@contextmanager
def staging(root: Path) -> Iterator[Path]:
    """A fresh folder beside the store, on the same disk; gone afterwards with whatever was not adopted."""
    incoming = root.parent / "incoming"
    incoming.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(dir=incoming))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def adopt(root: Path, staged: Path, hexdigest: str) -> None:
    """Moves a file whose digest has been computed into the store."""
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    staged.replace(blob_path(root, hexdigest))


def load_stream(root: Path, image_id: str, layers: list[str], *, held: frozenset[str] = frozenset()) -> Iterator[bytes]:
    """An image as a docker-archive under our own manifest, without any tag.

    Layers in `held` are left out: the caller knows that the engine has them, at the bottom and in this order. Raises
    OSError if a blob is gone.
    """
    config_name = f"{image_id.removeprefix('sha256:')}.json"
    names = [f"{layer.removeprefix('sha256:')}.tar" for layer in layers]
    yield from file_in_tar(config_name, blob_path(root, image_id))
    for layer in dict.fromkeys(layers):
        if layer not in held:
            yield from file_in_tar(f"{layer.removeprefix('sha256:')}.tar", blob_path(root, layer))
    manifest = json.dumps([{"Config": config_name, "RepoTags": None, "Layers": names}]).encode()
    yield header("manifest.json", len(manifest)) + manifest + padding(len(manifest))
    yield END

"""Thin archives: an image archive without the layers that the server has already.

Formats: docker-archive of Docker 20.10 (`manifest.json`, `<sha>.json`, `<id>/layer.tar`, some of them links), that of
Docker 25 and newer (OCI layout in `blobs/sha256/` and `manifest.json`, layers perhaps compressed), and the
plain OCI layout of one image. A layer is known by its diff_id, the SHA-256 of its uncompressed tar, in the config.

What is written depends only on the image: fixed times, owners and order. So an interrupted upload can go on with the
same bytes.
"""

import gzip
import hashlib
import json
import lzma
import posixpath
import tarfile
import tempfile
import zlib
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Any, Literal

from anomed.problems import Problem

PIECE = 1 << 20
SMALL = 4 << 20  # configs and manifests take kilobytes; anything larger is a layer
MANIFEST = "manifest.json"
DROPPED = frozenset({"repositories"})  # old list of tags; the server keeps no tags
BLOBS = "blobs/sha256/"
DAMAGE = (tarfile.TarError, EOFError, gzip.BadGzipFile, zlib.error, lzma.LZMAError)


@dataclass(frozen=True)
class Contents:
    """What an archive says about its layers: pairs (member, diff_id) from the lowest up; and the sizes of its files."""

    layers: tuple[tuple[str, str], ...]
    sizes: Mapping[str, int]

    def known(self, base_layers: Collection[str]) -> frozenset[str]:
        """Members that hold a layer of the server."""
        return frozenset(name for name, diff_id in self.layers if diff_id in base_layers and name in self.sizes)


@dataclass(frozen=True)
class Archive:
    """A file ready to be sent, and the bytes of the layers that stay at home."""

    file: IO[bytes]
    left_out: int


def thin_file(file: IO[bytes], base_layers: Collection[str]) -> Archive:
    """Thins an archive on disk; one that shares nothing with the server comes back as it is, not copied.

    Raises Problem if it is no image archive.
    """
    contents = read_contents(file)
    skip = contents.known(base_layers)
    if not skip:
        file.seek(0)
        return Archive(file, 0)
    target = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the upload
    file.seek(0)
    return Archive(target, _copy(file, target, base_layers, skip))


def thin_stream(stream: IO[bytes], base_layers: Collection[str]) -> Archive:
    """Thins what `docker save` writes into a pipe. A layer of the server stays on disk only while it is hashed."""
    target = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the upload
    left_out = _copy(stream, target, base_layers, frozenset())
    # Compressed layers show only now, with the config read, that they are the server's.
    second = thin_file(target, base_layers)
    return Archive(second.file, left_out + second.left_out)


def read_contents(file: IO[bytes]) -> Contents:
    """Reads names and the small JSON members; the layers are skipped. Raises Problem if this is no image archive."""
    documents: dict[str, bytes] = {}
    links: dict[str, str] = {}
    sizes: dict[str, int] = {}
    file.seek(0)
    with _opened(file, "r:*") as tar:
        for member in tar:
            name = posixpath.normpath(member.name)
            if _is_link(member):
                links[name] = _target(member)
            elif member.isreg():
                sizes[name] = member.size
                if member.size <= SMALL:
                    documents[name] = _read(tar, member)
    if MANIFEST not in documents and "index.json" not in documents:
        raise Problem(
            "This is a tar file, but no image: it holds neither manifest.json nor index.json. "
            "Make one with: docker save -o FILE IMAGE"
        )
    try:
        layers = _layers(documents, links)
    except (KeyError, TypeError, ValueError, AttributeError):
        layers = ()  # not an image that we understand: sent as it is, the server says what is wrong with it
    return Contents(layers, sizes)


def _layers(documents: Mapping[str, bytes], links: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    if MANIFEST in documents:
        (image,) = json.loads(documents[MANIFEST])
        names = [links.get(name, name) for name in map(posixpath.normpath, image["Layers"])]
        config = json.loads(documents[links.get(image["Config"], image["Config"])])
    else:
        (entry,) = json.loads(documents["index.json"])["manifests"]
        manifest = json.loads(documents[_blob(entry)])
        names = [_blob(layer) for layer in manifest["layers"]]
        config = json.loads(documents[_blob(manifest["config"])])
    return tuple(zip(names, config["rootfs"]["diff_ids"], strict=True))


def _blob(descriptor: Mapping[str, Any]) -> str:
    return BLOBS + str(descriptor["digest"]).removeprefix("sha256:")


def _copy(source: IO[bytes], target: IO[bytes], base_layers: Collection[str], skip: Collection[str]) -> int:
    """Writes a thin archive in one pass over the source; returns the bytes left out.

    Links are resolved in the manifest instead of being written: the server need not follow any.
    """
    links: dict[str, str] = {}
    manifest = b""
    left_out = 0
    with _opened(source, "r|*") as tar:
        for member in tar:
            name = posixpath.normpath(member.name)
            if _is_link(member):
                links[name] = _target(member)
            elif name == MANIFEST:
                manifest = _read(tar, member)
            elif name in skip or f"sha256:{name.removeprefix(BLOBS)}" in base_layers:
                left_out += member.size
            elif member.isreg() and name not in DROPPED:
                left_out += _write_unless_known(tar, member, name, target, base_layers)
    if manifest:
        content = _resolved(manifest, links)
        target.write(_header(MANIFEST, len(content)) + content + _padding(len(content)))
    target.write(bytes(2 * tarfile.BLOCKSIZE))
    target.seek(0)
    return left_out


def _write_unless_known(
    tar: tarfile.TarFile, member: tarfile.TarInfo, name: str, target: IO[bytes], base_layers: Collection[str]
) -> int:
    """Writes one file; takes it back, and returns its size, if its bytes turn out to be a layer of the server."""
    start = target.tell()
    target.write(_header(name, member.size))
    digest = hashlib.sha256()
    reader = _reader(tar, member)
    missing = member.size
    while piece := reader.read(min(PIECE, missing)):
        digest.update(piece)
        target.write(piece)
        missing -= len(piece)
    if missing:
        raise tarfile.ReadError("unexpected end of data")
    if f"sha256:{digest.hexdigest()}" in base_layers:
        target.seek(start)
        target.truncate()
        return member.size
    target.write(_padding(member.size))
    return 0


def _resolved(manifest: bytes, links: Mapping[str, str]) -> bytes:
    """The manifest without tags and with links replaced by what they point at."""
    try:
        images = json.loads(manifest)
        for image in images:
            image["RepoTags"] = None
            image["Config"] = links.get(image["Config"], image["Config"])
            image["Layers"] = [links.get(name, name) for name in map(posixpath.normpath, image["Layers"])]
    except (ValueError, KeyError, TypeError, AttributeError):
        return manifest  # the server says what is wrong with it
    return json.dumps(images, separators=(",", ":")).encode()


@contextmanager
def _opened(file: IO[bytes], mode: Literal["r:*", "r|*"]) -> Iterator[tarfile.TarFile]:
    """A torn or foreign file ends in a sentence."""
    try:
        with tarfile.open(fileobj=file, mode=mode) as tar:
            yield tar
    except DAMAGE as error:
        raise Problem(
            f"This is no image archive, or a damaged one ({error}). Make it (again) with: docker save -o FILE IMAGE"
        ) from error


def _is_link(member: tarfile.TarInfo) -> bool:
    return member.issym() or member.islnk()


def _target(member: tarfile.TarInfo) -> str:
    """The member a link points at: symbolic links are relative to their folder, hard links to the archive."""
    folder = posixpath.dirname(posixpath.normpath(member.name)) if member.issym() else ""
    return posixpath.normpath(posixpath.join(folder, member.linkname))


def _reader(tar: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    reader = tar.extractfile(member)
    if reader is None:
        raise Problem(f"The image archive holds {member.name}, which is no plain file.")
    return reader


def _read(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    return _reader(tar, member).read(SMALL)


def _header(name: str, size: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.size = size
    return info.tobuf(tarfile.PAX_FORMAT)


def _padding(size: int) -> bytes:
    return bytes(-size % tarfile.BLOCKSIZE)

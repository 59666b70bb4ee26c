"""Reading an uploaded archive once, from front to back, into a staging folder. Runs in an isolated child.

Nothing in an archive is believed: names are checked, digests are recomputed, unpacked bytes and entries are counted as
they come.
"""

import hashlib
import posixpath
import sys
import tarfile
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import IO

from sandbox.reasons import Reason, Rejected, gettext_noop
from sandbox.streams import PIECE, Pieces
from sandbox.tarscan import LayerScan, refused

GZIP, ZSTD, XZ, BZIP2 = b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"\xfd7zXZ", b"BZh"
_MAX_LINKS = 8


@dataclass(frozen=True)
class Caps:
    """Bounds on an archive: unpacked bytes, files in the archive, entries in all its layers, layers.

    `room` is how many bytes the disk has for it now, which is nothing that its maker could know.
    """

    unpacked_bytes: int
    members: int
    entries: int
    layers: int
    room: int = sys.maxsize


@dataclass(frozen=True)
class Staged:
    """A file of the archive, unpacked if it was compressed.

    `raw` is the SHA-256 of what the archive holds, `digest` that of the unpacked content (both hex), `size` counts its
    bytes. `is_layer` says whether it is a complete tar; `compression` names one that was not undone.
    """

    path: Path
    raw: str
    digest: str
    size: int
    is_layer: bool
    compression: str = ""


@dataclass
class Contents:
    """All files of an archive by name, and its links."""

    files: dict[str, Staged] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)

    def get(self, name: str) -> Staged | None:
        """The file of that name; links within the archive are followed."""
        for _ in range(_MAX_LINKS):
            if name not in self.links:
                break
            name = self.links[name]
        return self.files.get(name)


@dataclass
class _Budget:
    caps: Caps
    unpacked: int = 0
    entries: int = 0

    def spend(self, size: int) -> None:
        self.unpacked += size
        if self.unpacked > self.caps.unpacked_bytes:
            text = gettext_noop("The image unpacks to more than %(limit)d MB. Make it smaller.")
            raise refused(text % {"limit": self.caps.unpacked_bytes // 10**6})
        if self.unpacked > self.caps.room:
            raise Rejected(Reason.PLATFORM_FAULT, _NO_ROOM)


_NO_ROOM = gettext_noop(
    "The server's disk has too little room to unpack this image now. Enter it again later, or tell the operator."
)


def read(path: Path, staging: Path, caps: Caps) -> Contents:
    """Reads the archive at `path`, with or without gzip. Raises `Rejected` with a plain sentence."""
    contents = Contents()
    budget = _Budget(caps)
    trouble = _NO_TAR
    try:
        with (
            path.open("rb") as file,
            tarfile.open(fileobj=Pieces(_plain(file, budget)), mode="r|", bufsize=PIECE) as tar,
        ):
            for count, member in enumerate(tar):
                trouble = _CUT_OFF
                if count >= caps.members:
                    text = gettext_noop("The archive has more than %(limit)d files. Upload what `docker save` writes.")
                    raise refused(text % {"limit": caps.members})
                _take(tar, member, contents, staging / str(count), budget)
    except tarfile.TarError as error:
        raise refused(trouble) from error
    return contents


_CUT_OFF = gettext_noop("The archive is cut off or damaged. Save the image anew and upload it again.")
_NO_TAR = gettext_noop("The file is not an archive of an image. Upload the file that `docker save IMAGE` writes.")


def _plain(file: IO[bytes], budget: _Budget) -> Iterator[bytes]:
    """The archive itself, unpacked if it is a gzip file."""
    pieces = iter(lambda: file.read(PIECE), b"")
    first = next(pieces, b"")
    if first.startswith((ZSTD, XZ, BZIP2)):
        raise refused(gettext_noop("The archive is compressed in a way that is not supported. Use gzip, or none."))
    pieces = chain((first,), pieces)
    if not first.startswith(GZIP):
        return pieces
    # a tar needs headers between its files: twice the bytes that are allowed inside bound it well
    return _bounded(gunzip(pieces), 2 * budget.caps.unpacked_bytes, budget)


def _bounded(pieces: Iterable[bytes], limit: int, budget: _Budget) -> Iterator[bytes]:
    for piece in pieces:
        limit -= len(piece)
        if limit < 0:
            budget.spend(budget.caps.unpacked_bytes + 1)
        yield piece


def gunzip(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Unpacks gzip, also of several members, never more than a piece at a time. Raises `Rejected` if damaged."""
    decompressor = zlib.decompressobj(wbits=31)
    try:
        for piece in pieces:
            rest, more = piece, False
            while rest or more:
                if decompressor.eof:
                    if not rest.strip(b"\0"):  # padding after the last member
                        break
                    decompressor = zlib.decompressobj(wbits=31)
                unpacked = decompressor.decompress(rest, PIECE)
                rest = decompressor.unused_data if decompressor.eof else decompressor.unconsumed_tail
                more = len(unpacked) == PIECE and not decompressor.eof  # there may be output that was held back
                if unpacked:
                    yield unpacked
    except zlib.error as error:
        raise refused(_CUT_OFF) from error
    if not decompressor.eof:
        raise refused(_CUT_OFF)


def _take(tar: tarfile.TarFile, member: tarfile.TarInfo, contents: Contents, target: Path, budget: _Budget) -> None:
    name = _inside(member.name)
    if member.isdir():
        return
    if name in contents.files or name in contents.links:
        raise refused(gettext_noop("The archive has the same file twice. Upload what `docker save IMAGE` writes."))
    if member.issym() or member.islnk():
        folder = posixpath.dirname(name) if member.issym() else ""
        contents.links[name] = _inside(posixpath.join(folder, member.linkname))
    elif member.isreg() and not member.issparse():
        source = tar.extractfile(member)
        if source is not None:
            contents.files[name] = _stage(iter(lambda: source.read(PIECE), b""), target, budget)
    else:
        raise refused(gettext_noop("The archive has special files in it. Upload what `docker save IMAGE` writes."))


def _inside(name: str) -> str:
    """The name, made plain. Raises `Rejected` if it leads out of the archive."""
    plain = posixpath.normpath(name)
    if plain.startswith(("/", "../")) or plain == ".." or not plain.isprintable():
        raise refused(gettext_noop("The archive has a path or link that leads out of it. Nothing of it was used."))
    return plain


def _stage(pieces: Iterator[bytes], target: Path, budget: _Budget) -> Staged:
    """Writes one file to the staging folder, unpacked, and reads its headers if it is a tar."""
    first = next(pieces, b"")
    raw = hashlib.sha256()
    whole = chain((first,), pieces)
    gzipped = first.startswith(GZIP)
    unpacked = gunzip(_hashed(whole, raw)) if gzipped else whole
    digest = hashlib.sha256()
    scan = LayerScan()
    size = 0
    with target.open("xb") as file:
        for piece in unpacked:
            size += len(piece)
            budget.spend(len(piece))
            digest.update(piece)
            scan.feed(piece)
            if budget.entries + scan.entries > budget.caps.entries:
                text = gettext_noop("The image has more than %(limit)d files. Make it smaller.")
                raise refused(text % {"limit": budget.caps.entries})
            file.write(piece)
    budget.entries += scan.entries
    return Staged(
        path=target,
        raw=raw.hexdigest() if gzipped else digest.hexdigest(),
        digest=digest.hexdigest(),
        size=size,
        is_layer=size > 0 and scan.complete,
        compression="zstd" if first.startswith(ZSTD) else "",
    )


def _hashed(pieces: Iterable[bytes], total: "hashlib._Hash") -> Iterator[bytes]:
    for piece in pieces:
        total.update(piece)
        yield piece

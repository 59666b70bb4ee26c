"""Strict collecting of what a container left in /output.

The tar stream comes from an engine of ours, but everything it describes was made by a stranger. Only regular files and
folders with plain names are accepted, only what the step asked for is kept, and nothing is ever extracted by tarfile.
"""

import shutil
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Self

from sandbox.reasons import Reason, Rejected, gettext_noop
from sandbox.streams import PIECE, Pieces
from sandbox.walls import MEGABYTE, OUTPUT_SLACK_MB

TABLE_SUFFIXES = (".parquet", ".csv")
PAGE = 4096  # a tmpfs counts whole pages
MAX_DEPTH = 16
MAX_NAME_BYTES = 255


@dataclass(frozen=True)
class Wanted:
    """What to keep: tables (`name.parquet` or `name.csv`), files by exact name, folders with all that is in them."""

    tables: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    folders: tuple[str, ...] = ()

    @classmethod
    def from_json(cls, data: dict[str, list[str]]) -> Self:
        """Reads `Run.collect`."""
        return cls(**{name: tuple(data.get(name, ())) for name in ("tables", "files", "folders")})

    def enters(self, path: PurePosixPath) -> bool:
        """Whether that folder, relative to /output, was asked for."""
        return bool(path.parts) and path.parts[0] in self.folders

    def keeps(self, path: PurePosixPath) -> bool:
        """Whether that path, relative to /output, was asked for."""
        if len(path.parts) > 1:
            return path.parts[0] in self.folders
        return path.name in self.files or (path.suffix in TABLE_SUFFIXES and path.stem in self.tables)


class Everything(Wanted):
    """Keeps all that is there."""

    def enters(self, path: PurePosixPath) -> bool:
        """Every folder below the first."""
        return bool(path.parts)

    def keeps(self, path: PurePosixPath) -> bool:
        """Every file."""
        return True


@dataclass
class Tally:
    """What a container wrote in all: `size` in bytes, each file rounded up to whole pages."""

    size: int = 0
    members: int = 0

    def add(self, member: tarfile.TarInfo, output_mb: int, inodes: int) -> None:
        """Counts one more member, and stops at one that the volume cannot hold."""
        self.members += 1
        self.size += -(-member.size // PAGE) * PAGE
        if self.size > (output_mb + OUTPUT_SLACK_MB) * MEGABYTE:  # holes stream as zeros, for ever if they are large
            raise _invalid(gettext_noop("A file in /output has holes in it (a sparse file). Write plain files."))
        if self.members >= inodes - 1:
            text = gettext_noop("More than %(limit)d files and folders were written to /output.")
            raise Rejected(Reason.OUTPUT_TOO_LARGE, text % {"limit": inodes - 2})


def collect(pieces: Iterable[bytes], wanted: Wanted, folder: Path, *, output_mb: int, inodes: int) -> Tally:
    """Keeps the wanted outputs of a tar stream in the empty `folder`.

    Raises `Rejected`: `output_invalid` for links, devices, FIFOs, sparse files, odd names and a table in both formats,
    `output_too_large` for more than was allowed, `output_missing` for what was asked for and is not there.
    """
    tally = Tally()
    seen: dict[PurePosixPath, bool] = {}  # path -> whether it is a file
    try:
        with tarfile.open(fileobj=Pieces(pieces), mode="r|", bufsize=PIECE) as tar:
            for member in tar:
                _take(member, wanted, folder, seen)
                tally.add(member, output_mb, inodes)
                if member.isreg() and wanted.keeps(_path(member)):
                    _write(tar, member, folder / _path(member))
    except (tarfile.TarError, UnicodeError) as error:
        raise _invalid(gettext_noop("The content of /output could not be read.")) from error
    if tally.size > output_mb * MEGABYTE:
        raise too_large(output_mb)
    _check_complete(wanted, seen)
    return tally


def measure(pieces: Iterable[bytes], *, output_mb: int, inodes: int) -> None:
    """Raises `Rejected` (output_too_large) if /output is full: why a container that crashed may have done so."""
    tally = Tally()
    with tarfile.open(fileobj=Pieces(pieces), mode="r|", bufsize=PIECE) as tar:
        for member in tar:
            tally.add(member, output_mb, inodes)
    if tally.size > output_mb * MEGABYTE:
        raise too_large(output_mb)


def too_large(output_mb: int) -> Rejected:
    """More bytes than the step may write."""
    text = gettext_noop("More than %(limit)d MB were written to /output.")
    return Rejected(Reason.OUTPUT_TOO_LARGE, text % {"limit": output_mb})


def _take(member: tarfile.TarInfo, wanted: Wanted, folder: Path, seen: dict[PurePosixPath, bool]) -> None:
    """Checks one member's kind and name; makes the folder if it is a wanted one."""
    path = _path(member)
    if not (member.isreg() or member.isdir()) or member.issparse():
        text = gettext_noop("/output has something that is neither a file nor a folder (a link, FIFO or device).")
        raise _invalid(text)
    if path in seen:
        raise _invalid(gettext_noop("/output has the same name twice."))
    seen[path] = member.isreg()
    if member.isdir() and wanted.enters(path):
        (folder / path).mkdir(mode=0o700)


def _path(member: tarfile.TarInfo) -> PurePosixPath:
    """The member's path below /output, made of plain components only."""
    path = PurePosixPath(member.name)
    plain = all(part.isprintable() and part != ".." and len(part.encode()) <= MAX_NAME_BYTES for part in path.parts)
    if path.is_absolute() or not plain or len(path.parts) > MAX_DEPTH:
        raise _invalid(gettext_noop("/output has a name that is too deep, too long, or has unprintable characters."))
    return path


def _write(tar: tarfile.TarFile, member: tarfile.TarInfo, target: Path) -> None:
    source = tar.extractfile(member)
    if source is None:
        raise tarfile.ReadError
    with target.open("xb") as file:
        shutil.copyfileobj(source, file, PIECE)


def _check_complete(wanted: Wanted, seen: dict[PurePosixPath, bool]) -> None:
    for table in wanted.tables:
        found = [table + suffix for suffix in TABLE_SUFFIXES if seen.get(PurePosixPath(table + suffix))]
        if not found:
            text = gettext_noop("Neither %(name)s.parquet nor %(name)s.csv was written to /output.")
            raise Rejected(Reason.OUTPUT_MISSING, text % {"name": table})
        if len(found) > 1:
            text = gettext_noop("Both %(name)s.parquet and %(name)s.csv were written to /output. Write one of them.")
            raise _invalid(text % {"name": table})
    for name, is_file in (*((name, True) for name in wanted.files), *((name, False) for name in wanted.folders)):
        if seen.get(PurePosixPath(name)) is not is_file:
            text = gettext_noop("%(name)s was not written to /output, or is not of the right kind.")
            raise Rejected(Reason.OUTPUT_MISSING, text % {"name": name})


def _invalid(detail: str) -> Rejected:
    return Rejected(Reason.OUTPUT_INVALID, detail)

"""Tar streams that never touch a disk: a folder as a tar, and an engine's answer as a file to read from."""

import io
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path

PIECE = 1 << 20
END = bytes(2 * tarfile.BLOCKSIZE)


def padding(size: int) -> bytes:
    """What follows `size` bytes of content up to the next block."""
    return bytes(-size % tarfile.BLOCKSIZE)


def header(name: str, size: int, *, folder: bool = False, writable: bool = False) -> bytes:
    """A header for a regular file or a folder that everybody may read, or also write, without owner or time."""
    member = tarfile.TarInfo(name)
    member.size = size
    member.mode = (0o755 if folder else 0o644) | (0o222 if writable else 0)
    member.type = tarfile.DIRTYPE if folder else tarfile.REGTYPE
    return member.tobuf(format=tarfile.PAX_FORMAT)


def file_in_tar(name: str, path: Path, *, writable: bool = False) -> Iterator[bytes]:
    """One regular file as a tar member, in pieces."""
    size = path.stat().st_size
    yield header(name, size, writable=writable)
    left = size
    with path.open("rb") as source:
        while left:
            piece = source.read(min(PIECE, left))
            if not piece:
                raise OSError(f"{path.name} became shorter while it was read")
            left -= len(piece)
            yield piece
    yield padding(size)


def tar_of(folder: Path, *, writable: bool = False) -> Iterator[bytes]:
    """A folder's content as a tar stream, sorted by name; everybody may read it, or also write.

    Raises ValueError for anything but files and folders.
    """
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink() or not (path.is_dir() or path.is_file()):
            raise ValueError(f"{name} is neither a file nor a folder")
        if path.is_dir():
            yield header(name, 0, folder=True, writable=writable)
        else:
            yield from file_in_tar(name, path, writable=writable)
    yield END


class Pieces(io.RawIOBase):
    """Pieces of bytes, read like a file."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = iter(pieces)
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1, /) -> bytes:
        """Exactly `size` bytes, fewer only at the end."""
        if size < 0:
            raise io.UnsupportedOperation("a stream without an end is never read whole")
        taken = []
        while size:
            if not self._rest:
                piece = next(self._pieces, None)
                if piece is None:
                    break
                self._rest = memoryview(piece)
                continue
            taken.append(self._rest[:size])
            size -= len(taken[-1])
            self._rest = self._rest[len(taken[-1]) :]
        return b"".join(taken)

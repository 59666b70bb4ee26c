"""Reading arrays (npz) that a stranger wrote: sizes are capped before anything is unpacked, and nothing is unpickled.

Call it in an isolated child. All problems are raised as TableError with a plain sentence that quotes names of arrays
but no values.
"""

from __future__ import annotations

import math
import struct
import tokenize
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

import numpy as np
from numpy.typing import NDArray

from challenges.schema import MAXIMUM_NAME_LENGTH, TableError

_MEGABYTE: Final = 1 << 20
# Flags, whole numbers, floating-point numbers, texts: nothing that needs unpickling or interpreting.
_KINDS: Final = "biufUS"
# What a cell takes at most: an extended double; a class label of four bytes for a character, and as many for padding.
NUMBER_BYTES: Final = 16
LABEL_BYTES: Final = 8 * MAXIMUM_NAME_LENGTH
_HEADER_BYTES: Final = 16 << 10
_ENCRYPTED: Final = 0x1
_BROKEN: Final = (
    *(zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError),  # a damaged archive
    *(NotImplementedError, RuntimeError),  # one that needs a later version, or a password
    *(
        ValueError,
        TypeError,
        KeyError,
        SyntaxError,
        OverflowError,
        MemoryError,
        tokenize.TokenError,
    ),  # a crooked header
)


@dataclass(frozen=True)
class ArrayCaps:
    """The most that a file may hold: bytes on disk, cells in one array, bytes in one cell."""

    size: int
    cells: int
    cell: int = NUMBER_BYTES


def read_arrays(path: Path, names: tuple[str, ...], caps: ArrayCaps) -> dict[str, NDArray[Any]]:
    """Those of the named arrays that the file holds, each of one or two dimensions; others are not looked at.

    Their types are flags, numbers or texts, in the machine's byte order.
    """
    if path.is_symlink() or not path.is_file():
        raise TableError("This is not a regular file.")
    if path.stat().st_size > caps.size:
        raise TableError(f"It is larger than {max(1, caps.size // _MEGABYTE)} MB, the most that is read.")
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            held = {name: [one for one in members if one.filename == f"{name}.npy"] for name in names}
            return {name: _read(archive, found, name, caps) for name, found in held.items() if found}
    except TableError:
        raise
    except _BROKEN as error:
        raise TableError("It is no readable npz, as numpy.savez_compressed writes it without pickles.") from error


def _read(archive: zipfile.ZipFile, found: list[zipfile.ZipInfo], name: str, caps: ArrayCaps) -> NDArray[Any]:
    if len(found) > 1:
        raise TableError(f"The array “{name}” is there more than once.")
    info = found[0]
    most = _HEADER_BYTES + caps.cells * caps.cell
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) or info.flag_bits & _ENCRYPTED:
        raise TableError(f"The array “{name}” is packed in a way that is not read. Use numpy.savez_compressed.")
    if info.file_size > most:
        raise TableError(f"The array “{name}” is too large.")
    with archive.open(info) as file:
        shape, fortran, kind = _header(file)
        _check(name, shape, kind, caps)
        size = math.prod(shape) * kind.itemsize
        data = file.read(size)
        if len(data) != size or file.read(1):  # reading to the end checks the sum as well
            raise TableError(f"The array “{name}” is longer or shorter than it says.")
    values = np.frombuffer(data, dtype=kind).reshape(shape, order="F" if fortran else "C")
    if kind.kind == "U":
        _check_letters(name, values)
    return np.ascontiguousarray(values, dtype=kind.newbyteorder("="))


def _header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    version = np.lib.format.read_magic(file)
    if version not in read:
        raise ValueError(version)
    shape, fortran, kind = read[version](file, max_header_size=_HEADER_BYTES)
    return shape, fortran, kind


def _check(name: str, shape: tuple[int, ...], kind: np.dtype[Any], caps: ArrayCaps) -> None:
    if kind.kind not in _KINDS or kind.hasobject or kind.subdtype is not None:
        raise TableError(f"The array “{name}” holds neither numbers nor flags nor texts.")
    if not 1 <= len(shape) <= 2 or any(length < 0 for length in shape):
        raise TableError(f"The array “{name}” must have one or two dimensions.")
    if math.prod(shape) > caps.cells:
        raise TableError(f"The array “{name}” has more cells than were asked for.")
    if kind.itemsize > caps.cell:
        raise TableError(f"The array “{name}” holds texts, or texts that are too long.")


def _check_letters(name: str, values: NDArray[Any]) -> None:
    """numpy makes texts of any four bytes; Python cannot read all of them."""
    letters = np.ascontiguousarray(values).view(np.dtype(np.uint32).newbyteorder(values.dtype.byteorder))
    if letters.size and int(letters.max()) > 0x10FFFF:
        raise TableError(f"The array “{name}” holds texts with letters that do not exist.")

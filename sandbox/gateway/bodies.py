"""What strangers send: forms and arrays. Everything is measured before it is unpacked."""

from __future__ import annotations

import io
import math
import re
import zipfile
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

MAX_ARRAYS = 8
MAX_HEADER = 1 << 14
MAX_PARTS = 16
_KINDS = "biuf"  # dtypes: booleans, integers, floats


class BadBody(ValueError):
    """A body that cannot be used; the message says why, in one sentence."""


def arrays(body: bytes, limit: int) -> dict[str, Array]:
    """The plain numeric arrays of an npz archive, of at most `limit` bytes when unpacked. Raises BadBody."""
    try:
        with zipfile.ZipFile(io.BytesIO(body)) as archive:
            members = archive.infolist()
            if len(members) > MAX_ARRAYS:
                raise BadBody(f"There are more than {MAX_ARRAYS} arrays in it.")
            found: dict[str, Array] = {}
            for member in members:
                if member.file_size > limit:
                    raise BadBody(f"It unpacks to more than {limit} bytes.")
                with archive.open(member) as file:
                    content = file.read(limit + 1)  # what the archive says of itself may be a lie
                limit -= len(content)
                if limit < 0:
                    raise BadBody("It unpacks to more than it may.")
                found[member.filename.removesuffix(".npy")] = _array(content)
            return found
    except BadBody:
        raise
    except Exception as error:  # an archive can be broken in more ways than zipfile names
        raise BadBody("It is not an archive as numpy.savez_compressed writes it.") from error


def _array(content: bytes) -> Array:
    """One .npy file. Its header says how much memory will be asked for: it must be what is there."""
    file = io.BytesIO(content)
    version = np.lib.format.read_magic(file)
    read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}[version]
    shape, fortran, dtype = read(file, max_header_size=MAX_HEADER)
    if dtype.kind not in _KINDS:
        raise BadBody("Its arrays must hold numbers or booleans.")
    rest = content[file.tell() :]
    if len(rest) != math.prod(shape) * dtype.itemsize:
        raise BadBody("The header of an array does not fit its content.")
    return np.frombuffer(rest, dtype=dtype).reshape(shape, order="F" if fortran else "C")


def archive(**named: Array) -> bytes:
    """Arrays as the published packages send them."""
    packed = io.BytesIO()
    np.savez_compressed(packed, allow_pickle=False, **named)
    return packed.getvalue()


def parts(body: bytes, content_type: str) -> dict[str, bytes]:
    """The parts of a form by name, as they are: multipart/form-data of RFC 7578. Raises BadBody.

    Nothing is decoded: a part without a file name may hold bytes all the same.
    """
    boundary = re.search(r'boundary="?([^";\s]{1,70})"?', content_type)
    if not content_type.lower().startswith("multipart/form-data") or boundary is None:
        raise BadBody("It is not a form (multipart/form-data with a boundary).")
    mark = b"--" + boundary[1].encode("latin-1", "replace")
    pieces = (b"\r\n" + body).split(b"\r\n" + mark)
    if len(pieces) < 2 or len(pieces) > MAX_PARTS + 2 or not pieces[-1].startswith(b"--"):
        raise BadBody("The form is incomplete, or has too many parts.")
    found: dict[str, bytes] = {}
    for piece in pieces[1:-1]:
        head, _empty, content = piece.partition(b"\r\n\r\n")
        name = re.search(rb'(?i)^content-disposition:[^\r\n]*[; ]name="([^"\r\n]{1,100})"', head, re.MULTILINE)
        if name is None:
            raise BadBody("A part of the form has no name.")
        found[name[1].decode("latin-1")] = content
    return found

"""What strangers send: arrays and forms. Everything is measured before it is unpacked."""

from __future__ import annotations

import io
import math
import re
import zipfile
from mmap import mmap
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

MAX_ARRAYS = 8
MAX_HEADER = 1 << 14  # of an array, or of a form's part
MAX_PARTS = 16
_NAME = re.compile(rb'(?i)^content-disposition:[^\r\n]*[; ]name="([^"\r\n]{1,100})"', re.MULTILINE)
_KINDS = "biuf"  # dtypes: booleans, integers, floats
_PLAIN = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # others may ask for gigabytes to unpack a few bytes
# zipfile makes an object of each entry of an archive's directory, before anybody can count them.
_ENTRY, _MAX_ENTRIES = b"PK\x01\x02", 64


class Refused(Exception):
    """A request that is not granted: an HTTP status and one sentence, which holds nothing that a stranger sent."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status
        self.sentence = sentence


class BadBody(Refused):
    """A body that cannot be used."""

    def __init__(self, sentence: str) -> None:
        super().__init__(400, sentence)


def arrays(body: bytes, limit: int) -> dict[str, Array]:
    """The plain numeric arrays of an npz archive, of at most `limit` bytes when unpacked. Raises BadBody."""
    if body.count(_ENTRY) > _MAX_ENTRIES:
        raise BadBody(f"There are more than {MAX_ARRAYS} arrays in it.")
    try:
        with zipfile.ZipFile(io.BytesIO(body)) as archive:
            members = archive.infolist()
            if len(members) > MAX_ARRAYS:
                raise BadBody(f"There are more than {MAX_ARRAYS} arrays in it.")
            found: dict[str, Array] = {}
            for member in members:
                content = _unpack(archive, member, limit)
                limit -= len(content)
                found[member.filename.removesuffix(".npy")] = _array(content)
            return found
    except Refused:
        raise
    except Exception as error:  # an archive can be broken in more ways than zipfile names
        raise BadBody("It is not an archive as numpy.savez_compressed writes it.") from error


def _unpack(archive: zipfile.ZipFile, member: zipfile.ZipInfo, limit: int) -> bytes:
    if member.compress_type not in _PLAIN:
        raise BadBody("It is not packed as numpy.savez_compressed does it.")
    content = b""
    if member.file_size <= limit:
        with archive.open(member) as file:
            content = file.read(limit + 1)  # what the archive says of itself may be a lie
    if max(len(content), member.file_size) > limit:
        raise BadBody("It unpacks to more than is taken here.")
    return content


def _array(content: bytes) -> Array:
    """One .npy file. Its header says how much memory will be asked for: it must be what is there."""
    file = io.BytesIO(content)
    version = np.lib.format.read_magic(file)
    read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}[version]
    shape, fortran, dtype = read(file, max_header_size=MAX_HEADER)
    if dtype.kind not in _KINDS:
        raise BadBody("Its arrays must hold numbers or booleans.")
    begin = file.tell()
    if len(content) - begin != math.prod(shape) * dtype.itemsize:
        raise BadBody("The header of an array does not fit its content.")
    if begin == len(content):
        return np.empty(shape, dtype=dtype)
    return np.frombuffer(content, dtype=dtype, offset=begin).reshape(shape, order="F" if fortran else "C")


def archive(**named: Array) -> bytes:
    """Arrays as the published packages send them."""
    packed = io.BytesIO()
    np.savez_compressed(packed, allow_pickle=False, **named)
    return packed.getvalue()


def parts(body: bytes | mmap, content_type: str) -> dict[str, slice]:
    """Where in it the parts of a form are, by name: multipart/form-data of RFC 7578. Raises BadBody.

    Nothing is decoded: a part without a file name may hold bytes all the same.
    """
    boundary = re.search(r'boundary="?([^";\s]{1,70})"?', content_type)
    if not content_type.lower().startswith("multipart/form-data") or boundary is None:
        raise BadBody("It is not a form (multipart/form-data with a boundary).")
    mark = b"\r\n--" + boundary[1].encode("latin-1", "replace")
    first = mark[2:]  # the one that begins a body comes without the line break that is part of all others
    begin = -2 if body[: len(first)] == first else body.find(mark)
    at = begin + len(mark) if begin != -1 else len(body)
    found: dict[str, slice] = {}
    for _part in range(MAX_PARTS + 1):
        if body[at : at + 2] == b"--":
            return found
        end = body.find(mark, at)
        head = body.find(b"\r\n\r\n", at, min(at + MAX_HEADER, end))
        if end < 0:
            break
        name = re.search(_NAME, body[at : max(at, head)])
        if name is None:
            raise BadBody("A part of the form has no name.")
        found[name[1].decode("latin-1")] = slice(head + 4, end)
        at = end + len(mark)
    raise BadBody(f"The form is incomplete, or has more than {MAX_PARTS} parts.")

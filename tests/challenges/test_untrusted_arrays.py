"""Arrays that strangers send: what is honest is read, everything else is told in a sentence."""

import io
import pickle
import struct
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as extra

from challenges.schema import TableError
from challenges.untrusted_arrays import LABEL_BYTES, ArrayCaps, read_arrays
from tests.challenges.web_images import packed

CAPS = ArrayCaps(size=1 << 20, cells=1000, cell=LABEL_BYTES)


def kept(folder: Path, body: bytes) -> Path:
    path = folder / "body"
    path.write_bytes(body)
    return path


def npy(array: Any, **changes: Any) -> bytes:
    """A .npy file, with a header that may lie."""
    facts = {"descr": np.lib.format.dtype_to_descr(array.dtype), "fortran_order": False, "shape": array.shape} | changes
    header = io.BytesIO()
    np.lib.format.write_array_header_2_0(header, facts)
    return header.getvalue() + array.tobytes()


def zipped(*members: tuple[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    body = io.BytesIO()
    with zipfile.ZipFile(body, "w", method) as archive, warnings.catch_warnings(action="ignore"):
        for name, content in members:  # perhaps two of one name
            archive.writestr(name, content)
    return body.getvalue()


KINDS = st.one_of(
    *(extra.boolean_dtypes(), extra.integer_dtypes(), extra.unsigned_integer_dtypes(), extra.floating_dtypes()),
    extra.unicode_string_dtypes(max_len=8),
    extra.byte_string_dtypes(max_len=8),
)


@given(KINDS.flatmap(lambda kind: extra.arrays(kind, extra.array_shapes(max_dims=2, max_side=6))), st.booleans())
def test_plain_arrays_come_back_as_they_were(
    tmp_path_factory: pytest.TempPathFactory, array: Any, fortran: bool
) -> None:
    path = kept(tmp_path_factory.mktemp("body"), packed(X=np.asfortranarray(array) if fortran else array, y=1))
    read = read_arrays(path, ("X", "z"), CAPS)
    assert list(read) == ["X"]
    np.testing.assert_array_equal(read["X"], array)
    assert read["X"].dtype.isnative


class Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return Path("/nowhere/at/all").write_text, ("x",)


ONE = np.arange(3.0)
BAD = {
    "empty": (b"", "no readable npz"),
    "no archive": (b"PK\x03\x04 and nothing", "no readable npz"),
    "a bare array": (npy(ONE), "no readable npz"),
    "a pickle": (pickle.dumps({"X": [1, 2]}), "no readable npz"),
    "cut": (packed(X=np.random.default_rng(0).random(100))[:-40], "no readable npz"),
    "objects": (packed(X=np.array([Bomb(), 1], dtype=object)), "neither numbers"),
    "a structure": (packed(X=np.zeros(3, dtype=[("a", "f8")])), "neither numbers"),
    "dates": (packed(X=np.zeros(3, dtype="M8[s]")), "neither numbers"),
    "complex": (packed(X=np.zeros(3, dtype="c16")), "neither numbers"),
    "raw": (packed(X=np.zeros(3, dtype="V8")), "neither numbers"),
    "a scalar": (packed(X=1.0), "one or two dimensions"),
    "a cube": (packed(X=np.zeros((2, 2, 2))), "one or two dimensions"),
    "too many cells": (packed(X=np.zeros(1001)), "more cells"),
    "long texts": (packed(X=np.array(["x" * 200])), "too long"),
    "a bomb": (packed(X=np.zeros(3 << 20, dtype=np.int64)), "too large"),
    "letters that do not exist": (packed(X=np.array([0x110000], dtype=np.uint32).view("<U1")), "do not exist"),
    "twice": (zipped(("X.npy", npy(ONE)), ("X.npy", npy(ONE))), "more than once"),
    "a lie, more": (zipped(("X.npy", npy(ONE, shape=(4,)))), "longer or shorter"),
    "a lie, less": (zipped(("X.npy", npy(ONE, shape=(2,)))), "longer or shorter"),
    "a huge lie": (zipped(("X.npy", npy(ONE, shape=(1 << 62, 1 << 62)))), "more cells"),
    "nothing, hugely": (zipped(("X.npy", npy(ONE, shape=(0, 1 << 62)))), "longer or shorter"),
    "a negative length": (zipped(("X.npy", npy(ONE, shape=(-3,)))), "one or two dimensions"),
    "a text as shape": (zipped(("X.npy", npy(ONE, shape="3"))), "no readable npz"),
    "a wide text": (zipped(("X.npy", npy(ONE, descr="<U99999", shape=(1,)))), "too long"),
    "a list of a list": (zipped(("X.npy", npy(ONE, descr=("<f8", (1000,))))), "neither numbers"),
    "nested": (zipped(("X.npy", b"\x93NUMPY\x01\x00" + struct.pack("<H", 9000) + b"(" * 9000)), "no readable npz"),
    "a long header": (zipped(("X.npy", b"\x93NUMPY\x02\x00" + struct.pack("<I", 1 << 30) + b"x")), "no readable npz"),
    "a calling header": (zipped(("X.npy", b"\x93NUMPY\x01\x00" + struct.pack("<H", 9) + b"exit(1)  ")), "no readable"),
    "a later version": (zipped(("X.npy", b"\x93NUMPY\x03\x00" + npy(ONE)[8:])), "no readable npz"),
    "another packing": (zipped(("X.npy", npy(ONE)), method=zipfile.ZIP_LZMA), "packed in a way"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_used_is_told(tmp_path: Path, name: str) -> None:
    body, sentence = BAD[name]
    with pytest.raises(TableError, match=sentence):
        read_arrays(kept(tmp_path, body), ("X",), CAPS)
    assert not Path("/nowhere").exists()


def test_sums_are_checked(tmp_path: Path) -> None:
    body = bytearray(zipped(("X.npy", npy(ONE)), method=zipfile.ZIP_STORED))
    place = body.index(ONE.tobytes())
    body[place + 9] ^= 1
    with pytest.raises(TableError, match="no readable npz"):
        read_arrays(kept(tmp_path, bytes(body)), ("X",), CAPS)


@given(st.binary(max_size=300), st.integers(0, 400), st.integers(0, 255))
def test_any_damage_is_told_or_harmless(
    tmp_path_factory: pytest.TempPathFactory, tail: bytes, place: int, changed: int
) -> None:
    body = bytearray(packed(X=ONE))
    body[place % len(body)] = changed
    try:
        read = read_arrays(kept(tmp_path_factory.mktemp("body"), bytes(body) + tail), ("X",), CAPS)
    except TableError:
        return
    assert all(array.size <= CAPS.cells for array in read.values())


def test_a_link_and_a_large_file_are_not_opened(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(kept(tmp_path, packed(X=ONE)))
    with pytest.raises(TableError, match="not a regular file"):
        read_arrays(tmp_path / "link", ("X",), CAPS)
    with pytest.raises(TableError, match="larger than 1 MB"):
        read_arrays(kept(tmp_path, bytes(2 << 20)), ("X",), CAPS)

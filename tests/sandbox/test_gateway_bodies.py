"""What strangers send, before it is anything: arrays and forms, as written by honest libraries and by nobody."""

import io
import struct
import time
import tracemalloc
import zipfile
from contextlib import suppress

import numpy as np
import pytest
import urllib3
from gateway_program import pack
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, boolean_dtypes, floating_dtypes, integer_dtypes
from hypothesis.extra.numpy import arrays as some_arrays

from sandbox.gateway import bodies
from sandbox.gateway.bodies import BadBody, archive, arrays

LIMIT = 1 << 20


def parts(body: bytes, content_type: str) -> dict[str, bytes]:
    return {name: body[place] for name, place in bodies.parts(body, content_type).items()}


NUMBERS = some_arrays(
    st.one_of(boolean_dtypes(), integer_dtypes(), floating_dtypes()), array_shapes(min_dims=0, max_dims=3, min_side=0)
)


@given(st.dictionaries(st.sampled_from(["X", "y", "prediction", "score"]), NUMBERS, max_size=3), st.booleans())
def test_arrays_come_back(given_arrays, fortran):
    laid = {name: np.asfortranarray(values) if fortran else values for name, values in given_arrays.items()}
    for packed in (pack(**laid), archive(**laid)):
        back = arrays(packed, LIMIT)
        assert set(back) == set(laid)
        for name, values in laid.items():
            assert back[name].dtype == values.dtype
            np.testing.assert_array_equal(back[name], values)


@given(st.binary(max_size=500))
def test_bytes_are_no_arrays(body):
    with pytest.raises(BadBody):
        arrays(body, LIMIT)


@given(st.data())
def test_damaged_arrays(data):
    """A flipped byte is noticed, or changes nothing that matters: it never raises anything else."""
    body = bytearray(pack(X=np.arange(20.0).reshape(10, 2), y=np.arange(10)))
    for _flip in range(data.draw(st.integers(1, 4))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    with suppress(BadBody):
        arrays(bytes(body), LIMIT)


def npy(header: str | bytes, content: bytes = b"", version: bytes = b"\x01\x00") -> bytes:
    text = header.encode() if isinstance(header, str) else header
    return b"\x93NUMPY" + version + struct.pack("<H", len(text) + 1) + text + b"\n" + content


def zipped(*members: bytes, method: int = zipfile.ZIP_DEFLATED) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", method) as file:
        for number, member in enumerate(members):
            file.writestr(f"x{number}.npy", member)
    return packed.getvalue()


def lying(body: bytes, size: int) -> bytes:
    """An archive that says of its member that it is smaller than it is."""
    found = bytearray(body)
    for mark, offset in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        at = found.index(mark) + offset
        found[at : at + 4] = struct.pack("<I", size)
    return bytes(found)


def objects() -> bytes:
    packed = io.BytesIO()
    np.savez(packed, X=np.array([{"a": 1}], dtype=object))
    return packed.getvalue()


def header(shape: str, descr: str = "'<f8'") -> str:
    return f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}"


BAD = {
    "objects": objects(),
    "header of objects": zipped(npy(header("(1,)", "'|O'"), b"cos\nsystem\n(S'true'\ntR.")),
    "texts": pack(X=np.array(["a"])),
    "complex": pack(X=np.array([1j])),
    "dates": pack(X=np.array(["2020-01-01"], dtype="datetime64[D]")),
    "records": pack(X=np.zeros(2, dtype=[("a", "f8"), ("b", "f8")])),
    "nested": zipped(npy(header("(1,)", "('<f8', (3,))"), bytes(24))),
    "longer than it says": zipped(npy(header("(1,)"), bytes(16))),
    "shorter than it says": zipped(npy(header("(1000000000000,)"), bytes(16))),
    "below nothing": zipped(npy(header("(-1, -2)"), bytes(16))),
    "nothing of much": zipped(npy(header("(0, 10**30)"))),
    "nothing of more": zipped(npy(header("(0, 1000000000000000000000000000000)"))),
    "no shape": zipped(npy(header("'x'"), bytes(8))),
    "program": zipped(npy("__import__('os').system('true')")),
    "deep": zipped(npy("(" * 9000)),
    "long header": zipped(npy(header("(1,)") + " " * 20000, bytes(8))),
    "another version": zipped(npy(header("(1,)"), bytes(8), version=b"\x09\x00")),
    "no array": zipped(b"text"),
    "nothing in it": zipped(b""),
    "many": pack(**{f"x{number}": np.zeros(1) for number in range(9)}),
    "very many": zipped(*[b""] * 2000),
    "too large": pack(X=np.zeros(LIMIT // 8 + 1)),
    "too large together": pack(X=np.zeros(LIMIT // 16), y=np.zeros(LIMIT // 16), z=np.zeros(1)),
    "lie": lying(pack(X=np.zeros(LIMIT)), 100),
    "packed otherwise": zipped(npy(header("(1,)"), bytes(8)), method=zipfile.ZIP_LZMA),
    "packed otherwise too": zipped(npy(header("(1,)"), bytes(8)), method=zipfile.ZIP_BZIP2),
    "pickle": b"\x80\x04\x95",
    "bare array": npy(header("(1,)"), bytes(8)),
}


@pytest.mark.parametrize("body", BAD.values(), ids=BAD)
def test_bad_arrays(body):
    with pytest.raises(BadBody) as raised:
        arrays(body, LIMIT)
    assert raised.value.sentence.endswith(".")


def test_bombs_cost_little():
    """A gigabyte of zeros in a megabyte, and a hundred thousand members: neither is unpacked."""
    bomb = zipped(npy(header("(131072000,)"), bytes(1 << 20) * 300))
    members = b"".join(b"PK\x01\x02" + bytes(42) for _number in range(100_000))
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 0, 0, len(members), 0, 0)
    for body in (bomb, members + end):
        tracemalloc.start()
        began = time.monotonic()
        with pytest.raises(BadBody):
            arrays(body, LIMIT)
        _now, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 8 * LIMIT
        assert time.monotonic() - began < 5


NAMES = st.text(st.sampled_from("abcxyz_ -é"), min_size=1, max_size=20)


@given(st.dictionaries(NAMES.map(lambda name: name.replace("é", "e")), st.binary(max_size=300), min_size=1, max_size=5))
def test_forms_come_back(fields):
    """As urllib3 writes them, which the published packages use."""
    body, content_type = urllib3.encode_multipart_formdata(fields)
    assert parts(body, content_type) == fields


@given(st.binary(max_size=200), st.text(max_size=50))
def test_bytes_are_no_forms(body, content_type):
    for kind in (content_type, "multipart/form-data; boundary=x"):
        try:
            parts(body, kind)
        except BadBody:
            continue
        assert body.rstrip().endswith(b"--x--") or b"--x--" in body


@given(
    st.lists(
        st.sampled_from([b"--x", b"--x--", b"\r\n", b"\r\n\r\n", b'Content-Disposition: form-data; name="a"', b"-"])
    )
)
def test_crooked_forms(pieces):
    """Whatever comes, what is found was sent."""
    body = b"".join(pieces)
    try:
        found = parts(body, "multipart/form-data; boundary=x")
    except BadBody:
        return
    assert all(content in body for content in found.values())


def test_large_forms_cost_little():
    for body in (
        b"\r\n--x" * 1_000_000,
        b"--x\r\n" + b"\r" * 5_000_000,
        b"--x\r\ncontent-disposition:" + b" name=" * 10**6,
    ):
        began = time.monotonic()
        with pytest.raises(BadBody):
            parts(body, "multipart/form-data; boundary=x")
        assert time.monotonic() - began < 5


def test_form_of_a_browser():
    """With a file's name, other headers, a preamble, and text behind the end."""
    lines = [
        b"preamble",
        b"--b",
        b"X-Y: z",
        b'content-disposition: form-data; filename="n.parquet"; name="anon_data"',
        b"Content-Type: application/octet-stream",
        b"",
        b"PAR1",
        b"--b",
        b'Content-Disposition: form-data; name="anon_scheme"',
        b"",
        b"same",
        b"--b--",
        b"epilogue",
    ]
    body = b"\r\n".join(lines)
    assert parts(body, 'Multipart/form-data; charset=x; boundary="b"') == {"anon_data": b"PAR1", "anon_scheme": b"same"}

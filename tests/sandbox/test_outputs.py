"""Strict collecting, on tar streams that no honest engine would send as well as on those that it does."""

import io
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from image_builder import member, tar

from sandbox.outputs import Wanted, collect, measure
from sandbox.reasons import Reason, Rejected
from sandbox.streams import Pieces, tar_of

WANTED = Wanted(tables=("scores",), files=("scheme.json",), folders=("model",))
GOOD = (member("./", type=tarfile.DIRTYPE), member("./scores.csv", b"row,score\n"), member("./scheme.json", b"{}"))
MODEL = (member("./model", type=tarfile.DIRTYPE), member("./model/weights", b"123"))


def pieces(data: bytes, size: int = 700) -> Iterator[bytes]:
    return (data[start : start + size] for start in range(0, len(data), size))


@pytest.fixture
def kept(tmp_path: Path) -> Callable[..., dict[str, bytes]]:
    """Collects the members of a tar; returns what was kept, by path."""

    def kept(*members: tuple[tarfile.TarInfo, bytes], wanted: Wanted = WANTED) -> dict[str, bytes]:
        folder = tmp_path / "output"
        folder.mkdir()
        collect(pieces(tar(*members)), wanted, folder, output_mb=1, inodes=100)
        return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    return kept


@pytest.fixture
def reason(kept: Callable[..., dict[str, bytes]]) -> Callable[..., Reason]:
    """Why the members of a tar are not accepted."""

    def reason(*members: tuple[tarfile.TarInfo, bytes], wanted: Wanted = WANTED) -> Reason:
        with pytest.raises(Rejected) as caught:
            kept(*members, wanted=wanted)
        assert caught.value.detail.endswith(".")
        return caught.value.reason

    return reason


def test_only_what_was_asked_for_is_kept(kept):
    junk = (member("./junk", b"x"), member("./other", type=tarfile.DIRTYPE), member("./other/scores.csv", b"x"))
    assert kept(*GOOD, *MODEL, *junk) == {
        "scores.csv": b"row,score\n",
        "scheme.json": b"{}",
        "model/weights": b"123",
    }


@pytest.mark.parametrize("missing", [1, 2])
def test_missing(reason, missing):
    assert reason(*(GOOD[:missing] + GOOD[missing + 1 :]), *MODEL) == Reason.OUTPUT_MISSING


def test_missing_folder(reason):
    assert reason(*GOOD) == Reason.OUTPUT_MISSING


def test_file_instead_of_a_folder(reason):
    assert reason(*GOOD, member("./model", b"x")) == Reason.OUTPUT_MISSING


def test_table_in_both_formats(reason):
    assert reason(*GOOD, *MODEL, member("./scores.parquet", b"PAR1")) == Reason.OUTPUT_INVALID


@pytest.mark.parametrize(
    "kind",
    [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.CONTTYPE, b"Z"],
)
def test_special_members(reason, kind):
    bad = member("./model/x", type=kind, linkname="/etc/shadow")
    if kind == tarfile.CONTTYPE:  # an oddity that tarfile takes for a regular file, which is harmless
        bad = member("./scores.csv", type=kind)
    assert reason(*GOOD, *MODEL, bad) == Reason.OUTPUT_INVALID


@pytest.mark.parametrize(
    "name", ["../out", "/etc/cron.d/x", "model/../../out", "model/a\nb", "model/\x1b[2J", "m\udcff"]
)
def test_names(reason, name):
    assert reason(*GOOD, *MODEL, member(name, b"x")) == Reason.OUTPUT_INVALID


def test_deep_folders(reason):
    assert reason(*GOOD, *MODEL, member("./" + "d/" * 20 + "x", b"x")) == Reason.OUTPUT_INVALID


def test_same_name_twice(reason):
    assert reason(*GOOD, *MODEL, GOOD[1]) == Reason.OUTPUT_INVALID


def test_too_large(reason):
    assert reason(*GOOD, *MODEL, member("./junk", bytes(2 << 20))) == Reason.OUTPUT_TOO_LARGE


def test_too_many_files(reason):
    assert reason(*GOOD, *MODEL, *(member(f"./{n}") for n in range(100))) == Reason.OUTPUT_TOO_LARGE


def test_hole_of_a_terabyte_is_not_read(tmp_path):
    """The stream would go on for hours; it must be left at its header."""
    info, _content = member("./scores.csv")
    info.size = 1 << 40

    def endless() -> Iterator[bytes]:
        yield info.tobuf()
        for _ in range(100):
            yield bytes(1 << 20)
        pytest.fail("the zeros were read")

    with pytest.raises(Rejected) as caught:
        collect(endless(), WANTED, tmp_path, output_mb=1, inodes=100)
    assert caught.value.reason == Reason.OUTPUT_INVALID


@pytest.mark.parametrize("kept_part", [0.3, 0.8])
def test_cut_off(tmp_path, kept_part):
    data = tar(member("./scores.csv", b"x" * 100_000))
    with pytest.raises(Rejected) as caught:
        collect(pieces(data[: int(100_000 * kept_part)]), WANTED, tmp_path, output_mb=1, inodes=100)
    assert caught.value.reason == Reason.OUTPUT_INVALID


def test_measure():
    measure(pieces(tar(*GOOD)), output_mb=1, inodes=100)
    with pytest.raises(Rejected, match="More than 1 MB"):
        measure(pieces(tar(member("./x", bytes(2 << 20)))), output_mb=1, inodes=100)


def test_folder_as_a_stream(tmp_path):
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables" / "train.csv").write_bytes(b"x" * 3_000_000)
    (tmp_path / "task.json").write_text("{}")
    with tarfile.open(fileobj=io.BytesIO(b"".join(tar_of(tmp_path)))) as found:
        assert found.getnames() == ["tables", "tables/train.csv", "task.json"]
        assert found.extractfile("tables/train.csv").read() == b"x" * 3_000_000
        assert {info.mode for info in found if info.isfile()} == {0o644}
        assert {(info.uid, info.mtime) for info in found} == {(0, 0)}


def test_folder_with_a_link_is_refused(tmp_path):
    (tmp_path / "link").symlink_to("/etc/shadow")
    with pytest.raises(ValueError, match="neither a file nor a folder"):
        list(tar_of(tmp_path))


def test_pieces_read_like_a_file():
    source = Pieces(iter([b"abc", b"", b"defg"]))
    assert [source.read(2), source.read(3), source.read(9), source.read(1)] == [b"ab", b"cde", b"fg", b""]

"""Tables that containers may leave behind, honest and otherwise: each hostile one ends in its sentence."""

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from challenges.scenarios.base import OutputProblem
from challenges.scenarios.outputs import read_rows
from challenges.splits import tokens

NAMES = tokens(b"key", 200)
VALUES = np.round(np.random.default_rng(0).normal(size=200), 6)
GOOD = pd.DataFrame({"row": NAMES, "score": VALUES}).sample(frac=1, random_state=0).reset_index(drop=True)


def read(folder: Path) -> np.ndarray[Any, Any]:
    return read_rows(folder, "scores", NAMES, ("score",))


def _parquet(table: pa.Table, **options: Any) -> Callable[[Path], None]:
    return lambda folder: pq.write_table(table, folder / "scores.parquet", **options)


def _csv(content: str | bytes) -> Callable[[Path], None]:
    data = content.encode() if isinstance(content, str) else content
    return lambda folder: (folder / "scores.csv").write_bytes(data) and None


def _both(folder: Path) -> None:
    GOOD.to_csv(folder / "scores.csv", index=False)
    GOOD.to_parquet(folder / "scores.parquet")


def _link(folder: Path) -> None:
    GOOD.to_csv(folder / "elsewhere", index=False)
    (folder / "scores.csv").symlink_to(folder / "elsewhere")


def _table(row: Any = None, score: Any = None, **more: Any) -> pa.Table:
    return pa.table(
        {
            "row": pa.array(GOOD["row"].tolist()) if row is None else row,
            "score": pa.array(GOOD["score"].to_numpy()) if score is None else score,
            **more,
        }
    )


@pytest.mark.parametrize(
    "write",
    [
        lambda folder: GOOD.to_parquet(folder / "scores.parquet"),
        lambda folder: GOOD.to_csv(folder / "scores.csv", index=False),
        lambda folder: GOOD[["score", "row"]].to_csv(folder / "scores.csv", index=False, sep=";"),
        lambda folder: GOOD.to_csv(folder / "scores.csv", index=False, quoting=1, encoding="utf-8-sig"),
        _parquet(_table(), row_group_size=7, compression="zstd"),
        _parquet(_table(row=pa.array(GOOD["row"].tolist(), type=pa.large_string()))),
    ],
)
def test_honest_tables_are_put_in_order(tmp_path: Path, write: Callable[[Path], None]) -> None:
    write(tmp_path)
    np.testing.assert_allclose(read(tmp_path)[:, 0], VALUES, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    "labels", [("a;b;c", "d;e;f"), ("tab\tone", "tab\ttwo"), ("one, two", "x;y"), ("no", "yes")], ids=repr
)
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_labels_may_hold_what_separates_cells(tmp_path: Path, labels: tuple[str, str], delimiter: str) -> None:
    GOOD.assign(**{labels[0]: GOOD["score"], labels[1]: 0.5}).drop(columns="score").to_csv(
        tmp_path / "predictions.csv", index=False, sep=delimiter
    )
    np.testing.assert_allclose(read_rows(tmp_path, "predictions", NAMES, labels)[:, 0], VALUES, rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", [pa.float32(), pa.float16(), pa.int8(), pa.uint64()])
def test_any_plain_number_will_do(tmp_path: Path, kind: pa.DataType) -> None:
    numbers = pa.array(np.abs(np.round(GOOD["score"].to_numpy() * 10))).cast(kind)
    _parquet(_table(score=numbers))(tmp_path)
    assert sorted(read(tmp_path)[:, 0]) == sorted(float(n) for n in numbers.to_pylist())


LINES = "row,score\n" + "".join(f"{name},0.5\n" for name in NAMES[1:])
LONG = "r" + "x" * 100_000

HOSTILE: dict[str, tuple[Callable[[Path], Any], str, str]] = {
    "nothing": (lambda folder: None, "missing", "Neither scores.parquet nor scores.csv"),
    "two files": (_both, "invalid", "Both scores.parquet and scores.csv"),
    "a link": (_link, "invalid", "not a regular file"),
    "a folder": (lambda folder: (folder / "scores.csv").mkdir(), "invalid", "not a regular file"),
    "an empty file": (_csv(""), "invalid", "empty"),
    "a column missing": (_csv(LINES.replace("score", "points")), "invalid", "column “score” is missing"),
    "a column too many": (_parquet(_table(extra=pa.array(range(200)))), "invalid", "do not belong there"),
    "an index": (lambda folder: GOOD.to_csv(folder / "scores.csv"), "invalid", "index=False"),
    "an index in Parquet": (
        lambda folder: GOOD.sample(frac=1, random_state=3).to_parquet(folder / "scores.parquet"),
        "invalid", "index=False",
    ),
    "a column twice": (_csv("row,score,score\n1,2,3\n"), "invalid", "Two columns are called"),
    "ten thousand columns": (_csv(",".join(f"c{n}" for n in range(10_000)) + "\n1\n"), "invalid", "columns"),
    "rows missing": (_csv(LINES), "invalid", "199 rows; 200 were asked for"),
    "rows too many": (_parquet(pa.concat_tables([_table(), _table()])), "invalid", "more than 200 rows"),
    "rows too many in CSV": (_csv(LINES + f"{NAMES[0]},1\n{NAMES[0]},1\n"), "invalid", "more than 200"),
    "a row twice": (_csv(LINES + f"{NAMES[1]},1\n"), "invalid", "more than once"),
    "an unknown row": (_csv(LINES + "r0123456789abcdef,1\n"), "invalid", "not asked about"),
    "a row without a token": (_csv(LINES + ",1\n"), "invalid", "not asked about"),
    "null tokens": (_parquet(_table(row=pa.array([None, *NAMES[1:]]))), "invalid", "not asked about"),
    "tokens as bytes": (_parquet(_table(row=pa.array([n.encode() for n in NAMES]))), "invalid", "plain texts"),
    "tokens as numbers": (_parquet(_table(row=pa.array(range(200)))), "invalid", "plain texts"),
    "NaN": (_parquet(_table(score=pa.array([float("nan")] * 200))), "invalid", "finite"),
    "infinity": (_csv(LINES + f"{NAMES[0]},inf\n"), "invalid", "finite"),
    "an empty cell": (_csv(LINES + f"{NAMES[0]},\n"), "invalid", "finite"),
    "nulls": (_parquet(_table(score=pa.array([None] * 200, type=pa.int64()))), "invalid", "finite"),
    "a number beyond all measure": (_csv(LINES + f"{NAMES[0]},1{'0' * 400}\n"), "invalid", "finite"),
    "texts for numbers": (_csv(LINES + f"{NAMES[0]},high\n"), "invalid", "Line 201 holds something that is no number"),
    "texts for numbers in Parquet": (_parquet(_table(score=pa.array(["1"] * 200))), "invalid", "plain numbers"),
    "booleans": (_parquet(_table(score=pa.array([True] * 200))), "invalid", "plain numbers"),
    "lists": (_parquet(_table(score=pa.array([[1.0]] * 200))), "invalid", "plain numbers"),
    "nested records": (_parquet(_table(score=pa.array([{"a": 1.0}] * 200))), "invalid", "plain numbers"),
    "dictionaries": (_parquet(_table(row=pa.array(NAMES).dictionary_encode())), "invalid", "plain texts"),
    "an extension type": (
        _parquet(_table(score=pa.ExtensionArray.from_storage(pa.uuid(), pa.array([b"x" * 16] * 200, pa.binary(16))))),
        "invalid", "plain numbers",
    ),
    "a crooked line": (_csv(LINES + f"{NAMES[0]},1,2\n"), "invalid", "Line 201 has 3 cells"),
    "an open quotation mark": (_csv(LINES + f'"{NAMES[0]},1\n'), "invalid", "Line 201"),
    "a pickle": (_csv(pickle.dumps({"row": NAMES}, protocol=4)), "invalid", "pickle"),
    "a pickle as Parquet": (
        lambda folder: (folder / "scores.parquet").write_bytes(pickle.dumps(NAMES)), "invalid", "no readable Parquet",
    ),
    "a footer that lies": (
        lambda folder: (folder / "scores.parquet").write_bytes(b"PAR1" + b"\xff" * 64 + b"PAR1"),
        "invalid", "no readable Parquet",
    ),
    "a huge CSV file": (_csv("row,score\n" + "r,1\n" * 400_000), "too_large", "much larger than 200 rows"),
    "a Parquet bomb of rows": (
        _parquet(pa.table({"row": pa.array(["r"] * 2_000_000), "score": pa.array(np.zeros(2_000_000))})),
        "invalid", "more than 200 rows",
    ),
    "a Parquet bomb of bytes": (
        _parquet(_table(row=pa.array([LONG + name for name in NAMES])), use_dictionary=False, compression="zstd"),
        "invalid", "unpacks to more",
    ),
    "one long text in all rows": (_parquet(_table(row=pa.array([LONG] * 200))), "invalid", "too long"),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_tables_end_in_their_sentence(tmp_path: Path, name: str) -> None:
    write, kind, sentence = HOSTILE[name]
    write(tmp_path)
    with pytest.raises(OutputProblem) as problem:
        read(tmp_path)
    assert problem.value.kind == kind
    assert sentence in problem.value.sentence
    assert problem.value.sentence.endswith((".", ")"))


def test_a_sentence_never_repeats_what_a_container_wrote(tmp_path: Path) -> None:
    for content in (LINES + "canary,1\n", LINES + f"{NAMES[0]},canary\n", LINES + "canary,1,2\n"):
        _csv(content)(tmp_path)
        with pytest.raises(OutputProblem) as problem:
            read(tmp_path)
        assert "canary" not in str(problem.value)

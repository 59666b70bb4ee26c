"""What published AnoMed images are told over HTTP (contract web/1): plans for their gateway, tables as arrays.

An image plays the steps of contract anomed/1 as a small web server. The gateway beside it is told by `plan.json`, in
its own /input, which prepared files it serves, which posts it keeps and which calls it makes; this module and its
neighbours write that file and read what the gateway kept. Of /input the image itself sees nothing but the folder
`model`, which becomes its /persistent_data.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from challenges.scenarios.base import Board, Floats
from challenges.schema import Schema

CONTRACT: Final = "web/1"
PLAN: Final = "plan.json"
EXCHANGE: Final = "exchange.json"
# The folder below /output in which the gateway keeps all that the image said.
SAID: Final = "said"
# Posts and answers are compressed arrays of numbers: what a cell can take uncompressed, and room for headers.
_BYTES_PER_CELL: Final = 32
_BYTES_BESIDES: Final = 1 << 20
# Rows of one POST /predict: many servers refuse bodies of more than a megabyte.
_MOST_ROWS: Final = 5000
_MOST_BYTES: Final = 768 << 10


def collected(*folders: str) -> dict[str, list[str]]:
    """What is fetched after a step: the gateway's account, and these folders."""
    return {"tables": [], "files": [EXCHANGE], "folders": list(folders)}


def write_plan(board: Board, folder: Path, **parts: Any) -> None:
    """Writes plan.json. `parts` are its entries "serve", "record", "target" and "calls"."""
    plan = {"contract": CONTRACT, "seconds": int(board.game.limits.get("seconds", 600)), "ready": "/", **parts}
    (folder / PLAN).write_text(json.dumps(plan, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def write_arrays(path: Path, **arrays: NDArray[Any]) -> str:
    """Writes an npz as the published packages read it; returns its name."""
    np.savez_compressed(path, **arrays)  # type: ignore[arg-type]  # the stubs take names for options
    return path.name


def limit(rows: int, columns: int = 1) -> int:
    """The most bytes that a body with so many numbers may have."""
    return _BYTES_BESIDES + _BYTES_PER_CELL * rows * columns


def parts(rows: int, columns: int) -> list[slice]:
    """The rows of each POST /predict, of which a model is asked about so many with so many features."""
    size = max(1, min(_MOST_ROWS, _MOST_BYTES // (8 * columns)))
    return [slice(start, min(start + size, rows)) for start in range(0, rows, size)]


# Tables as arrays -----------------------------------------------------------------------------------------------------


def inputs(rows: pa.Table, schema: Schema) -> Floats:
    """X: float64 [rows, features], in the schema's order.

    A category is its position among the column's `categories`, an empty cell NaN.
    """
    columns = []
    for column in schema.features:
        cells = rows.column(column.name)
        if column.type == "category":
            cells = pc.index_in(cells, value_set=pa.array(column.categories, type=pa.string()))
        columns.append(np.asarray(cells.cast(pa.float64()).to_numpy(), dtype=np.float64) + 0.0)  # one zero only
    return np.column_stack(columns)


def codes(schema: Schema) -> NDArray[np.int64]:
    """The number of each class in y, in the order of `schema.labels`.

    Labels that are whole numbers stand for themselves, others for their positions.
    """
    numbers = [int(label) if _is_whole(label) else None for label in schema.labels]
    if None in numbers:
        return np.arange(len(numbers), dtype=np.int64)
    return np.array(numbers, dtype=np.int64)


def targets(rows: pa.Table, schema: Schema) -> NDArray[np.int64] | Floats:
    """y [rows]: int64 numbers of classes (see `codes`), or the float64 numbers of a regression."""
    cells = rows.column(schema.target)
    if not schema.labels:
        return np.asarray(cells.cast(pa.float64()).to_numpy(), dtype=np.float64) + 0.0
    place = pc.index_in(cells, value_set=pa.array(schema.labels, type=pa.string())).to_numpy()
    numbers: NDArray[np.int64] = codes(schema)[place.astype(np.int64)]
    return numbers


def decided(answers: Floats, schema: Schema) -> NDArray[np.int64] | Floats:
    """The array `prediction` [rows] for canonical answers [rows, answer_columns]: the likeliest class as in y, the
    first one where several are; or the number.
    """
    return codes(schema)[answers.argmax(axis=1)] if schema.labels else answers[:, 0]


def answered(answers: Floats, schema: Schema) -> dict[str, NDArray[Any]]:
    """The arrays that an attack gets for canonical answers."""
    given: dict[str, NDArray[Any]] = {"prediction": decided(answers, schema)}
    return {**given, "probabilities": answers} if schema.labels else given


def _is_whole(label: str) -> bool:
    """Whether a label is written as a plain whole number that int64 holds."""
    digits = label.removeprefix("-")
    return digits.isascii() and digits.isdigit() and str(int(label)) == label and abs(int(label)) < 2**63


def by_split(tuning: Any, validation: Any) -> Mapping[str, Any]:
    """The choice by `?data_split=`; any other value is refused by the gateway."""
    return {"tuning": tuning, "validation": validation}

"""Arrays that web images post or answer, made into what the platform scores. All of them are hostile.

Sentences say which route the array came by and what was wrong with it, and quote no value of it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from challenges.scenarios import web
from challenges.scenarios.base import Floats, OutputProblem
from challenges.scenarios.model_release import canonical_answers
from challenges.schema import Column, Schema, TableError
from challenges.untrusted_arrays import LABEL_BYTES, ArrayCaps, read_arrays

_EXCHANGE_BYTES: Final = 64 << 10
_MOST_ROUTES: Final = 100
_ROUTE_LENGTH: Final = 100
# Rows of one live question times features: 128 MB as float64.
_MOST_ASKED: Final = 16 << 20
_ASKED_BYTES: Final = 128 << 20
_LISTED: Final = 10


@contextmanager
def heard(path: Path, what: str) -> Iterator[None]:
    """What is wrong with something that an image said is told with the route that it came by."""
    if path.is_symlink() or not path.is_file():
        raise OutputProblem("missing", f"{what} did not come.")
    try:
        yield
    except TableError as error:
        raise OutputProblem("invalid", f"{what}: {error}") from error


def read_predictions(folder: Path, rows: int, schema: Schema) -> Floats:
    """Canonical answers [rows, answer_columns] in the order in which the rows were asked."""
    answers = []
    for number, part in enumerate(web.parts(rows, len(schema.features))):
        path, asked = folder / f"prediction-{number}", part.stop - part.start
        with heard(path, "The answer to POST /predict"):
            width = len(schema.answer_columns)
            caps = ArrayCaps(web.limit(asked, width + 1), asked * width, LABEL_BYTES)
            answers.append(_answers(read_arrays(path, ("prediction", "probabilities"), caps), asked, schema))
    try:
        return canonical_answers(np.concatenate(answers), schema)
    except OutputProblem as problem:
        raise OutputProblem(problem.kind, f"The answer to POST /predict: {problem.sentence}") from problem


def read_scores(path: Path, rows: int) -> Floats:
    """The attack's scores [rows]: the array “score” if there is one, else its verdicts as 0 and 1."""
    with heard(path, "The post to /utility/deanonymizer?data_split=validation"):
        held = read_arrays(path, ("score", "prediction"), ArrayCaps(web.limit(rows, 2), rows))
        name = "score" if "score" in held else "prediction"
        scores = _column(_numbers(_required(held, name), name), name, rows)
        if name == "prediction" and not np.isin(scores, (0, 1)).all():
            raise TableError("“prediction” must hold flags, or 0 and 1. Give finer scores in an array “score”.")
    return scores


def read_asked(path: Path, schema: Schema) -> pa.Table:
    """The rows that an attack asks a model about, as a table of the features.

    Numbers are brought into the declared range and rounded to the declared decimals, categories are the nearest
    declared ones: a model meets nothing that no table of this game could hold. Empty cells only where the schema has
    them.
    """
    with heard(path, "The question to /predict"):
        caps = ArrayCaps(_ASKED_BYTES, _MOST_ASKED)
        x = _numbers(_required(read_arrays(path, ("X",), caps), "X"), "X", gaps=True)
        if x.ndim != 2 or x.shape[1] != len(schema.features) or not len(x):
            raise TableError(f"“X” must have one row at least, and {len(schema.features)} columns.")
        return pa.table({column.name: _cells(column, x[:, at]) for at, column in enumerate(schema.features)})


def read_exchange(path: Path) -> dict[str, Any]:
    """What the gateway counted: `routes` (the last status of each), `calls` (which of them are the platform's own),
    `unasked` (those that the image could have asked for), `queries` and `live` (rows asked in all, and of them those
    that the defense answered in the duel).
    """
    try:
        if path.is_symlink() or path.stat().st_size > _EXCHANGE_BYTES:
            raise ValueError
        told = json.loads(path.read_bytes())
        routes = {str(route): int(status) for route, status in dict(told.get("routes", {})).items()}
        counts = {name: int(told.get(name, 0)) for name in ("queries", "live")}
        lists = {name: [_shown(str(route)) for route in told.get(name, ())] for name in ("calls", "unasked")}
    except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise OutputProblem("invalid", "The account of the exchange cannot be read.") from error
    printable = {_shown(route): status for route, status in routes.items()}
    listed = {name: found[:_MOST_ROUTES] for name, found in lists.items()}
    return {"routes": dict(list(printable.items())[:_MOST_ROUTES]), **listed, **counts}


def _shown(route: str) -> str:
    return "".join(c for c in route[:_ROUTE_LENGTH] if c.isprintable())


# Arrays ---------------------------------------------------------------------------------------------------------------


def _answers(held: dict[str, NDArray[Any]], rows: int, schema: Schema) -> Floats:
    """The columns of answers in an answer of /predict, as they are: not yet canonical."""
    if not schema.labels:
        return _column(_numbers(_required(held, "prediction"), "prediction"), "prediction", rows)[:, None]
    if "probabilities" in held:
        return _probabilities(held["probabilities"], "probabilities", rows, schema)
    given = _required(held, "prediction")
    if given.ndim == 2 and given.shape[1] > 1:
        return _probabilities(given, "prediction", rows, schema)
    if given.dtype.kind == "f" and web.codes(schema).tolist() == [0, 1]:  # labels 0 and 1 mean the same in both ways
        return _probabilities(given, "prediction", rows, schema)
    return np.eye(len(schema.labels))[_places(_column(given, "prediction", rows), schema)]


def _probabilities(given: NDArray[Any], name: str, rows: int, schema: Schema) -> Floats:
    """A column for each class, classes in the order of their numbers in y; of two classes the second's will do."""
    values, order = _numbers(given, name), np.argsort(web.codes(schema))
    if len(order) == 2 and (values.ndim == 1 or values.shape[1] == 1):
        second = _column(values, name, rows)
        if ((second < 0) | (second > 1)).any():
            raise TableError(f"“{name}” must hold classes, 0 and 1, or probabilities between these.")
        values = np.column_stack([1 - second, second])
    if values.shape != (rows, len(order)):
        raise TableError(f"“{name}” must have {rows:,} rows and {len(order)} columns, one for each class.")
    columns = np.empty_like(values)
    columns[:, order] = values
    return columns


def _places(given: NDArray[Any], schema: Schema) -> NDArray[np.int64]:
    """The positions of classes, which are told by their numbers in y or by their labels."""
    known = web.codes(schema)
    numbers = {code: place for place, code in enumerate(known.tolist())}
    if given.dtype.kind in "US":
        words = {str(code): place for code, place in numbers.items()}
        words |= {label: place for place, label in enumerate(schema.labels)}
        distinct, codes = np.unique(given, return_inverse=True)
        named = [words.get(_text(word), words.get(_text(word).strip(), -1)) for word in distinct.tolist()]
    else:
        distinct, codes = np.unique(_numbers(given, "prediction"), return_inverse=True)
        named = [numbers.get(int(code), -1) if code == int(code) else -1 for code in distinct.tolist()]
    places = np.array(named, dtype=np.int64)
    if (places < 0).any():
        listed = ", ".join(str(code) for code in known[:_LISTED].tolist())
        raise TableError(f"“prediction” holds labels that are none of the classes: {listed}.")
    return np.asarray(places[codes])


def _text(word: str | bytes) -> str:
    return word.decode(errors="replace") if isinstance(word, bytes) else word


def _required(held: dict[str, NDArray[Any]], name: str) -> NDArray[Any]:
    if name not in held:
        raise TableError(f"There is no array “{name}”.")
    return held[name]


def _column(values: NDArray[Any], name: str, rows: int) -> NDArray[Any]:
    """An array of one column as one of one dimension, with as many rows as were asked for."""
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim != 1:
        raise TableError(f"“{name}” must have one dimension.")
    if len(values) != rows:
        raise TableError(f"“{name}” has {len(values):,} rows; {rows:,} were asked for.")
    return values


def _numbers(values: NDArray[Any], name: str, *, gaps: bool = False) -> Floats:
    """Finite numbers as float64; with `gaps` NaN may be among them."""
    if values.dtype.kind not in "biuf":
        raise TableError(f"“{name}” must hold numbers.")
    with np.errstate(over="ignore"):  # extended doubles may become infinite, and are refused as such
        numbers = values.astype(np.float64)
    if np.isinf(numbers).any() or (np.isnan(numbers).any() and not gaps):
        raise TableError(f"“{name}” holds numbers that are not finite.")
    return numbers


def _cells(column: Column, values: Floats) -> pa.Array:
    """A column of a question, as the column of a canonical table."""
    empty = np.isnan(values)
    if empty.any() and not column.missing:
        raise TableError(f"Column “{column.name}” of “X” has empty cells, but every row needs a value there.")
    if column.type == "category":
        place = np.clip(np.rint(values), 0, len(column.categories) - 1)
        return pa.array(np.array(column.categories, dtype=object)[np.where(empty, 0, place).astype(int)], mask=empty)
    held = np.where(empty, 0.0, np.clip(values, column.minimum, column.maximum))
    rounded = np.round(held, column.decimals or 0) + 0.0
    return pa.array(rounded, mask=empty).cast(pa.int64() if column.type == "integer" else pa.float64())

"""The defense's side of a duel: POST /predict, answered from a table and, for other rows, by asking the platform.

The table holds `X` [n, f], `prediction` [n] (labels, or numbers) and, for classes, `probabilities` [n, k]: what the
defense said in one run of its own, in which nobody knew which rows an attack would be asked about. Rows are recognised
by their float32 values.

A question to the platform is the file /output/ask/N.npz with the rows as `X`, and the line `ask N` on standard output;
the answer is /input/answer/N.npz, complete when N.ready is there, or N.refused.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from .bodies import Array, BadBody, archive, arrays
from .plan import Answers

POLL_SECONDS = 0.02
OWN_BYTES = 1 << 30  # of the platform's own files


class Refused(Exception):
    """A question that is not answered: an HTTP status and one sentence."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status
        self.sentence = sentence


class Target:
    """Answers up to `budget` rows, whichever they are. Used by all threads."""

    def __init__(self, plan: Answers, inputs: Path, outputs: Path, count: Callable[[int, int], None]) -> None:
        table = arrays((inputs / plan.file).read_bytes(), OWN_BYTES)
        self._plan = plan
        self._rows = np.ascontiguousarray(table.pop("X"), dtype=np.float64)
        self._said = table
        self._place = {key: number for number, key in enumerate(_keys(self._rows))}
        self._inputs, self._outputs = inputs / "answer", outputs / "ask"
        self._count = count
        self._used = 0
        self._asked = 0
        self._budget_lock, self._asking = threading.Lock(), threading.Lock()

    def answer(self, body: bytes) -> bytes:
        """An npz archive with `X` becomes one with `prediction` and `probabilities`. Raises Refused, BadBody."""
        rows = self._read(body)
        with self._budget_lock:
            if self._used + len(rows) > self._plan.budget:
                left = self._plan.budget - self._used
                raise Refused(429, f"The budget of {self._plan.budget} rows leaves {left}; {len(rows)} were asked.")
            self._used += len(rows)
        self._count(len(rows), 0)
        places = np.array([self._place.get(key, -1) for key in _keys(rows)])
        found = {name: values[places] for name, values in self._said.items()}
        new = places < 0
        if new.any():
            for name, values in self._ask(rows[new]).items():
                found[name] = found[name].copy()
                found[name][new] = values
        return archive(**found)

    def _read(self, body: bytes) -> Array:
        given = arrays(body, self._plan.limit)
        if "X" not in given:
            raise BadBody("There is no array X in it.")
        features = self._rows.shape[1]
        rows = given["X"]
        if rows.ndim != 2 or rows.shape[1] != features or not len(rows):
            raise BadBody(f"X must have the shape [rows, {features}].")
        with np.errstate(over="ignore"):
            return np.ascontiguousarray(rows, dtype=np.float64)

    def _ask(self, rows: Array) -> dict[str, Array]:
        if not self._plan.live:
            raise Refused(422, "Only rows that the challenge gave you are answered here.")
        with self._asking:
            self._asked += 1
            number = self._asked
            self._outputs.mkdir(exist_ok=True)
            making = self._outputs / "making"
            making.write_bytes(archive(X=rows))
            making.rename(self._outputs / f"{number}.npz")
            sys.stdout.write(f"ask {number}\n")
            sys.stdout.flush()
            ready, refused = (self._inputs / f"{number}.{end}" for end in ("ready", "refused"))
            while not ready.exists():
                if refused.exists():
                    raise Refused(422, "The defense gives no answer to these rows.")
                time.sleep(POLL_SECONDS)
            (self._outputs / f"{number}.npz").unlink()
        self._count(0, len(rows))
        said = arrays((self._inputs / f"{number}.npz").read_bytes(), OWN_BYTES)
        return {name: said[name] for name in self._said}


def _keys(rows: Array) -> list[bytes]:
    """What rows are recognised by: their float32 values, among which there are one zero and one NaN only."""
    with np.errstate(over="ignore"):
        values = rows.astype(np.float32) + np.float32(0)
    values[np.isnan(values)] = np.nan
    return [row.tobytes() for row in values]

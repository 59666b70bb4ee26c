"""The defense's side of a duel: POST /predict, answered from a table and, for other rows, by asking the platform.

The table holds `X` [n, f], `prediction` [n] (labels, or numbers) and, for classes, `probabilities` [n, k]: what the
defense said in one run of its own, in which nobody knew which rows an attack would be asked about. Rows are recognised
by their float32 values.

A question to the platform is the file /output/ask/N.npz with the rows as `X`, and the line `ask N` on standard output;
the answer is /input/answer/N.npz, complete when N.ready is there, or N.refused.
"""

from __future__ import annotations

import math
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from . import files
from .bodies import Array, BadBody, Refused, archive, arrays
from .plan import Answers

POLL_SECONDS = 0.02
OWN_BYTES = 1 << 30  # of the platform's own files
MOST_QUESTIONS = 200  # to the platform: each costs a container
NUMBER_BYTES = 8


class Target:
    """Answers up to `budget` rows, whichever they are. Used by all threads."""

    def __init__(self, plan: Answers, inputs: Path, outputs: Path, count: Callable[[int, int], None]) -> None:
        table = arrays((inputs / plan.file).read_bytes(), OWN_BYTES)
        rows = table.pop("X")
        self._plan = plan
        self._features = rows.shape[1]
        self._said = table
        columns = self._features + sum(math.prod(values.shape[1:]) for values in table.values())
        self._most = max(1, plan.limit // (NUMBER_BYTES * columns))
        self._place = {key: number for number, key in reversed(list(enumerate(_keys(rows))))}
        self._inputs, self._outputs = inputs / "answer", outputs / "ask"
        self._count = count
        self._used = 0
        self._asked = 0
        self._budget_lock, self._asking = threading.Lock(), threading.Lock()

    def answer(self, body: bytes) -> bytes:
        """An npz archive with `X` becomes one with `prediction` and `probabilities`. Raises Refused, NoRoom."""
        rows = self._read(body)
        with self._budget_lock:
            left = self._plan.budget - self._used
            if len(rows) > left:
                raise Refused(429, f"The budget of {self._plan.budget} rows leaves {left}; {len(rows)} were asked.")
            self._used += len(rows)
        self._count(len(rows), 0)
        places = np.array([self._place.get(key, -1) for key in _keys(rows)])
        known = places >= 0
        found = {name: np.zeros((len(rows), *values.shape[1:]), values.dtype) for name, values in self._said.items()}
        for name, values in self._said.items():
            found[name][known] = values[places[known]]
        if not known.all():
            for name, values in self._ask(rows[~known]).items():
                found[name][~known] = values
        return archive(**found)

    def _read(self, body: bytes) -> Array:
        rows = arrays(body, self._plan.limit).get("X")
        if rows is None:
            raise BadBody("There is no array X in it.")
        if rows.ndim != 2 or rows.shape[1] != self._features or not len(rows):
            raise BadBody(f"X must have the shape [rows, {self._features}].")
        if len(rows) > self._most:
            raise Refused(413, f"Ask about at most {self._most} rows at once.")
        with np.errstate(over="ignore"):  # extended doubles may become infinite
            return np.ascontiguousarray(rows, dtype=np.float64)

    def _ask(self, rows: Array) -> dict[str, Array]:
        if not self._plan.live:
            raise Refused(422, "Only rows that the challenge gave you are answered here.")
        with self._asking:
            if self._asked == MOST_QUESTIONS:
                text = f"The defense has been asked {MOST_QUESTIONS} times, which is all. Ask about more rows at once."
                raise Refused(429, text)
            self._asked += 1
            number = self._asked
            question = self._outputs / f"{number}.npz"
            files.keep([archive(X=rows)], question)
            try:
                sys.stdout.write(f"ask {number}\n")
                sys.stdout.flush()
                self._wait(number)
            finally:
                question.unlink()
        self._count(0, len(rows))
        said = arrays((self._inputs / f"{number}.npz").read_bytes(), OWN_BYTES)
        return {name: said[name] for name in self._said}

    def _wait(self, number: int) -> None:
        """Until the platform has said something, or the time of the whole exchange is over."""
        ready, refused = (self._inputs / f"{number}.{end}" for end in ("ready", "refused"))
        while not ready.exists():
            if refused.exists():
                raise Refused(422, "The defense gives no answer to these rows.")
            time.sleep(POLL_SECONDS)


def _keys(rows: Array) -> list[bytes]:
    """What a row is recognised by: its float32 values, of which there is one zero and one NaN."""
    with np.errstate(over="ignore"):
        short = np.ascontiguousarray(rows, dtype=np.float32) + np.float32(0)
    short[np.isnan(short)] = np.nan
    whole = short.tobytes()
    size = short.itemsize * short.shape[1]
    return [whole[start : start + size] for start in range(0, len(whole), size)]

"""What the routes of a plan give and take, whatever brings the requests. Used by all threads of the servers."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Any

import numpy as np

from . import files
from .answers import OWN_BYTES, Target
from .bodies import Array, BadBody, Refused, arrays, parts
from .plan import Answers, Mark, Plan, Record, Serve
from .report import Report

BODIES = 2  # that are unpacked at once
TAKING = "taking"  # the folder of /output for bodies that have not come to their end


class Desk:
    """Gives prepared files and answers, takes posts."""

    def __init__(self, plan: Plan, inputs: Path, outputs: Path, report: Report) -> None:
        self.report = report
        self._plan, self._inputs, self._outputs = plan, inputs, outputs
        self._kept: set[str] = set()
        self._taken = 0
        self._lock = threading.Lock()
        self._room = threading.BoundedSemaphore(BODIES)
        self._targets = {
            route: Target(item, inputs, outputs, self._count)
            for route, item in plan.target.items()
            if isinstance(item, Answers)
        }

    def missing(self) -> list[str]:
        """Routes to which the stranger has to post and has not."""
        with self._lock:
            wanted = {
                route: set(item.to.values()) - {None} for route, item in self._plan.record.items() if item.required
            }
            return [route for route, names in wanted.items() if names - self._kept]

    def fetch(self, item: Serve, query: dict[str, str]) -> Path:
        """The file of a served route. Raises Refused."""
        name: str = _choice(item.files, item.by, query)
        return self._inputs / name

    @contextmanager
    def spool(self, pieces: Iterable[bytes]) -> Iterator[Path]:
        """A body as a file that goes when the block ends, unless it was kept. Raises Refused."""
        with self._lock:
            self._taken += 1
            target = self._outputs / TAKING / str(self._taken)
        try:
            files.keep(pieces, target)
        except files.NoRoom as full:
            raise Refused(413, "There is no room for it: too much has been sent.") from full
        try:
            yield target
        finally:
            target.unlink(missing_ok=True)

    def post(self, item: Record, query: dict[str, str], body: Path, content_type: str) -> dict[str, Any]:
        """Takes a post; returns what it is answered with. Raises Refused."""
        value = query.get(item.by, "") if item.by else ""
        name = _choice(item.to, item.by, query)
        answer: dict[str, Any] = {}
        if value in item.mark:
            with self._room:
                answer = self._mark(item.mark[value], body.read_bytes(), item.limit)
        with _form(item, body, content_type) as form:
            if name is not None:
                self._keep(name, body, form)
        return answer

    def answer(self, route: str, body: Path) -> bytes:
        """What the attacked defense says. Raises Refused."""
        with self._room:
            try:
                return self._targets[route].answer(body.read_bytes())
            except files.NoRoom as full:
                raise Refused(413, "There is no room for the question: too much has been sent.") from full

    def _keep(self, name: str, body: Path, form: dict[str, memoryview]) -> None:
        """Once. Nobody sees it before it is there as a whole."""
        with self._lock:
            if name in self._kept:
                raise Refused(403, "This was posted before, and only the first counts.")
            target = self._outputs / name
            target.parent.mkdir(exist_ok=True)
            try:
                for part, content in form.items():
                    files.keep([content], self._outputs / f"{name}.{part}")
            except files.NoRoom as full:
                raise Refused(413, "There is no room for it: too much has been sent.") from full
            if not form:
                body.rename(target)
            self._kept.add(name)

    def _count(self, queries: int, live: int) -> None:
        with self._lock:
            self.report.queries += queries
            self.report.live += live

    def _mark(self, mark: Mark, body: bytes, limit: int) -> dict[str, float]:
        truth = arrays((self._inputs / mark.truth).read_bytes(), OWN_BYTES)["y"]
        said = arrays(body, limit).get("prediction")
        if said is None or said.shape != truth.shape:
            raise BadBody(f"It must hold an array prediction of {len(truth)} values.")
        return measure(mark.measure, truth, said)


@contextmanager
def _form(item: Record, body: Path, content_type: str) -> Iterator[dict[str, memoryview]]:
    """The parts that a form must have, where they are: it may be larger than what fits into memory twice."""
    if not item.parts:
        yield {}
        return
    if not body.stat().st_size:
        raise BadBody("The form is empty.")
    with body.open("rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as mapped, memoryview(mapped) as view:
        places = parts(mapped, content_type)
        if missing := [part for part in item.parts if part not in places]:
            raise BadBody(f"The form has no part {missing[0]}.")
        form = {part: view[places[part]] for part in item.parts}
        try:
            yield form
        finally:
            for part in form.values():
                part.release()


def measure(kind: str, truth: Array, said: Array) -> dict[str, float]:
    """How well predictions agree with the truth, [n] each. `membership`: rates of FP / (FP + TN) and TP / (TP + FN)."""
    marks = {"accuracy": float(np.mean(said == truth))}
    if kind == "membership":
        member, guessed = truth.astype(bool), said.astype(bool)
        marks["tpr"] = float(guessed[member].mean()) if member.any() else 0.0
        marks["fpr"] = float(guessed[~member].mean()) if (~member).any() else 0.0
    return marks


def _choice(names: dict[str, Any], by: str, query: dict[str, str]) -> Any:
    value = query.get(by, "") if by else ""
    if value not in names:
        raise Refused(400, f"{by} must be one of {', '.join(names)}.")
    return names[value]

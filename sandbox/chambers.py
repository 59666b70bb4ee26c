"""The chambers of this worker process: one spare is made while a run goes on, used ones are removed meanwhile.

Making a chamber takes as long as starting a container, so that a run that had to wait for one would take twice as long
as its container.
"""

import os
import socket
import time
import uuid
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing.util import Finalize
from pathlib import Path
from typing import Any

import structlog

from sandbox.conf import conf
from sandbox.engine import Chamber, Engine, EngineFault

log = structlog.get_logger(__name__)

MAX_REMOVALS = 8  # more than that waiting means that the engine is slow: then runs wait for it too


def worker_name() -> str:
    """This process, so that another one on the same machine can see whether it is still alive."""
    return f"{socket.gethostname()}:{os.getpid()}:{_birth(os.getpid())}"


def worker_is_gone(name: str) -> bool | None:
    """Whether that process has ended; None if it belongs to another machine."""
    host, _colon, rest = name.rpartition(":")[0].rpartition(":")
    if host != socket.gethostname() or not rest.isdigit():
        return None
    return _birth(int(rest)) != name.rpartition(":")[2]


def _birth(pid: int) -> str:
    """When a process was started, in clock ticks since boot; empty if there is none. Process ids are used again."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""
    state, *fields = stat.rpartition(")")[2].split()
    return "" if state in "ZX" else fields[18]


@dataclass
class _Spare:
    engine: Engine
    output_mb: int
    future: "Future[Chamber]"


class Chambers:
    """Used by one thread at a time: the worker."""

    def __init__(self) -> None:
        self.worker = worker_name()
        self._pool = ThreadPoolExecutor(3, thread_name_prefix="chambers")
        self._spare: _Spare | None = None
        self._removals: list[Future[None]] = []

    def background(self, function: Callable[..., Any], *args: Any) -> "Future[Any]":
        """Calls it beside the worker's own work."""
        return self._pool.submit(function, *args)

    def take(self, engine: Engine, output_mb: int) -> Chamber:
        """A chamber for one run: the spare one if it fits. Raises EngineFault."""
        spare, self._spare = self._spare, None
        if spare is not None:
            try:
                chamber = spare.future.result()
            except EngineFault:
                log.warning("chamber.spare_failed")
            else:
                fresh = time.time() - chamber.born < conf().spare_seconds
                if fresh and spare.engine is engine and spare.output_mb == output_mb:
                    return chamber
                self.discard(spare.engine, chamber)
        return self._make(engine, output_mb)

    def prepare(self, engine: Engine, output_mb: int) -> None:
        """Begins to make a spare one, most likely for a run like the present one."""
        if self._spare is None:
            self._spare = _Spare(engine, output_mb, self._pool.submit(self._make, engine, output_mb))

    def discard(self, engine: Engine, chamber: Chamber, *containers: str) -> None:
        """Removes a chamber and the containers in it, soon."""
        self._removals = [removal for removal in self._removals if not removal.done()]
        if len(self._removals) >= MAX_REMOVALS:
            self._removals[0].exception()
        self._removals.append(self._pool.submit(_remove, engine, chamber, containers))

    def close(self) -> None:
        """Removes the spare one, and waits until all removals are done."""
        spare, self._spare = self._spare, None
        if spare is not None and spare.future.exception() is None:
            self.discard(spare.engine, spare.future.result())
        self._pool.shutdown(wait=True)

    def _make(self, engine: Engine, output_mb: int) -> Chamber:
        chamber_id = uuid.uuid4().hex[:16]
        try:
            return engine.prepare(chamber_id, output_mb, self.worker)
        except EngineFault:
            self._pool.submit(_remove_half_made, engine, chamber_id)
            raise


def _remove(engine: Engine, chamber: Chamber, containers: tuple[str, ...]) -> None:
    try:
        engine.remove((*containers, chamber.holder), (chamber.inputs, chamber.outputs))
    except EngineFault as fault:
        log.warning("chamber.left_over", chamber=chamber.id, fault=str(fault))  # the reaper will find it


def _remove_half_made(engine: Engine, chamber_id: str) -> None:
    try:
        engine.forget_holder()
        engine.remove_chamber(chamber_id)
    except EngineFault as fault:
        log.warning("chamber.left_over", chamber=chamber_id, fault=str(fault))


_current: tuple[int, Chambers] | None = None


def chambers() -> Chambers:
    """Those of this process. Its spare one is removed when the process ends in peace."""
    global _current
    if _current is None or _current[0] != os.getpid():
        _current = (os.getpid(), Chambers())
        Finalize(None, close, exitpriority=100)  # unlike atexit, this is called at the end of worker processes too
    return _current[1]


def close() -> None:
    """Lets go of this process's chambers; the next call of `chambers` begins anew."""
    global _current
    current, _current = _current, None
    if current is not None and current[0] == os.getpid():
        current[1].close()

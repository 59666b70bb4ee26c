"""The chambers of this worker process, made ahead of the runs that will use them, and removed behind their backs.

Making a chamber means to start its holder, which takes as long as starting a run's own container. So one holder keeps
several chambers, each used by one run only, and the next holder is started while a run goes on.
"""

import os
import time
import uuid
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from multiprocessing.util import Finalize
from typing import Any

import structlog

from sandbox.conf import conf
from sandbox.engine import HOLDER, RUN, WORKER, Chamber, Engine, EngineFault, Unreachable
from sandbox.workers import worker_is_gone, worker_name

log = structlog.get_logger(__name__)

RESERVE = 2
MAX_REMOVALS = 8  # more than that waiting means that the engine is slow: then runs wait for it too


@dataclass
class _Coming:
    """Chambers that are being made."""

    engine: Engine
    future: "Future[list[Chamber]]"


class Chambers:
    """Used by one thread at a time: the worker. All chambers at hand belong to one holder."""

    def __init__(self) -> None:
        self.worker = worker_name()
        self._pool = ThreadPoolExecutor(5, thread_name_prefix="chambers")
        self._engine: Engine | None = None
        self._ready: list[Chamber] = []
        self._coming: _Coming | None = None
        self._removals: list[Future[None]] = []

    def background(self, function: Callable[..., Any], *args: Any) -> "Future[Any]":
        """Calls it beside the worker's own work."""
        return self._pool.submit(function, *args)

    def take(self, engine: Engine, output_mb: int) -> Chamber:
        """A chamber for one run, at hand or made now. Raises EngineFault."""
        if not (self._fits(engine, output_mb) and self._is_held(engine)):
            self._drop_ready()
            self._receive()
        if not (self._fits(engine, output_mb) and self._is_held(engine)):
            self._drop_ready()
            self._engine, self._ready = engine, self._make(engine, output_mb)
        return self._ready.pop()

    def take_apart(self, engine: Engine, output_mb: int, count: int) -> list[Chamber]:
        """Chambers with a holder of their own, so that what is written there can go at once. Raises EngineFault."""
        return self._make(engine, output_mb, count)

    def prepare(self, engine: Engine, output_mb: int) -> None:
        """Begins to make more if they are running out, most likely for runs like the present one."""
        if len(self._ready) < RESERVE and self._coming is None:
            self._coming = _Coming(engine, self._pool.submit(self._make, engine, output_mb))

    def discard(self, engine: Engine, used: list[Chamber], containers: list[str], *, spent: bool) -> None:
        """Removes a run's containers, soon; and its holders that have no chamber left, or that the run has `spent`."""
        if spent and any(chamber.holder_id == ready.holder_id for chamber in used for ready in self._ready):
            self._ready = []
        shared = {ready.holder_id for ready in self._ready}
        gone = {chamber.holder: chamber.volumes for chamber in used if chamber.holder_id not in shared}
        self._remove(engine, [*containers, *gone], tuple(volume for volumes in gone.values() for volume in volumes))

    def rest(self) -> None:
        """Waits until nothing goes on behind the worker's back: for whoever measures something else."""
        going_on: list[Future[Any]] = [*self._removals]
        if self._coming is not None:
            going_on.append(self._coming.future)
        wait(going_on)

    def close(self) -> None:
        """Removes all that is at hand or on its way, and waits until it is gone."""
        self._drop_ready()
        self._receive()
        self._drop_ready()
        self._pool.shutdown(wait=True)

    def _fits(self, engine: Engine, output_mb: int) -> bool:
        if not self._ready or self._engine is not engine:
            return False
        chamber = self._ready[-1]
        return chamber.output_mb == output_mb and time.time() - chamber.born < conf().spare_seconds

    def _is_held(self, engine: Engine) -> bool:
        """Whether the chambers at hand still have their holder: engines are restarted."""
        try:
            engine.check_held(self._ready[-1])
        except Unreachable:
            raise
        except EngineFault:
            return False
        return True

    def _receive(self) -> None:
        """Waits for the chambers that are being made, if any."""
        coming, self._coming = self._coming, None
        if coming is not None:
            try:
                self._engine, self._ready = coming.engine, coming.future.result()
            except EngineFault as fault:
                log.warning("chambers.not_made", fault=str(fault))

    def _drop_ready(self) -> None:
        if self._ready and self._engine is not None:
            self._remove(self._engine, [self._ready[0].holder], self._ready[0].volumes)
        self._ready = []

    def _remove(self, engine: Engine, containers: list[str], volumes: tuple[str, ...]) -> None:
        self._removals = [removal for removal in self._removals if not removal.done()]
        if len(self._removals) >= MAX_REMOVALS:
            self._removals[0].exception()
        # a volume that a container of an earlier run still holds would stay: they go first
        earlier = [*self._removals] if volumes else []
        self._removals.append(self._pool.submit(_remove, engine, containers, volumes, earlier))

    def _make(self, engine: Engine, output_mb: int, count: int = 0) -> list[Chamber]:
        holder_id = uuid.uuid4().hex[:16]
        try:
            return engine.prepare(holder_id, output_mb, self.worker, count or conf().chambers)
        except EngineFault:
            self._pool.submit(_remove_half_made, engine, holder_id)
            raise


def _remove(engine: Engine, containers: list[str], volumes: tuple[str, ...], earlier: "list[Future[None]]") -> None:
    wait(earlier)
    try:
        engine.remove(containers, volumes)
    except EngineFault as fault:
        log.warning("chambers.left_over", fault=str(fault))  # the reaper will find it


def _remove_half_made(engine: Engine, holder_id: str) -> None:
    try:
        engine.forget_holder()
        engine.remove_holder(holder_id)
    except EngineFault as fault:
        log.warning("chambers.left_over", holder=holder_id, fault=str(fault))


def remove_run(engine: Engine, run: str) -> None:
    """Removes what earlier attempts of a run have left; also their chambers, if their worker is dead."""
    for container in engine.containers(**{RUN: run}):
        labels = container["Labels"]
        if worker_is_gone(labels[WORKER]):
            engine.remove_holder(labels[HOLDER])
        else:
            engine.remove([container["Id"]], ())


_current: tuple[int, Chambers] | None = None


def chambers() -> Chambers:
    """Those of this process. What is at hand is removed when the process ends in peace."""
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

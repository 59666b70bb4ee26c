"""Holding on to a run while its worker is busy with it."""

import threading
import time
from types import TracebackType
from typing import Self

import structlog
from django.db import connection

from sandbox import leases
from sandbox.conf import conf
from sandbox.engine import Engine, EngineFault
from sandbox.models import Run

log = structlog.get_logger(__name__)


class Superseded(Exception):
    """The run was cancelled, or is another worker's: nothing that this attempt does counts any more."""


class Lease:
    """Renews the run's lease beside the worker, for as long as the `with` block lasts."""

    def __init__(self, run: Run, engine: Engine) -> None:
        self.lost = threading.Event()
        self.peak_memory = 0
        self._run = run
        self._engine = engine
        self._containers: tuple[str, ...] = ()
        self._measured = True
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._renew, name="lease", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        self._thread.join()

    def move_to(self, engine: Engine) -> None:
        """From now on the run's container is looked for there."""
        self._engine = engine

    def watch(self, *containers: str, measured: bool = True) -> None:
        """From now on these are stopped when the lease is lost; the memory of the first is looked at, if it counts."""
        self._containers, self._measured = containers, measured
        if self.lost.is_set():
            self._stop()

    def check(self) -> None:
        """Raises Superseded if the lease is lost."""
        if self.lost.is_set():
            raise Superseded

    def _renew(self) -> None:
        settings = conf()
        held_until = time.monotonic() + settings.lease_seconds
        try:
            while not self._done.wait(settings.renew_seconds):
                try:
                    renewed = leases.renew(self._run)
                    held_until = time.monotonic() + settings.lease_seconds if renewed else 0
                except Exception:
                    log.warning("lease.not_renewed", **self._run.log_data(), exc_info=True)
                    connection.close()  # a broken one stays broken
                if time.monotonic() > held_until:
                    self.lost.set()
                    self._stop()
                    return
                self._look()
        finally:
            self._engine.hang_up()
            connection.close()

    def _look(self) -> None:
        if self._containers and self._measured:
            try:
                self.peak_memory = max(self.peak_memory, self._engine.memory(self._containers[0]))
            except EngineFault:
                return  # it has just ended, or the worker will meet the fault itself

    def _stop(self) -> None:
        for container in self._containers:
            try:
                self._engine.kill(container)
            except EngineFault as fault:
                log.warning("lease.container_not_stopped", **self._run.log_data(), fault=str(fault))

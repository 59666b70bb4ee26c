"""Driving runs: claim, drive, finish. What a wake-up does.

One process drives one run at a time. A second thread renews the lease and stops the container when the run was
cancelled or taken over; a few more prepare the next chamber and remove used ones.
"""

import shutil
import threading
import time
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import structlog
from django.db import connection

from sandbox import devices, gpus, isolation, leases, outputs, purposes, tasks, walls
from sandbox.chambers import Chambers, chambers, remove_run
from sandbox.conf import conf
from sandbox.engine import Chamber, Ending, Engine, EngineFault, NotThere, Unreachable, labels_of
from sandbox.hosts import engine_of
from sandbox.models import Run
from sandbox.reasons import Reason, Rejected, gettext_noop
from sandbox.supply import supply

log = structlog.get_logger(__name__)

STOP_SECONDS = 20  # a killed container ends within a tenth of a second; later, the engine is in trouble

KEPT_BYTES = 16 * walls.MEGABYTE  # outputs live in the host's memory until their holder goes


class Superseded(Exception):
    """The run was cancelled, or is another worker's: nothing that this attempt does counts any more."""


def work() -> int:
    """Drives due runs one after the other; returns how many.

    Ends when none is left that it could take. After a while it also ends, and sends a wake-up for the rest, so that
    the cluster can stop or renew its process.
    """
    started = time.monotonic()
    driven = 0
    while time.monotonic() - started < conf().work_seconds:
        run = leases.claim(chambers().worker)
        if run is None:
            return driven
        drive(run)
        driven += 1
    tasks.send_wakeup()
    return driven


def drive(run: Run) -> None:
    """Takes a claimed run to its end, whatever happens; or gives it back after a fault of the platform."""
    with structlog.contextvars.bound_contextvars(**run.log_data()):
        if run.lost_leases > conf().max_lost_leases:
            _end(run, Reason.PLATFORM_FAULT, gettext_noop("Its workers ended again and again before it did."))
            return
        attempt = Attempt(run)
        try:
            attempt.drive()
        except Superseded:
            log.info("run.superseded")
        except Exception as error:
            _fault(run, error)
        finally:
            attempt.clear()
            leases.release(run)


def _fault(run: Run, error: Exception) -> None:
    unreachable = isinstance(error, Unreachable)
    place = _place_of(error)
    log.warning("run.fault", faults=run.faults, **place)
    # an engine knows no values of the data; the message of any other error may quote them
    detail = f"{place['error']}: {error if isinstance(error, EngineFault) else ', '.join(place['where'])}"
    if unreachable or run.faults + 1 < conf().max_faults:
        leases.give_back(run, detail=detail, unreachable=unreachable)
    else:
        _end(run, Reason.PLATFORM_FAULT, detail)


def _place_of(error: Exception) -> dict[str, Any]:
    """What an error was and where; without its message, which may quote what was read."""
    frames = traceback.extract_tb(error.__traceback__)[-3:]
    return {"error": type(error).__name__, "where": [f"{frame.filename}:{frame.lineno}" for frame in frames]}


def _end(run: Run, reason: Reason | None, detail: str, verdict: Any = None, **facts: Any) -> None:
    """Ends the run. If its purpose cannot settle a failure either, the run ends all the same."""
    try:
        ended = leases.finish(run, reason=reason, detail=detail, verdict=verdict, **facts)
    except Exception as error:
        if reason != Reason.PLATFORM_FAULT:
            raise
        log.error("run.unsettled", **_place_of(error))
        ended = leases.give_up(run, f"{detail} ({type(error).__name__})")
    log.info("run.ended" if ended else "run.superseded", state=run.state, reason=run.reason, seconds=run.seconds)


class Lease:
    """Renews the run's lease beside the worker, for as long as the `with` block lasts."""

    def __init__(self, run: Run, engine: Engine) -> None:
        self.lost = threading.Event()
        self.peak_memory = 0
        self._run = run
        self._engine = engine
        self._container: str | None = None
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

    def watch(self, container: str) -> None:
        """From now on the container is stopped when the lease is lost."""
        self._container = container
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
                if time.monotonic() > held_until:
                    self.lost.set()
                    self._stop()
                    return
                self._look()
        finally:
            self._engine.hang_up()
            connection.close()

    def _look(self) -> None:
        if self._container is not None:
            try:
                self.peak_memory = max(self.peak_memory, self._engine.memory(self._container))
            except EngineFault:
                return  # it has just ended, or the worker will meet the fault itself

    def _stop(self) -> None:
        if self._container is not None:
            try:
                self._engine.kill(self._container)
            except EngineFault as fault:
                log.warning("lease.container_not_stopped", **self._run.log_data(), fault=str(fault))


class Counted:
    """The pieces of a stream, of which it is known afterwards how many bytes came."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self.size = 0
        self._pieces = pieces

    def __iter__(self) -> Iterator[bytes]:
        for piece in self._pieces:
            self.size += len(piece)
            yield piece


@dataclass
class Attempt:
    """One try of one run on one engine."""

    run: Run
    timings: dict[str, float] = field(default_factory=dict)
    _chamber: Chamber | None = None
    _containers: list[str] = field(default_factory=list)
    _engine: Engine | None = None
    _spent: bool = True  # whether what the run wrote is too much to keep until the chambers beside it are used

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Notes the milliseconds that a stage takes."""
        begun = time.perf_counter()
        try:
            yield
        finally:
            self.timings[name] = round((time.perf_counter() - begun) * 1000, 1)

    def drive(self) -> None:
        """From the inputs to the verdict. Raises Superseded, EngineFault, or whatever a purpose of ours raises."""
        host = self.run.host
        if host is None:
            raise EngineFault("the host is gone")
        engine = self._engine = engine_of(host)
        reason: Reason | None = None
        detail, verdict = "", None
        facts: dict[str, Any] = {}
        with self.stage("total"), Lease(self.run, engine) as lease:
            try:
                with gpus.needed(self.run):
                    self._execute(engine, lease, facts)
                    verdict = self._judge()
            except Rejected as rejected:
                reason, detail = rejected.reason, rejected.detail
            lease.check()
            if lease.peak_memory:
                facts["peak_memory_mb"] = -(-lease.peak_memory // walls.MEGABYTE)
        with self.stage("finish"):
            _end(self.run, reason, detail, verdict, timings=self.timings, **facts)
        log.info("run.timings", **self.timings)

    def clear(self) -> None:
        """Removes the containers, volumes and working files of this attempt, beside the next run's work."""
        pool = chambers()
        if self._engine is not None and self._chamber is not None:
            pool.discard(self._engine, self._chamber, self._containers, spent=self._spent)
        pool.background(leases.remove_scratch, self.run.scratch)

    def _execute(self, engine: Engine, lease: Lease, facts: dict[str, Any]) -> None:
        """Runs the container and collects its outputs. Raises `Rejected` if it did not do its work."""
        run, pool = self.run, chambers()
        if run.attempt > 1:
            remove_run(engine, str(run.pk))  # an earlier attempt's worker may have been killed
        with self.stage("inputs"):
            folders = self._folders()
            purposes.get(run.purpose).write_inputs(run, folders["input"])
        with self.stage("chamber"):
            self._chamber = chamber = pool.take(engine, run.wants.output_mb)
        with self.stage("create"):
            copied = pool.background(engine.put, chamber, folders["input"])
            try:
                container = self._create(engine, chamber, pool)
            finally:
                copied.result()
            self._containers.append(container)
        lease.check()
        with self.stage("start"):
            engine.start(container)
            lease.watch(container)
        shutil.rmtree(folders["input"])
        pool.prepare(engine, run.wants.output_mb)
        with self.stage("container"):
            in_time = self._wait(engine, container)
        lease.check()
        with self.stage("collect"):
            written = pool.background(engine.log, container, run.scratch / "log.txt", conf().log_bytes)
            try:
                ending = engine.ending(container)
                facts.update(exit_code=ending.exit_code, seconds=ending.seconds)
                self._collect(engine, chamber, ending, in_time)
            except Rejected:
                spent, self._spent = self._spent, True  # a holder that has ended is of no use to anybody
                engine.check_held(chamber)
                self._spent = spent
                raise
            finally:
                written.result()

    def _folders(self) -> dict[str, Path]:
        """The attempt's empty working folders."""
        shutil.rmtree(self.run.scratch, ignore_errors=True)
        folders = {name: self.run.scratch / name for name in ("input", "output", "result")}
        for folder in folders.values():
            folder.mkdir(mode=0o700, parents=True)
        return folders

    def _create(self, engine: Engine, chamber: Chamber, pool: Chambers) -> str:
        run = self.run
        leased = list(run.leased_gpus.values_list("uuid", flat=True)) if run.gpus else []
        gpus.evict(engine, leased)
        config = walls.container(
            image_id=run.image.image_id,
            step=run.step,
            limits=run.wants,
            gpus=leased,
            inputs=chamber.inputs,
            outputs=chamber.outputs,
            conf=conf(),
            demanded=run.walls,
            cdi=devices.by_cdi(run.host.engine if run.host else {}),
        )
        labels = labels_of(str(run.pk), run.attempt, pool.worker, chamber) | {gpus.label(gpu): "" for gpu in leased}
        try:
            return engine.create(config, labels)
        except NotThere:
            with self.stage("load"):
                assert run.host is not None  # it came with the lease
                supply(run.host, run.image)
            return engine.create(config, labels)

    def _wait(self, engine: Engine, container: str) -> bool:
        """Whether it ended in time. Afterwards it does not run any more."""
        if engine.wait(container, self.run.wants.seconds):
            return True
        engine.kill(container)
        engine.wait(container, STOP_SECONDS)
        return False

    def _collect(self, engine: Engine, chamber: Chamber, ending: Ending, in_time: bool) -> None:
        if not in_time:
            text = gettext_noop("It was stopped after %(limit)d seconds.")
            raise Rejected(Reason.TIMEOUT, text % {"limit": self.run.wants.seconds})
        if ending.out_of_memory:  # also when a child was killed and its parent said that all was well
            text = gettext_noop("It may use %(limit)d MB.")
            raise Rejected(Reason.OUT_OF_MEMORY, text % {"limit": self.run.wants.memory_mb})
        bounds = {"output_mb": self.run.wants.output_mb, "inodes": conf().inodes}
        with engine.outputs(chamber) as stream:
            pieces = Counted(stream)
            if ending.exit_code:
                outputs.measure(pieces, **bounds)
                self._spent = pieces.size > KEPT_BYTES
                raise Rejected(
                    Reason.CRASHED, gettext_noop("Its exit status was %(code)d.") % {"code": ending.exit_code}
                )
            wanted = outputs.Wanted.from_json(self.run.collect)
            try:
                outputs.collect(pieces, wanted, self.run.scratch / "output", **bounds)
            except Rejected as rejected:
                if rejected.reason == Reason.OUTPUT_MISSING:  # which is told after all has been read
                    self._spent = pieces.size > KEPT_BYTES
                raise
        self._spent = pieces.size > KEPT_BYTES

    def _judge(self) -> Any:
        """Reads the outputs in an isolated child, then lets the purpose compute what they are worth."""
        run, settings = self.run, conf()
        purpose = purposes.get(run.purpose)
        result = run.scratch / "result"
        read: dict[str, Any] = {}
        with self.stage("read"):
            reader = purpose.reader(run, run.scratch / "output", result)
            if reader is not None:
                function, args = reader
                read = isolation.call(function, *args, seconds=settings.read_seconds, memory_mb=settings.read_memory_mb)
        with self.stage("judge"):
            return purpose.judge(run, result, read)
